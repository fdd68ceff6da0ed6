"""Multi-resolution hash table in tiny-cuda-nn's layout, with two evaluators of the same parameters.

Müller et al., "Instant Neural Graphics Primitives" (2022). The layout follows tiny-cuda-nn's
``encodings/grid.h`` and ``common_device.h`` (BSD-3-Clause), so that one flat float32 tensor trained
by its CUDA kernels is evaluated by plain PyTorch and the other way round.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nerfstudio_gan3d.fields.trilinear import VertexIndexing, gather_trilinear, sample_volume

Implementation = Literal["auto", "torch", "tcnn"]
Strategy = Literal["auto", "gather", "volume"]

TCNN_INSTALL = "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"

# Primes of tiny-cuda-nn's "CoherentPrime" hash as signed 32-bit integers. A table holds 2^k
# entries, so only the low bits of hash count, and those are the same in signed 32-bit, unsigned
# 32-bit and 64-bit products.
_PRIME_Y = 2654435761 - 2**32
_PRIME_Z = 805459861

# From this resolution on tiny-cuda-nn no longer computes the dense stride (its cube overflows 32
# bits) and hashes whatever the size of the table.
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
        a whole
            number of vertices that rounding, which differs between devices, would decide its
            resolution.
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


def lookup(
    layout: TableLayout,
    tables: Float[Tensor, "b entries c"],
    positions: Float[Tensor, "b n 3"],
    strategy: Strategy = "auto",
) -> Float[Tensor, "b n levels c"]:
    """Trilinear interpolation of every level of B tables at positions in [0, 1], in PyTorch.

    Positions outside are clamped. A table may have any number of columns: those of several
    encodings of one layout can be looked up together. Differentiable once in tables and positions. ``strategy`` selects how; values and
    gradients are the same to rounding:

    - ``gather`` reads the eight corners of each position;
    - ``volume`` first lays each level out as a dense volume of (R + 1)^3 vertices, border wrap and
      hash collisions included, which torch's fused 3-D grid_sample then reads;
    - ``auto`` takes the volume where `prefers_volume` says so.
    """
    points, columns = positions.shape[1], tables.shape[-1]
    unit = positions.clamp(0, 1)
    values = []
    for level in range(layout.levels):
        table = tables[:, layout.offsets[level] : layout.offsets[level + 1]]
        volume = strategy == "volume" or (
            strategy == "auto" and prefers_volume(layout.resolutions[level], points, columns)
        )
        evaluate = _level_from_volume if volume else _level_from_corners
        values.append(evaluate(layout, level, table, unit))
    return torch.stack(values, dim=2)


def prefers_volume(resolution: int, points: int, columns: int) -> bool:
    """The rule of ``strategy="auto"``: whether a volume of a level is cheaper than reading corners.

    Measured forward and backward by benchmarks/hashgrid.py on a CPU: the kernel that reads volumes
    is faster than reading corners for two columns or fewer, equal for four and slower above, and
    laying a level out pays only where positions outnumber its vertices by far.
    """
    return columns <= 2 and 8 * (resolution + 1) ** 3 <= points


class HashTable(nn.Module):
    """Trainable table of ``groups`` tiny-cuda-nn encodings that share one layout.

    ``params`` is one flat float32 tensor, ``[groups, entries, features_per_level]`` in memory: each
    group's slice is exactly the ``params`` of one ``tinycudann.Encoding(3, layout.tcnn_config(),
    dtype=float32)``. Checkpoints therefore move freely between the two evaluators.

    Args:
        layout: where vertices lie.
        groups: number of encodings.
        implementation: ``torch``; ``tcnn``; or ``auto``: tiny-cuda-nn where it is installed and the
            table is float32 on a CUDA device, PyTorch otherwise. See `evaluator`.
        init_std: standard deviation of the initial values of each level.

    Raises:
        ValueError: ``tcnn`` was asked for and tiny-cuda-nn is not installed or does not load.
    """

    def __init__(
        self,
        layout: TableLayout,
        groups: int = 1,
        implementation: Implementation = "auto",
        init_std: float | Sequence[float] = 0.1,
    ) -> None:
        super().__init__()
        stds = [init_std] * layout.levels if isinstance(init_std, (int, float)) else list(init_std)
        if len(stds) != layout.levels:
            raise ValueError(
                f"init_std has {len(stds)} values: it needs {layout.levels}, one a level."
            )
        if implementation == "tcnn":
            load_tcnn()
        self.layout = layout
        self.groups = groups
        self.implementation: Implementation = implementation
        values = torch.randn(groups, layout.entries, layout.features_per_level)
        for level, std in enumerate(stds):
            values[:, layout.offsets[level] : layout.offsets[level + 1]] *= std
        self.params = nn.Parameter(values.flatten())

    @property
    def evaluator(self) -> Literal["torch", "tcnn"]:
        """Which evaluator a call uses now."""
        if self.implementation == "auto":
            usable = self.params.is_cuda and self.params.dtype == torch.float32 and tcnn_loads()
            return "tcnn" if usable else "torch"
        return self.implementation

    def tables(self) -> Float[Tensor, "groups entries f"]:
        """The parameters as one table a group (a view)."""
        return self.params.view(self.groups, self.layout.entries, -1)

    def forward(
        self, positions: Float[Tensor, "b n 3"], strategy: Strategy = "auto"
    ) -> Float[Tensor, "b n levels c"]:
        """Interpolated features of every level at positions in [0, 1]; those outside are clamped.

        C = groups * features_per_level, group-major.

        Raises ValueError where tiny-cuda-nn was asked for and the table is not on a CUDA device.
        """
        batch, points, _ = positions.shape
        flat = positions.reshape(1, -1, 3)
        if self.evaluator == "tcnn":
            values = [lookup_tcnn(self.layout, table, flat[0]) for table in self.tables()]
            return torch.cat(values, dim=-1).unflatten(0, (batch, points))
        joined = self.tables().permute(1, 0, 2).flatten(1)[None]  # [1, T, C]
        return lookup(self.layout, joined, flat, strategy)[0].unflatten(0, (batch, points))


def lookup_tcnn(
    layout: TableLayout, table: Float[Tensor, "entries f"], positions: Float[Tensor, "n 3"]
) -> Float[Tensor, "n levels f"]:
    """The same as `lookup` for one table, by tiny-cuda-nn's kernels in float32.

    Raises ValueError where tiny-cuda-nn does not load or the tensors are not float32 on a CUDA
    device.
    """
    if not (
        table.is_cuda and positions.is_cuda and table.dtype == positions.dtype == torch.float32
    ):
        raise ValueError(
            f"tiny-cuda-nn needs float32 on a CUDA device, but the table is {table.dtype} on "
            f"{table.device} and the positions are {positions.dtype} on {positions.device}: use "
            "implementation='torch'."
        )
    encoding = _tcnn_encoding(layout, table.device.index)
    found = torch.func.functional_call(
        encoding, {"params": table.reshape(-1)}, (positions.clamp(0, 1),)
    )
    return found.unflatten(-1, (layout.levels, layout.features_per_level))


def load_tcnn() -> Any:
    """The module ``tinycudann``; ValueError with the way to install it where it does not load."""
    try:
        return importlib.import_module("tinycudann")
    except (ImportError, OSError) as error:
        # Without a CUDA device, or built for another one, tinycudann raises EnvironmentError on
        # import.
        raise ValueError(
            f"implementation='tcnn' needs tiny-cuda-nn, which does not load ({error}): install it "
            f"with `{TCNN_INSTALL}`, or use implementation='torch', which reads the same "
            "checkpoints."
        ) from error


@functools.cache
def tcnn_loads() -> bool:
    """Whether tiny-cuda-nn can be used; warns once where it is installed and does not load."""
    if importlib.util.find_spec("tinycudann") is None:
        return False
    try:
        load_tcnn()
    except ValueError as error:
        warnings.warn(f"The slower PyTorch hash table is used. {error}", stacklevel=2)
        return False
    return True


@functools.cache
def _tcnn_encoding(layout: TableLayout, device: int) -> nn.Module:
    """One stateless encoding per layout and device; calls bring their own parameters."""
    tcnn = load_tcnn()
    with torch.cuda.device(device):
        encoding = tcnn.Encoding(3, layout.tcnn_config(), dtype=torch.float32)
    if encoding.params.numel() != layout.entries * layout.features_per_level:
        raise ValueError(
            f"This tiny-cuda-nn gives {layout} {encoding.params.numel()} parameters instead "
            f"of {layout.entries * layout.features_per_level}: use implementation='torch'."
        )
    return encoding


def _level_from_corners(
    layout: TableLayout, level: int, table: Float[Tensor, "b t c"], unit: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b n c"]:
    return gather_trilinear(table, unit * layout.scales[level] + 0.5, layout.indexing(level))


def _level_from_volume(
    layout: TableLayout, level: int, table: Float[Tensor, "b t c"], unit: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b n c"]:
    side = layout.resolutions[level] + 1
    axis = torch.arange(side, device=table.device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    index = layout.vertex_entries(level, x, y, z)  # [D, H, W]
    # One embedding over the rows of all B tables: its backward pass is several times that of
    # indexing.
    rows = table.transpose(0, 1).flatten(1)  # [T, B * C]
    volume = torch.nn.functional.embedding(index, rows).unflatten(-1, (table.shape[0], -1))
    return sample_volume(volume.permute(3, 4, 0, 1, 2), unit * layout.scales[level] + 0.5)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}: it must be from {low} to {high}.")
