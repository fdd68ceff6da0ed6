"""Label maps to latents: the conditional encoder and the mapping network of pix2pix3D.

Source: Deng et al. 2023 (pix2pix3D, arXiv 2302.08509), 3.1. Tensor names are those of official
weights.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nerfstudio_gan3d.networks.discriminator import DiscriminatorBlock
from nerfstudio_gan3d.networks.stylegan2 import MappingNetwork, block_resolutions, channels_at

LabelKind = Literal["none", "seg", "edge"]
"""What a label map holds: nothing, a class id a pixel, or lines on paper."""


def encode_labels(
    maps: UInt8[Tensor, "b 1 r r"], kind: LabelKind, classes: int
) -> Float[Tensor, "b c r r"]:
    """Label maps as networks take them.

    seg: one channel a class, 1 where the pixel has it. edge: grey values, blurred by a box of 3x3
    pixels and brought to [-1, 1], so that paper is +1 and a line -1.

    Raises:
        ValueError: If a class id is not below ``classes``, or the kind is none.
    """
    if kind == "none":
        raise ValueError("kind is none: this model takes no label maps")
    if kind == "edge":
        padded = F.pad(maps.float(), (1, 1, 1, 1), mode="reflect")
        return F.avg_pool2d(padded, 3, stride=1) / 127.5 - 1
    highest = int(maps.max())
    if highest >= classes:
        raise ValueError(
            f"a label map has the class {highest}; there are classes 0 to {classes - 1}"
        )
    return F.one_hot(maps[:, 0].long(), classes).permute(0, 3, 1, 2).float()


class LabelEncoder(nn.Module):
    """Label map [B, C, R, R] to one latent w for each of the first layers of a synthesis network.

    Residual blocks halve the map down to 4x4; a linear projection of all that is left gives the
    latents, without activation. No minibatch statistics: a map's latents do not depend on others.

    Args:
        resolution: side R of the maps in pixels, a power of two of at least 8.
        in_channels: channels C of a map.
        layers: latents L.
        w_dim: size of a latent.
        channel_base, channel_max: channels at size s are min(channel_base / s, channel_max).
    """

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        layers: int,
        w_dim: int = 512,
        channel_base: int = 32768,
        channel_max: int = 512,
    ) -> None:
        super().__init__()
        self.resolution, self.in_channels, self.layers = resolution, in_channels, layers
        resolutions = block_resolutions("the label encoder's resolution", resolution, smallest=8)
        self.resolutions = resolutions[:0:-1]
        image_channels = in_channels
        for size in self.resolutions:
            channels = channels_at(size, channel_base, channel_max)
            narrower = channels_at(size // 2, channel_base, channel_max)
            setattr(self, f"b{size}", DiscriminatorBlock(image_channels, channels, narrower, None))
            image_channels = 0
        width = channels_at(4, channel_base, channel_max)
        self.projector = Projector(width, layers * w_dim)

    def forward(self, maps: Float[Tensor, "b c r r"]) -> Float[Tensor, "b l w"]:
        """Raises ValueError for maps of another size or number of channels."""
        shape = (self.in_channels, self.resolution, self.resolution)
        if tuple(maps.shape[1:]) != shape:
            raise ValueError(
                f"label maps have shape {list(maps.shape)}, but must be [B, "
                f"{', '.join(str(side) for side in shape)}]"
            )
        x = maps
        for size in self.resolutions:
            x = cast(DiscriminatorBlock, getattr(self, f"b{size}"))(x)
        return self.projector(x).unflatten(1, (self.layers, -1))


class Projector(nn.Module):
    """All features of 4x4 pixels to one vector, linear, without bias, with equalised learning
    rate."""

    def __init__(self, in_channels: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_channels, 4, 4))
        self.gain = (in_channels * 16) ** -0.5

    def forward(self, x: Float[Tensor, "b i 4 4"]) -> Float[Tensor, "b o"]:
        return x.flatten(1).to(self.weight.dtype) @ (self.weight.flatten(1) * self.gain).t()


class LabelMappingNetwork(MappingNetwork):
    """Label map, latent z and the map's camera to intermediate latents w, one a layer.

    The first ``geometry_layers`` latents come from the label map, the others are the mapped z: what
    a thing is and where its parts are follows the map, how it looks follows z. The running mean
    ``w_avg`` has one latent a layer.

    Args:
        encoder: makes the latents of the map.
        z_dim, c_dim, w_dim, num_layers, lr_multiplier: see `MappingNetwork`.
        num_ws: all latents.

    Raises:
        ValueError: If the map would leave no latent to z.
    """

    def __init__(
        self,
        encoder: LabelEncoder,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int = 2,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__(z_dim, c_dim, w_dim, num_ws, num_layers, lr_multiplier)
        if not 1 <= encoder.layers < num_ws:
            raise ValueError(
                f"model.labels.geometry_layers = {encoder.layers}: this field has {num_ws} "
                f"latents, of which the label map may take 1 to {num_ws - 1}"
            )
        self.embed_mask = encoder
        self.w_avg = torch.zeros(num_ws, w_dim)

    @property
    def geometry_layers(self) -> int:
        """Latents that come from the label map, the first ones."""
        return self.embed_mask.layers

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        z: Float[Tensor, "b z"],
        c: Float[Tensor, "b c"] | None,
        label_map: Float[Tensor, "b k r r"],
    ) -> Float[Tensor, "b n w"]:
        """All latents. Raises ValueError if an input is missing or has another size."""
        return self.join(self.geometry(label_map), self.appearance(z, c))

    def geometry(self, label_map: Float[Tensor, "b k r r"]) -> Float[Tensor, "b l w"]:
        """Latents of a label map."""
        return self.embed_mask(label_map)

    def appearance(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b w"]:
        """The latent that all other layers share."""
        return super().forward(z, c)[:, 0]

    def join(
        self, geometry: Float[Tensor, "b l w"], appearance: Float[Tensor, "b w"]
    ) -> Float[Tensor, "b n w"]:
        """Both kinds of latents in the order of the layers."""
        assert self.num_ws is not None
        rest = self.num_ws - self.geometry_layers
        return torch.cat([geometry, appearance[:, None].expand(-1, rest, -1)], dim=1)

    @torch.no_grad()
    def update_w_avg(self, ws: Float[Tensor, "b n w"], beta: float = 0.998) -> None:
        """Move the running mean towards the batch mean: w_avg <- w + beta (w_avg - w)."""
        self.w_avg.copy_(torch.lerp(ws.detach().float().mean(dim=0), self.w_avg, beta))
