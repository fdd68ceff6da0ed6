"""Multi-resolution hash table with two evaluators of the same parameters.

Müller et al., "Instant Neural Graphics Primitives" (2022). The layout follows tiny-cuda-nn's
``encodings/grid.h`` and ``common_device.h`` (BSD-3-Clause), so that one flat float32 tensor trained
by its CUDA kernels is evaluated by plain PyTorch and the other way round.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.hash_layout import TableLayout
from nerfstudio_gan3d.fields.trilinear import gather_trilinear, sample_volume

Implementation = Literal["auto", "torch", "tcnn"]
Strategy = Literal["auto", "gather", "volume"]

TCNN_INSTALL = "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"


def lookup(
    layout: TableLayout,
    tables: Float[Tensor, "b entries c"],
    positions: Float[Tensor, "b n 3"],
    strategy: Strategy = "auto",
) -> Float[Tensor, "b n levels c"]:
    """Trilinear interpolation of every level of B tables at positions in [0, 1], in PyTorch.

    Positions outside are clamped. A table may have any number of columns: those of several
    encodings of one layout can be looked up together. Differentiable once in tables and positions.
    ``strategy`` selects how; values and gradients are the same to rounding:

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
    _check_tcnn_tensors(table, positions)
    encoding = _tcnn_encoding(layout, table.device)
    found = torch.func.functional_call(
        encoding, {"params": table.reshape(-1)}, (positions.clamp(0, 1),)
    )
    return found.unflatten(-1, (layout.levels, layout.features_per_level))


def _check_tcnn_tensors(table: Tensor, positions: Tensor) -> None:
    if not (
        table.is_cuda and positions.is_cuda and table.dtype == positions.dtype == torch.float32
    ):
        raise ValueError(
            f"tiny-cuda-nn needs float32 on a CUDA device, but the table is {table.dtype} on "
            f"{table.device} and the positions are {positions.dtype} on {positions.device}: use "
            "implementation='torch'."
        )


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
def _tcnn_encoding(layout: TableLayout, device: torch.device) -> nn.Module:
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
