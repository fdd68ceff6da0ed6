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

PART = 2**20
"""Hidden values of a part, 4 MiB in float32."""


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

    Differentiable any number of times. On a CPU, both passes go through the rows in parts: 98,304
    rows of 32, 64 and 33 values took 33 ms in the place of 40 on two cores.
    """
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return _plain(x, hidden_weight, hidden_bias, weight, bias, ranged)
    given = x, hidden_weight, hidden_bias, weight, bias
    # Functions run without gradients, and cannot see whether any are wanted outside of them.
    keep = torch.is_grad_enabled() and any(value.requires_grad for value in given)
    return cast(tuple[Tensor, Tensor], _TwoLayers.apply(*given, ranged, keep))


def _plain(
    x: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    ranged: bool,
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
        first, others = x.new_empty(len(x), 1), x.new_empty(len(x), len(weight) - 1)
        between: list[Tensor] = []
        for rows in _parts(len(x), len(hidden_weight)):
            raw = linear(x[rows], hidden_weight, hidden_bias)
            hidden = softplus(raw)
            torch.addmv(bias[:1], hidden, weight[0], out=first[rows, 0])
            torch.addmm(bias[1:], hidden, weight[1:].t(), out=others[rows])
            if ranged:
                others[rows].sigmoid_().mul_(RANGE_GAIN).add_(RANGE_SHIFT)
            if keep:
                between += [raw, hidden]
        if keep:
            ctx.ranged = ranged
            seen = others if ranged else None
            ctx.save_for_backward(x, hidden_weight, hidden_bias, weight, bias, seen, *between)
        return first, others

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden_weight, hidden_bias, weight, bias, others, *between = ctx.saved_tensors
        given = x, hidden_weight, hidden_bias, weight, bias
        needed = ctx.needs_input_grad[: len(given)]
        if torch.is_grad_enabled():
            # Derivatives of this one are asked for: they come from the operators themselves.
            wanted = [value for value, need in zip(given, needed, strict=True) if need]
            outputs = _plain(*given, ctx.ranged)
            found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True))
            return (*(next(found) if need else None for need in needed), None, None)
        grad_x = torch.empty_like(x) if needed[0] else None
        grad_hidden_weight, grad_hidden_bias, grad_weight, grad_bias = (
            torch.zeros_like(value) if need else None
            for value, need in zip(given[1:], needed[1:], strict=True)
        )
        for index, rows in enumerate(_parts(len(x), len(hidden_weight))):
            raw, hidden = between[2 * index], between[2 * index + 1]
            first, grad = grads[0][rows, 0], grads[1][rows]
            if ctx.ranged:
                share = (others[rows] - RANGE_SHIFT).div_(RANGE_GAIN)
                # The derivative of the range: gain * share * (1 - share).
                grad = torch.addcmul(share, share, share, value=-1).mul_(RANGE_GAIN).mul_(grad)
            if grad_weight is not None:
                grad_weight[0].addmv_(hidden.t(), first)
                grad_weight[1:].addmm_(grad.t(), hidden)
            if grad_bias is not None:
                grad_bias[0] += first.sum()
                grad_bias[1:] += grad.sum(0)
            grad = torch.mm(grad, weight[1:]).addr_(first, weight[0]).mul_(raw.sigmoid())
            if grad_hidden_weight is not None:
                grad_hidden_weight.addmm_(grad.t(), x[rows])
            if grad_hidden_bias is not None:
                grad_hidden_bias += grad.sum(0)
            if grad_x is not None:
                torch.mm(grad, hidden_weight, out=grad_x[rows])
        return grad_x, grad_hidden_weight, grad_hidden_bias, grad_weight, grad_bias, None, None


def _parts(count: int, width: int) -> list[slice]:
    size = max(PART // width, 1)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
