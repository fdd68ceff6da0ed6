"""Options of `gan3d mesh` and `gan3d sample`: plain dataclasses that import nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

from tyro.conf import arg

from nerfstudio_gan3d.cli_options import check_truncation
from nerfstudio_gan3d.export.number_lists import (
    parse_images,
    parse_inputs,
    parse_levels,
    parse_seeds,
)

PictureOutput = Literal[
    "rgb", "foreground", "background", "depth", "accumulation", "normals", "labels"
]
PICTURE_OUTPUTS: tuple[PictureOutput, ...] = get_args(PictureOutput)
MESH_SUFFIXES = (".ply", ".obj", ".glb")
TEXTURE_SUFFIXES = (".glb", ".obj")
DEFAULT_STEPS, MOST_STEPS = 5, 1000
KEPT_MAPS = 16
"""Label maps, or images, that a checkpoint keeps: `latents.STORED_MAPS` and
`image_views.STORED_IMAGES`, known here without torch."""


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
    texture: int = 0
    """Side of a texture in texels, such as 1024, for .glb and .obj; 0 colours the vertices."""
    normals: Literal["gradient", "faces"] = "gradient"
    """Normals of the vertices: from the density's gradient, or means of the triangles'."""
    largest_component: bool = False
    """Keep only the largest connected part."""
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
        if not 8 <= self.resolution <= 1024:
            raise ValueError(
                f"--resolution is {self.resolution}; it must lie between 8 and 1024 cells."
            )
        if self.level != "auto" and not 0.0 < self.level < float("inf"):
            raise ValueError(
                f"--level is {self.level}; it must be a positive density, or auto to choose one."
            )
        self._check_texture()
        self._check_way()
        if self.appearance_seed is not None and not 0 <= self.appearance_seed < 10**18:
            raise ValueError(
                f"--appearance-seed is {self.appearance_seed}; it must lie between 0 and 10^18."
            )
        if self.input is not None and self.input_file is not None:
            raise ValueError("--input and --input-file: choose one of them.")
        option = "--input" if isinstance(self.input, Path) else "--input-file"
        check_given(option, self.given, self.depth, self.input_azimuth, self.input_elevation)

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

    def _check_way(self) -> None:
        if self.to_seed is None:
            if self.steps is not None:
                raise ValueError("--steps without --to-seed: name the seed at the far end.")
            return
        if not 0 <= self.to_seed < 10**18:
            raise ValueError(f"--to-seed is {self.to_seed}; it must lie between 0 and 10^18.")
        if self.steps is not None and not 2 <= self.steps <= MOST_STEPS:
            raise ValueError(
                f"--steps is {self.steps}; it must lie between 2 and {MOST_STEPS} meshes."
            )

    @property
    def files(self) -> list[Path]:
        """What is written: one file, or one for each step of the way to another seed."""
        if self.to_seed is None:
            return [self.output]
        steps = DEFAULT_STEPS if self.steps is None else self.steps
        digits = max(len(str(steps - 1)), 2)
        stem, suffix = self.output.stem, self.output.suffix
        return [self.output.with_name(f"{stem}_{step:0{digits}d}{suffix}") for step in range(steps)]


@dataclass
class SampleOptions:
    """Render samples of a trained checkpoint from several views, as pictures or a video."""

    load_config: Path
    """The config.yml that training wrote."""
    output: Path
    """PNG file for a grid, mp4 file with --turntable or --interpolate, or a folder for one file per
    seed."""
    seeds: str | None = None
    """Seeds of the latents: single numbers and inclusive ranges, such as 0-3,8,12. The default is
    0-15; of models that take label maps 0-3."""
    truncation: float = 1.0
    """Truncation psi: 1 is off, 0 is the mean shape."""
    views: int | None = None
    """Views of each sample, spread evenly over a full turn. The default is 1, of samples made from
    a label map that map's own. Of videos it is the number of frames (default 90)."""
    size: int | None = None
    """Side of each picture in pixels; the default is the size that the run was trained for."""
    turntable: bool = False
    """Write a video of one turn (mp4) in place of pictures."""
    outputs: str = "rgb"
    """What to show side by side, separated by commas: rgb, foreground, background, depth,
    accumulation, normals, labels."""
    inputs: str | None = None
    """Label maps, or images, that samples are made from: numbers of those that the checkpoint
    keeps, 0 to 15, such as 0-3. The default is 0 where no other one is named."""
    images: str | None = None
    """The same from the run's data set: positions of images, such as 12,40."""
    input: Annotated[int | Path | None, arg(aliases=("--input-file",))] = None
    """The same from a file of your own: PNG of class ids or class colours, or an edge map; of
    models that take images an image. A number is that of a kept one."""
    depth: Path | None = None
    """Depth of the image --input: 16-bit grey PNG, small is near. The default is NAME_depth.png
    beside it."""
    input_azimuth: float | None = None
    """Where the label map --input is seen from, degrees: 0 is the front, 90 stands at +x. The
    default is what the viewer saved beside the file (edit.json), or else the front."""
    input_elevation: float | None = None
    """The same, degrees above the horizon (default 0)."""
    grid: Literal["shape,appearance"] | None = None
    """shape,appearance, of models with these two codes: a row for each shape of --seeds (default
    0-3), a column for each appearance of --appearance-seeds."""
    appearance_seeds: str | None = None
    """Seeds of the columns of --grid. The default is those of its rows."""
    interpolate: Literal["labels", "appearance", "shape"] | None = None
    """Write a video (mp4) that goes from label map to label map, or from seed to seed; with
    --turntable the camera turns meanwhile. Of models with a shape code and an appearance code
    the one code goes, and the other one stays the first seed's."""
    mix_seed: int | None = None
    """Seed whose latents the levels of --mix-levels take."""
    mix_levels: str | None = None
    """Levels of the latent w, 0 the coarsest, that --mix-seed decides, such as 4-7."""

    @property
    def one_file(self) -> bool:
        """Whether one file is written, and not a folder."""
        return bool(self.output.suffix)

    @property
    def is_video(self) -> bool:
        """Whether videos are written, and not pictures."""
        return self.turntable or self.interpolate is not None

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        check_truncation(self.truncation)
        if self.seeds is not None:
            parse_seeds(self.seeds)
        parse_outputs(self.outputs)
        if self.views is not None and self.views < 1:
            raise ValueError(f"--views is {self.views}; it must be at least 1.")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise ValueError(f"--size is {self.size}; it must lie between 8 and 4096 pixels.")
        self._check_output()
        if self.inputs is not None:
            _check_kept("--inputs", parse_inputs(self.inputs))
        if self.images is not None:
            parse_images(self.images)
        check_given("--input", self.input, self.depth, self.input_azimuth, self.input_elevation)
        self._check_mixing()
        self._check_interpolation()
        self._check_grid()

    def _check_output(self) -> None:
        wanted = ".mp4" if self.is_video else ".png"
        if self.output.suffix.lower() in ("", wanted):
            return
        hint = ".mp4 goes with --turntable"
        if self.is_video:
            shown = "--turntable" if self.turntable else "--interpolate"
            hint = f".png goes without {shown}"
        raise ValueError(
            f"--output is {self.output}; give a file that ends in {wanted} ({hint}), or a folder "
            "for one file per seed"
        )

    def _check_mixing(self) -> None:
        if (self.mix_seed is None) != (self.mix_levels is None):
            given, other = ("--mix-seed", "--mix-levels")[:: 1 if self.mix_levels is None else -1]
            raise ValueError(f"{given} without {other}: mixing needs both, a seed and its levels.")
        if self.mix_levels is not None:
            parse_levels(self.mix_levels)
        if self.mix_seed is not None and not 0 <= self.mix_seed < 10**18:
            raise ValueError(f"--mix-seed is {self.mix_seed}; it must lie between 0 and 10^18.")

    def _check_interpolation(self) -> None:
        if self.interpolate is None:
            return
        if not self.one_file:
            raise ValueError(
                f"--output is {self.output}; with --interpolate give a file that ends in .mp4."
            )
        if self.mix_seed is not None:
            raise ValueError("--interpolate and --mix-seed: choose one of them.")
        if self.views is not None and self.views < 2:
            raise ValueError(
                f"--views is {self.views}; with --interpolate it is the number of frames, at "
                "least 2."
            )
        if self.interpolate == "labels":
            count = len(parse_inputs(self.inputs)) if self.inputs else 0
            count += len(parse_images(self.images)) if self.images else 0
            count += self.input is not None
            if count < 2:
                raise ValueError(
                    "--interpolate labels needs at least two label maps; name them with --inputs, "
                    "--images or --input."
                )
        elif self.seeds is not None and len(parse_seeds(self.seeds)) < 2:
            raise ValueError(
                f"--seeds is {self.seeds!r}; --interpolate {self.interpolate} needs at least two "
                "seeds."
            )

    def _check_grid(self) -> None:
        if self.grid is None:
            if self.appearance_seeds is not None:
                raise ValueError(
                    "--appearance-seeds without --grid shape,appearance: they are its columns."
                )
            return
        if self.appearance_seeds is not None:
            parse_seeds(self.appearance_seeds, "--appearance-seeds")
        for name in ("interpolate", "mix_seed"):
            if getattr(self, name) is not None:
                raise ValueError(f"--grid and --{name.replace('_', '-')}: choose one of them.")


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


def _check_kept(option: str, numbers: list[int]) -> None:
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
        _check_kept("--input", [given])
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
