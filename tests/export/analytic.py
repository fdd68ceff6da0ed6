"""Scenes whose surface and colours are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nerfstudio_gan3d.scene import Bounds, FieldSamples, Scene


@dataclass(frozen=True)
class Balls:
    """Solid balls: the raw density falls linearly through `surface_raw` at each ball's surface."""

    centers: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0),)
    radii: tuple[float, ...] = (0.3,)
    slope: float = 100.0
    surface_raw: float = 1.0

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        inside = torch.stack(
            [
                radius - (positions - positions.new_tensor(center)).norm(dim=-1, keepdim=True)
                for center, radius in zip(self.centers, self.radii, strict=True)
            ]
        ).amax(0)
        return FieldSamples(self.surface_raw + self.slope * inside, color_at(positions))


@dataclass(frozen=True)
class Full:
    """The same density everywhere."""

    raw: float = 50.0

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        return FieldSamples(torch.full_like(positions[..., :1], self.raw), color_at(positions))


@dataclass(frozen=True)
class Parts(Balls):
    """The same of three classes: 1 left of the middle (x < 0), 2 right of it, 0 above y = 0.2.

    Two more label features, which are no scores, are larger than all scores.
    """

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        found = super().query(positions)
        x, y, _ = positions.unbind(-1)
        scores = torch.stack([20 * (y - 0.2), -x, x], dim=-1)
        logits = torch.cat([scores, torch.full_like(positions[..., :2], 99.0)], dim=-1)
        return FieldSamples(found.raw_density, found.features, logits)


def color_at(positions: Tensor) -> Tensor:
    """RGB that is the position within the unit box."""
    return positions + 0.5


def scene_of(field: Balls | Full, box: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Scene:
    """One Scene with this field and no background."""
    return Scene(field, Bounds(box), 1)
