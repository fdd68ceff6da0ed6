"""Options of `gan3d splats`: a plain dataclass that imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nerfstudio_gan3d.cli_options import check_truncation
from nerfstudio_gan3d.export.given import check_behind, check_one_given, check_surface
from nerfstudio_gan3d.export.targets import check_target
from nerfstudio_gan3d.seeds import check_seed

SPLAT_SUFFIXES = (".ply", ".splat")
MOST_SPLATS = 2_000_000


@dataclass
class SplatOptions:
    """Write one sample as 3D Gaussians (splats) that common splat viewers load."""

    load_config: Path
    """The config.yml that training wrote."""
    output: Path
    """File of splats; its ending chooses the format: .ply or .splat."""
    seed: int = 0
    """Seed of the latent z."""
    appearance_seed: int | None = None
    """Seed of the colours, of models with a shape code and an appearance code (default --seed)."""
    truncation: float = 1.0
    """Truncation psi: 1 is off, 0 is the mean shape."""
    count: int = 4000
    """Splats that are put on the surface; those that nobody would see are left out of the file."""
    size: float = 0.8
    """Size of a splat along the surface before it is refined (one standard deviation), in mean
    distances to the four nearest others."""
    refine_steps: int = 240
    """Steps in which the splats learn to look like the sample; 0 computes them directly."""
    rasterizer: Literal["auto", "torch", "gsplat"] = "auto"
    """What draws the splats meanwhile: torch runs everywhere, gsplat needs a CUDA GPU; auto is
    gsplat where there is one."""
    color: Literal["rgb", "labels"] = "rgb"
    """Colours: the sample's, or those of the classes with the highest score."""
    resolution: int = 64
    """Cells of the grid that finds the surface, along the longest side of the box, or its depth
    where samples are made of images."""
    level: float | Literal["auto"] = "auto"
    """Density of the surface, as of gan3d mesh."""
    behind: float | None = None
    """Of models that take images: leave out what lies farther than this behind the origin, in half
    sides of the box; 0.6 parts the bundled cars from what is behind them."""
    up: Literal["y", "z", "y-down"] = "y"
    """The file's axis that points up: y as in meshes, z as in nerfstudio and Blender; y-down is
    what many splat viewers expect."""
    input: int | Path | None = None
    """What the sample is made from: number of a label map, or of an image, that the checkpoint
    keeps (default 0), or a file of your own, as --input-file."""
    input_file: Path | None = None
    """A label map of your own, or an image of models that take images."""
    depth: Path | None = None
    """Depth of that image: 16-bit grey PNG, small is near."""
    input_azimuth: float | None = None
    """Where a label map's file is seen from, degrees: 0 is the front, 90 stands at +x."""
    input_elevation: float | None = None
    """The same, degrees above the horizon."""
    report: Path | None = None
    """Also write what is printed, and each view's PSNR, to this JSON file."""

    @property
    def given(self) -> int | Path | None:
        """What the sample is made from, by whichever option it is named."""
        return self.input_file if self.input is None else self.input

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible, or a file cannot be written."""
        check_truncation(self.truncation)
        if self.output.suffix.lower() not in SPLAT_SUFFIXES:
            raise ValueError(
                f"--output is {self.output}; a file of splats must end in "
                f"{' or '.join(SPLAT_SUFFIXES)}."
            )
        if self.report is not None and self.report.suffix.lower() != ".json":
            raise ValueError(f"--report is {self.report}; it must end in .json.")
        if not 1 <= self.count <= MOST_SPLATS:
            raise ValueError(
                f"--count is {self.count}; it must lie between 1 and {MOST_SPLATS} splats."
            )
        if not 0.01 <= self.size <= 10.0:
            raise ValueError(
                f"--size is {self.size}; it must lie between 0.01 and 10 distances to the nearest "
                "splats."
            )
        if not 0 <= self.refine_steps <= 100_000:
            raise ValueError(
                f"--refine-steps is {self.refine_steps}; it must lie between 0 (no refinement) and "
                "100000."
            )
        if self.rasterizer == "gsplat" and not self.refine_steps:
            raise ValueError("--rasterizer gsplat and --refine-steps 0: nothing is refined.")
        check_surface(self.resolution, self.level)
        check_behind("--behind", self.behind)
        check_seed("--seed", self.seed)
        check_seed("--appearance-seed", self.appearance_seed)
        beside = self.depth, self.input_azimuth, self.input_elevation
        check_one_given(self.input, self.input_file, *beside)
        check_target("--output", self.output)
        if self.report is not None:
            check_target("--report", self.report)
