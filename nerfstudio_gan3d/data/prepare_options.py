"""Options of `gan3d prepare`: a plain dataclass that imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

Crop = Literal["centre", "subject"]
BackgroundColor = Literal["white", "black", "grey"]
DepthOutput = Literal["disparity", "depth"]
DEPTH_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"
SMALLEST, LARGEST = 16, 2048


@dataclass
class PrepareOptions:
    """Turn photographs into a training set with depth for gan3d-rgbd: square images NAME.jpg, each
    with NAME_depth.png."""

    photos: Positional[Path]
    """A photograph, or a folder of them with or without a folder a class: jpg, png or webp."""
    output: Positional[Path]
    """Folder to write to."""
    size: int = 256
    """Side of the images in pixels."""
    crop: Literal["centre", "subject"] = "centre"
    """centre: the largest square in the middle. subject: a square about the foreground; needs
    --remove-background."""
    remove_background: bool = False
    """Replace the background by one colour, and put it at the farthest depth (rembg)."""
    background: Literal["white", "black", "grey"] = "white"
    """Colour in the place of a removed background."""
    background_model: str = "u2net"
    """Network that finds the foreground: the name of a model of rembg, or an .onnx file."""
    depth_model: str = DEPTH_MODEL
    """Network that estimates depth: a name on the Hugging Face hub, or a folder with its files."""
    depth_kind: Literal["disparity", "depth"] = "disparity"
    """What that network returns: disparity is large where things are near, depth where they are
    far."""
    overwrite: bool = False
    """Replace images of the same names in the output folder."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if not SMALLEST <= self.size <= LARGEST:
            raise ValueError(
                f"--size is {self.size}; it must lie between {SMALLEST} and {LARGEST} pixels."
            )
        if self.crop == "subject" and not self.remove_background:
            raise ValueError(
                "--crop subject needs --remove-background, which finds the subject; add it, or "
                "choose --crop centre."
            )
