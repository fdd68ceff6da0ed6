"""Volume-rendering weights: densities along rays to what each interval contributes.

Pure functions of tensors, on the hot path: no loops over samples, no host synchronisation.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.rendering.proximity import scale_gradient
from nerfstudio_gan3d.scene import activate_density


class Weights(NamedTuple):
    """Contributions along rays."""

    weights: Float[Tensor, "b r s"]
    """alpha_i T_i of each interval."""
    transmittance: Float[Tensor, "b r 1"]
    """Light that is left behind the last interval, T_bg."""


def composite_weights(
    density: Float[Tensor, "b r s"],
    lengths: Float[Tensor, "b r s"],
    gradient_scale: Float[Tensor, "b r s"] | None = None,
) -> Weights:
    """Weights of piecewise constant density: ``w_i = T_i - T_{i+1}``, ``T_i = exp(-sum_{j<i}
    sigma_j d_j)``.

    Max 1995; equal to ``alpha_i prod_{j<i} (1 - alpha_j)`` with ``alpha_i = 1 - exp(-sigma_i
    d_i)``. Weights and transmittance sum to one exactly in exact arithmetic. ``gradient_scale``
    multiplies the gradient of each alpha_i; forward it changes nothing.
    """
    optical_depth = density * lengths
    if gradient_scale is not None:
        # alpha_i depends on nothing else, so a factor on its gradient is one on this gradient.
        optical_depth = scale_gradient(optical_depth, gradient_scale)
    passed = optical_depth.cumsum(-1)
    behind = torch.exp(-passed)
    before = torch.exp(-(passed - optical_depth))
    return Weights(before - behind, behind[..., -1:])


def midpoint_weights(
    raw_density: Float[Tensor, "b r s"],
    distances: Float[Tensor, "b r s"],
    scale: float = 1.0,
    gradient_scale: Float[Tensor, "b r s-1"] | None = None,
) -> Weights:
    """Weights of EG3D's marcher: raw densities averaged between neighbouring samples (s - 1
    intervals).

    ``alpha_i = 1 - exp(-softplus((raw_i + raw_{i+1}) / 2 - 1) (t_{i+1} - t_i))`` and
    ``T_i = prod_{j<i} (1 - alpha_j + 1e-10)``. Official weights were trained with it.
    ``gradient_scale`` multiplies the gradient of each alpha_i; forward it changes nothing.
    """
    lengths = distances[..., 1:] - distances[..., :-1]
    raw = (raw_density[..., 1:] + raw_density[..., :-1]) / 2
    alpha = 1 - torch.exp(-activate_density(raw, scale) * lengths)
    if gradient_scale is not None:
        alpha = scale_gradient(alpha, gradient_scale)
    through = torch.cumprod(1 - alpha + 1e-10, dim=-1)
    before = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)
    return Weights(alpha * before, through[..., -1:])


def occupancy_weights(occupancy: Float[Tensor, "b r s"]) -> Weights:
    """Weights of occupancies: ``w_i = o_i prod_{j<i} (1 - o_j + 1e-6)``.

    UNISURF (Oechsle et al. 2021), eq. 6: a sample is the surface, or it is not, whatever the
    distance to the next one. The small number keeps the product's gradient finite behind a sample
    that is fully occupied.
    """
    through = torch.cumprod(1 - occupancy + 1e-6, dim=-1)
    before = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)
    return Weights(occupancy * before, through[..., -1:])


def weighted_sum(
    weights: Float[Tensor, "b r s"], values: Float[Tensor, "b r s f"]
) -> Float[Tensor, "b r f"]:
    """``sum_i w_i v_i`` as one batched matrix product."""
    return cast(Tensor, _WeightedSum.apply(weights, values))


class _WeightedSum(torch.autograd.Function):
    """The product with another derivative: a product without a sum is slow as a matrix product."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(weights, values)
        return torch.matmul(weights.unsqueeze(-2), values).squeeze(-2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        # Under autocast the output, and with it the gradient, has another dtype than the inputs.
        weights, values = (saved.to(grads[0].dtype) for saved in ctx.saved_tensors)
        grad = grads[0].unsqueeze(-2)
        need_weights, need_values = ctx.needs_input_grad
        return (
            torch.matmul(grad, values.mT).squeeze(-2) if need_weights else None,
            weights.unsqueeze(-1) * grad if need_values else None,
        )
