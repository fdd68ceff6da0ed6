"""What `gan3d sample` can show, and which of it shares a file; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast, get_args

PictureOutput = Literal[
    "rgb", "foreground", "background", "depth", "accumulation", "normals", "labels"
]
"""Outputs that are colours or become some, and stand side by side in one picture."""
LayerOutput = Literal["rgba", "matte", "depth16"]
"""Outputs that no RGB picture holds: transparency, one channel, 16 bits."""
SampleOutput = PictureOutput | LayerOutput
PICTURE_OUTPUTS: tuple[PictureOutput, ...] = get_args(PictureOutput)
LAYER_OUTPUTS: tuple[LayerOutput, ...] = get_args(LayerOutput)
LAYER_ENDINGS: dict[LayerOutput, str] = {
    "rgba": "_rgba",
    "matte": "_matte",
    "depth16": "_depth",
}
"""What a layer's file is called behind the name of its picture; data sets with images NAME look for
their depth in NAME_depth.png."""
SHOWN_INSTEAD: dict[LayerOutput, PictureOutput] = {
    "rgba": "foreground",
    "matte": "accumulation",
    "depth16": "depth",
}
"""The output of a video that shows the same as well as RGB can."""


def parse_outputs(text: str) -> tuple[SampleOutput, ...]:
    """Reads names of outputs separated by commas: `rgb,depth` is ("rgb", "depth").

    Raises:
        ValueError: If a name is not an output, or there is none.
    """
    names = [part.strip() for part in text.split(",")]
    known = (*PICTURE_OUTPUTS, *LAYER_OUTPUTS)
    for name in names:
        if name not in known:
            raise ValueError(
                f"--outputs is {text!r}, of which {name!r} is not an output; "
                f"choose from {', '.join(known)}."
            )
    return cast("tuple[SampleOutput, ...]", tuple(names))


def check_video_outputs(outputs: Sequence[SampleOutput]) -> None:
    """Raises ValueError for outputs that a video cannot hold."""
    for name in LAYER_OUTPUTS:
        if name in outputs:
            raise ValueError(
                f"--outputs has {name}, which mp4 and GIF cannot hold; choose "
                f"{SHOWN_INSTEAD[name]}, or write PNG, without --turntable and --interpolate."
            )


def files_of(outputs: Sequence[SampleOutput], file: Path) -> dict[Path, list[SampleOutput]]:
    """The pictures that are written, and what each shows.

    ``file`` holds all outputs that can stand side by side, or without any the first layer; every
    further layer has a file of its own beside it.
    """
    shared: list[SampleOutput] = [name for name in outputs if name in PICTURE_OUTPUTS]
    found = {file: shared} if shared else {}
    for name in dict.fromkeys(outputs):
        if name in LAYER_OUTPUTS:
            beside = file.with_name(f"{file.stem}{LAYER_ENDINGS[name]}{file.suffix}")
            found[beside if found else file] = [name]
    return found
