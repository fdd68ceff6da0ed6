"""Options of `gan3d mesh`, and where those of `gan3d sample` are found; nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nerfstudio_gan3d.cli_options import check_truncation
from nerfstudio_gan3d.export.given import KEPT_MAPS as KEPT_MAPS
from nerfstudio_gan3d.export.given import check_behind, check_one_given, check_surface
from nerfstudio_gan3d.export.given import check_given as check_given
from nerfstudio_gan3d.export.outputs import PictureOutput as PictureOutput
from nerfstudio_gan3d.export.outputs import parse_outputs as parse_outputs
from nerfstudio_gan3d.export.sample_options import SampleOptions as SampleOptions
from nerfstudio_gan3d.export.targets import check_target
from nerfstudio_gan3d.seeds import check_seed

MESH_SUFFIXES = (".ply", ".obj", ".glb")
TEXTURE_SUFFIXES = (".glb", ".obj")
DEFAULT_STEPS, MOST_STEPS = 5, 1000
LENGTHS = 1e-9, 1e9
"""Longest sides that 32-bit floats, which files hold, are exact enough for."""
FEWEST_TRIANGLES = 4
"""Triangles of the smallest closed surface, a tetrahedron."""


def texture_files(path: Path) -> list[Path]:
    """What an OBJ file with a texture names: its material and its picture, which lie beside it."""
    # Names in these files end at a blank.
    name = "_".join(path.stem.split())
    return [path.with_name(f"{name}.mtl"), path.with_name(f"{name}_texture.png")]


@dataclass
class MeshOptions:
    """Write one sample as a mesh, or several on the way between two, straight from the density of a
    trained checkpoint."""

    load_config: Path
    """The config.yml that training wrote."""
    output: Path
    """Mesh file; its ending chooses the format: .ply, .obj or .glb."""
    seed: int = 0
    """Seed of the latent z."""
    appearance_seed: int | None = None
    """Seed of the colours, of models with a shape code and an appearance code (default --seed)."""
    truncation: float = 1.0
    """Truncation psi: 1 is off, 0 is the mean shape."""
    resolution: int = 128
    """Cells of the marching-cubes grid along the longest side of the object's box."""
    extraction: Literal["multires", "dense"] = "multires"
    """multires refines those cells alone that the surface passes; dense looks at the whole grid."""
    level: float | Literal["auto"] = "auto"
    """Density of the surface; auto chooses the one that lies closest to where rays become half
    opaque. Of models made of surfaces the occupancy, between 0 and 1; auto is 0.5."""
    color: Literal["rgb", "labels", "none"] = "rgb"
    """Colour of the vertices or of the texture; labels: that of the class with the highest
    score."""
    color_from: Literal["field", "views"] = "field"
    """Where rgb is taken from: the field at each place of the surface, or the mean of pictures from
    all around, which look through soft surfaces as renderings do."""
    texture: int = 0
    """Side of a texture in texels, such as 1024, for .glb and .obj; 0 colours the vertices."""
    normals: Literal["gradient", "faces"] = "gradient"
    """Normals of the vertices: from the density's gradient, or means of the triangles'."""
    largest_component: bool = False
    """Keep only the largest connected part."""
    behind: float | None = None
    """Of models that take images: leave out what lies farther than this behind the origin, in half
    sides of the box; 0.6 parts the bundled cars from what is behind them."""
    triangles: int | None = None
    """The most triangles; the default keeps all that the grid gives."""
    up: Literal["y", "z"] = "y"
    """Axis that points up. .glb is always y; z is nerfstudio's world, of .ply and .obj."""
    longest_side: float | None = None
    """Length of the mesh's longest side, in metres or any unit; 1 is a unit mesh. The default keeps
    the generator's unit."""
    to_seed: int | None = None
    """Write the meshes on the straight way to this seed, as NAME_00, NAME_01, ..."""
    steps: int | None = None
    """Number of these meshes, both ends included (default 5)."""
    input: int | Path | None = None
    """What the sample is made from: number of a label map, or of an image, that the checkpoint
    keeps (default 0), or a file of your own, as --input-file."""
    input_file: Path | None = None
    """A label map of your own: PNG of class ids or class colours, or an edge map. Of models that
    take images: an image."""
    depth: Path | None = None
    """Depth of that image: 16-bit grey PNG, small is near. The default is NAME_depth.png beside
    it."""
    input_azimuth: float | None = None
    """Where a label map's file is seen from, degrees: 0 is the front, 90 stands at +x. The default
    is what the viewer saved beside the file (edit.json), or else the front."""
    input_elevation: float | None = None
    """The same, degrees above the horizon (default 0)."""

    @property
    def given(self) -> int | Path | None:
        """What the sample is made from, by whichever option it is named."""
        return self.input_file if self.input is None else self.input

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        check_truncation(self.truncation)
        if self.output.suffix.lower() not in MESH_SUFFIXES:
            raise ValueError(
                f"--output is {self.output}; a mesh file must end in {', '.join(MESH_SUFFIXES)}."
            )
        check_surface(self.resolution, self.level)
        if self.color_from == "views" and self.color != "rgb":
            raise ValueError(
                f"--color-from views and --color {self.color}: views show rgb alone; leave one out."
            )
        check_behind("--behind", self.behind)
        self._check_texture()
        self._check_shape()
        self._check_way()
        check_seed("--seed", self.seed)
        check_seed("--appearance-seed", self.appearance_seed)
        beside = self.depth, self.input_azimuth, self.input_elevation
        check_one_given(self.input, self.input_file, *beside)
        self._check_target()

    def _check_texture(self) -> None:
        if not self.texture:
            return
        if not 16 <= self.texture <= 8192:
            raise ValueError(
                f"--texture is {self.texture}; it must lie between 16 and 8192 texels, or be 0 for "
                "colours of the vertices."
            )
        if self.output.suffix.lower() not in TEXTURE_SUFFIXES:
            raise ValueError(
                f"--output is {self.output}; with --texture a mesh file must end in "
                f"{' or '.join(TEXTURE_SUFFIXES)}."
            )
        if self.color == "none":
            raise ValueError("--texture and --color none: a texture holds colours; leave one out.")

    def _check_shape(self) -> None:
        if self.triangles is not None and self.triangles < FEWEST_TRIANGLES:
            raise ValueError(
                f"--triangles is {self.triangles}; a closed mesh has at least {FEWEST_TRIANGLES}."
            )
        if self.up == "z" and self.output.suffix.lower() == ".glb":
            raise ValueError(
                f"--up is z and --output is {self.output}; glTF defines y as up, so choose .ply or "
                ".obj, or leave --up out."
            )
        shortest, longest = LENGTHS
        if self.longest_side is not None and not shortest <= self.longest_side <= longest:
            raise ValueError(
                f"--longest-side is {self.longest_side}; it must be a positive length, from "
                f"{shortest:g} to {longest:g}."
            )

    def _check_way(self) -> None:
        if self.to_seed is None:
            if self.steps is not None:
                raise ValueError("--steps without --to-seed: name the seed at the far end.")
            return
        check_seed("--to-seed", self.to_seed)
        if self.steps is not None and not 2 <= self.steps <= MOST_STEPS:
            raise ValueError(
                f"--steps is {self.steps}; it must lie between 2 and {MOST_STEPS} meshes."
            )

    def _check_target(self) -> None:
        beside = [] if self.to_seed is None else self.files
        if self.texture and self.output.suffix.lower() == ".obj":
            for file in self.files:
                beside += texture_files(file)
        check_target("--output", self.output, beside)

    @property
    def files(self) -> list[Path]:
        """What is written: one file, or one for each step of the way to another seed."""
        if self.to_seed is None:
            return [self.output]
        steps = DEFAULT_STEPS if self.steps is None else self.steps
        digits = max(len(str(steps - 1)), 2)
        stem, suffix = self.output.stem, self.output.suffix
        return [self.output.with_name(f"{stem}_{step:0{digits}d}{suffix}") for step in range(steps)]
