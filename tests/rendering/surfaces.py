"""Surfaces that rays meet at places known in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from nerfstudio_gan3d.scene import FieldSamples


@dataclass(frozen=True)
class Surface(ABC):
    """Base: logit ``-slope f``, colour by position."""

    slope: float = 40.0

    @abstractmethod
    def distance(self, positions: Tensor) -> Tensor:
        """Signed distance f."""

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        return FieldSamples(self.raw_density(positions), positions.clamp(-0.5, 0.5) + 0.5)

    def raw_density(self, positions: Tensor) -> Tensor:
        return -self.slope * self.distance(positions)


@dataclass(frozen=True)
class Sphere(Surface):
    """A sphere about the origin."""

    radius: float = 0.4

    def distance(self, positions: Tensor) -> Tensor:
        return positions.norm(dim=-1, keepdim=True) - self.radius

    def hit(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Distance along rays from outside, infinite where they miss."""
        along = -(origins * directions).sum(-1, keepdim=True)
        passing = origins.square().sum(-1, keepdim=True) - along.square()
        inside = self.radius**2 - passing
        return torch.where(inside > 0, along - inside.clamp(min=0).sqrt(), torch.inf)


@dataclass(frozen=True)
class Torus(Surface):
    """A torus about the y axis."""

    ring: float = 0.3
    tube: float = 0.12

    def distance(self, positions: Tensor) -> Tensor:
        x, y, z = positions.unbind(-1)
        around = (x.square() + z.square()).sqrt() - self.ring
        return ((around.square() + y.square()).sqrt() - self.tube)[..., None]

    def hit(self, origins: Tensor, directions: Tensor) -> Tensor:
        """The smallest positive root of the torus' quartic along each ray, in double precision."""
        o, d = origins.double(), directions.double()
        ring, tube = self.ring, self.tube
        # (|p|^2 + R^2 - r^2)^2 = 4 R^2 (x^2 + z^2) along p = o + t d.
        flat = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
        b, c = 2 * (o * d).sum(-1), o.square().sum(-1) + ring**2 - tube**2
        q2, q1, q0 = (
            (d * d * flat).sum(-1),
            2 * (o * d * flat).sum(-1),
            (o * o * flat).sum(-1),
        )
        k = 4 * ring**2
        coefficients = torch.stack(
            [
                torch.ones_like(b),
                2 * b,
                b * b + 2 * c - k * q2,
                2 * b * c - k * q1,
                c * c - k * q0,
            ],
            dim=-1,
        )
        companion = torch.zeros(*b.shape, 4, 4, dtype=torch.float64)
        companion[..., 0, :] = -coefficients[..., 1:]
        companion[..., 1, 0] = companion[..., 2, 1] = companion[..., 3, 2] = 1
        roots = torch.linalg.eigvals(companion)
        real = torch.where(roots.imag.abs() < 1e-7, roots.real, torch.inf)
        real = torch.where(real > 0, real, torch.inf)
        return real.amin(-1, keepdim=True).to(origins)
