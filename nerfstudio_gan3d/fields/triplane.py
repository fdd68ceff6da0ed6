"""Tri-plane field: three feature planes made by a StyleGAN2 synthesis network (EG3D, section
3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.decoder import (
    Decoder,
    LabelActivation,
    LabelDecoder,
    PaletteDecoder,
    ShapeDecoder,
    TwoLayers,
    initial_ball,
)
from nerfstudio_gan3d.fields.gather import gather_rows
from nerfstudio_gan3d.networks.stylegan2 import NoiseMode, SynthesisNetwork, drop_noise
from nerfstudio_gan3d.scene import FieldSamples

PlaneAxes = Literal["auto", "xy_xz_zy", "xy_xz_zx", "xy_xz_yz"]

# Object-world axes that run along the width and the height of each plane. EG3D's released code
# projects its third plane on (z, x), which repeats the second one transposed; official weights
# depend on it.
PLANE_AXES = {
    "xy_xz_zy": ((0, 1), (0, 2), (2, 1)),
    "xy_xz_zx": ((0, 1), (0, 2), (2, 0)),
    "xy_xz_yz": ((0, 1), (0, 2), (1, 2)),
}


def sample_planes(
    planes: Float[Tensor, "b 3 c h w"],
    positions: Float[Tensor, "b n 3"],
    axes: tuple[tuple[int, int], ...],
) -> Float[Tensor, "b n c"]:
    """Mean over the three planes of their bilinearly sampled features.

    Positions are in sides of the box, [-0.5, 0.5] inside. One on the box's face maps to a plane's
    outer border (align_corners=False); outside, a plane contributes zero. Differentiable in the
    planes, and in the positions where they ask for it, which takes the slower way on a CPU.
    """
    if planes.device.type == "cpu" and not positions.requires_grad:
        return _sample_rows(planes, positions, axes)
    return _sample_grid(planes, positions, axes)


def _sample_grid(
    planes: Float[Tensor, "b 3 c h w"],
    positions: Float[Tensor, "b n 3"],
    axes: tuple[tuple[int, int], ...],
) -> Float[Tensor, "b n c"]:
    batch, _, channels, height, width = planes.shape
    scaled = positions * 2
    grid = torch.stack([scaled[..., list(pair)] for pair in axes], dim=1)  # [B, 3, N, 2]
    found = torch.nn.functional.grid_sample(
        planes.reshape(batch * 3, channels, height, width),
        grid.reshape(batch * 3, 1, -1, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    # The three planes are summed before the channels are moved last: a third of the copy.
    return found.view(batch, 3, channels, -1).mean(1).mT


def _sample_rows(
    planes: Float[Tensor, "b 3 c h w"],
    positions: Float[Tensor, "b n 3"],
    axes: tuple[tuple[int, int], ...],
) -> Float[Tensor, "b n c"]:
    """The same as twelve weighted rows of one table: four texels of each plane, padded by a zero
    border."""
    batch, _, channels, size, width = planes.shape
    if size != width:
        raise ValueError(f"planes have {size} x {width} texels: they must be square")
    side = size + 2
    # Channels come last first, as they lie in the memory of a network's `channels_last` output.
    table = torch.nn.functional.pad(planes.permute(0, 1, 3, 4, 2), (0, 0, 1, 1, 1, 1))
    count = positions.shape[1]
    # A texel's centre lies at (i + 0.5) / size; the padding shifts it by one. Beyond the border all
    # is zero, so positions may be moved to it.
    texel = (positions.detach() * size + (size + 1) / 2).clamp(0, size + 1)
    texel = texel.reshape(-1, 3).t().contiguous()  # [3, B * N]
    low = texel.floor().clamp(max=size)
    upper = texel - low
    lower = 1 - upper
    corner = low.to(torch.int32)
    first = torch.arange(batch, dtype=torch.int32)[:, None] * (3 * side * side)
    first = first.expand(batch, count).reshape(-1)
    indices = torch.empty(batch * count, 12, dtype=torch.int32)
    weights = torch.empty(batch * count, 12, dtype=planes.dtype)
    for plane, (u, v) in enumerate(axes):
        start = corner[v] * side + corner[u] + first + plane * side * side
        for k in range(4):
            right, down = k & 1, k >> 1
            torch.add(start, right + down * side, out=indices[:, 4 * plane + k])
            factor = (upper if down else lower)[v] / 3
            torch.mul(factor, (upper if right else lower)[u], out=weights[:, 4 * plane + k])
    found = gather_rows(table.reshape(-1, channels), indices, weights)
    return found.view(batch, count, channels)


class PreparedPlanes(NamedTuple):
    """What a Scene keeps of a `TriPlane`; batch first."""

    planes: Float[Tensor, "b 3 c h w"]
    film: Float[Tensor, "b 1 2 hidden"] | None
    """Factors and shifts of the colours' own layer; None for a field without one."""
    palette: Float[Tensor, "b k f"] | None = None
    """Colours of the whole Scene; None for a field without a palette."""


