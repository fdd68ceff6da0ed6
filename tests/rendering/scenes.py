"""Scenes whose appearance along a ray is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nerfstudio_gan3d.scene import FieldSamples


@dataclass(frozen=True)
class Ball:
    """A ball about the origin of one colour: raw density `inside` in it, `outside` elsewhere."""

    radius: float = 0.3
    inside: float = 100.0
    outside: float = -100.0
    colour: tuple[float, ...] = (0.2, 0.5, 0.9)

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        within = positions.norm(dim=-1, keepdim=True) < self.radius
        raw = torch.where(within, self.inside, self.outside).to(positions)
        return FieldSamples(raw, positions.new_tensor(self.colour).expand(*raw.shape[:2], -1))


@dataclass(frozen=True)
class Blob:
    """A smooth density and colours that vary everywhere, both made from `weight`."""

    weight: Tensor

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        weight = self.weight.to(positions)
        raw = weight[0] - weight[1] * positions.square().sum(-1, keepdim=True)
        phases = (positions @ weight[2:11].view(3, 3)).sin()
        return FieldSamples(raw + positions[..., :1], phases / 2 + 0.5)


@dataclass(frozen=True)
class Backdrop:
    """A background of one colour at a constant distance."""

    colour: tuple[float, ...] = (1.0, 0.4, 0.0)
    far: float = 3.0

    def query(self, origins: Tensor, directions: Tensor) -> Tensor:
        return origins.new_tensor(self.colour).expand(*origins.shape[:2], -1)

    def distance(self, origins: Tensor, directions: Tensor) -> Tensor:
        return torch.full_like(origins[..., :1], self.far)


@dataclass(frozen=True)
class Recorded:
    """Passes queries on and keeps the points that were asked for."""

    query_points: Callable[[Tensor], FieldSamples]
    asked: list[Tensor]

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        self.asked.append(positions)
        return self.query_points(positions)


@dataclass(frozen=True)
class LabelledBall(Ball):
    """A ball whose label scores are those of `labels` everywhere."""

    labels: tuple[float, ...] = (0.0, 4.0, -2.0)

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        found = super().query(positions, directions)
        scores = positions.new_tensor(self.labels).expand(*positions.shape[:2], -1)
        return FieldSamples(found.raw_density, found.features, scores)
