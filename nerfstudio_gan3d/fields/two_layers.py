"""Two fully connected layers over many rows, a part at a time, so that what lies between them stays
in the cache."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, softplus

RANGE_GAIN, RANGE_SHIFT = 1.002, -0.001
"""``sigmoid(x) * gain + shift`` lets colours reach 0 and 1 at finite x (mip-NeRF)."""

PART = 2**18
"""Hidden values of a part: 1 MiB in float32, of which each of two cores holds a half."""


def colour_range(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``sigmoid(x) * 1.002 - 0.001``: colours reach 0 and 1 at finite x (mip-NeRF; EG3D's
    decoder)."""
    return torch.sigmoid(raw) * RANGE_GAIN + RANGE_SHIFT


def two_layers(
    x: Float[Tensor, "n i"],
    hidden_weight: Float[Tensor, "h i"],
    hidden_bias: Float[Tensor, " h"],
    weight: Float[Tensor, "o h"],
    bias: Float[Tensor, " o"],
    ranged: bool,
) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n o1"]]:
    """``softplus(x W1^T + b1) W2^T + b2``, its first column and the others, these as
    `colour_range` of themselves if ``ranged``.

    Differentiable any number of times. On a CPU, forward and backward pass go through the rows in
    parts: 98,304 rows of 32, 64 and 33 values take 27 ms with gradients on two cores in the place
    of 45 ms.
    """
    if x.device.type != "cpu":
        return _plain(x, hidden_weight, hidden_bias, weight, bias, ranged)
    given = x, hidden_weight, hidden_bias, weight, bias
    keep = torch.is_grad_enabled() and any(value.requires_grad for value in given)
    return cast(tuple[Tensor, Tensor], _TwoLayers.apply(*given, ranged, keep))


def _plain(
    x: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, weight: Tensor, bias: Tensor, ranged: bool
) -> tuple[Tensor, Tensor]:
    out = linear(softplus(linear(x, hidden_weight, hidden_bias)), weight, bias)
    return out[:, :1], colour_range(out[:, 1:]) if ranged else out[:, 1:]


class _TwoLayers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        hidden_weight: Tensor,
        hidden_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        ranged: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        parts = _parts(len(x), len(hidden_weight))
        kept = len(x) if keep else min(len(x), parts[0].stop) if parts else 0
        raw = x.new_empty(kept, len(hidden_weight))
        hidden = torch.empty_like(raw)
        first, others = x.new_empty(len(x), 1), x.new_empty(len(x), len(weight) - 1)
        for rows in parts:
            place = rows if keep else slice(0, rows.stop - rows.start)
            torch.addmm(hidden_bias, x[rows], hidden_weight.t(), out=raw[place])
            torch.ops.aten.softplus.out(raw[place], out=hidden[place])
            torch.addmv(bias[:1], hidden[place], weight[0], out=first[rows, 0])
            torch.addmm(bias[1:], hidden[place], weight[1:].t(), out=others[rows])
            if ranged:
                others[rows].sigmoid_().mul_(RANGE_GAIN).add_(RANGE_SHIFT)
        if keep:
            ctx.ranged = ranged
            ctx.save_for_backward(
                x, hidden_weight, hidden_bias, weight, bias, raw, hidden, others if ranged else None
            )
        return first, others

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *given, raw, hidden, others = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Derivatives of this one are asked for: they come from the operators themselves.
            outputs = _plain(*given, ctx.ranged)
            wanted = [value for value, need in zip(given, ctx.needs_input_grad[:5], strict=True) if need]
            found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True))
            return (*(next(found) if need else None for need in ctx.needs_input_grad[:5]), None, None)
        x, hidden_weight, _, weight, _ = given
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_hidden_weight, grad_weight = torch.zeros_like(hidden_weight), torch.zeros_like(weight)
        grad_hidden_bias, grad_bias = x.new_zeros(len(hidden_weight)), x.new_zeros(len(weight))
        for rows in _parts(len(x), len(hidden_weight)):
            first, grad = grads[0][rows, 0], grads[1][rows]
            if ctx.ranged:
                share = (others[rows] - RANGE_SHIFT).div_(RANGE_GAIN)
                grad = torch.ops.aten.sigmoid_backward(grad, share).mul_(RANGE_GAIN)
            grad_weight[0].addmv_(hidden[rows].t(), first)
            grad_weight[1:].addmm_(grad.t(), hidden[rows])
            grad_bias[0] += first.sum()
            grad_bias[1:] += grad.sum(0)
            grad = torch.mm(grad, weight[1:]).addr_(first, weight[0])
            torch.ops.aten.softplus_backward.grad_input(grad, raw[rows], 1, 20, grad_input=grad)
            grad_hidden_weight.addmm_(grad.t(), x[rows])
            grad_hidden_bias += grad.sum(0)
            if grad_x is not None:
                torch.mm(grad, hidden_weight, out=grad_x[rows])
        return grad_x, grad_hidden_weight, grad_hidden_bias, grad_weight, grad_bias, None, None


def _parts(count: int, width: int) -> list[slice]:
    size = max(PART // width, 1)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
