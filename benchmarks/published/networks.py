"""Generator and discriminator as published."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.published.layers import (
    CLAMP,
    SQUARES,
    Noise,
    Weights,
    activated,
    connected,
    doubled,
    filtered,
    mapped,
    styled,
    to_rgb,
)
from benchmarks.published.rendering import TINY64, March, Sizes, behind, rays_of, rendered


def planes_of(weights: Weights, ws: Tensor, noise: Noise) -> Tensor:
    """Latents [B, L, 512] to the three planes, [B, 96, P, P]."""
    name, side, index = "backbone.synthesis.b4", 4, 0
    x = weights[f"{name}.const"].expand(len(ws), -1, -1, -1)
    x = styled(weights, f"{name}.conv1", x, ws[:, 0], False, noise)
    image = to_rgb(weights, f"{name}.torgb", x, ws[:, 1])
    while f"backbone.synthesis.b{2 * side}.conv0.weight" in weights:
        side, index = 2 * side, index + 2
        name = f"backbone.synthesis.b{side}"
        x = styled(weights, f"{name}.conv0", x, ws[:, index - 1], True, noise)
        x = styled(weights, f"{name}.conv1", x, ws[:, index], False, noise)
        image = doubled(image) + to_rgb(weights, f"{name}.torgb", x, ws[:, index + 1])
    return image


def upsampled(weights: Weights, features: Tensor, w: Tensor) -> Tensor:
    """Features [B, 32, H, W] and w [B, 512] to images [B, 3, 2H, 2W]: a block that keeps the size,
    and one that doubles it."""
    x, image = features, features[:, :3]
    for name, up in (("superresolution.block0", False), ("superresolution.block1", True)):
        x = styled(weights, f"{name}.conv0", x, w, up, "none", CLAMP)
        x = styled(weights, f"{name}.conv1", x, w, False, "none", CLAMP)
        image = doubled(image) if up else image
        image = image + to_rgb(weights, f"{name}.torgb", x, w, CLAMP)
    return image


class Fakes(NamedTuple):
    """Images [B, 3, 64, 64], raw images [B, 3, 32, 32] and what lies behind them."""

    image: Tensor
    raw: Tensor
    march: March


def generated(
    weights: Weights,
    z: Tensor,
    conditioning: Tensor,
    cameras: Tensor,
    z_bg: Tensor | None = None,
    sizes: Sizes = TINY64,
    noise: Noise = "random",
    jitter: Tensor | None = None,
    draws: Tensor | None = None,
) -> Fakes:
    """Latents [B, 512], conditioning and rendering cameras [B, 25] to images.

    ``jitter`` [B, R, D, 1] and ``draws`` [B R, D] place coarse and fine samples; None draws them.
    """
    batch, rays = len(z), sizes.neural**2
    ws = latents(weights, z, conditioning)
    planes = planes_of(weights, ws, noise)
    origins, directions = rays_of(cameras, sizes.neural)
    if jitter is None:
        jitter = torch.rand(batch, rays, sizes.coarse, 1)
    if draws is None:
        draws = torch.rand(batch * rays, sizes.fine)
    march = rendered(weights, planes, origins, directions, sizes, jitter, draws)
    features = march.features
    if z_bg is not None:
        latent = mapped(weights, "BG_mapping", z_bg, None, 8)[:, None].expand(-1, 5, -1)
        sphere = behind(weights, latent, origins, directions, sizes.radius)
        features = features + march.left * sphere
    features = (2 * features - 1).transpose(1, 2).reshape(batch, -1, sizes.neural, sizes.neural)
    return Fakes(upsampled(weights, features, ws[:, -1]), features[:, :3], march)


def latents(weights: Weights, z: Tensor, conditioning: Tensor) -> Tensor:
    """One latent for each layer of the planes' network, [B, L, 512]."""
    blocks = sum(name.startswith("backbone.") and name.endswith("torgb.bias") for name in weights)
    w = mapped(weights, "backbone.mapping", z, conditioning, 2)
    return w[:, None].expand(-1, 2 * blocks, -1)


def convolved(
    weights: Weights,
    name: str,
    x: Tensor,
    down: bool = False,
    lrelu: bool = True,
    gain: float = 1.0,
    clamp: float | None = CLAMP,
) -> Tensor:
    """A convolution of [B, I, H, W] with equalised learning rate, which may halve the size."""
    weight = weights[f"{name}.weight"]
    taps = weight.shape[-1]
    weight = weight / math.sqrt(weight.shape[1] * taps**2)
    if down and taps == 1:
        x = F.conv2d(filtered(x, 1, stride=2), weight)
    elif down:
        x = F.conv2d(filtered(x, 2), weight, stride=2)
    else:
        x = F.conv2d(x, weight, padding=taps // 2)
    bias = weights.get(f"{name}.bias")
    return x * gain if bias is None else activated(x, bias, lrelu, gain, clamp)


def resized(x: Tensor, side: int) -> Tensor:
    """Square images [B, C, H, H] at another size, filtered."""
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)


def judged(weights: Weights, image: Tensor, raw: Tensor, cameras: Tensor, group: int) -> Tensor:
    """Logits [B, 1] of images with their raw images."""
    side = image.shape[-1]
    image = torch.cat([image, resized(raw, side)], dim=1)
    x = convolved(weights, f"b{side}.fromrgb", image)
    half = math.sqrt(0.5)
    while side > 4:
        skip = convolved(weights, f"b{side}.skip", x, True, gain=half)
        x = convolved(weights, f"b{side}.conv0", x)
        x = skip + convolved(weights, f"b{side}.conv1", x, True, gain=half)
        side //= 2
    batch = len(x)
    group = min(group, batch)
    grouped = x.reshape(group, batch // group, *x.shape[1:])
    spread = (grouped - grouped.mean(0)).square().mean(0)
    spread = (spread + SQUARES).sqrt().mean((1, 2, 3))
    spread = spread.reshape(-1, 1, 1, 1).repeat(group, 1, *x.shape[2:])
    x = convolved(weights, "b4.conv", torch.cat([x, spread], dim=1))
    x = connected(weights, "b4.fc", x.flatten(1), lrelu=True)
    x = connected(weights, "b4.out", x)
    label = mapped(weights, "mapping", None, cameras, 8)
    return (x * label).sum(1, keepdim=True) / math.sqrt(x.shape[1])
