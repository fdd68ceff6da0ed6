"""Videos of a run: the camera turns, or one thing becomes another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.export.outputs import SampleOutput
from nerfstudio_gan3d.export.pictures import block, tiles
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.run import Run


def between(keys: Sequence[SceneRequest], place: float) -> SceneRequest:
    """The request at a place of the way through ``keys``, at least two: key i lies at i.

    From key to key seed and label map are interpolated, and the keys differ in nothing else, or,
    with codes, in the appearance's seeds.
    """
    first = min(int(place), len(keys) - 2)
    near, far = keys[first], keys[first + 1]
    return replace(near, other_seed=far.seed, other_label=far.label, interpolation=place - first)


def film(
    run: Run,
    keys: Sequence[SceneRequest],
    cameras: Float[Tensor, "f 25"],
    outputs: Sequence[SampleOutput],
    size: int | None = None,
    over: UInt8[np.ndarray, "side side 3"] | None = None,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """One frame a camera, outputs side by side: the Scene of one key, or the way through several
    with the first and the last key at its ends; ``over`` as in `tiles`."""
    scene = run.scene(keys[0])
    last = max(len(cameras) - 1, 1)
    for index, camera in enumerate(cameras.split(1)):
        if len(keys) > 1:
            scene = run.scene(between(keys, index * (len(keys) - 1) / last))
        yield block(tiles(run, scene, camera, outputs, size, over))
