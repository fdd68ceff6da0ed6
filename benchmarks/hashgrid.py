"""Times the hash grid on a CPU: ``python benchmarks/hashgrid.py [--part lookup|encoding|field]``.

Prints one JSON object a line: milliseconds of processor time (best of ``--repeats``), forward and
backward, for 16 images of 12,288 positions along rays (32 x 32 rays of 12 samples). ``lookup``
compares both strategies level by level and is what `prefers_volume` rests on; ``encoding`` times
mixing and lookup of whole configurations; ``field`` adds the decoder. Each part begins with
``reference``, one 2-D grid_sample of three 16-channel planes of 32 x 32 at the same positions, to
compare with on another or a busier machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from nerfstudio_gan3d.fields.hash_encoding import lookup, prefers_volume
from nerfstudio_gan3d.fields.hash_layout import TableLayout
from nerfstudio_gan3d.fields.hashgrid import StyleHashGrid

RAY_SAMPLES = 12

STRATEGIES: tuple[Literal["gather"], Literal["volume"]] = ("gather", "volume")

# Levels, base and largest resolution, features a level, bases.
CONFIGURATIONS = (
    (2, 8, 16, 4, 24),
    (2, 8, 32, 4, 24),
    (3, 8, 32, 2, 24),
    (3, 8, 32, 4, 16),
    (3, 8, 32, 4, 24),
    (4, 8, 32, 4, 16),
    (8, 8, 128, 2, 16),
)


def ray_positions(images: int, points: int) -> Tensor:
    """Positions in [0, 1] along rays through the cube: neighbours lie near each other."""
    rays = points // RAY_SAMPLES
    start, step = torch.rand(images, rays, 1, 3) * 0.2, torch.rand(images, rays, 1, 3) * 0.8
    along = torch.linspace(0, 1, RAY_SAMPLES)[:, None]
    return (start + step * along).reshape(images, -1, 3)


def milliseconds(run: Callable[[], Tensor], repeats: int) -> float:
    """Processor time of a forward and backward pass; less noisy than wall time."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        run().square().sum().backward()
        times.append(time.process_time() - start)
    return round(min(times[1:]) * 1e3, 1)


def time_reference(images: int, repeats: int) -> None:
    planes = torch.randn(3 * images, 16, 32, 32, requires_grad=True)
    positions = ray_positions(images, 12288).repeat(3, 1, 1)[:, :, None, :2] * 2 - 1
    run = partial(torch.nn.functional.grid_sample, planes, positions, align_corners=False)
    report(part="reference", milliseconds=milliseconds(run, repeats))


def report(**figures: object) -> None:
    print(json.dumps({**figures, "threads": torch.get_num_threads()}), flush=True)


def time_lookup(images: int, repeats: int) -> None:
    for side, columns, points in product((8, 16, 32), (2, 4, 16), (3072, 12288)):
        dense_size = 3 * (side.bit_length() - 1)
        for size in sorted({dense_size, min(12, dense_size)}):
            layout = TableLayout(1, 1, size, side, 2.0)
            tables = torch.randn(images, layout.entries, columns, requires_grad=True)
            positions = ray_positions(images, points)
            times = {
                strategy: milliseconds(
                    partial(lookup, layout, tables, positions, strategy), repeats
                )
                for strategy in STRATEGIES
            }
            report(
                part="lookup",
                resolution=side,
                dense=layout.is_dense(0),
                columns=columns,
                points=points,
                images=images,
                volume_chosen=prefers_volume(side, points, columns),
                **times,
            )


def time_field(images: int, repeats: int, decoder: bool) -> None:
    positions = ray_positions(images, 12288)
    mixings: tuple[Literal["before", "after"], ...] = (
        ("before",) if decoder else ("before", "after")
    )
    for sizes, mixing in product(CONFIGURATIONS, mixings):
        levels, base, largest, features, bases = sizes
        field = StyleHashGrid(
            64,
            3,
            levels=levels,
            base_resolution=base,
            max_resolution=largest,
            features_per_level=features,
            bases=bases,
            hidden_dim=32,
            mixing=mixing,
        )
        ws = torch.randn(images, field.num_ws, 64)
        run = partial(_whole_field if decoder else _encoding, field, ws, positions)
        report(
            part="field" if decoder else "encoding",
            levels=levels,
            resolutions=field.basis_layout.resolutions,
            features=features,
            bases=bases,
            mixing=mixing,
            images=images,
            points=12288,
            entries=field.basis_layout.entries,
            parameters=field.table.params.numel(),
            milliseconds=milliseconds(run, 1 if mixing == "after" else repeats),
        )


def _encoding(field: StyleHashGrid, ws: Tensor, positions: Tensor) -> Tensor:
    return field.encode(field.mix(ws), positions)


def _whole_field(field: StyleHashGrid, ws: Tensor, positions: Tensor) -> Tensor:
    found = field.query(field.prepare(ws), positions - 0.5)
    return torch.cat([found.raw_density, found.features], -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("lookup", "encoding", "field"), default="encoding")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    time_reference(arguments.images, arguments.repeats)
    if arguments.part == "lookup":
        time_lookup(arguments.images, arguments.repeats)
    else:
        time_field(arguments.images, arguments.repeats, arguments.part == "field")


if __name__ == "__main__":
    main()
