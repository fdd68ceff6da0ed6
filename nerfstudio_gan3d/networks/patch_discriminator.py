"""The discriminator of patches that GRAF and 3DGEN train with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from nerfstudio_gan3d.networks.discriminator import Judgement

SMALLEST = 32
"""Patch side that three halving layers and the last one take."""


class PatchDiscriminator(nn.Module):
    """Logits of patches whose scale and camera it is not told (GRAF, section 3.3).

    Convolutions of 4x4 px that halve the size, with spectral and instance normalisation and leaky
    ReLU, down to 4x4 px, and one that makes these a number. Patches of 64 and 128 px have one and
    two more of them in front, and then the very first one has no instance normalisation.

    Args:
        img_resolution: side of a patch: 32 px times a power of two.
        img_channels: channels of a patch.
        width: channels in front of the last layer; halved in each layer before.

    Raises:
        ValueError: If patches of this side cannot be halved down to 4 px.
    """

    dual = False
    """There is no raw image."""

    def __init__(self, img_resolution: int, img_channels: int = 3, width: int = 512) -> None:
        super().__init__()
        extra = (img_resolution // SMALLEST).bit_length() - 1
        if img_resolution != SMALLEST << max(extra, 0):
            raise ValueError(
                f"model.discriminator.kind = patch judges patches of 32, 64, 128, ... px, and "
                f"these have {img_resolution}; set model.patch_resolution"
            )
        self.img_resolution, self.img_channels = img_resolution, img_channels
        layers: list[nn.Module] = []
        entering, count = img_channels, 3 + extra
        for index in range(count):
            leaving = max(width >> (count - 1 - index), 1)
            layers.append(spectral_norm(nn.Conv2d(entering, leaving, 4, 2, 1, bias=False)))
            if index > 0 or extra == 0:
                layers.append(nn.InstanceNorm2d(leaving))
            layers.append(nn.LeakyReLU(0.2))
            entering = leaving
        layers.append(spectral_norm(nn.Conv2d(entering, 1, 4, bias=False)))
        self.layers = nn.Sequential(*layers)

    def judge(
        self,
        image: Float[Tensor, "b c p p"],
        image_raw: Tensor | None = None,
        c: Tensor | None = None,
        elsewhere: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Judgement:
        """Logits in float32; raw image and cameras are not looked at, and no camera is
        estimated."""
        side = self.img_resolution
        if tuple(image.shape[1:]) != (self.img_channels, side, side):
            raise ValueError(
                f"image has shape {list(image.shape)}, but must be "
                f"[B, {self.img_channels}, {side}, {side}]."
            )
        return Judgement(self.layers(image).flatten(1), None)

    def forward(self, image: Float[Tensor, "b c p p"]) -> Float[Tensor, "b 1"]:
        """Logits, positive for patches taken for real."""
        return self.judge(image).logits
