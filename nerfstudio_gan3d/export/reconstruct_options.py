"""Options of `gan3d reconstruct`: a plain dataclass that imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from nerfstudio_gan3d.data.prepare_options import DEPTH_MODEL

LARGEST_TURN = 90.0


@dataclass
class ReconstructOptions:
    """Make a Scene of one photograph: views, a film, a mesh, and a run to look at it with."""

    image: Positional[Path]
    """The photograph: jpg, png or webp. The middle square of it is used."""
    load_config: Path
    """The config.yml that training of a method such as gan3d-g3dr wrote."""
    output: Path
    """Folder to write to."""
    depth: Path | None = None
    """Depth of the photograph: 16-bit grey PNG, small is near. The default is NAME_depth.png beside
    it, or, where there is none, an estimate by --depth-model."""
    depth_model: str = DEPTH_MODEL
    """Network that estimates depth: a name on the Hugging Face hub, or a folder with its files."""
    depth_kind: Literal["disparity", "depth"] = "disparity"
    """What that network returns: disparity is large where things are near, depth where they are
    far."""
    azimuths: str = "-20,0,20"
    """Where the views are seen from, degrees: 0 is the photograph's own camera, positive ones are
    to its right."""
    elevation: float = 0.0
    """The same, degrees above the photograph's own camera."""
    size: int | None = None
    """Side of views and film in pixels; the default is the size that the run was trained for."""
    frames: int = 96
    """Frames of the film, in which the camera goes around the photograph's own; 0 writes none."""
    mesh: Literal["none", "ply", "obj", "glb"] = "glb"
    """Format of the mesh."""
    resolution: int = 128
    """Cells of the mesh's grid along a side of the box."""
    behind: float | None = None
    """Leave out of the mesh what lies farther than this behind the origin, in half sides of the
    box, and keep the largest part of the rest: 0.6 parts the bundled cars from what is behind
    them."""
    run: bool = True
    """Write a run that opens in ns-viewer, ns-render and ns-export with this Scene."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if not self.image.is_file():
            raise ValueError(f"{self.image}: there is no such file; give a photograph.")
        if self.depth is not None and not self.depth.is_file():
            raise ValueError(f"--depth is {self.depth}; there is no such file.")
        self.angles()
        if not abs(self.elevation) <= LARGEST_TURN:
            raise ValueError(
                f"--elevation is {self.elevation}; it must lie between -{LARGEST_TURN:g} and "
                f"{LARGEST_TURN:g} degrees."
            )
        if self.size is not None and not 8 <= self.size <= 4096:
            raise ValueError(f"--size is {self.size}; it must lie between 8 and 4096 pixels.")
        if self.frames < 0 or self.frames == 1:
            raise ValueError(f"--frames is {self.frames}; give at least 2, or 0 for no film.")
        if not 8 <= self.resolution <= 1024:
            raise ValueError(
                f"--resolution is {self.resolution}; it must lie between 8 and 1024 cells."
            )
        if self.behind is not None and not -1 < self.behind < 1:
            raise ValueError(f"--behind is {self.behind}; it must lie between -1 and 1.")

    def angles(self) -> list[float]:
        """The azimuths in degrees; raises ValueError for text that holds none."""
        try:
            found = [float(part) for part in self.azimuths.split(",")]
        except ValueError:
            found = []
        if not found or not all(abs(angle) <= LARGEST_TURN for angle in found):
            raise ValueError(
                f"--azimuths is {self.azimuths!r}; give degrees from -{LARGEST_TURN:g} to "
                f"{LARGEST_TURN:g}, separated by commas, such as -20,0,20."
            )
        return found
