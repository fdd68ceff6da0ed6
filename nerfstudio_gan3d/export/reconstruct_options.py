"""Options of `gan3d reconstruct` and `gan3d generate`: plain dataclasses that import nothing
heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from nerfstudio_gan3d.data.prepare_options import DEPTH_MODEL
from nerfstudio_gan3d.export.given import check_behind
from nerfstudio_gan3d.export.targets import check_folder
from nerfstudio_gan3d.seeds import check_seed

LARGEST_TURN = 90.0


@dataclass(kw_only=True)
class SceneOptions:
    """A Scene of one image, and what is written of it."""

    load_config: Path
    """The config.yml that training of a method such as gan3d-g3dr wrote."""
    output: Path
    """Folder to write to."""
    depth_model: str = DEPTH_MODEL
    """Network that estimates depth: a name on the Hugging Face hub, or a folder with its files."""
    depth_kind: Literal["disparity", "depth"] = "disparity"
    """What that network returns: disparity is large where things are near, depth where they are
    far."""
    relief: float = 1.0
    """How deep the image's depth is, in depths of the box and about its middle: 1, as in training
    on relative depth, reaches from front to back; less is flatter, which suits what is not as deep
    as it is far away."""
    azimuths: str = "-20,0,20"
    """Where the views are seen from, degrees: 0 is the image's own camera, positive ones are to its
    right."""
    elevation: float = 0.0
    """The same, degrees above the image's own camera."""
    size: int | None = None
    """Side of views and film in pixels; the default is the size that the run was trained for."""
    frames: int = 96
    """Frames of the film, in which the camera goes around the image's own; 0 writes none."""
    mesh: Literal["none", "ply", "obj", "glb"] = "glb"
    """Format of the mesh."""
    resolution: int = 128
    """Cells of the mesh's grid along the box's depth."""
    splats: Literal["none", "ply", "splat"] = "ply"
    """Format of the 3D Gaussians."""
    behind: float | None = None
    """Leave out of mesh and splats what lies farther than this behind the origin, in half sides of
    the box, and keep of the mesh the largest part of the rest: 0.6 parts the bundled cars from what
    is behind them."""
    run: bool = True
    """Write a run that opens in ns-viewer, ns-render and ns-export with this Scene."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible, or nothing can be written."""
        self.angles()
        if not 0 < self.relief <= 1:
            raise ValueError(f"--relief is {self.relief}; it must be more than 0 and at most 1.")
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
        check_behind("--behind", self.behind)
        check_folder("--output", self.output, [self.output / "reconstruction.json"])

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


@dataclass(kw_only=True)
class ReconstructOptions(SceneOptions):
    """Make a Scene of one photograph: views, a film, a mesh, and a run to look at it with."""

    image: Positional[Path]
    """The photograph: jpg, png or webp. The middle square of it is used."""
    depth: Path | None = None
    """Depth of the photograph: 16-bit grey PNG, small is near. The default is NAME_depth.png beside
    it, or, where there is none, an estimate by --depth-model."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if not self.image.is_file():
            raise ValueError(f"{self.image}: there is no such file; give a photograph.")
        if self.depth is not None and not self.depth.is_file():
            raise ValueError(f"--depth is {self.depth}; there is no such file.")
        super().validate()


@dataclass(kw_only=True)
class GenerateOptions(SceneOptions):
    """Make a Scene of words: a text-to-image pipeline of diffusers makes an image, a network
    estimates its depth, and what gan3d reconstruct writes is written of both."""

    prompt: str | None = None
    """What the image shows, such as "a red car"."""
    class_name: str | None = None
    """In the place of --prompt: the name of a class of things, such as "golden retriever"."""
    template: str = "a photo of a {name}"
    """The prompt that is made of the class's name."""
    pipeline: str
    """Text-to-image pipeline: a name on the Hugging Face hub, or a folder with its files."""
    seed: int = 0
    """Seed of the image."""
    steps: int | None = None
    """Steps of the diffusion; the default is the pipeline's own."""
    guidance: float | None = None
    """How closely the image follows the prompt: scale of classifier-free guidance; the default is
    the pipeline's own."""
    image_size: int | None = None
    """Side of the image that the pipeline makes, in pixels; the default is the pipeline's own."""
    crop: Literal["centre", "subject"] = "centre"
    """centre: the largest square in the middle. subject: a square about the foreground; needs
    --remove-background."""
    remove_background: bool = False
    """Replace the background by one colour, and put it at the farthest depth (rembg)."""
    background: Literal["white", "black", "grey"] = "white"
    """Colour in the place of a removed background."""
    background_model: str = "u2net"
    """Network that finds the foreground: the name of a model of rembg, or an .onnx file."""

    @property
    def words(self) -> str:
        """What the pipeline is asked for."""
        if self.class_name is None:
            return self.prompt or ""
        return self.template.replace("{name}", self.class_name)

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if (self.prompt is None) == (self.class_name is None):
            raise ValueError("--prompt and --class-name: give one of them, to say what to make.")
        if not self.words.strip():
            raise ValueError('--prompt is empty; say what to make, such as "a red car".')
        if "{name}" not in self.template:
            raise ValueError(
                f"--template is {self.template!r}; write {{name}} where the class's name belongs, "
                "as in 'a photo of a {name}'."
            )
        check_seed("--seed", self.seed)
        if self.steps is not None and not 1 <= self.steps <= 10000:
            raise ValueError(f"--steps is {self.steps}; it must lie between 1 and 10000.")
        if self.guidance is not None and not 0 <= self.guidance < float("inf"):
            raise ValueError(f"--guidance is {self.guidance}; it must be 0 or more.")
        if self.image_size is not None and not 8 <= self.image_size <= 4096:
            raise ValueError(
                f"--image-size is {self.image_size}; it must lie between 8 and 4096 pixels."
            )
        if self.crop == "subject" and not self.remove_background:
            raise ValueError(
                "--crop subject needs --remove-background, which finds the subject; add it, or "
                "choose --crop centre."
            )
        super().validate()
