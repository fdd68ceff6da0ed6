"""Options of `gan3d sample`: a plain dataclass that imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from nerfstudio_gan3d.cli_options import check_truncation
from nerfstudio_gan3d.export.given import check_given, check_kept
from nerfstudio_gan3d.export.number_lists import (
    parse_images,
    parse_inputs,
    parse_levels,
    parse_seeds,
)
from nerfstudio_gan3d.export.outputs import (
    SampleOutput,
    check_video_outputs,
    files_of,
    parse_outputs,
)
from nerfstudio_gan3d.export.targets import check_folder, check_target
from nerfstudio_gan3d.seeds import check_seed

VIDEO_SUFFIXES = (".mp4", ".gif")


@dataclass
class SampleOptions:
    """Render samples of a trained checkpoint from several views, as pictures or a video."""

    load_config: Path
    """The config.yml that training wrote."""
    output: Path
    """PNG file for a grid, mp4 or GIF file with --turntable or --interpolate, or a folder for one
    file per seed."""
    seeds: str | None = None
    """Seeds of the latents: single numbers and inclusive ranges, such as 0-3,8,12. The default is
    0-15; of models that take label maps 0-3."""
    truncation: float = 1.0
    """Truncation psi: 1 is off, 0 is the mean shape."""
    truncations: str | None = None
    """Several of them, such as 0,0.5,1: a column for each, and a row for each seed."""
    views: int | None = None
    """Views of each sample, spread evenly over a full turn. The default is 1, of samples made from
    a label map that map's own. Of videos it is the number of frames (default 90)."""
    size: int | None = None
    """Side of each picture in pixels; the default is the size that the run was trained for."""
    turntable: bool = False
    """Write a video of one turn (mp4 or GIF) in place of pictures."""
    outputs: str = "rgb"
    """What to show side by side, separated by commas: rgb, foreground, background, depth,
    accumulation, normals, labels. PNG files of their own have rgba (the foreground on nothing),
    matte (its opacity, grey) and depth16 (16 bits, small is near)."""
    over: Path | None = None
    """A photograph that stands behind the object in rgb; its middle square is used."""
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
    """Write a video that goes from label map to label map, or from seed to seed; with
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
    def record(self) -> Path:
        """The JSON file that says what was made."""
        return self.output.with_suffix(".json") if self.one_file else self.output / "samples.json"

    @property
    def is_video(self) -> bool:
        """Whether videos are written, and not pictures."""
        return self.turntable or self.interpolate is not None

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        check_truncation(self.truncation)
        if self.truncations is not None:
            self._check_sweep()
        if self.seeds is not None:
            parse_seeds(self.seeds)
        outputs = parse_outputs(self.outputs)
        if self.views is not None and self.views < 1:
            raise ValueError(f"--views is {self.views}; it must be at least 1.")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise ValueError(f"--size is {self.size}; it must lie between 8 and 4096 pixels.")
        self._check_output()
        if self.is_video:
            check_video_outputs(outputs)
        if self.over is not None:
            _check_over(self.over, outputs)
        if self.inputs is not None:
            check_kept("--inputs", parse_inputs(self.inputs))
        if self.images is not None:
            parse_images(self.images)
        check_given("--input", self.input, self.depth, self.input_azimuth, self.input_elevation)
        self._check_mixing()
        self._check_interpolation()
        self._check_grid()
        self._check_target(outputs)

    def _check_output(self) -> None:
        wanted = VIDEO_SUFFIXES if self.is_video else (".png",)
        if self.output.suffix.lower() in ("", *wanted):
            return
        hint = ".mp4 and .gif go with --turntable"
        if self.is_video:
            shown = "--turntable" if self.turntable else "--interpolate"
            hint = f".png goes without {shown}"
        raise ValueError(
            f"--output is {self.output}; give a file that ends in {' or '.join(wanted)} ({hint}), "
            "or a folder for one file per seed"
        )

    def _check_target(self, outputs: Sequence[SampleOutput]) -> None:
        records = [self.record, self.record.with_suffix(".npz")]
        if self.one_file:
            layers = [] if self.is_video else [*files_of(outputs, self.output)]
            check_target("--output", self.output, [*layers, *records])
        else:
            check_folder("--output", self.output, records)

    def _check_sweep(self) -> None:
        assert self.truncations is not None
        parse_truncations(self.truncations)
        others = {
            "--truncation": self.truncation != 1,
            "--interpolate": self.interpolate is not None,
            "--grid": self.grid is not None,
        }
        for name, given in others.items():
            if given:
                raise ValueError(f"--truncations and {name}: choose one of them.")

    def _check_mixing(self) -> None:
        if (self.mix_seed is None) != (self.mix_levels is None):
            given, other = ("--mix-seed", "--mix-levels")[:: 1 if self.mix_levels is None else -1]
            raise ValueError(f"{given} without {other}: mixing needs both, a seed and its levels.")
        if self.mix_levels is not None:
            parse_levels(self.mix_levels)
        check_seed("--mix-seed", self.mix_seed)

    def _check_interpolation(self) -> None:
        if self.interpolate is None:
            return
        if not self.one_file:
            raise ValueError(
                f"--output is {self.output}; with --interpolate give a file that ends in "
                f"{' or '.join(VIDEO_SUFFIXES)}."
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


def parse_truncations(text: str) -> list[float]:
    """Reads truncations separated by commas: `0,0.5,1` is [0.0, 0.5, 1.0].

    Raises:
        ValueError: If one is no number, lies outside of what is allowed, or stands there twice.
    """
    found: list[float] = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = nan
        if not 0.0 <= value <= 2.0:
            raise ValueError(
                f"--truncations is {text!r}, of which {part.strip()!r} is no number between 0 and "
                "2; write for example 0,0.5,1."
            )
        if f"{value:g}" in [f"{one:g}" for one in found]:
            raise ValueError(f"--truncations is {text!r}, which has {value:g} twice; name it once.")
        found.append(value)
    return found


def _check_over(photo: Path, outputs: Sequence[SampleOutput]) -> None:
    if not photo.is_file():
        raise ValueError(f"--over is {photo}; there is no such file.")
    if "rgb" not in outputs:
        raise ValueError(
            f"--over stands behind the object in rgb, and --outputs is {','.join(outputs)}; add "
            "rgb, or leave --over out."
        )
