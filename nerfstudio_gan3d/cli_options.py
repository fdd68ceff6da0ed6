"""Options of the command `gan3d`: plain dataclasses that import nothing heavy.

Each `validate` is separate from construction because tyro would wrap an error raised there in its
own words; the command calls it before it imports anything heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from tyro.conf import Positional

PictureOutput = Literal["rgb", "foreground", "background", "depth", "accumulation", "normals"]
PICTURE_OUTPUTS: tuple[PictureOutput, ...] = (
    "rgb",
    "foreground",
    "background",
    "depth",
    "accumulation",
    "normals",
)
MESH_SUFFIXES = (".ply", ".obj", ".glb")
MAXIMUM_SEEDS = 100_000


def _check_truncation(truncation: float) -> None:
    if not 0.0 <= truncation <= 2.0:
        raise ValueError(
            f"--truncation is {truncation}; it must lie between 0 (the mean shape) and 2, and 1 "
            "switches truncation off."
        )


@dataclass
class DataCheckOptions:
    """Check a data set in EG3D layout and print what it holds."""

    directory: Positional[Path]
    """Folder or zip file with dataset.json."""
    histogram: Path | None = None
    """Also write the histogram of the camera poses to this PNG file."""
    num_classes: int | None = None
    """Number of classes of the label maps; a higher class id is an error."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"--num-classes is {self.num_classes}; it must be at least 1.")


@dataclass
class DataCarsOptions:
    """Unpack the bundled cars: 64-pixel images, masks, part labels, depth and cameras (CC0)."""

    directory: Positional[Path]
    """Folder to write to; it must be empty or not exist yet."""


@dataclass
class PretrainedOptions:
    """Unpack a bundled checkpoint, ready for ns-viewer, ns-render, ns-export and gan3d mesh."""

    name: Positional[Literal["ballgan-cars64"]]
    """Name of the checkpoint."""
    directory: Positional[Path]
    """Folder to write config.yml and the checkpoint to."""


@dataclass
class ImportOptions:
    """Turn an official EG3D or BallGAN snapshot (.pkl) into a run; nothing in it is executed."""

    snapshot: Positional[Path]
    """The network pickle, or a run that was imported from one (to write .safetensors)."""
    output: Path
    """Folder for the run, empty or not there yet; or a file that ends in .safetensors for the
    generator's weights alone, under their official names."""
    sampling: Literal["corrected", "reference"] = "corrected"
    """corrected: no flicker, every interval counts. reference: the published renderer's rules."""
    focal: float | None = None
    """Focal length of the viewer's first camera in image sides; the file does not say it."""
    kimg: float | None = None
    """Thousands of images it was trained with, where fine-tuning goes on; the default is the number
    in the file's name, or 25000."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if self.focal is not None and not 0.0 < self.focal < float("inf"):
            raise ValueError(f"--focal is {self.focal}; it must be a positive number.")
        if self.kimg is not None and not 0.0 <= self.kimg < 1e9:
            raise ValueError(f"--kimg is {self.kimg}; it must lie between 0 and 1e9.")


@dataclass
class DemoOptions:
    """Train gan3d-ballgan-tiny on the bundled cars with the live viewer, then write samples."""

    minutes: float = 10.0
    """Time budget of the training in minutes."""
    output: Path = Path("outputs/demo")
    """Folder for the checkpoint, the grid of samples, the turntable and the mesh."""
    port: int = 7007
    """Port of the live viewer on this machine."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if not 0.0 < self.minutes < float("inf"):
            raise ValueError(f"--minutes is {self.minutes}; it must be a positive number.")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"--port is {self.port}; it must lie between 1 and 65535.")


