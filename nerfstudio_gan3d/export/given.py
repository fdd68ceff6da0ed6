"""What options say of the label map or image that a sample is made from; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

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
