"""Weighted sums of table rows, the heart of every grid lookup, with a fast backward pass on
CPUs."""

from __future__ import annotations

from typing import Any, cast

import scipy.sparse
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_rows(
    table: Float[Tensor, "t c"], indices: Int[Tensor, "n k"], weights: Float[Tensor, "n k"]
) -> Float[Tensor, "n c"]:
    """``out[n] = sum_k weights[n, k] * table[indices[n, k]]``, differentiable once, in the table
    alone.

    Measured on one core for 12 rows of 16 channels per output: 4 ms forward and 6 ms backward for
    85,000 outputs, where grid_sample of the same three planes takes 38 ms and 62 ms.
    """
    return cast(Tensor, _GatherRows.apply(table, indices, weights))


def scatter_rows(
    grad: Float[Tensor, "n c"],
    indices: Int[Tensor, "n k"],
    weights: Float[Tensor, "n k"],
    rows: int,
) -> Float[Tensor, "t c"]:
    """The transpose of `gather_rows`: ``out[t] = sum of weights[n, k] * grad[n] where indices[n, k]
    = t``.

    As a product with a sparse matrix on the CPU: torch's scatter operations take ten times as long
    there.
    """
    if grad.device.type != "cpu":
        values = (weights.unsqueeze(-1) * grad.unsqueeze(1)).flatten(0, 1)
        out = torch.zeros(rows, grad.shape[1], device=grad.device, dtype=grad.dtype)
        return out.index_add_(0, indices.flatten(), values)
    count, per_row = indices.shape
    starts = torch.arange(0, count * per_row + 1, per_row, dtype=indices.dtype)
    matrix = scipy.sparse.csr_matrix(
        (weights.reshape(-1).numpy(), indices.reshape(-1).numpy(), starts.numpy()),
        shape=(count, rows),
    )
    return torch.from_numpy(matrix.T @ grad.contiguous().numpy())


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(indices, weights)
        ctx.rows = len(table)
        return torch.nn.functional.embedding_bag(
            indices, table, mode="sum", per_sample_weights=weights
        )

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        indices, weights = ctx.saved_tensors
        return scatter_rows(grad, indices, weights, ctx.rows), None, None
