"""How rays are sampled: settings of a renderer, and the random places of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Conventions = Literal["corrected", "reference"]


@dataclass(frozen=True)
class RenderSettings:
    """How densely and by which rules rays are sampled."""

    samples: int = 48
    """Samples a ray that are spread evenly."""
    importance_samples: int = 48
    """Further samples a ray where the first ones found weight; 0 disables the second pass. In
    Scenes made of surfaces they lie between the ray's start and the shell about the surface."""
    conventions: Conventions = "corrected"
    """corrected: piecewise constant density between the ray's entry into and exit from the box,
    every interval used. reference: EG3D's marcher, which official weights were trained with."""
    ray_bounds: Literal["constant", "box"] = "constant"
    """Reference rules only: samples lie between the Scene's near and far, or between the ray's
    entry into and exit from the box."""
    march_steps: int = 64
    """Scenes made of surfaces: places along a ray at which it is looked for the surface."""
    secant_steps: int = 8
    """Scenes made of surfaces: refinements of the place that was found."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"samples = {self.samples}: a ray needs at least 2")
        if self.march_steps < 2 or self.secant_steps < 0:
            raise ValueError(
                f"march_steps = {self.march_steps} and secant_steps = {self.secant_steps}: at "
                "least 2, and 0 or more"
            )
        if self.importance_samples < 0:
            raise ValueError(f"importance_samples = {self.importance_samples}: 0 or more")
        if self.conventions == "reference" and self.importance_samples and self.samples < 4:
            raise ValueError(
                f"samples = {self.samples}: importance sampling by the reference rules needs 4"
            )


class DepthGuide(NamedTuple):
    """What is known of where each ray ends, of the view that a Scene was made from (G3DR)."""

    distance: Float[Tensor, "b r 1"]
    """Distance of the surface along the ray, object-world units."""
    half_width: float | None
    """The importance samples lie evenly this far before and behind the surface, whatever the
    weights are; None: where the weights are, as without a guide."""
    scale: bool
    """Gradients fall with the distance from the surface (`rendering.proximity`)."""


class Jitter(NamedTuple):
    """Random positions of samples inside their strata, 0..1; None in its place is deterministic."""

    coarse: Float[Tensor, "b r s"]
    fine: Float[Tensor, "b r n"]

    @staticmethod
    def draw(batch: int, rays: int, settings: RenderSettings, device: torch.device) -> Jitter:
        """Uniform draws from the global generator of ``device``; coarse before fine."""
        coarse = torch.rand(batch, rays, settings.samples, device=device)
        fine = torch.rand(batch, rays, settings.importance_samples, device=device)
        return Jitter(coarse, fine)
