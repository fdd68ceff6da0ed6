"""One way to list and read the files of a folder or of a zip, neither of them trusted."""

from __future__ import annotations

import bz2
import copy
import lzma
import os
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from nerfstudio_gan3d.data.errors import DataError

MEMBER_LIMIT = 1 << 30
"""Largest file that is read, bytes. A label file of two million images is smaller."""
RATIO_LIMIT = 200
"""Largest ratio of declared to stored size. Real images and label files stay below 30."""
RATIO_FROM = 1 << 20
"""Members smaller than this may have any ratio: deflate reaches 1000 on a small blank picture."""
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    # zipfile's NotImplementedError for what it cannot read, and its words about passwords.
    RuntimeError,
    # Names that are no text, and offsets before the beginning of the file.
    ValueError,
    # A member that is gone since the zip was opened.
    KeyError,
)
"""What reading a zip raises that is damaged or was made in a way that is not read here."""


class FileTree:
    """The files below one folder; names are POSIX paths relative to it.

    Args:
        path: an existing folder.
        only: names of the entries of ``path`` to look at; None looks at all.
    """

    def __init__(self, path: Path, only: tuple[str, ...] | None = None) -> None:
        self.path = path
        self.names = sorted(_walk(path, only))

    def describe(self, name: str) -> str:
        """How messages call a file."""
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        """The whole content of a file; raises DataError when it is too large or unreadable."""
        file = self.path / name
        try:
            if file.stat().st_size > MEMBER_LIMIT:
                raise DataError(f"{file}: {file.stat().st_size} bytes, more than {MEMBER_LIMIT}")
            return file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error

    def close(self) -> None:
        """Nothing stays open between reads."""


class ZipTree(FileTree):
    """The members of a zip file.

    Refused at opening: names that leave the archive, two members of one name, encrypted members,
    and zip bombs (a member or a whole that declares more than `RATIO_LIMIT` times its stored size,
    or members that overlap). The file is opened at the first read, once a process, and reads are
    safe from several threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._archive: zipfile.ZipFile | None = None
        self._process = -1
        try:
            with zipfile.ZipFile(path) as archive:
                # ZipInfo.is_dir fails at an empty name before Python 3.12.
                members = [i for i in archive.infolist() if not i.filename.endswith("/")]
        except DAMAGE as error:
            raise DataError(f"{path}: not a readable zip file ({error})") from error
        _check_names(path, members)
        _check_sizes(path, members)
        self.names = sorted(info.filename for info in members if not _hidden(info.filename))

    def read(self, name: str) -> bytes:
        """The whole content of a member; raises DataError when it is damaged or too large."""
        try:
            with self._lock:
                archive = self._open()
                info = archive.getinfo(name)
                if info.file_size > MEMBER_LIMIT:
                    raise DataError(
                        f"{self.path / name}: {info.file_size} bytes, more than {MEMBER_LIMIT}"
                    )
                stored = _stored(archive, info)
            return _decompress(stored, info)
        except DataError:
            raise
        except DAMAGE as error:
            raise DataError(f"{self.path / name}: damaged in the zip ({error})") from error

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        with self._lock:
            if self._archive is not None:
                self._archive.close()
                self._archive = None

    def _open(self) -> zipfile.ZipFile:
        # A forked process shares the file position of its parent and must open its own handle.
        if self._archive is None or self._process != os.getpid():
            self._archive = zipfile.ZipFile(self.path)
            self._process = os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "names": self.names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _archive=None, _process=-1)


def open_tree(path: Path, only: tuple[str, ...] | None = None) -> FileTree:
    """A `FileTree` of a folder or a `ZipTree` of a zip; raises DataError for anything else."""
    if path.is_dir():
        return FileTree(path, only)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a folder or a zip of images")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: neither a folder nor a zip file")
    return ZipTree(path)


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member as they lie in the zip."""
    as_is = copy.copy(info)
    as_is.compress_type, as_is.file_size = zipfile.ZIP_STORED, info.compress_size
    # The checksum is that of the decompressed bytes; without one, zipfile compares nothing.
    as_is.CRC = None  # pyright: ignore[reportAttributeAccessIssue]
    return archive.read(as_is)


def _decompress(stored: bytes, info: zipfile.ZipInfo) -> bytes:
    """The content of a member; raises one of `DAMAGE` when it is another than the zip declares.

    zipfile itself decompresses all that a member holds before it cuts the result to the declared
    size, and a few hundred bytes can hold gigabytes. Here nothing beyond that size is unpacked.
    """
    limit = info.file_size + 1
    if info.compress_type == zipfile.ZIP_STORED:
        content = stored
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, limit)
    elif info.compress_type == zipfile.ZIP_BZIP2:
        content = bz2.BZ2Decompressor().decompress(stored, limit)
    elif info.compress_type == zipfile.ZIP_LZMA:
        # A zip has a version (2 bytes) and the length of the properties (2 bytes) before the
        # properties (5 bytes); a .lzma file has the size (8 bytes, all ones: unknown) after them.
        properties, data = stored[4:9], stored[9:]
        if stored[2:4] != b"\5\0":
            raise zipfile.BadZipFile("LZMA properties of an unknown length")
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MEMBER_LIMIT)
        content = unpacker.decompress(properties + b"\xff" * 8 + data, limit)
    else:
        raise NotImplementedError(
            f"compression method {info.compress_type}; pack it with deflate or without compression"
        )
    if len(content) != info.file_size:
        found = "more" if len(content) > info.file_size else f"{len(content)} bytes"
        raise zipfile.BadZipFile(f"it declares {info.file_size} bytes and holds {found}")
    if zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile("Bad CRC-32: the content is not what was packed")
    return content


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _walk(path: Path, only: tuple[str, ...] | None) -> list[str]:
    names: list[str] = []
    for folder, folders, files in os.walk(path):
        inside = Path(folder).relative_to(path)
        at_top = inside == Path()
        wanted = [n for n in folders + files if not at_top or only is None or n in only]
        folders[:] = sorted(n for n in folders if n in wanted and not n.startswith("."))
        names.extend(
            (inside / n).as_posix() for n in files if n in wanted and not n.startswith(".")
        )
    return names


def _check_names(path: Path, members: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for info in members:
        name = info.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts:
            raise DataError(
                f"{path}: the member name {name!r} is not that of a file; pack it again"
            )
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
            raise DataError(f"{path}: the member name {name!r} leaves the archive; pack it again")
        if name in seen:
            raise DataError(f"{path}: two members are called {name!r}; pack it again")
        if info.flag_bits & 1:
            raise DataError(f"{path}: the member {name!r} is encrypted; pack it without a password")
        seen.add(name)


def _check_sizes(path: Path, members: list[zipfile.ZipInfo]) -> None:
    size = path.stat().st_size
    stored = sum(info.compress_size for info in members)
    declared = sum(info.file_size for info in members)
    if stored > size:
        raise DataError(
            f"{path}: a zip bomb (members of {stored} stored bytes overlap in a file of {size})"
        )
    for info in members:
        if info.file_size > max(RATIO_FROM, RATIO_LIMIT * info.compress_size):
            raise DataError(
                f"{path}: a zip bomb (member {info.filename!r} unpacks {info.compress_size} bytes "
                f"to {info.file_size}; at most {RATIO_LIMIT} times is accepted)"
            )
    if declared > max(MEMBER_LIMIT, RATIO_LIMIT * size):
        raise DataError(
            f"{path}: a zip bomb ({size} bytes unpack to {declared}; "
            f"at most {RATIO_LIMIT} times is accepted)"
        )
