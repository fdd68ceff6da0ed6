"""Scenes without what lies behind a plane, for meshes that end there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.scene import Field, FieldSamples, Scene

STEEPNESS = 1e5
"""How fast the raw density falls behind the plane, per unit length."""


@dataclass(frozen=True)
class Before:
    """A field that is empty behind z = ``limit``."""

    field: Field
    limit: float
    """Object-world units."""

    def query(
        self,
        positions: Float[Tensor, "b n 3"],
        directions: Float[Tensor, "b n 3"] | None = None,
    ) -> FieldSamples:
        """The field's answer, but for the density."""
        found = self.field.query(positions, directions)
        falling = STEEPNESS * (positions[..., 2:] - self.limit)
        return replace(found, raw_density=torch.minimum(found.raw_density, falling))


def cut_off(scene: Scene, limit: float) -> Scene:
    """The Scene without what lies farther along -z than ``limit``; surfaces that are cut through
    end in flat lids there, within a cell of the grid that looks for them.
    """
    return replace(scene, field=Before(scene.field, limit))
