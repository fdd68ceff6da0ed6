"""The U-Net of G3DR: one image with depth to three feature planes.

Source: Reddy et al. 2024 (G3DR, arXiv 2403.00939). Tensor names are those of official weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.networks.unet_blocks import (
    FullAttention,
    LinearAttention,
    ResidualAttention,
    ResidualBlock,
    Sinusoids,
)


class PlaneUNet(nn.Module):
    """Image with depth [B, C, R, R] to planes [B, 3, F, R, R].

    A U-Net of the kind that diffusion models use, of which only the last step is left: its time is
    always 1. Levels of residual blocks and linear attention halve the size down to a middle with
    full attention, and come back with the features of the way down beside them. Learned features
    of each pixel's place, which start at 1, stand beside the image.

    The defaults are the published network of 147 million parameters. The state dict of an official
    file without its ``decoder.*`` loads into it.

    Args:
        resolution: side R of images and planes in pixels.
        in_channels: C; red, green and blue in [-1, 1] and the distance along the ray.
        width: channels at full size.
        multipliers: channels of each level, entering the next smaller one, in units of ``width``.
        blocks: residual blocks of a level, on the way down and on the way up.
        attention: False leaves out all attention, linear and full.
        position_channels: learned features of a pixel's place; 0 for none.
        plane_channels: F.
        groups: of the group normalisation.
        heads, head_dim: heads of the attention and the features of each.

    Raises:
        ValueError: If an argument is not possible.
    """

    def __init__(
        self,
        resolution: int = 128,
        in_channels: int = 4,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 4, 8),
        blocks: int = 2,
        attention: bool = True,
        position_channels: int = 256,
        plane_channels: int = 64,
        groups: int = 8,
        heads: int = 4,
        head_dim: int = 32,
    ) -> None:
        super().__init__()
        _check_sizes(resolution, width, multipliers, blocks, position_channels, groups)
        self.resolution, self.in_channels, self.blocks = resolution, in_channels, blocks
        time_channels = 4 * width

        def residual(entering: int, leaving: int) -> ResidualBlock:
            return ResidualBlock(entering, leaving, time_channels, groups)

        def attend(kind: type[LinearAttention | FullAttention], channels: int) -> nn.Module:
            # Without attention something stands in its place, so that the other names stay.
            if not attention:
                return nn.Identity()
            return ResidualAttention(channels, kind(channels, heads, head_dim))

        self.pos_embed: nn.Parameter | None = None
        if position_channels > 0:
            places = torch.ones(1, position_channels, resolution, resolution)
            self.pos_embed = nn.Parameter(places)
        self.init_conv = nn.Conv2d(in_channels + position_channels, width, 7, padding=3)
        self.time_mlp = nn.Sequential(
            Sinusoids(width),
            nn.Linear(width, time_channels),
            nn.GELU(),
            nn.Linear(time_channels, time_channels),
        )
        channels = [width, *(width * multiplier for multiplier in multipliers)]
        levels = list(pairwise(channels))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for index, (outer, inner) in enumerate(levels):
            stages: list[nn.Module] = [residual(outer, outer) for _ in range(blocks)]
            stages += [attend(LinearAttention, outer)]
            stages += [_leave_down(outer, inner, last=index == len(levels) - 1)]
            self.downs.append(nn.ModuleList(stages))
        for index, (outer, inner) in enumerate(reversed(levels)):
            stages = [residual(inner + outer, inner) for _ in range(blocks)]
            stages += [attend(LinearAttention, inner)]
            stages += [_leave_up(inner, outer, last=index == len(levels) - 1)]
            self.ups.append(nn.ModuleList(stages))
        self.mid_block1 = residual(channels[-1], channels[-1])
        self.mid_attn = attend(FullAttention, channels[-1])
        self.mid_block2 = residual(channels[-1], channels[-1])
        self.final_res_block = residual(2 * width, 2 * width)
        self.final_conv = nn.Conv2d(2 * width, 3 * plane_channels, 1)

    def forward(self, image_and_depth: Float[Tensor, "b c r r"]) -> Float[Tensor, "b 3 f r r"]:
        """Planes; raises ValueError for an input of another size or number of channels."""
        return self.decode(*self.encode(image_and_depth))

    def encode(
        self, image_and_depth: Float[Tensor, "b c r r"]
    ) -> tuple[Float[Tensor, "b m s s"], list[Tensor]]:
        """Features of the middle and what `decode` takes beside them.

        The middle has width times the last multiplier channels M, and the side S = R / 2^(levels -
        1). Its mean over the pixels is a description of the whole image.

        Raises:
            ValueError: If the input has another size or number of channels.
        """
        shape = (self.in_channels, self.resolution, self.resolution)
        if tuple(image_and_depth.shape[1:]) != shape:
            raise ValueError(
                f"image_and_depth has shape {list(image_and_depth.shape)}, but must be "
                f"[B, {', '.join(str(side) for side in shape)}]."
            )
        time = self._time(image_and_depth)
        x = self._first(image_and_depth)
        skips = [x]
        for level in self.downs:
            *residuals, attention, leave = cast(nn.ModuleList, level)
            for index, block in enumerate(residuals):
                x = block(x, time)
                if index == len(residuals) - 1:
                    x = attention(x)
                skips.append(x)
            x = leave(x)
        x = self.mid_attn(self.mid_block1(x, time))
        return self.mid_block2(x, time), skips

    def decode(
        self, middle: Float[Tensor, "b m s s"], skips: Sequence[Tensor]
    ) -> Float[Tensor, "b 3 f r r"]:
        """Planes from what `encode` returns."""
        time = self._time(middle)
        x, remaining = middle, list(skips)
        for level in self.ups:
            *residuals, attention, leave = cast(nn.ModuleList, level)
            for block in residuals:
                x = block(torch.cat([x, remaining.pop()], dim=1), time)
            x = leave(attention(x))
        x = self.final_res_block(torch.cat([x, remaining.pop()], dim=1), time)
        return self.final_conv(x).unflatten(1, (3, -1))

    def _time(self, like: Tensor) -> Float[Tensor, "1 t"]:
        """What modulates the residual blocks: the same vector for every image."""
        return self.time_mlp(like.new_ones(1))

    def _first(self, x: Float[Tensor, "b c r r"]) -> Float[Tensor, "b w r r"]:
        """``init_conv(cat(image, pos_embed))``.

        In two parts, as a convolution is linear: the places are the same for every image, and at
        their 256 channels this would be the most expensive convolution of a batch.
        """
        if self.pos_embed is None:
            return self.init_conv(x)
        weight, count = self.init_conv.weight, self.in_channels
        places = F.conv2d(self.pos_embed, weight[:, count:], padding=3)
        return F.conv2d(x, weight[:, :count], self.init_conv.bias, padding=3) + places


def _leave_down(entering: int, leaving: int, last: bool) -> nn.Module:
    """To half the size, four pixels becoming channels; the smallest level keeps its size."""
    if last:
        return nn.Conv2d(entering, leaving, 3, padding=1)
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * entering, leaving, 1))


def _leave_up(entering: int, leaving: int, last: bool) -> nn.Module:
    """To twice the size by repeating pixels; the largest level keeps its size."""
    convolution = nn.Conv2d(entering, leaving, 3, padding=1)
    if last:
        return convolution
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), convolution)


def _check_sizes(
    resolution: int,
    width: int,
    multipliers: tuple[int, ...],
    blocks: int,
    position_channels: int,
    groups: int,
) -> None:
    """Raises ValueError for sizes that do not go together."""
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"multipliers is {multipliers}, but must hold whole numbers above 0.")
    factor = 2 ** (len(multipliers) - 1)
    if resolution < factor or resolution % factor:
        raise ValueError(
            f"resolution is {resolution}, but {len(multipliers)} levels need a multiple of "
            f"{factor}; choose such a resolution or fewer multipliers."
        )
    if groups < 1 or width < 2 or width % 2 or width % groups:
        raise ValueError(
            f"width is {width}, but must be even and a multiple of groups, which is {groups}."
        )
    if blocks < 1:
        raise ValueError(f"blocks is {blocks}, but a level has at least 1.")
    if position_channels < 0:
        raise ValueError(f"position_channels is {position_channels}, but must be 0 or more.")
