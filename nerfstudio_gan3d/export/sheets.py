"""Samples in rows and columns, rendered as one picture, one video, or one file each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.export.arcs import arc, around
from nerfstudio_gan3d.export.films import film
from nerfstudio_gan3d.export.inputs import (
    Input,
    image_settings,
    input_picture,
    takes_images,
)
from nerfstudio_gan3d.export.number_lists import parse_levels, parse_seeds
from nerfstudio_gan3d.export.outputs import PICTURE_OUTPUTS, SampleOutput, files_of
from nerfstudio_gan3d.export.pictures import (
    ELEVATION_DEG,
    azimuths,
    block,
    depth_range,
    grid,
    stack,
    table,
    tiles,
    write_gif,
    write_png,
    write_pngs,
    write_video,
)
from nerfstudio_gan3d.export.sample_options import SampleOptions, parse_truncations
from nerfstudio_gan3d.export.transparency import spread_colours
from nerfstudio_gan3d.latents import SceneRequest, has_codes
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork
from nerfstudio_gan3d.run import Run

VIDEO_FRAMES = 90


@dataclass(frozen=True)
class Cell:
    """One sample, or a way from sample to sample, and the cameras that see it."""

    name: str
    """What its own file is called, without ending."""
    keys: list[SceneRequest]
    """One request, or the stations of the way."""
    cameras: Float[Tensor, "v 25"]
    """Views of a picture, side by side; frames of a video."""


@dataclass(frozen=True)
class Row:
    """Samples that belong together: those of one label map or of one shape, the one of an image, or
    all."""

    head: Input | None
    """The label map or image that stands before them."""
    cells: list[Cell]
    line: bool = False
    """Whether its cells stay in one line, because the columns mean something."""


def plan(
    run: Run, options: SampleOptions, inputs: Sequence[Input], seeds: Sequence[int]
) -> list[Row]:
    """What options ask for: a row for each label map (one row without), a column for each seed; of
    models that take images a row for each image.

    With --interpolate labels there is one row, whose cells go through the label maps; with
    --interpolate appearance or shape each row has one cell, which goes through the seeds. With
    --grid there is a row for each seed, and a column for each seed of the appearance. With
    --truncations there is a row for each seed, or label map and seed, and a column for each of
    them.

    Raises:
        ValueError: If the levels to mix do not depend on a seed, the run has no codes that options
            ask for, or does not say where its cameras stand.
    """
    if options.grid is not None:
        return _code_grid(run, options, seeds)
    if takes_images(run):
        return [_image_row(run, options, head) for head in inputs]
    if options.interpolate == "shape":
        check_codes(run, "--interpolate shape")
    levels = mixed_levels(run, options)

    def request(given: Input | None, seed: int) -> SceneRequest:
        asked = SceneRequest(
            seed=seed,
            truncation=options.truncation,
            mix_seed=options.mix_seed,
            mix_levels=levels,
        )
        return asked if given is None else given.asked(asked)

    heads: Sequence[Input | None] = inputs or [None]
    if options.interpolate == "labels":
        cameras = _cameras(run, options, heads[0])
        return [
            Row(
                None,
                [
                    Cell(f"seed{seed:04d}", [request(head, seed) for head in heads], cameras)
                    for seed in seeds
                ],
            )
        ]
    rows = []
    for head in heads:
        keys = [request(head, seed) for seed in seeds]
        cameras = _cameras(run, options, head)
        before = "" if head is None else f"{head.name}_"
        if options.truncations is not None:
            rows += [_sweep(options.truncations, head, before, key, cameras) for key in keys]
            continue
        if options.interpolate is not None:
            cells = [Cell(f"{before}seeds", _way(run, options, keys), cameras)]
        else:
            cells = [Cell(f"{before}seed{key.seed:04d}", [key], cameras) for key in keys]
        rows.append(Row(head, cells))
    return rows


def _sweep(
    truncations: str,
    head: Input | None,
    before: str,
    key: SceneRequest,
    cameras: Float[Tensor, "v 25"],
) -> Row:
    """One seed at all truncations."""
    cells = [
        Cell(
            f"{before}seed{key.seed:04d}_truncation{value:g}",
            [replace(key, truncation=value)],
            cameras,
        )
        for value in parse_truncations(truncations)
    ]
    return Row(head, cells, line=True)


def _image_row(run: Run, options: SampleOptions, head: Input) -> Row:
    cell = Cell(f"{head.name}_scene", [head.asked(SceneRequest())], _cameras(run, options, head))
    return Row(head, [cell])


def check_codes(run: Run, asked: str) -> None:
    """Raises ValueError if the run's seeds have no two codes; the sentence begins with what was
    ``asked`` for."""
    if not has_codes(run.generator):
        raise ValueError(
            f"{asked}: {run.folder} is a run of {run.config.method_name}, a method without a shape "
            "code and an appearance code; leave it out, or open a run of 3DGEN"
        )


def _code_grid(run: Run, options: SampleOptions, seeds: Sequence[int]) -> list[Row]:
    check_codes(run, f"--grid {options.grid}")
    columns = seeds
    if options.appearance_seeds is not None:
        columns = parse_seeds(options.appearance_seeds, "--appearance-seeds")
    cameras = _cameras(run, options, None)
    return [
        Row(
            None,
            [
                Cell(
                    f"shape{shape:04d}_appearance{look:04d}",
                    [SceneRequest(shape, None, options.truncation, appearance_seed=look)],
                    cameras,
                )
                for look in columns
            ],
        )
        for shape in seeds
    ]


def _way(run: Run, options: SampleOptions, keys: list[SceneRequest]) -> list[SceneRequest]:
    """Stations of which, where there are two codes, one code alone moves from key to key."""
    if not has_codes(run.generator):
        return keys
    first = keys[0].seed
    if options.interpolate == "shape":
        return [replace(key, appearance_seed=first, appearance_interpolation=0.0) for key in keys]
    return [
        replace(key, seed=first, appearance_seed=key.seed, other_appearance_seed=far.seed)
        for key, far in zip(keys, [*keys[1:], keys[-1]], strict=True)
    ]


def _cameras(run: Run, options: SampleOptions, head: Input | None) -> Float[Tensor, "v 25"]:
    """A turn about the object, or one place: that of the label map or image, where there is one."""
    count = options.views or (VIDEO_FRAMES if options.is_video else 1)
    still = options.interpolate is not None and not options.turntable
    alone = options.views is None and not options.is_video
    if head is not None and (still or alone):
        return head.pose.to(run.device).expand(count, -1)
    if takes_images(run):
        settings = image_settings(run)
        cameras = around(settings, count) if options.is_video else arc(settings, count)
        return cameras.to(run.device)
    return run.orbit(azimuths(1) * count if still else azimuths(count), ELEVATION_DEG)


def mixed_levels(run: Run, options: SampleOptions) -> tuple[int, ...]:
    """The levels to mix, without those that come from the label map whatever the seed.

    Raises:
        ValueError: If none is left.
    """
    if options.mix_levels is None:
        return ()
    levels = parse_levels(options.mix_levels)
    mapping = run.generator.mapping
    if not isinstance(mapping, LabelMappingNetwork):
        return tuple(levels)
    first = mapping.geometry_layers
    decided = tuple(level for level in levels if level >= first)
    if not decided:
        raise ValueError(
            f"--mix-levels is {options.mix_levels!r}; the levels 0 to {first - 1} of this model "
            f"come from the label map, whatever the seed; choose from {first} on"
        )
    return decided


def no_text(rows: Sequence[Row]) -> dict[str, str]:
    """Says nothing of a picture."""
    return {}


@dataclass(frozen=True)
class Studio:
    """Renders rows of samples; ``outputs`` stand side by side, ``size`` is the side of each."""

    run: Run
    outputs: tuple[SampleOutput, ...]
    size: int | None = None
    over: UInt8[np.ndarray, "side side 3"] | None = None
    """Stands behind the foreground in rgb; None is the Scenes' own background."""
    text: Callable[[Sequence[Row]], dict[str, str]] = no_text
    """What a picture's file says of the rows that it shows."""
    seen: Callable[[int], None] = lambda views: None
    """Is told of every few views that were rendered."""

    def write(self, rows: Sequence[Row], file: Path) -> list[Path]:
        """All in one file, by its ending a picture (png) with its layers beside it (`files_of`), or
        a video (mp4, gif); returns the files.

        Raises:
            ValueError: If the file cannot be written, or a request does not fit the model.
        """
        heads = [self.head(row.head) for row in rows if row.head is not None]
        ending = file.suffix.lower()
        if ending == ".png":
            return self._write_pictures(rows, heads, file)
        films = [[self.film(cell) for cell in row.cells] for row in rows]
        columns = [len(row) for row in films]
        frames = zip(*(one for row in films for one in row), strict=True)
        put = write_gif if ending == ".gif" else write_video
        line = rows[0].line
        put((_arranged(heads, _rows_of(frame, columns), line) for frame in frames), file)
        return [file]

    def _write_pictures(
        self, rows: Sequence[Row], heads: Sequence[np.ndarray], file: Path
    ) -> list[Path]:
        groups = files_of(self.outputs, file)
        shown = [[self.pictures(cell) for cell in row.cells] for row in rows]
        pictures, texts = {}, {}
        for path, names in groups.items():
            blocks = [[block({name: one[name] for name in names}) for one in row] for row in shown]
            # Label maps and images have neither transparency nor depth of their own here.
            before = heads if names[0] in PICTURE_OUTPUTS else []
            arranged = _arranged(before, blocks, rows[0].line)
            pictures[path] = spread_colours(arranged) if names == ["rgba"] else arranged
            texts[path] = self.text(rows) | self._depth_text(names)
        write_pngs(pictures, texts)
        return list(groups)

    def _depth_text(self, names: Sequence[SampleOutput]) -> dict[str, str]:
        if "depth16" not in names:
            return {}
        near, far = depth_range(self.run)
        return {"Depth": f"{near!r} + value / 65536 * ({far!r} - {near!r}); 0 is nothing"}

    def write_each(self, rows: Sequence[Row], folder: Path, suffix: str) -> list[Path]:
        """Each sample in a file of its own, and each label map or image; returns the files of the
        samples."""
        files = []
        for row in rows:
            if row.head is not None:
                write_png(self.head(row.head), folder / f"{row.head.name}.png")
            for cell in row.cells:
                alone = Row(row.head, [cell])
                file = folder / f"{cell.name}{suffix}"
                files += replace(self, text=lambda _, alone=alone: self.text([alone])).write(
                    [Row(None, [cell])], file
                )
        return files

    def head(self, given: Input) -> UInt8[np.ndarray, "side side 3"]:
        """A label map or image as a picture."""
        side = self.size or self.run.settings.image_resolution
        return input_picture(self.run, given.view, side)

    def pictures(self, cell: Cell) -> dict[SampleOutput, np.ndarray]:
        """All views and outputs of one sample, see `tiles`."""
        scene = self.run.scene(cell.keys[0])
        found = tiles(self.run, scene, cell.cameras, self.outputs, self.size, self.over)
        self.seen(len(cell.cameras))
        return found

    def film(self, cell: Cell) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """One frame a camera."""
        for frame in film(self.run, cell.keys, cell.cameras, self.outputs, self.size, self.over):
            self.seen(1)
            yield frame


def _rows_of(blocks: Sequence[np.ndarray], columns: Sequence[int]) -> list[list[np.ndarray]]:
    """Blocks one after the other, back in rows of these lengths."""
    rest = iter(blocks)
    return [[next(rest) for _ in range(count)] for count in columns]


def _arranged(
    heads: Sequence[np.ndarray], rows: Sequence[Sequence[np.ndarray]], line: bool
) -> np.ndarray:
    """Rows behind their label maps or images, or below each other; one row alone is arranged as a
    grid, unless it is to stay a ``line``."""
    if heads:
        return table(heads, rows)
    if len(rows) == 1 and not line:
        return grid(rows[0])
    return stack(rows)
