"""Cameras near that of the image that a Scene is made of: elsewhere there is nothing to see."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.models.g3dr import G3drModelConfig

ARC_DEG = 25.0
"""How far to either side views stand."""
FILM_TURN = 0.25, 0.1
"""Largest azimuth and elevation of the film, radians: the path of the published videos."""


def arc(settings: G3drModelConfig, views: int) -> Float[Tensor, "v 25"]:
    """Cameras spread evenly from the left to the right of the image's own, at its height; a single
    one is that of the image."""
    azimuth = torch.linspace(-ARC_DEG, ARC_DEG, views) if views > 1 else torch.zeros(1)
    return orbit_labels(
        torch.deg2rad(azimuth),
        torch.zeros_like(azimuth),
        settings.view_radius,
        focal=settings.view_focal,
    )


def around(settings: G3drModelConfig, frames: int) -> Float[Tensor, "f 25"]:
    """The published videos' path: azimuth ``0.25 sin(2 pi s)`` and elevation ``0.1 cos(2 pi s)``,
    radians, once around the photograph's own camera without a double at the end."""
    way = 2 * math.pi * torch.arange(frames) / frames
    azimuth, elevation = FILM_TURN[0] * way.sin(), FILM_TURN[1] * way.cos()
    return orbit_labels(azimuth, elevation, settings.view_radius, focal=settings.view_focal)
