"""Discriminator of EG3D: one residual network that sees the final and the raw image together.

Source: Chan et al. 2022 (EG3D), 4.3 (dual discrimination); Karras et al. 2020, residual
discriminator. Tensor names are those of official weights.
"""

from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.networks.convolution import conv2d, fast_memory_format, fir_filter
from nerfstudio_gan3d.networks.ops import (
    ACTIVATION_GAIN,
    Conv2d,
    FullyConnected,
    activate_,
)
from nerfstudio_gan3d.networks.stylegan2 import MappingNetwork, block_resolutions, channels_at


def resize_antialias(
    image: Float[Tensor, "b c h w"], size: tuple[int, int]
) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear resize with antialiasing (align_corners=False); the same image if it fits."""
    if tuple(image.shape[2:]) == tuple(size):
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def minibatch_std(x: Float[Tensor, "b c h w"], group_size: int) -> Float[Tensor, "b c1 h w"]:
    """Append one channel: the mean standard deviation over a group of samples.

    Samples i, i + B/G, i + 2B/G, ... form a group of G = min(group_size, B). The deviation
    sqrt(var + 1e-8) is taken per feature and pixel and averaged over both.
    """
    batch, channels, height, width = x.shape
    group = min(group_size, batch)
    y = x.reshape(group, batch // group, channels, height, width)
    # Written out, since torch's own variance over a strided dimension is slow on a CPU.
    variance = (y - y.mean(dim=0)).square().mean(dim=0)
    deviation = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [B/G]
    deviation = deviation.repeat(group).to(x.dtype).reshape(batch, 1, 1, 1)
    return torch.cat([x, deviation.expand(-1, 1, height, width)], dim=1)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size; the first one also turns an image into features."""

    def __init__(
        self,
        image_channels: int,
        in_channels: int,
        out_channels: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.register_buffer("resample_filter", fir_filter())
        self.fromrgb = (
            Conv2d(image_channels, in_channels, 1, activation="lrelu", clamp=clamp)
            if image_channels
            else None
        )
        self.conv0 = Conv2d(in_channels, in_channels, 3, activation="lrelu", clamp=clamp)
        self.conv1 = Conv2d(
            in_channels, out_channels, 3, activation="lrelu", downsample=True, clamp=clamp
        )
        self.skip = Conv2d(in_channels, out_channels, 1, bias=False, downsample=True)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        skip = self.skip(x, gain=0.5**0.5)
        return skip + self.conv1(self.conv0(x), gain=0.5**0.5)


class StridedBlock(nn.Module):
    """One 4x4 convolution that halves the size; the first block also turns an image into features.

    The discriminator of DCGAN (Radford et al. 2016, section 3) with equalised learning rates and
    without batch normalisation. A training step of gan3d-ballgan-tiny takes 0.8 of the time that it
    takes with residual blocks (batch 16, two threads).
    """

    def __init__(
        self,
        image_channels: int,
        in_channels: int,
        out_channels: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.fromrgb = (
            Conv2d(image_channels, in_channels, 3, activation="lrelu", clamp=clamp)
            if image_channels
            else None
        )
        self.weight_gain = (in_channels * 16) ** -0.5
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 4, 4))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        gain = ACTIVATION_GAIN["lrelu"]
        weight = (self.weight * (self.weight_gain * gain)).to(x.dtype)
        bias = (self.bias * gain).to(x.dtype)
        return activate_(conv2d(x, weight, bias, stride=2, padding=1), "lrelu", self.clamp)


BLOCKS = {"residual": DiscriminatorBlock, "strided": StridedBlock}


class DiscriminatorEpilogue(nn.Module):
    """Minibatch statistics, a convolution and two fully connected layers at 4x4 px."""

    def __init__(
        self,
        channels: int,
        out_features: int,
        group_size: int,
        clamp: float | None,
        camera_head: bool = False,
    ) -> None:
        super().__init__()
        self.group_size = group_size
        self.conv = Conv2d(channels + 1, channels, 3, activation="lrelu", clamp=clamp)
        self.fc = FullyConnected(channels * 16, channels, "lrelu")
        self.out = FullyConnected(channels, out_features)
        self.camera = FullyConnected(channels, 3) if camera_head else None

    def forward(
        self, x: Float[Tensor, "b c 4 4"]
    ) -> tuple[Float[Tensor, "b o"], Float[Tensor, "b 3"] | None]:
        x = self.conv(minibatch_std(x, self.group_size))
        x = self.fc(x.flatten(1))
        return self.out(x), None if self.camera is None else self.camera(x)


class Judgement(NamedTuple):
    """What a discriminator says of a batch."""

    logits: Float[Tensor, "b 1"]
    """Positive for images taken for real."""
    camera: Float[Tensor, "b 3"] | None
    """Estimated direction from the world's origin to the camera; None without a camera head."""
    elsewhere: Float[Tensor, "b 1"] | None = None
    """Logits of the same images with other camera labels, where they were asked for."""


