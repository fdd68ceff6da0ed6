"""Trilinear interpolation in tables and volumes, with a backward pass that CPUs are good at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from nerfstudio_gan3d.fields.gather import scatter_rows


@dataclass(frozen=True)
class VertexIndexing:
    """Entry of vertex (x, y, z): ``x + y fy + z fz``, hashed ``x ^ y fy ^ z fz``, mod entries."""

    entries: int
    """Entries of the level; a power of two where hashed."""
    factor_y: int
    """Stride or prime of y."""
    factor_z: int
    """Stride or prime of z."""
    hashed: bool
    """Whether the axes are joined by exclusive or."""

    def combine(self, first: Tensor, second: Tensor, out: Tensor | None = None) -> Tensor:
        """Join the terms of two axes."""
        join = torch.bitwise_xor if self.hashed else torch.add
        return join(first, second, out=out)

    def fold(self, index: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """Index modulo entries."""
        if self.hashed:
            return index & (self.entries - 1)
        # A dense index never reaches twice the table: one subtraction is the modulo, and cheaper.
        return torch.where(index >= self.entries, index - self.entries, index)


def gather_trilinear(
    tables: Float[Tensor, "b t c"], cells: Float[Tensor, "b n 3"], indexing: VertexIndexing
) -> Float[Tensor, "b n c"]:
    """Interpolate vertex values of B tables.

    ``cells`` are non-negative (x, y, z) in units of a cell: vertex floor(cell) has weight 1 -
    fract(cell). Differentiable once, in tables and cells.
    """
    return cast(Tensor, _GatherTrilinear.apply(tables, cells, indexing))


def sample_volume(
    volume: Float[Tensor, "b c d h w"], cells: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b n c"]:
    """Interpolate volumes [z, y, x] at (x, y, z) in units of a cell; the first vertex is at 0.

    Differentiable once.
    """
    side = volume.shape[-1]
    grid = (cells * (2 / (side - 1)) - 1)[:, :, None, None]  # [B, N, 1, 1, 3]
    found = torch.nn.functional.grid_sample(
        volume, grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return found[..., 0, 0].mT


def _corners(
    cells: Float[Tensor, "b n 3"], indexing: VertexIndexing
) -> tuple[Int[Tensor, "bn 8"], Float[Tensor, "bn 8"]]:
    """Rows of the B stacked tables that hold a cell's corners (x fastest), and their weights."""
    batch, points, _ = cells.shape
    # 32-bit indices are hashed and added twice as fast; larger stacks of tables need 64 bits.
    kind = torch.int32 if batch * indexing.entries < 2**31 else torch.int64
    # Corner by corner on long vectors: broadcasting against an inner dimension of 2 is slower.
    axes = cells.reshape(-1, 3).t().contiguous()
    low = axes.floor()
    upper = axes - low
    lower = 1 - upper
    x, y, z = low.to(kind)
    xs = (x, x + 1)
    ys = (y * indexing.factor_y, (y + 1) * indexing.factor_y)
    zs = (z * indexing.factor_z, (z + 1) * indexing.factor_z)
    indices = torch.empty(8, batch * points, dtype=kind, device=cells.device)
    weights = torch.empty(8, batch * points, dtype=cells.dtype, device=cells.device)
    for k in range(4):
        face = indexing.combine(zs[k >> 1], ys[k & 1])
        weight = (upper if k >> 1 else lower)[2] * (upper if k & 1 else lower)[1]
        for i in range(2):
            indexing.combine(face, xs[i], out=indices[2 * k + i])
            torch.mul(weight, (upper if i else lower)[0], out=weights[2 * k + i])
    first = torch.arange(batch, device=cells.device, dtype=kind)[:, None] * indexing.entries
    indices = indexing.fold(indices) + first.expand(batch, points).reshape(-1)
    return indices.t().contiguous(), weights.t().contiguous()


class _GatherTrilinear(torch.autograd.Function):
    """``embedding_bag``, whose own backward pass is ten times slower on a CPU than this one."""

    @staticmethod
    def forward(ctx: Any, tables: Tensor, cells: Tensor, indexing: VertexIndexing) -> Tensor:
        indices, weights = _corners(cells, indexing)
        ctx.save_for_backward(tables, cells, indices, weights)
        rows = tables.reshape(-1, tables.shape[-1])
        found = torch.nn.functional.embedding_bag(
            indices, rows, mode="sum", per_sample_weights=weights
        )
        return found.view(*cells.shape[:2], -1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        tables, cells, indices, weights = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])  # [B * N, C]
        grad_tables = grad_cells = None
        if ctx.needs_input_grad[0]:
            rows = tables.shape[0] * tables.shape[1]
            grad_tables = scatter_rows(grad, indices, weights, rows).view_as(tables)
        if ctx.needs_input_grad[1]:
            grad_cells = _cell_gradient(tables, cells, indices, grad)
        return grad_tables, grad_cells, None


def _cell_gradient(
    tables: Float[Tensor, "b t c"],
    cells: Float[Tensor, "b n 3"],
    indices: Int[Tensor, "bn 8"],
    grad: Float[Tensor, "bn c"],
) -> Float[Tensor, "b n 3"]:
    """Gradient in the cell coordinates: differences of opposite faces of the corners' values."""
    rows = tables.reshape(-1, tables.shape[-1])
    corners = torch.stack([(rows[indices[:, k]] * grad).sum(-1) for k in range(8)], -1)
    corners = corners.view(-1, 2, 2, 2)  # [B * N, z, y, x]
    x, y, z = (cells - cells.floor()).reshape(-1, 3).unbind(-1)
    along_x = corners.diff(dim=3)[..., 0]  # [B * N, z, y]
    along_y = corners.diff(dim=2)[:, :, 0]  # [B * N, z, x]
    along_z = corners.diff(dim=1)[:, 0]  # [B * N, y, x]
    found = (_bilinear(along_x, z, y), _bilinear(along_y, z, x), _bilinear(along_z, y, x))
    return torch.stack(found, -1).view_as(cells)


def _bilinear(
    square: Float[Tensor, "n 2 2"], first: Float[Tensor, " n"], second: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    edge = torch.lerp(square[:, 0], square[:, 1], first[:, None])
    return torch.lerp(edge[:, 0], edge[:, 1], second)
