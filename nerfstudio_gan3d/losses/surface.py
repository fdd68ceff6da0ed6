"""Smoothness of surfaces: normals at neighbouring places must agree (UNISURF, 3DGEN)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_gan3d.scene import Scene


def density_gradient(
    scene: Scene, positions: Float[Tensor, "b n 3"], step: float | None
) -> Float[Tensor, "b n 3"]:
    """Gradient of the raw density, differentiable in the field's parameters.

    Args:
        step: Central differences over twice this distance, object-world units, for fields whose
            lookups can be differentiated once. They also reach beyond the cell of a grid that a
            position lies in, which is what makes a grid's surface smooth (Neuralangelo, section
            3.2). None takes the derivative itself.
    """
    if step is None:
        with torch.enable_grad():
            places = positions.detach().requires_grad_()
            raw = scene.raw_density(places)
            (gradient,) = torch.autograd.grad(raw.sum(), places, create_graph=True)
        return gradient
    offsets = step * torch.eye(3, device=positions.device, dtype=positions.dtype)
    around = torch.stack([positions[:, :, None] + offsets, positions[:, :, None] - offsets])
    raw = scene.raw_density(around.permute(1, 0, 2, 3, 4).flatten(1, 3))  # [B, 2 * N * 3, 1]
    ahead, behind = raw.view(len(positions), 2, -1, 3).unbind(1)
    return (ahead - behind) / (2 * step)


def normal_smoothness(
    scene: Scene,
    points: Float[Tensor, "b n 3"],
    valid: Bool[Tensor, "b n"],
    distance: float,
    step: float | None,
    neighbours: Float[Tensor, "b n 3"] | None = None,
) -> Float[Tensor, ""]:
    """``mean |n(x) - n(x')|`` over surface points x and places x' near them.

    UNISURF (Oechsle et al. 2021), eq. 10: ``x' = x + U(-distance, distance)^3`` and
    ``n = grad f / (|grad f| + 1e-5)``.

    Args:
        points: Places on the surface.
        valid: Which of them count; 0 is the value if none does.
        distance: Reach of the neighbours, object-world units.
        step: See `density_gradient`.
        neighbours: Places x'; None draws them.
    """
    if neighbours is None:
        neighbours = points + (torch.rand_like(points) * 2 - 1) * distance
    both = torch.cat([points, neighbours], dim=1).detach()
    gradient = density_gradient(scene, both, step)
    normals = gradient / (_length(gradient) + 1e-5)
    first, second = normals.chunk(2, dim=1)
    differences = _length(first - second).squeeze(-1)
    return (differences * valid).sum() / valid.sum().clamp(min=1)


def _length(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 1"]:
    """Euclidean length whose gradient is finite at zero."""
    return (vectors.square().sum(-1, keepdim=True) + 1e-12).sqrt()
