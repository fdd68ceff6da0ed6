"""The nouns that every method shares: Condition, Scene, Field, Background, FieldSamples.

A generator turns a `Condition` into a `Scene`; renderer, losses, viewer, evaluation and exporters
consume Scenes and never ask which method made one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """What a Scene is made from, batch first."""

    z: Float[Tensor, "b z_dim"]
    """Latent of the foreground."""
    z_background: Float[Tensor, "b z_dim"] | None = None
    """Latent of the background; None for methods without one."""
    camera_label: Float[Tensor, "b 25"] | None = None
    """Conditioning pose of the generator (not the pose it is rendered from); None is the neutral
    pose. With a label map it is the pose that the map is seen from."""
    label_map: Float[Tensor, "b c h w"] | None = None
    """Label map as networks take it (`networks.label_encoder.encode_labels`); None for methods
    without."""


@dataclass(frozen=True)
class ImageCondition:
    """What a Scene is made from where it is made from one image with depth (G3DR)."""

    image: Float[Tensor, "b 3 h w"]
    """The image, in [-1, 1]."""
    distance: Float[Tensor, "b 1 h w"]
    """Distance of what each pixel shows from the camera, along the pixel's ray, object-world
    units."""


@dataclass(frozen=True)
class FieldSamples:
    """What a Field holds at N points of each of B Scenes."""

    raw_density: Float[Tensor, "b n 1"]
    """Density before its activation (`activate_density`); of Scenes made of surfaces the logit of
    the occupancy, which is 0 on the surface."""
    features: Float[Tensor, "b n f"]
    """Colour features in [0, 1] (reference conventions: [-0.001, 1.001]); the first three are
    RGB."""
    labels: Float[Tensor, "b n c"] | None = None
    """What methods that know labels say about each class, as it is composited: the classes' shares,
    or scores in published networks. Edge maps have one value in [0, 1] in their place. With
    super-resolution of labels further label features follow."""

    @property
    def channels(self) -> Float[Tensor, "b n k"]:
        """Everything that is composited along rays: colour features, then those of labels."""
        if self.labels is None:
            return self.features
        return torch.cat([self.features, self.labels], dim=-1)


def activate_density(raw: Float[Tensor, "*shape"], scale: float = 1.0) -> Float[Tensor, "*shape"]:
    """``scale * softplus(raw - 1)``: volume density per unit length, >= 0 (mip-NeRF, EG3D: scale
    1)."""
    return scale * torch.nn.functional.softplus(raw - 1)


@runtime_checkable
class Field(Protocol):
    """A kind of 3D content, already bound to the latents of B Scenes."""

    def query(
        self,
        positions: Float[Tensor, "b n 3"],
        directions: Float[Tensor, "b n 3"] | None = None,
    ) -> FieldSamples:
        """Content at object-world positions; differentiable.

        ``directions`` are those of the rays that look there, of unit length. None: colours that
        depend on them are seen from straight above the surface.
        """
        ...


@runtime_checkable
class ShapeField(Field, Protocol):
    """A Field that can tell its density without its colours."""

    def raw_density(self, positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 1"]:
        """The same as ``query(positions).raw_density``."""
        ...


@runtime_checkable
class Background(Protocol):
    """What rays end in, already bound to the latents of B Scenes."""

    def query(
        self,
        origins: Float[Tensor, "b r 3"],
        directions: Float[Tensor, "b r 3"],
    ) -> Float[Tensor, "b r f"]:
        """Colour features that rays see behind the foreground."""
        ...

    def distance(
        self,
        origins: Float[Tensor, "b r 3"],
        directions: Float[Tensor, "b r 3"],
    ) -> Float[Tensor, "b r 1"]:
        """Distance along each ray at which the background is hit."""
        ...


@dataclass(frozen=True)
class Bounds:
    """Where the foreground of a Scene lives, object-world units."""

    box: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Sides along x, y and z of the axis-aligned box about the origin that holds the foreground."""
    near: float = 1.1
    """Distance from the camera at which sampling starts at the earliest."""
    far: float = 2.7
    """Distance from the camera at which sampling ends at the latest."""


@dataclass(frozen=True)
class Scene:
    """3D content for B conditions; immutable and cheap to keep."""

    field: Field
    bounds: Bounds
    batch_size: int
    background: Background | None = None
    density_scale: float = 1.0
    """Factor of the density's activation. Objects of a few tenths of a unit need densities of ten
    and more; a scale of that size lets networks with outputs near one express them."""
    style: Float[Tensor, "b w_dim"] | None = None
    """Latent that a super-resolution stage needs; None where there is none."""
    nothing: float = 0.0
    """What every feature of a ray that ends in nothing is: 0 (black) or 1 (white). Without
    background only."""
    behind_labels: tuple[float, ...] = ()
    """What the label features of a ray that ends in nothing, or in the background, are; empty for
    Scenes without labels."""
    volume: Literal["density", "occupancy"] = "density"
    """density: a volume of density ``activate_density(raw)``, whose surface lies at a level that is
    chosen. occupancy: a surface, where ``sigmoid(raw)`` is 1/2 (UNISURF)."""
    shell: float | Float[Tensor, ""] = float("inf")
    """Scenes made of surfaces: how far before and behind its first surface a ray is sampled,
    object-world units; infinite is the whole ray."""

    def raw_density(self, positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 1"]:
        """Raw density at object-world positions, without the colours that some fields can spare."""
        if isinstance(self.field, ShapeField):
            return self.field.raw_density(positions)
        return self.field.query(positions).raw_density

    def density(self, positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 1"]:
        """Volume density per unit length at object-world positions. Scenes made of surfaces have
        none; ValueError."""
        if self.volume != "density":
            raise ValueError("this Scene is made of a surface and has no volume density")
        return activate_density(self.field.query(positions).raw_density, self.density_scale)

    def with_background(self, background: Background | None) -> Scene:
        """The same foreground in front of another background (None: rays end in nothing)."""
        return replace(self, background=background)
