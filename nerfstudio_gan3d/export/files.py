"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nerfstudio_gan3d.export.targets import existing

_KEPT_OF_NAME = 40
"""Characters of a file's name in that of its temporary file, which is longer and has to fit."""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to that becomes ``path`` when the block ends without an error.

    The file is written beside its target under a temporary name with the same ending, flushed to
    the disk and renamed, so that an interrupted export leaves the previous file as it was. Parent
    folders are made.

    Raises:
        ValueError: If ``path`` is a folder, or a parent of it is a file, or writing fails, as on a
            full disk.
        OSError: If the folder cannot be made.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"{existing(path.parent)} is a file, so {path} cannot be written into it"
        ) from None
    temporary = _temporary(path)
    try:
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        except OSError as error:
            # One that names another file is not about this one.
            if error.filename not in (None, str(temporary), temporary):
                raise
            raise ValueError(unwritten(path, error)) from error
        # mkstemp makes files that only their owner can read; an export follows the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unwritten(path: Path, error: Exception) -> str:
    """A sentence about a file that could not be written, whatever the library calls that."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (
        f"{path}: could not be written ({' '.join(reason.split())}); see whether the disk has "
        "room, or choose another place"
    )


def _temporary(path: Path) -> Path:
    prefix = f".{path.stem[:_KEPT_OF_NAME]}-"
    try:
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=prefix, dir=path.parent)
    except OSError as error:
        raise ValueError(unwritten(path, error)) from error
    os.close(handle)
    return Path(name)
