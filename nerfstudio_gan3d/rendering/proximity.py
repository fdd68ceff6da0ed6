"""Gradients kept to where a known depth says that the surface is (G3DR, arXiv 2403.00939)."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor


def proximity_scale(
    distance: Float[Tensor, "*r s"],
    reference: Float[Tensor, "*r 1"],
    *,
    gain: float = 1.25,
    width: float = 0.03,
    floor: float = 0.05,
) -> Float[Tensor, "*r s"]:
    """``clamp(gain exp(-(t - d)^2 / width), floor, 1)`` for samples t of rays with the surface d.

    G3DR's constants: 1 up to 0.0818 from the surface, 0.896 at 0.1, 0.33 at 0.2, and the floor from
    0.311 on, so that a wrong depth can still be unlearned.

    Args:
        distance: samples along the rays, object-world units.
        reference: where the surface is known to be, along the same rays.
        gain: over 1 it makes a stretch about the surface in which nothing is damped.
        width: square units; of a Gaussian of standard deviation ``sqrt(width / 2)``.
        floor: the least scale, 0 to 1.

    Raises:
        ValueError: a width that is not positive, or a floor outside of 0..1.
    """
    if not width > 0:
        raise ValueError(f"proximity width is {width}; give a positive one, in square units")
    if not 0 <= floor <= 1:
        raise ValueError(f"proximity floor is {floor}; it is a factor between 0 and 1")
    return (gain * torch.exp(-(distance - reference).square() / width)).clamp(floor, 1)


def scale_gradient(values: Float[Tensor, "..."], scale: Float[Tensor, "..."]) -> Tensor:
    """``values`` as they are; on the way back their gradient is multiplied by ``scale``.

    The scale's axes are the first ones of the values: a scale [B, R, S] serves alphas [B, R, S] and
    colours [B, R, S, 3] alike. An axis of length 1 in it stands for all. Nothing flows into it.

    The result is no longer the gradient of any function, so finite differences see the unscaled
    one. The backward pass is itself differentiable (gradgradcheck passes on this function alone),
    but second derivatives of something behind it are scaled once for each pass, by the square.

    Raises:
        ValueError: the scale's shape does not fit the values' first axes.
    """
    fits = scale.ndim <= values.ndim and all(
        one in (1, all_) for one, all_ in zip(scale.shape, values.shape, strict=False)
    )
    if not fits:
        raise ValueError(
            f"a gradient scale of shape {list(scale.shape)} for values of shape "
            f"{list(values.shape)}; it needs the values' first axes, or 1 in their place"
        )
    missing = values.ndim - scale.ndim
    factor = scale.detach().reshape(scale.shape + (1,) * missing)
    return cast(Tensor, _ScaleGradient.apply(values, factor))


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        # The very input, returned, would be taken for one changed in place.
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        (scale,) = ctx.saved_tensors
        return gradient * scale.to(gradient), None