class DualDiscriminator(nn.Module):
    """Logits of images, seen together with the raw image they were made from.

    The input is concat(image, raw image resized to the same size) if `dual`, else the image alone.
    With camera labels (c_dim > 0), logit = <features, mapping(c)> / sqrt(features).
    Blocks at `img_resolution`, ..., 8 px have min(channel_base / px, channel_max) channels.

    Args:
        img_resolution: image side in px, a power of two of at least 8.
        c_dim: size of the camera label; 0 for a discriminator that ignores cameras.
        img_channels: channels of the image, and of the raw image if `dual`.
        dual: whether there is a raw image.
        mbstd_group: samples that share minibatch statistics; 1 switches the statistics off
            (their channel is then constant).
        conv_clamp: limit of activations, needed in half precision only; official weights use 256.
        mapping_layers: layers of the label mapping; official weights have 8.
        mapping_lr_multiplier: its learning-rate multiplier; official weights have 0.01.
        camera_head: also estimate the camera's direction from the image (see `judge`).
        blocks: residual blocks as in StyleGAN2, or one strided convolution for each size.
        disc_c_noise: noise on camera labels while training, in standard deviations over the batch.
    """

    def __init__(
        self,
        img_resolution: int,
        c_dim: int = 25,
        img_channels: int = 3,
        dual: bool = True,
        channel_base: int = 32768,
        channel_max: int = 512,
        mbstd_group: int = 4,
        conv_clamp: float | None = None,
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        disc_c_noise: float = 0.0,
        camera_head: bool = False,
        blocks: Literal["residual", "strided"] = "residual",
    ) -> None:
        super().__init__()
        if mbstd_group < 1:
            raise ValueError(f"mbstd_group is {mbstd_group}, but must be at least 1.")
        if disc_c_noise < 0:
            raise ValueError(f"disc_c_noise is {disc_c_noise}, but must not be negative.")
        self.img_resolution, self.c_dim, self.dual = img_resolution, c_dim, dual
        self.img_channels = img_channels
        self.mbstd_group, self.disc_c_noise = mbstd_group, disc_c_noise
        self.register_buffer("resample_filter", fir_filter())
        resolutions = block_resolutions("img_resolution", img_resolution, smallest=8)
        self.resolutions = resolutions[:0:-1]
        image_channels = img_channels * (2 if dual else 1)
        for res in self.resolutions:
            channels = channels_at(res, channel_base, channel_max)
            narrower = channels_at(res // 2, channel_base, channel_max)
            block = BLOCKS[blocks](image_channels, channels, narrower, conv_clamp)
            setattr(self, f"b{res}", block)
            image_channels = 0
        width = channels_at(4, channel_base, channel_max)
        self.mapping = (
            MappingNetwork(0, c_dim, width, None, mapping_layers, mapping_lr_multiplier)
            if c_dim > 0
            else None
        )
        self.b4 = DiscriminatorEpilogue(
            width, width if c_dim > 0 else 1, mbstd_group, conv_clamp, camera_head
        )

    def block(self, resolution: int) -> DiscriminatorBlock | StridedBlock:
        """The block that takes features of a resolution in px, 8 or more."""
        return cast(DiscriminatorBlock | StridedBlock, getattr(self, f"b{resolution}"))

    def validate_batch(self, batch_size: int) -> None:
        """Raise ValueError if a batch of this size cannot be split into statistics groups."""
        group = min(self.mbstd_group, batch_size)
        if batch_size < 1 or batch_size % group:
            raise ValueError(
                f"A batch of {batch_size} images cannot be split into minibatch-statistics groups "
                f"of {group}: use a multiple of mbstd_group, or change mbstd_group."
            )
        if batch_size == 1 and self.disc_c_noise > 0 and self.c_dim > 0:
            raise ValueError(
                "disc_c_noise needs the deviation of camera labels over a batch of at least 2, "
                "but the batch has 1. Use a larger batch or disc_c_noise 0."
            )

    def forward(
        self,
        image: Float[Tensor, "b c h w"],
        image_raw: Float[Tensor, "b c h2 w2"] | None = None,
        c: Float[Tensor, "b c_dim"] | None = None,
    ) -> Float[Tensor, "b 1"]:
        """Logits, positive for images taken for real.

        Raises ValueError if the raw image or the label is missing, or a size does not fit.
        """
        return self.judge(image, image_raw, c).logits

    def judge(
        self,
        image: Float[Tensor, "b c h w"],
        image_raw: Float[Tensor, "b c h2 w2"] | None = None,
        c: Float[Tensor, "b c_dim"] | None = None,
        elsewhere: Float[Tensor, "b c_dim"] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Judgement:
        """Logits and, with a camera head, where the images seem to be taken from.

        ``elsewhere`` are further camera labels to judge the same images with. ``dtype`` is that of
        the convolutions above 4 px; bfloat16 is for passes that no penalty differentiates twice.
        """
        self._check_inputs(image, image_raw)
        self.validate_batch(image.shape[0])
        x = image
        if image_raw is not None:
            size = (self.img_resolution, self.img_resolution)
            x = torch.cat([image, resize_antialias(image_raw, size)], dim=1)
        given = x.dtype
        x = fast_memory_format(x if dtype == torch.float32 else x.to(dtype))
        for res in self.resolutions:
            x = self.block(res)(x)
        # Minibatch statistics and scores are small differences of large numbers.
        x, camera = self.b4(x.to(given))
        if self.mapping is None:
            return Judgement(x, camera)
        other = None if elsewhere is None else self._score(x, elsewhere)
        return Judgement(self._score(x, c), camera, other)

    def _score(
        self, features: Float[Tensor, "b f"], c: Float[Tensor, "b c_dim"] | None
    ) -> Float[Tensor, "b 1"]:
        if c is not None and self.training and self.disc_c_noise > 0:
            c = c + torch.randn_like(c) * c.std(dim=0) * self.disc_c_noise
        assert self.mapping is not None
        label = self.mapping(None, c).to(features.dtype)
        return (features * label).sum(dim=1, keepdim=True) * label.shape[1] ** -0.5

    def _check_inputs(self, image: Tensor, image_raw: Tensor | None) -> None:
        channels, side = self.img_channels, self.img_resolution
        if tuple(image.shape[1:]) != (channels, side, side):
            raise ValueError(
                f"image has shape {list(image.shape)}, but must be [B, {channels}, {side}, {side}]."
            )
        if self.dual != (image_raw is not None):
            state = "needs image_raw" if self.dual else "has dual=False and takes no image_raw"
            raise ValueError(f"This discriminator {state}.")
