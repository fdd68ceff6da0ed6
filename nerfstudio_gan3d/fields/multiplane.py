"""Three planes sampled at several resolutions, and a decoder: the field of G3DR.

The planes come from a network that saw an image, not from latents; see
`models.image_generator`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.decoder import Decoder
from nerfstudio_gan3d.fields.styled_table import MixedTable, StyledTable
from nerfstudio_gan3d.fields.triplane import PLANE_AXES, sample_planes
from nerfstudio_gan3d.scene import FieldSamples

MultiPlaneAxes = Literal["xy_xz_zy", "xy_xz_zx"]


def to_published_frame(positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """``(x, y, z) -> (-z, y, x)``: from this project's world, whose input camera stands at +z, to
    that of the published code, whose camera stands at -x."""
    x, y, z = positions.unbind(-1)
    return torch.stack([-z, y, x], dim=-1)


class Frustum(NamedTuple):
    """What the canonical camera sees, as a frame for planes."""

    radius: float
    """Distance of the camera from the origin, in sides of the box along z."""
    focal: float
    """Focal length in image sides."""
    width: float = 1.0
    """Sides of the box along x and y, in those along z."""

    def places(self, positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """``(f x / (r - z), f y / (r - z), z)``: where the camera's image shows a position, in
        image sides to the right and up from its middle, and z as it is."""
        x, y, z = positions.unbind(-1)
        scale = self.focal * self.width / (self.radius - z)
        return torch.stack([x * scale, y * scale, z], dim=-1)


class PreparedImage(NamedTuple):
    """What a Scene keeps of an image's planes; batch first."""

    planes: tuple[Float[Tensor, "b 3 c _ _"], ...]
    """The planes at each resolution."""
    detail: MixedTable | None
    """The hash grid of this image; None for fields without one."""


def plane_pyramid(
    planes: Float[Tensor, "b 3 c h w"], resolutions: int
) -> tuple[Float[Tensor, "b 3 c _ _"], ...]:
    """The planes, and copies of half, a quarter, ... of their size, reduced by antialiased bilinear
    interpolation of the planes themselves.

    Raises:
        ValueError: a copy would have no texel.
    """
    size = planes.shape[-1]
    if resolutions < 1 or size >> (resolutions - 1) < 1:
        raise ValueError(
            f"planes at {resolutions} resolutions: planes of {size} texels have 1 to "
            f"{size.bit_length()}"
        )
    copies = [planes]
    for level in range(1, resolutions):
        small = (planes.shape[-2] >> level, size >> level)
        copy = torch.nn.functional.interpolate(
            planes.flatten(0, 1), small, mode="bilinear", antialias=True
        )
        copies.append(copy.unflatten(0, planes.shape[:2]))
    return tuple(copies)


class MultiPlane(nn.Module):
    """Three planes to density and colours.

    A position's feature is the mean over the planes of the sum over the resolutions of what is
    found there bilinearly; nothing is found outside of a plane.

    Args:
        plane_channels: features of a plane.
        feature_dim: number of colour features.
        hidden_dim: width of the decoder.
        resolutions: how many sizes of each plane are sampled; the published code has 3, the planes
            and copies of half and of a quarter of their size. 1 is a plain tri-plane.
        axes: ``xy_xz_zy``, or the published code's ``xy_xz_zx``, whose third plane repeats the
            second one, so that no plane is parallel to the image. Axes are those of the published
            world.
        frustum: None: planes span the box, as published, and nothing is found outside of them.
            Otherwise they span what this camera sees, so that the plane parallel to the image has
            the image's pixels as its texels at every distance, and a network without attention
            need not move what it saw; positions beside the image find what its border has.
        rows_down: rows of the planes run downwards, as those of images do. In the published code
            they run upwards, so that its network has to turn what it sees upside down.
        detail: a hash grid whose features the decoder sees beside the planes'. It spans the box, or
            what the frustum's camera sees, and takes one latent a level from the description of the
            image that `prepare` is given.
    """

    def __init__(
        self,
        plane_channels: int,
        feature_dim: int = 3,
        hidden_dim: int = 64,
        resolutions: int = 3,
        axes: MultiPlaneAxes = "xy_xz_zy",
        frustum: Frustum | None = None,
        rows_down: bool = True,
        detail: StyledTable | None = None,
    ) -> None:
        super().__init__()
        beside = 0
        if detail is not None:
            beside = detail.basis_layout.levels * detail.features_per_level
        self.decoder = Decoder(plane_channels + beside, feature_dim, hidden_dim)
        self.detail = detail
        self.resolutions = resolutions
        self.axes = PLANE_AXES[axes]
        self.frustum = frustum
        self.rows_down = rows_down

    def prepare(
        self, planes: Float[Tensor, "b 3 c h w"], style: Float[Tensor, "b w_dim"] | None = None
    ) -> PreparedImage:
        """All that a Scene needs to keep: the planes at each resolution, and the hash grid of a
        field that has one, which needs the image's description ``style``."""
        copies = plane_pyramid(planes, self.resolutions)
        if self.detail is None:
            return PreparedImage(copies, None)
        assert style is not None
        ws = style[:, None].expand(-1, self.detail.basis_layout.levels, -1)
        return PreparedImage(copies, self.detail.mix(ws))

    def query(
        self,
        prepared: PreparedImage,
        positions: Float[Tensor, "b n 3"],
    ) -> FieldSamples:
        """Content at positions in sides of the box, [-0.5, 0.5] inside, of this project's world."""
        if self.frustum is not None:
            positions = self.frustum.places(positions)
        if self.rows_down:
            positions = positions * positions.new_tensor([1.0, -1.0, 1.0])
        places = to_published_frame(positions)
        feature = sum(self._sample(copy, places) for copy in prepared.planes)
        assert isinstance(feature, Tensor)
        if self.detail is not None:
            assert prepared.detail is not None
            unit = (positions + 0.5).clamp(0, 1)
            beside = self.detail.encode(prepared.detail, unit).flatten(2)
            feature = torch.cat([feature, beside], dim=-1)
        raw, colour = self.decoder(feature)
        return FieldSamples(raw, colour)

    def _sample(
        self, planes: Float[Tensor, "b 3 c h w"], places: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n c"]:
        if self.frustum is not None:
            # The centre of the outermost texel: what lies farther out finds the same.
            limit = 0.5 - 0.5 / planes.shape[-1]
            places = places.clamp(-limit, limit)
        return sample_planes(planes, places, self.axes)

    def raw_density(
        self,
        prepared: PreparedImage,
        positions: Float[Tensor, "b n 3"],
    ) -> Float[Tensor, "b n 1"]:
        """Raw density alone."""
        return self.query(prepared, positions).raw_density
