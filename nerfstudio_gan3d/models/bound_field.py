"""A field's networks bound to the latents of some Scenes: the Field that a Scene holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.fields.coded import GrafField, UnisurfField
from nerfstudio_gan3d.fields.multiplane import MultiPlane
from nerfstudio_gan3d.models.parts import AnyField
from nerfstudio_gan3d.scene import FieldSamples


class BoundField:
    """A representation with what it prepared from the latents of B Scenes: the Field of a Scene.

    Args:
        representation: a field's networks.
        prepared: what its ``prepare`` gave.
        box: sides of the box.
        slope: factor on the raw density, which makes it the logit of an occupancy.
    """

    def __init__(
        self,
        representation: AnyField | MultiPlane,
        prepared: Any,
        box: tuple[float, float, float],
        slope: float | Float[Tensor, ""] = 1.0,
    ) -> None:
        self.representation = representation
        self.prepared = prepared
        self.box = box
        self.slope = slope

    @property
    def twice_differentiable(self) -> bool:
        """Whether gradients in the positions may be part of a loss."""
        return getattr(self.representation, "twice_differentiable", False)

    def query(
        self,
        positions: Float[Tensor, "b n 3"],
        directions: Float[Tensor, "b n 3"] | None = None,
    ) -> FieldSamples:
        """Content at object-world positions; see `Field.query`."""
        places = positions / positions.new_tensor(self.box)
        if isinstance(self.representation, UnisurfField | GrafField):
            found = self.representation.query(self.prepared, places, directions)
        else:
            found = self.representation.query(self.prepared, places)
        return replace(found, raw_density=self._sloped(found.raw_density))

    def raw_density(self, positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 1"]:
        """The same as ``query(positions).raw_density``, without the colours' own layers."""
        places = positions / positions.new_tensor(self.box)
        return self._sloped(self.representation.raw_density(self.prepared, places))

    def _sloped(self, raw: Tensor) -> Tensor:
        if isinstance(self.slope, float) and self.slope == 1:
            return raw
        return raw * self.slope
