"""EG3D and BallGAN as their papers and releases train them, in plain torch.

The published programs cannot be part of this project: their licences forbid it. This is a
restatement in torch's own operators, written from a description of what they compute, with tensors
under their official names; tests hold it against stored outputs and gradients of the originals.
`training.py` measures it as what ours is compared with.

What makes published training what it is, and is kept: every operator a pass of its own (bias,
activation, gain, clamp; scaling before and after a modulated convolution), colours that are sorted
along rays and averaged between neighbours, and phases that each start from new latents and end in
an optimiser's step: the generator's loss, every 4th time the density's variation (and BallGAN's
background loss), the discriminator's loss, every 16th time R1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]

CLAMP = 256.0
SQUARES = 1e-8
PLANES = ((0, 1), (0, 2), (2, 0))
"""Axes of each plane. The third one repeats the second, transposed: official weights need it."""


@dataclass(frozen=True)
class Sizes:
    """What the tensors' shapes do not tell."""

    neural: int = 32
    coarse: int = 24
    fine: int = 24
    near: float = 2.25
    far: float = 3.3
    box: float = 1.0
    radius: float = 3.0
    group: int = 4


# Building blocks.


def fir(x: Tensor) -> Tensor:
    """The low-pass filter of all resampling, [C, 1, 4, 4]."""
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0])
    return (torch.outer(taps, taps) / 64).expand(x.shape[1], 1, 4, 4)


def filtered(x: Tensor, padding: list[int], gain: float = 1.0, stride: int = 1) -> Tensor:
    """Padded and correlated with the filter, channel by channel."""
    return F.conv2d(F.pad(x, padding), fir(x) * gain, stride=stride, groups=x.shape[1])


def doubled(x: Tensor) -> Tensor:
    """Twice the size: zeros between, then the filter."""
    batch, channels, height, width = x.shape
    x = F.pad(x.reshape(batch, channels, height, 1, width, 1), [0, 1, 0, 0, 0, 1])
    return filtered(x.reshape(batch, channels, 2 * height, 2 * width), [2, 1, 2, 1], 4.0)


def activated(
    x: Tensor, bias: Tensor, lrelu: bool = True, gain: float = 1.0, clamp: float | None = None
) -> Tensor:
    """Bias, activation, gain and clamp, in this order."""
    x = x + bias.reshape(1, -1, *[1] * (x.ndim - 2))
    if lrelu:
        x = F.leaky_relu(x, 0.2) * math.sqrt(2)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def connected(
    weights: Weights, name: str, x: Tensor, lr: float = 1.0, lrelu: bool = False
) -> Tensor:
    """A fully connected layer with equalised learning rate."""
    weight = weights[f"{name}.weight"]
    bias = weights[f"{name}.bias"] * lr
    weight = weight * (lr / math.sqrt(weight.shape[1]))
    return activated(x.matmul(weight.t()), bias) if lrelu else torch.addmm(bias, x, weight.t())


def unit(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + SQUARES).rsqrt()


def mapped(weights: Weights, name: str, z: Tensor | None, c: Tensor | None, layers: int) -> Tensor:
    """Latent and camera to the intermediate latent."""
    parts = [] if z is None else [unit(z)]
    if c is not None:
        parts.append(unit(connected(weights, f"{name}.embed", c)))
    x = torch.cat(parts, dim=1)
    for index in range(layers):
        x = connected(weights, f"{name}.fc{index}", x, 0.01, lrelu=True)
    return x


def modulated(
    x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True, up: bool = False
) -> Tensor:
    """A convolution whose input channels are scaled by the style, and its outputs to unit size."""
    factor = None
    if demodulate:
        each = weight[None] * style[:, None, :, None, None]
        factor = (each.square().sum((2, 3, 4)) + SQUARES).rsqrt()
    x = x * style[:, :, None, None]
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = filtered(x, [1] * 4, 4.0)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return x if factor is None else x * factor[:, :, None, None]


def styled(
    weights: Weights,
    name: str,
    x: Tensor,
    w: Tensor,
    up: bool,
    noise: str,
    clamp: float | None = None,
) -> Tensor:
    """A synthesis layer."""
    style = connected(weights, f"{name}.affine", w)
    x = modulated(x, weights[f"{name}.weight"], style, up=up)
    if noise == "random":
        drawn = torch.randn(len(x), 1, *x.shape[2:], dtype=x.dtype)
        x = x + drawn * weights[f"{name}.noise_strength"]
    elif noise == "const":
        x = x + weights[f"{name}.noise_const"] * weights[f"{name}.noise_strength"]
    return activated(x, weights[f"{name}.bias"], clamp=clamp)


