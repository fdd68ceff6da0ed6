"""Options of the command `gan3d`: plain dataclasses that import nothing heavy.

Each `validate` is separate from construction because tyro would wrap an error raised there in its
own words; the command calls it before it imports anything heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from nerfstudio_gan3d.export.targets import check_folder, check_target
from nerfstudio_gan3d.seeds import check_seed

MAXIMUM_SIGMA = 100.0


def check_truncation(truncation: float) -> None:
    """Raises ValueError for a truncation psi that makes no sense."""
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
class DataEdgesOptions:
    """Draw an edge map of each photograph of a data set (Canny's detector) and write images and
    edge maps as a new set, ready for a method that learns from edge maps."""

    directory: Positional[Path]
    """Folder or zip file of images, with or without dataset.json."""
    output: Positional[Path]
    """Folder to write to; it must be empty or not exist yet."""
    sigma: float = 1.0
    """Smoothing before edges are looked for, in pixels: more leaves out fine texture."""
    low: float = 0.1
    """Change of brightness at which a line that has begun goes on; less makes lines longer."""
    high: float = 0.2
    """Change of brightness at which a line begins; more leaves out weak lines."""
    foreground_only: bool = False
    """Leave out the edges of the background, which lie outside of the set's masks."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if not 0.0 < self.sigma <= MAXIMUM_SIGMA:
            raise ValueError(
                f"--sigma is {self.sigma}; it must be above 0 and at most {MAXIMUM_SIGMA} pixels."
            )
        if not 0.0 <= self.low <= self.high < float("inf"):
            raise ValueError(
                f"--low is {self.low} and --high is {self.high}; they must not be negative, and "
                "--low must not exceed --high."
            )


@dataclass
class DataCarsOptions:
    """Unpack the bundled cars: 64-pixel images, masks, part labels, depth and cameras (CC0)."""

    directory: Positional[Path]
    """Folder to write to; it must be empty or not exist yet."""


@dataclass
class PretrainedOptions:
    """Unpack a bundled checkpoint, ready for ns-viewer, ns-render, ns-export and gan3d mesh."""

    name: Positional[Literal["ballgan-cars64", "pix2pix3d-cars64", "3dgen-cars64", "g3dr-cars64"]]
    """Name of the checkpoint."""
    directory: Positional[Path]
    """Folder to write config.yml and the checkpoint to."""

    def validate(self) -> None:
        """Raises ValueError if nothing can be written to the folder."""
        check_folder("the folder to write to", self.directory)


@dataclass
class ImportOptions:
    """Turn an official EG3D, BallGAN or pix2pix3D snapshot (.pkl) into a run; nothing in it is
    executed."""

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
    evaluator_outputs: tuple[str, ...] = ()
    """Names of what it returns, in order, such as features class_logits, from which an inception
    score is made; may stay empty for features alone."""
    evaluator_size: int = 64
    """Side of the images that it takes, in pixels."""
    inception: bool = False
    """Compare Inception-v3 features, which is what makes a FID."""
    inception_weights: Path | None = None
    """File of its weights; without it they are looked for in the cache of torch.hub."""
    allow_download: bool = False
    """Fetch the published weights (95 MB) when they are not there."""
    mesh_samples: int = 0
    """Also measure the meshes of this many seeds, a few seconds each."""
    mesh_resolution: int = 96
    """Cells of these meshes' grid along the longest side of the box."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        check_truncation(self.truncation)
        check_seed("--seed", self.seed)
        if self.num_samples < 2:
            raise ValueError(f"--num-samples is {self.num_samples}; it must be at least 2.")
        if not 8 <= self.evaluator_size <= 4096:
            raise ValueError(
                f"--evaluator-size is {self.evaluator_size}; it must lie between 8 and 4096 pixels."
            )
        if self.mesh_samples < 0:
            raise ValueError(
                f"--mesh-samples is {self.mesh_samples}; it must be 0 (no meshes) or more."
            )
        if not 8 <= self.mesh_resolution <= 512:
            raise ValueError(
                f"--mesh-resolution is {self.mesh_resolution}; it must lie between 8 and 512 cells."
            )
        if self.inception and self.evaluator is not None:
            raise ValueError("--evaluator and --inception: choose one feature space.")
        if not self.inception and (self.inception_weights is not None or self.allow_download):
            raise ValueError("--inception-weights and --allow-download belong to --inception.")
        if self.evaluator_outputs and self.evaluator is None:
            raise ValueError("--evaluator-outputs names what --evaluator returns; give that file.")
        if self.evaluator is not None and not self.evaluator.is_file():
            raise ValueError(f"--evaluator is {self.evaluator}; there is no such file.")
        if self.output_path is not None:
            check_target("--output-path", self.output_path)
