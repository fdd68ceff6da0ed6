"""Where a multi-resolution hash table keeps its vertices: the layout of tiny-cuda-nn.

After ``encodings/grid.h`` and ``common_device.h`` of tiny-cuda-nn (BSD-3-Clause).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from nerfstudio_gan3d.fields.trilinear import VertexIndexing

# Primes of tiny-cuda-nn's "CoherentPrime" hash as signed 32-bit integers. A table holds 2^k
# entries, so only the low bits of a hash count, and those are the same in signed 32-bit, unsigned
# 32-bit and 64-bit products.
_PRIME_Y = 2654435761 - 2**32
_PRIME_Z = 805459861

# Above this resolution tiny-cuda-nn no longer computes the dense stride, which would overflow 32
# bits, and hashes whatever the size of the table.
_MAX_DENSE_RESOLUTION = 0x659

# tiny-cuda-nn transposes its output with levels * features * 8 threads in a block, of which CUDA
# allows 1024.
_MAX_TCNN_FEATURES = 128


@dataclass(frozen=True)
class TableLayout:
    """Where each grid vertex of each level lies in a table, as in a tiny-cuda-nn ``HashGrid``.

    Level l has scale ``s = 2^(l log2(per_level_scale)) * base_resolution - 1``, resolution
    ``R = ceil(s) + 1`` vertices an axis and ``min(R^3 rounded up to 8, 2^log2_table_size)``
    entries. A position x in [0, 1] lies at ``s x + 0.5``, between vertices 0 and R. Vertex (x, y,
    z) is entry ``(x + y R + z R^2) mod entries`` where R^3 entries fit (so vertex R wraps into the
    next row, and at the last corner to the front), and ``(x ^ 2654435761 y ^ 805459861 z) mod
    entries`` where they do not.

    Raises:
        ValueError: for a field out of range, or a ``per_level_scale`` that puts a level so close to
            a whole number of vertices that rounding, which differs between devices, would decide
            its resolution.
    """

    levels: int
    """Number of levels L, 1 to 128."""
    features_per_level: int
    """Features F of one entry: 1, 2, 4 or 8; at most 128 over all levels."""
    log2_table_size: int
    """Base-2 logarithm of the most entries that a level may have, 3 to 28."""
    base_resolution: int
    """Vertices an axis of level 0, at least 2."""
    per_level_scale: float
    """Growth of the resolution from a level to the next, at least 1."""

    def __post_init__(self) -> None:
        _check_range("levels", self.levels, 1, 128)
        _check_range("log2_table_size", self.log2_table_size, 3, 28)
        _check_range("base_resolution", self.base_resolution, 2, 2**20)
        if self.features_per_level not in (1, 2, 4, 8):
            raise ValueError(
                f"features_per_level is {self.features_per_level}: it must be 1, 2, 4 or 8."
            )
        if self.levels * self.features_per_level > _MAX_TCNN_FEATURES:
            raise ValueError(
                f"levels * features_per_level is {self.levels * self.features_per_level}: at most "
                f"{_MAX_TCNN_FEATURES} fit into one encoding; use fewer of either."
            )
        if not 1 <= self.per_level_scale < math.inf:
            raise ValueError(f"per_level_scale is {self.per_level_scale}: it must be 1 or more.")
        for level in range(self.levels):
            self._check_rounding(level)

    @staticmethod
    def between(
        levels: int,
        features_per_level: int,
        log2_table_size: int,
        base_resolution: int,
        max_resolution: int,
    ) -> TableLayout:
        """Layout of levels that grow evenly from ``base_resolution`` to ``max_resolution``."""
        if max_resolution < base_resolution or (levels == 1) != (max_resolution == base_resolution):
            raise ValueError(
                f"max_resolution is {max_resolution} with base_resolution {base_resolution} and "
                f"{levels} levels: it must exceed base_resolution, or equal it with 1 level."
            )
        growth = (max_resolution / base_resolution) ** (1 / max(levels - 1, 1))
        if not math.log2(growth).is_integer():
            # A hair below the exact growth: whole resolutions are then rounded up to from a
            # distance that the rounding of no device bridges. Whole powers of two are exact
            # everywhere.
            growth *= 1 - min(1e-5, 0.25 / max_resolution / (levels - 1))
        return TableLayout(levels, features_per_level, log2_table_size, base_resolution, growth)

    @functools.cached_property
    def scales(self) -> tuple[float, ...]:
        """Cells that [0, 1] spans on each level, float32 values as tiny-cuda-nn computes them."""
        return tuple(self._scale(level) for level in range(self.levels))

    @functools.cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Vertices an axis of each level."""
        return tuple(math.ceil(scale) + 1 for scale in self.scales)

    @functools.cached_property
    def offsets(self) -> tuple[int, ...]:
        """First entry of each level, and the number of entries at the end (L + 1 numbers)."""
        offsets = [0]
        for resolution in self.resolutions:
            entries = min(-(-(resolution**3) // 8) * 8, 2**self.log2_table_size)
            offsets.append(offsets[-1] + entries)
        return tuple(offsets)

    @property
    def entries(self) -> int:
        """Entries of all levels; a table has ``entries * features_per_level`` parameters."""
        return self.offsets[-1]

    def level_entries(self, level: int) -> int:
        """Entries of one level."""
        return self.offsets[level + 1] - self.offsets[level]

    def is_dense(self, level: int) -> bool:
        """Whether each vertex below the border has an entry of its own."""
        resolution = self.resolutions[level]
        return resolution <= _MAX_DENSE_RESOLUTION and resolution**3 <= self.level_entries(level)

    def vertex_entries(
        self, level: int, x: Int[Tensor, "*n"], y: Int[Tensor, "*n"], z: Int[Tensor, "*n"]
    ) -> Int[Tensor, "*n"]:
        """Entry, counted within its level, of vertices with coordinates 0..R (int32 or int64)."""
        indexing = self.indexing(level)
        mixed = indexing.combine(z * indexing.factor_z, y * indexing.factor_y)
        return indexing.fold(indexing.combine(mixed, x))

    def indexing(self, level: int) -> VertexIndexing:
        """How the entry of a vertex of one level is computed."""
        resolution, entries = self.resolutions[level], self.level_entries(level)
        if self.is_dense(level):
            return VertexIndexing(entries, resolution, resolution**2, hashed=False)
        return VertexIndexing(entries, _PRIME_Y, _PRIME_Z, hashed=True)

    def tcnn_config(self) -> dict[str, Any]:
        """Configuration of the tiny-cuda-nn encoding that has this layout."""
        return {
            "otype": "HashGrid",
            "n_levels": self.levels,
            "n_features_per_level": self.features_per_level,
            "log2_hashmap_size": self.log2_table_size,
            "base_resolution": self.base_resolution,
            "per_level_scale": self.per_level_scale,
            "interpolation": "Linear",
        }

    def _exponent(self, level: int) -> float:
        growth = np.float32(math.log2(np.float32(self.per_level_scale)))
        return float(np.float32(level) * growth)

    def _scale(self, level: int) -> float:
        power = np.float32(2.0 ** self._exponent(level))
        return float(power * np.float32(self.base_resolution) - np.float32(1))

    def _check_rounding(self, level: int) -> None:
        exponent = self._exponent(level)
        if exponent.is_integer():
            return
        # exp2f on a GPU is off by up to 2 units in the last place, and the product may be fused.
        scale, slack = self._scale(level), 3 * 2.0**-23 * 2.0**exponent * self.base_resolution
        if math.ceil(scale - slack) != math.ceil(scale + slack):
            raise ValueError(
                f"per_level_scale {self.per_level_scale} gives level {level} a scale of {scale}, "
                "which rounding may move across a whole number on another device: make it smaller "
                "by 1e-5, or use TableLayout.between."
            )


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}: it must be from {low} to {high}.")