def to_rgb(weights: Weights, name: str, x: Tensor, w: Tensor, clamp: float | None = None) -> Tensor:
    weight = weights[f"{name}.weight"]
    style = connected(weights, f"{name}.affine", w) / math.sqrt(weight.shape[1])
    x = modulated(x, weight, style, demodulate=False)
    return activated(x, weights[f"{name}.bias"], lrelu=False, clamp=clamp)


# Generator.


def planes_of(weights: Weights, ws: Tensor, noise: str) -> Tensor:
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
    """Super-resolution to twice the size: a block that keeps it, and one that doubles it."""
    x, image = features, features[:, :3]
    for name, up in (("superresolution.block0", False), ("superresolution.block1", True)):
        x = styled(weights, f"{name}.conv0", x, w, up, "none", CLAMP)
        x = styled(weights, f"{name}.conv1", x, w, False, "none", CLAMP)
        image = doubled(image) if up else image
        image = image + to_rgb(weights, f"{name}.torgb", x, w, CLAMP)
    return image


def queried(
    weights: Weights, planes: Tensor, positions: Tensor, sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """Colour features and raw densities at positions [B, N, 3]."""
    batch, count = positions.shape[:2]
    scaled = positions * (2 / sizes.box)
    grid = torch.stack([scaled[..., list(axes)] for axes in PLANES], dim=1)
    found = F.grid_sample(
        planes.reshape(batch * 3, -1, *planes.shape[2:]),
        grid.reshape(batch * 3, 1, count, 2),
        padding_mode="zeros",
        align_corners=False,
    )
    x = found.reshape(batch, 3, -1, count).mean(1).mT.reshape(batch * count, -1)
    x = F.softplus(connected(weights, "decoder.net.0", x))
    if "decoder.net.2.weight" in weights:
        x = connected(weights, "decoder.net.2", x).view(batch, count, -1)
        raw, colour = x[..., :1], x[..., 1:]
    else:
        raw = connected(weights, "decoder.sigma_out", x).view(batch, count, 1)
        colour = connected(weights, "decoder.rgb_out", x).view(batch, count, -1)
    return torch.sigmoid(colour) * 1.002 - 0.001, raw


def rays_of(cameras: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions [B, side^2, 3] of cameras [B, 25]."""
    pose, lens = cameras[:, :16].view(-1, 4, 4), cameras[:, 16:].view(-1, 3, 3)
    centre = (torch.arange(side) + 0.5) / side
    y, x = (part.reshape(1, -1) for part in torch.meshgrid(centre, centre, indexing="ij"))
    fx, fy, cx, cy, skew = (
        lens[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1))
    )
    across = (x - cx + cy * skew / fy - skew * y / fy) / fx
    seen = torch.stack([across, (y - cy) / fy, torch.ones_like(across)], dim=-1)
    directions = F.normalize(seen @ pose[:, :3, :3].transpose(1, 2), dim=-1)
    return pose[:, None, :3, 3].expand_as(directions), directions


class March(NamedTuple):
    features: Tensor
    depth: Tensor
    weights: Tensor
    left: Tensor


def marched(colours: Tensor, raw: Tensor, distances: Tensor) -> March:
    """Composites samples [B, R, S, .] by the midpoint rule."""
    lengths = distances[:, :, 1:] - distances[:, :, :-1]
    colours = (colours[:, :, 1:] + colours[:, :, :-1]) / 2
    density = F.softplus((raw[:, :, 1:] + raw[:, :, :-1]) / 2 - 1)
    middle = (distances[:, :, 1:] + distances[:, :, :-1]) / 2
    alpha = 1 - torch.exp(-density * lengths)
    passed = torch.cat([torch.ones_like(alpha[:, :, :1]), 1 - alpha + 1e-10], dim=2).cumprod(2)
    weights = alpha * passed[:, :, :-1]
    total = weights.sum(2)
    depth = (weights * middle).sum(2) / total
    depth = depth.nan_to_num(math.inf).clamp(distances.min(), distances.max())
    return March((weights * colours).sum(2), depth, weights, passed[:, :, -1])


def finer(distances: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Distances drawn where the coarse weights are, [B, R, F, 1]."""
    batch, rays = distances.shape[:2]
    t, smooth = distances.flatten(0, 1).squeeze(-1), weights.detach().flatten(0, 1).squeeze(-1)
    smooth = F.max_pool1d(smooth[:, None], 2, 1, padding=1)
    smooth = F.avg_pool1d(smooth, 2, 1).squeeze(1) + 0.01
    bins = (t[:, :-1] + t[:, 1:]) / 2
    share = smooth[:, 1:-1] + 1e-5
    cdf = (share / share.sum(-1, keepdim=True)).cumsum(-1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], dim=-1)
    above = torch.searchsorted(cdf, draws, right=True)
    low, high = (above - 1).clamp(min=0), above.clamp(max=cdf.shape[-1] - 1)
    (start, end), (first, last) = (
        [values.gather(1, index) for index in (low, high)] for values in (cdf, bins)
    )
    width = torch.where(end - start < 1e-5, 1.0, end - start)
    return (first + (draws - start) / width * (last - first)).view(batch, rays, -1, 1)


def rendered(
    weights: Weights,
    planes: Tensor,
    origins: Tensor,
    directions: Tensor,
    sizes: Sizes,
    jitter: Tensor,
    draws: Tensor,
) -> March:
    """Coarse samples, fine ones where those have weight, and all of them composited."""

    def look(distances: Tensor) -> tuple[Tensor, Tensor]:
        batch, rays, count = distances.shape[:3]
        at = (origins[:, :, None] + distances * directions[:, :, None]).reshape(batch, -1, 3)
        colours, raw = queried(weights, planes, at, sizes)
        return colours.view(batch, rays, count, -1), raw.view(batch, rays, count, 1)

    step = (sizes.far - sizes.near) / (sizes.coarse - 1)
    even = torch.linspace(sizes.near, sizes.far, sizes.coarse).view(1, 1, -1, 1)
    coarse = even + jitter * step
    colours, raw = look(coarse)
    fine = finer(coarse, marched(colours, raw, coarse).weights, draws)
    more, denser = look(fine)
    distances, order = torch.cat([coarse, fine], dim=2).sort(dim=2)
    colours = torch.cat([colours, more], dim=2)
    colours = colours.gather(2, order.expand(-1, -1, -1, colours.shape[-1]))
    raw = torch.cat([raw, denser], dim=2).gather(2, order)
    return marched(colours, raw, distances)


def behind(
    weights: Weights, ws: Tensor, origins: Tensor, directions: Tensor, radius: float
) -> Tensor:
    """BallGAN's sphere: colour features [B, R, 32]."""
    along = -(origins * directions).sum(-1, keepdim=True)
    nearest = origins + along * directions
    far = along + (radius**2 - nearest.square().sum(-1, keepdim=True)).sqrt()
    x, y, z = ((origins + far * directions) / radius).unbind(-1)
    theta = torch.arccos(y.clamp(-1, 1))
    phi = torch.remainder(torch.atan2(x, z), 2 * math.pi)
    place = torch.stack([theta, phi], dim=-1) / (2 * math.pi)
    waves = [2**i * math.pi * place for i in range(10)]
    code = torch.cat([part for wave in waves for part in (wave.sin(), wave.cos())], dim=-1)
    side = math.isqrt(code.shape[1])
    x = code.transpose(1, 2).reshape(len(code), -1, side, side)
    x = x.expand(len(ws), -1, -1, -1)
    for index, name in enumerate(("fc_in", "blocks.0", "blocks.1", "blocks.2")):
        name = f"BG_Net.{name}"
        style = connected(weights, f"{name}.affine", ws[:, index])
        x = activated(modulated(x, weights[f"{name}.weight"], style), weights[f"{name}.bias"])
    x = to_rgb(weights, "BG_Net.feat_out", x, ws[:, -1])
    return (torch.sigmoid(x) * 1.002 - 0.001).flatten(2).transpose(1, 2)


class Fakes(NamedTuple):
    image: Tensor
    raw: Tensor
    march: March


def generated(
    weights: Weights,
    z: Tensor,
    conditioning: Tensor,
    cameras: Tensor,
    z_bg: Tensor | None = None,
    sizes: Sizes = Sizes(),
    noise: str = "random",
    jitter: Tensor | None = None,
    draws: Tensor | None = None,
) -> Fakes:
    """Latents and cameras to images."""
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


# Discriminator.


def convolved(
    weights: Weights,
    name: str,
    x: Tensor,
    down: bool = False,
    lrelu: bool = True,
    gain: float = 1.0,
    clamp: float | None = CLAMP,
) -> Tensor:
    """A convolution with equalised learning rate, which may halve the size."""
    weight = weights[f"{name}.weight"]
    taps = weight.shape[-1]
    weight = weight / math.sqrt(weight.shape[1] * taps**2)
    if down and taps == 1:
        x = F.conv2d(filtered(x, [1] * 4, stride=2), weight)
    elif down:
        x = F.conv2d(filtered(x, [2] * 4), weight, stride=2)
    else:
        x = F.conv2d(x, weight, padding=taps // 2)
    bias = weights.get(f"{name}.bias")
    return x * gain if bias is None else activated(x, bias, lrelu, gain, clamp)


def resized(x: Tensor, side: int) -> Tensor:
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


# Training.


def first_generator(
    background: bool, base: int = 4096, most: int = 128, side: int = 64
) -> dict[str, Tensor]:
    """Untrained weights of a generator with 64 px images and planes of ``side`` px."""
    weights: dict[str, Tensor] = {}
    if background:
        _add_mapping(weights, "BG_mapping", 512, 8)
        _add_convolution(weights, "BG_Net.fc_in", 40, 64, 1)
        for index in range(3):
            _add_convolution(weights, f"BG_Net.blocks.{index}", 64, 64, 1)
        _add_convolution(weights, "BG_Net.feat_out", 64, 32, 1)
    size, given = 4, 0
    while size <= side:
        name, width = f"backbone.synthesis.b{size}", min(base // size, most)
        if given:
            _add_convolution(weights, f"{name}.conv0", given, width, 3, size)
        else:
            weights[f"{name}.const"] = torch.randn(width, size, size)
        _add_convolution(weights, f"{name}.conv1", width, width, 3, size)
        _add_convolution(weights, f"{name}.torgb", width, 96, 1)
        size, given = 2 * size, width
    _add_linear(weights, "backbone.mapping.embed", 25, 512)
    _add_mapping(weights, "backbone.mapping", 1024, 2)
    for index, (given, width, size) in enumerate(((32, 128, 32), (128, 64, 64))):
        name = f"superresolution.block{index}"
        _add_convolution(weights, f"{name}.conv0", given, width, 3, size)
        _add_convolution(weights, f"{name}.conv1", width, width, 3, size)
        _add_convolution(weights, f"{name}.torgb", width, 3, 1)
    _add_linear(weights, "decoder.net.0", 32, 64)
    if background:
        _add_linear(weights, "decoder.rgb_out", 64, 32)
        _add_linear(weights, "decoder.sigma_out", 64, 1)
    else:
        _add_linear(weights, "decoder.net.2", 64, 33)
    return _leaves(weights)


def first_discriminator(base: int = 4096, most: int = 128, side: int = 64) -> dict[str, Tensor]:
    """Untrained weights of a discriminator of images of ``side`` px."""
    weights: dict[str, Tensor] = {}
    size = side
    _add_convolution(weights, f"b{size}.fromrgb", 6, min(base // size, most), 1, styled=False)
    while size > 4:
        width, next_width = min(base // size, most), min(2 * base // size, most)
        _add_convolution(weights, f"b{size}.conv0", width, width, 3, styled=False)
        _add_convolution(weights, f"b{size}.conv1", width, next_width, 3, styled=False)
        weights[f"b{size}.skip.weight"] = torch.randn(next_width, width, 1, 1)
        size //= 2
    width = min(base // 4, most)
    _add_linear(weights, "mapping.embed", 25, width)
    _add_mapping(weights, "mapping", width, 8, width)
    _add_convolution(weights, "b4.conv", width + 1, width, 3, styled=False)
    _add_linear(weights, "b4.fc", 16 * width, width)
    _add_linear(weights, "b4.out", width, width)
    return _leaves(weights)


def _add_linear(weights: dict[str, Tensor], name: str, given: int, out: int) -> None:
    weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.randn(out, given), torch.zeros(out)


def _add_mapping(
    weights: dict[str, Tensor], name: str, given: int, layers: int, width: int = 512
) -> None:
    for index in range(layers):
        _add_linear(weights, f"{name}.fc{index}", given, width)
        weights[f"{name}.fc{index}.weight"] *= 100
        given = width


def _add_convolution(
    weights: dict[str, Tensor],
    name: str,
    given: int,
    out: int,
    taps: int,
    noise: int = 0,
    styled: bool = True,
) -> None:
    weights[f"{name}.weight"] = torch.randn(out, given, taps, taps)
    weights[f"{name}.bias"] = torch.zeros(out)
    if noise:
        weights[f"{name}.noise_strength"] = torch.zeros(())
    if styled:
        _add_linear(weights, f"{name}.affine", 512, given)
        weights[f"{name}.affine.bias"] += 1


def _leaves(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.requires_grad_() for name, value in weights.items()}


@dataclass
class Training:
    """Generator and discriminator in training; tensors are leaves under official names."""

    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor]
    background: bool
    sizes: Sizes = Sizes()
    gamma: float = 1.0
    average: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizers = []
        for weights in (self.generator, self.discriminator):
            leaves = [value for value in weights.values() if value.requires_grad]
            self.optimizers.append(torch.optim.Adam(leaves, lr=0.002, betas=(0.0, 0.99)))
        self.average = {name: value.detach().clone() for name, value in self.generator.items()}

    def step(self, images: Tensor, cameras: Tensor, index: int) -> None:
        """Iteration ``index`` with real images [B, 3, H, W] and their cameras [B, 25]."""
        judge = {name: value.detach() for name, value in self.discriminator.items()}
        fakes, seen = self._fakes(cameras)
        logits = judged(judge, fakes.image, fakes.raw, seen, self.sizes.group)
        self._learn(0, F.softplus(-logits).mean())
        if index % 4 == 0:
            self._learn(0, 4 * self._density_variation(cameras))
            if self.background:
                left = self._fakes(cameras)[0].march.left
                self._learn(0, 4 * torch.minimum(left, 1 - left).mean())
        with torch.no_grad():
            fakes, seen = self._fakes(cameras)
        logits = judged(self.discriminator, fakes.image, fakes.raw, seen, self.sizes.group)
        F.softplus(logits).mean().backward()
        raw = resized(images, self.sizes.neural)
        logits = judged(self.discriminator, images, raw, cameras, self.sizes.group)
        self._learn(1, F.softplus(-logits).mean())
        if index % 16 == 0:
            pair = images.clone().requires_grad_(), raw.clone().requires_grad_()
            logits = judged(self.discriminator, *pair, cameras, self.sizes.group)
            slopes = torch.autograd.grad(logits.sum(), pair, create_graph=True)
            squares = torch.cat([slope.flatten(1) for slope in slopes], dim=1).square()
            self._learn(1, 16 * (squares.sum(1) * self.gamma / 2).mean())
        with torch.no_grad():
            for name, value in self.generator.items():
                self.average[name].copy_(value.lerp(self.average[name], 0.999))

    def _latents(self, count: int) -> tuple[Tensor, Tensor | None]:
        z = torch.randn(count, self.generator["backbone.mapping.fc0.weight"].shape[0])
        return z, torch.randn_like(z) if self.background else None

    def _fakes(self, cameras: Tensor) -> tuple[Fakes, Tensor]:
        z, z_bg = self._latents(len(cameras))
        swapped = torch.rand(len(cameras), 1) < 0.5
        conditioning = torch.where(swapped, cameras.roll(1, 0), cameras)
        return generated(self.generator, z, conditioning, cameras, z_bg, self.sizes), cameras

    def _density_variation(self, cameras: Tensor) -> Tensor:
        z, _ = self._latents(len(cameras))
        planes = planes_of(self.generator, latents(self.generator, z, cameras), "random")
        points = torch.rand(len(z), 1000, 3) * 2 - 1
        points = torch.cat([points, points + torch.randn_like(points) * 0.004], dim=1)
        raw = queried(self.generator, planes, points, self.sizes)[1]
        return 0.25 * (raw[:, :1000] - raw[:, 1000:]).abs().mean()

    def _learn(self, player: int, loss: Tensor) -> None:
        loss.backward()
        optimizer = self.optimizers[player]
        for parameter in optimizer.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 1e5, -1e5)
        optimizer.step()
        optimizer.zero_grad()
