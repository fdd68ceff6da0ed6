"""What several commands' options say alike: what a sample is made from, and which surface it has;
imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

KEPT_MAPS = 16
"""Label maps, or images, that a checkpoint keeps: `latents.STORED_MAPS` and
`image_views.STORED_IMAGES`, known here without torch."""


def check_kept(option: str, numbers: list[int]) -> None:
    """Raises ValueError for a number that no checkpoint keeps."""
    for number in numbers:
        if not 0 <= number < KEPT_MAPS:
            raise ValueError(
                f"{option} has {number}; a checkpoint keeps the label maps, or images, 0 to "
                f"{KEPT_MAPS - 1}."
            )


def check_given(
    option: str,
    given: int | Path | None,
    depth: Path | None,
    azimuth: float | None,
    elevation: float | None,
) -> None:
    """Raises ValueError for a number that is not kept, a file that is not there, or what is said of
    a file where none is given."""
    file = None
    if isinstance(given, int):
        check_kept("--input", [given])
    else:
        file = given
    if depth is not None:
        if file is None:
            raise ValueError(
                f"--depth is that of the image {option}; give that file, or leave it out."
            )
        if not depth.is_file():
            raise ValueError(f"--depth is {depth}; there is no such file.")
    angles = ("azimuth", azimuth, 360), ("elevation", elevation, 90)
    for name, angle, limit in angles:
        if angle is None:
            continue
        if file is None:
            raise ValueError(
                f"--input-{name} says where {option} is seen from; give that file, or leave it out."
            )
        if not -limit <= angle <= limit:
            raise ValueError(
                f"--input-{name} is {angle}; it must lie between -{limit} and {limit} degrees."
            )
    if file is not None and not file.is_file():
        raise ValueError(f"{option} is {file}; there is no such file.")


def check_one_given(
    number: int | Path | None,
    own: Path | None,
    depth: Path | None,
    azimuth: float | None,
    elevation: float | None,
) -> None:
    """`check_given` for --input, a number or a file, and --input-file, of which only one may be
    there."""
    if number is not None and own is not None:
        raise ValueError("--input and --input-file: choose one of them.")
    option = "--input" if isinstance(number, Path) else "--input-file"
    check_given(option, own if number is None else number, depth, azimuth, elevation)


def check_behind(name: str, behind: float | None) -> None:
    """Raises ValueError for a plane outside of the box, half sides of it behind the origin."""
    if behind is not None and not -1 < behind < 1:
        raise ValueError(f"{name} is {behind}; it must lie between -1 and 1.")


def check_surface(resolution: int, level: float | Literal["auto"]) -> None:
    """Raises ValueError for a grid or a density that no surface is looked for with."""
    if not 8 <= resolution <= 1024:
        raise ValueError(f"--resolution is {resolution}; it must lie between 8 and 1024 cells.")
    if level != "auto" and not 0.0 < level < float("inf"):
        raise ValueError(
            f"--level is {level}; it must be a positive density, or auto to choose one."
        )
