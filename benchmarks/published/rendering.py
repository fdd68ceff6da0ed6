"""Rays, samples and compositing as published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.published.layers import Weights, activated, connected, modulated, to_rgb

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


TINY64 = Sizes()
"""The small configuration that is compared."""


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
    """Features [B, R, 32], depth [B, R, 1], weights [B, R, S - 1, 1] and the light that is left
    [B, R, 1]."""

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
    features = torch.matmul(weights.mT, colours).squeeze(2)
    return March(features, depth, weights, passed[:, :, -1])


def finer(distances: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Fine distances [B, R, F, 1] drawn (draws [B R, F], 0..1) where the coarse ones [B, R, D, 1]
    have weights [B, R, D - 1, 1]."""
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
    """Coarse samples, fine ones where those have weight, and all of them composited. Rays are
    [B, R, 3], jitter [B, R, D, 1], draws [B R, F]."""

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