@dataclass
class MeshOptions:
    """Write one sample as a mesh, straight from the density of a trained checkpoint."""

    load_config: Path
    """The config.yml that training wrote."""
    output: Path
    """Mesh file; its ending chooses the format: .ply, .obj or .glb."""
    seed: int = 0
    """Seed of the latent z."""
    truncation: float = 1.0
    """Truncation psi: 1 is off, 0 is the mean shape."""
    resolution: int = 128
    """Cells of the marching-cubes grid along the longest side of the object's box."""
    level: float | Literal["auto"] = "auto"
    """Density of the surface; auto chooses the one that lies closest to where rays become half
    opaque."""
    color: Literal["rgb", "none"] = "rgb"
    """Colour of the vertices."""
    largest_component: bool = False
    """Keep only the largest connected part."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        _check_truncation(self.truncation)
        if self.output.suffix.lower() not in MESH_SUFFIXES:
            raise ValueError(
                f"--output is {self.output}; a mesh file must end in {', '.join(MESH_SUFFIXES)}."
            )
        if not 8 <= self.resolution <= 1024:
            raise ValueError(
                f"--resolution is {self.resolution}; it must lie between 8 and 1024 cells."
            )
        if self.level != "auto" and not 0.0 < self.level < float("inf"):
            raise ValueError(
                f"--level is {self.level}; it must be a positive density, or auto to choose one."
            )


@dataclass
class SampleOptions:
    """Render samples of a trained checkpoint from several views, as pictures or a turntable."""

    load_config: Path
    """The config.yml that training wrote."""
    output: Path
    """PNG file for a grid, mp4 file with --turntable, or a folder for one file per seed."""
    seeds: str = "0-15"
    """Seeds of the latents: single numbers and inclusive ranges, such as 0-3,8,12."""
    truncation: float = 1.0
    """Truncation psi: 1 is off, 0 is the mean shape."""
    views: int | None = None
    """Views of each seed, spread evenly over a full turn (default 1); with --turntable the frames
    of one turn (default 90)."""
    size: int | None = None
    """Side of each picture in pixels; the default is the size that the run was trained for."""
    turntable: bool = False
    """Write a video of one turn (mp4) in place of pictures."""
    outputs: str = "rgb"
    """What to show side by side, separated by commas: rgb, foreground, background, depth,
    accumulation, normals."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        _check_truncation(self.truncation)
        parse_seeds(self.seeds)
        parse_outputs(self.outputs)
        if self.views is not None and self.views < 1:
            raise ValueError(f"--views is {self.views}; it must be at least 1.")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise ValueError(f"--size is {self.size}; it must lie between 8 and 4096 pixels.")


def parse_seeds(text: str) -> list[int]:
    """Reads single seeds and inclusive ranges: `0-3,8` is [0, 1, 2, 3, 8].

    Raises:
        ValueError: If a part is not a number or a rising range, or there are too many seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_seed(first) or (dash and not _is_seed(last)):
            raise ValueError(
                f"--seeds is {text!r}, of which {part.strip()!r} is neither a number nor a range; "
                "write for example 0-15 or 3,7,20-25."
            )
        start, stop = int(first), int(last if dash else first)
        if stop < start:
            raise ValueError(f"--seeds has the range {part.strip()}, which ends before it starts.")
        if len(seeds) + stop - start + 1 > MAXIMUM_SEEDS:
            raise ValueError(f"--seeds is {text!r}; at most {MAXIMUM_SEEDS} seeds are allowed.")
        seeds.extend(range(start, stop + 1))
    return seeds


def _is_seed(text: str) -> bool:
    # Torch takes seeds of 64 bits; 18 digits stay below that.
    return text.isascii() and text.isdigit() and len(text) <= 18


def parse_outputs(text: str) -> tuple[PictureOutput, ...]:
    """Reads names of outputs separated by commas: `rgb,depth` is ("rgb", "depth").

    Raises:
        ValueError: If a name is not an output of the model, or there is none.
    """
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in PICTURE_OUTPUTS:
            raise ValueError(
                f"--outputs is {text!r}, of which {name!r} is not an output; "
                f"choose from {', '.join(PICTURE_OUTPUTS)}."
            )
    return cast("tuple[PictureOutput, ...]", tuple(names))


@dataclass
class EvaluateOptions:
    """Measure a trained checkpoint, as ns-eval does, with an evaluator of your choice."""

    load_config: Path
    """The config.yml that training wrote."""
    output_path: Path | None = None
    """Also write the JSON to this file."""
    num_samples: int = 1000
    """Generated images; distances are comparable at equal numbers only."""
    seed: int = 0
    """Seed of latents and cameras."""
    truncation: float = 1.0
    """Truncation psi: 1 is off."""
    evaluator: Path | None = None
    """TorchScript file whose features are compared."""
    inception: bool = False
    """Compare Inception-v3 features; their weights must be on this machine."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        _check_truncation(self.truncation)
        if self.inception and self.evaluator is not None:
            raise ValueError("--evaluator and --inception: choose one feature space.")
