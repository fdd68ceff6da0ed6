"""Whether files can be written, asked before the work whose result they shall hold; imports nothing
heavy."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path


def check_target(option: str, path: Path, beside: Sequence[Path] = ()) -> None:
    """Raises ValueError if a file, or one that is written ``beside`` it, cannot be written."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder; give the name of a file.")
    _check_beside(option, path, beside)
    _check_writable(option, path, path.absolute().parent)


def check_folder(option: str, path: Path, inside: Sequence[Path] = ()) -> None:
    """Raises ValueError if files, such as those ``inside``, cannot be written to a folder, which
    need not be there yet."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{option} is {path}, which is a file; give a folder.")
    _check_beside(option, path, inside)
    _check_writable(option, path, path.absolute())


def _check_beside(option: str, path: Path, files: Sequence[Path]) -> None:
    for file in files:
        if file.is_dir():
            raise ValueError(
                f"{option} is {path}, but {file} is a folder, and a file of that name is written, "
                "too; give another name."
            )


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there; a file where one stands in the way."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _check_writable(option: str, path: Path, folder: Path) -> None:
    folder = existing(folder)
    if not folder.is_dir():
        raise ValueError(f"{option} is {path}, but {folder} is a file and no folder.")
    try:
        # Permissions do not tell: nobody can write to a file system that is read-only.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} is {path}, but nothing can be written to the folder {folder} "
            f"({error.strerror or error}); choose another place."
        ) from None