class TriPlane(nn.Module):
    """Latents w to three planes, and positions to density and colour features.

    Args:
        w_dim: size of a latent w.
        feature_dim: number of colour features (3 without super-resolution).
        plane_size: width and height of a plane, a power of two.
        plane_channels: features of a plane.
        channel_base, channel_max: channels of the synthesis network, ``min(base / size, max)``.
        hidden_dim: width of the decoder.
        conventions: reference keeps the noise of the published synthesis network.
        initial_density: raw density [B, N, 1] at positions [B, N, 3], added to the decoder's, whose
            density output starts at zero; None adds nothing.
        axes: name in `PLANE_AXES`; auto is that of the conventions.
        label_dim: label features of a position; 0 for none.
        label_activation: of the label features, where there are any.
        own_colour: planes and density come from all latents but the last one, and colours from the
            planes and the last one. In a field without labels.
        palette: colours of a palette that the last latent decides (see `Palette`); 0 for
            colours that each position has for itself.
    """

    def __init__(
        self,
        w_dim: int,
        feature_dim: int,
        plane_size: int = 256,
        plane_channels: int = 32,
        channel_base: int = 32768,
        channel_max: int = 512,
        hidden_dim: int = 64,
        conventions: Literal["corrected", "reference"] = "corrected",
        initial_density: Callable[[Tensor], Tensor] | None = initial_ball,
        axes: PlaneAxes = "auto",
        label_dim: int = 0,
        label_activation: LabelActivation | None = None,
        own_colour: bool = False,
        palette: int = 0,
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(
            w_dim,
            plane_size,
            3 * plane_channels,
            channel_base=channel_base,
            channel_max=channel_max,
        )
        self.decoder: Decoder | PaletteDecoder | LabelDecoder | ShapeDecoder
        self.decoder = Decoder(plane_channels, feature_dim, hidden_dim)
        if palette:
            self.decoder = PaletteDecoder(plane_channels, feature_dim, hidden_dim, w_dim, palette)
        if own_colour:
            self.decoder = ShapeDecoder(plane_channels, feature_dim, hidden_dim, w_dim)
        if label_activation is not None:
            self.decoder = LabelDecoder(
                plane_channels,
                feature_dim,
                label_dim,
                label_activation,
                hidden_dim,
                dead_row=conventions == "reference",
            )
        self.num_ws: int = self.synthesis.num_ws + int(own_colour or palette > 0)
        if axes == "auto":
            axes = "xy_xz_zx" if conventions == "reference" else "xy_xz_zy"
        self.axes = PLANE_AXES[axes]
        self.initial_density = initial_density
        # A fixed noise pattern becomes a speckle that all Scenes share; official weights expect it.
        self.noise_mode: NoiseMode = "const" if conventions == "reference" else "none"
        if self.noise_mode == "none":
            drop_noise(self.synthesis)

    def prepare(self, ws: Float[Tensor, "b l w_dim"]) -> PreparedPlanes:
        """All that a Scene needs to keep."""
        film = palette = None
        if isinstance(self.decoder, ShapeDecoder):
            film = self.decoder.colour.prepare(ws[:, -1])
            ws = ws[:, :-1]
        if isinstance(self.decoder, PaletteDecoder):
            palette = self.decoder.palette.prepare(ws[:, -1])
            ws = ws[:, :-1]
        planes = self.synthesis(ws, self.noise_mode).unflatten(1, (3, -1))
        return PreparedPlanes(planes, film, palette)

    def query(self, prepared: PreparedPlanes, positions: Float[Tensor, "b n 3"]) -> FieldSamples:
        """Content at positions in sides of the box, [-0.5, 0.5] inside."""
        feature, labels = sample_planes(prepared.planes, positions, self.axes), None
        if isinstance(self.decoder, LabelDecoder):
            raw, colour, labels = self.decoder(feature)
        elif isinstance(self.decoder, ShapeDecoder):
            assert prepared.film is not None
            hidden, raw = self.decoder.shape(feature)
            colour = self.decoder.colour(hidden, prepared.film)
        elif isinstance(self.decoder, PaletteDecoder):
            assert prepared.palette is not None
            raw, colour = self.decoder(feature, prepared.palette)
        else:
            raw, colour = self.decoder(feature)
        return FieldSamples(self._started(raw, positions), colour, labels)

    def raw_density(
        self, prepared: PreparedPlanes, positions: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n 1"]:
        """Raw density alone, without the colours' own layer."""
        if isinstance(self.decoder, LabelDecoder):
            return self.query(prepared, positions).raw_density
        feature = sample_planes(prepared.planes, positions, self.axes)
        if isinstance(self.decoder, TwoLayers):
            return self._started(self.decoder.raw_density(feature), positions)
        return self._started(self.decoder.shape(feature)[1], positions)

    def _started(self, raw: Tensor, positions: Tensor) -> Float[Tensor, "b n 1"]:
        if self.initial_density is None:
            return raw
        return raw + self.initial_density(positions)
