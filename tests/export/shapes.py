"""More Scenes whose surface is known, and a count of what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nerfstudio_gan3d.scene import Bounds, Field, FieldSamples, Scene
from tests.export.analytic import Balls, color_at


@dataclass(frozen=True)
class Torus:
    """A ring about the z axis, tilted; the raw density falls through 1 at its surface."""

    radius: float = 0.27
    tube: float = 0.11

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        x, y, z = (positions @ _TILT.to(positions)).unbind(-1)
        away = ((x.square() + y.square()).sqrt() - self.radius).square() + z.square()
        return FieldSamples(1 + 50 * (self.tube - away.sqrt())[..., None], color_at(positions))


@dataclass(frozen=True)
class Bumpy:
    """A ball with waves on it, which some of them leave as parts of their own."""

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        waves = 0.06 * torch.sin(31 * positions).prod(-1, keepdim=True)
        inside = 0.33 + 1.5 * waves - positions.norm(dim=-1, keepdim=True)
        return FieldSamples(1 + 40 * inside, color_at(positions))


@dataclass(frozen=True)
class Needle:
    """A ball from which a needle stands out, thinner than the cells of a coarse grid."""

    ball: float = 0.15
    needle: float = 0.011
    length: float = 0.42

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        along = (positions @ _TILT.to(positions)).unbind(-1)
        height = along[0].clamp(0, self.length)
        foot = torch.stack([height, torch.zeros_like(height), torch.zeros_like(height)], -1)
        away = (torch.stack(along, -1) - foot).norm(dim=-1)
        inside = torch.maximum(self.ball - positions.norm(dim=-1), self.needle - away)
        return FieldSamples(1 + 50 * inside[..., None], color_at(positions))


@dataclass
class Counting:
    """Another field, and the number of places that it was asked about."""

    field: Field
    asked: int = 0

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        self.asked += positions.shape[1]
        return self.field.query(positions, directions)


def solid(field: Field | None = None, box: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Scene:
    """A Scene made of a surface: by default a ball of radius 0.3 with logits of slope 100."""
    return Scene(field or Balls(surface_raw=0.0), Bounds(box), 1, volume="occupancy")


def _tilt() -> Tensor:
    """A rotation that no axis of a grid agrees with."""
    skew = torch.tensor([[0.0, -0.4, 0.7], [0.4, 0.0, -0.3], [-0.7, 0.3, 0.0]])
    return torch.linalg.matrix_exp(skew)


_TILT = _tilt()
