"""Layers of the published networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
"""Tensors under official names."""

Noise = Literal["random", "const", "none"]

CLAMP = 256.0
SQUARES = 1e-8


def fir(x: Tensor) -> Tensor:
    """The low-pass filter of all resampling, [C, 1, 4, 4]."""
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0])
    return (torch.outer(taps, taps) / 64).expand(x.shape[1], 1, 4, 4)


def filtered(x: Tensor, padding: int, gain: float = 1.0, stride: int = 1) -> Tensor:
    """[B, C, H, W] padded on all sides and correlated with the filter, channel by channel."""
    return F.conv2d(x, fir(x) * gain, stride=stride, padding=padding, groups=x.shape[1])


def doubled(x: Tensor) -> Tensor:
    """[B, C, H, W] at twice the size: zeros between, then the filter."""
    batch, channels, height, width = x.shape
    x = F.pad(x.reshape(batch, channels, height, 1, width, 1), [0, 1, 0, 0, 0, 1])
    x = F.pad(x.reshape(batch, channels, 2 * height, 2 * width), [2, 1, 2, 1])
    return filtered(x, 0, 4.0)


def activated(
    x: Tensor, bias: Tensor, lrelu: bool = True, gain: float = 1.0, clamp: float | None = None
) -> Tensor:
    """Bias, activation, gain and clamp, in this order; x [B, C, ...], bias [C]. The activation has
    a gain of its own, sqrt(2)."""
    x = x + bias.reshape(1, -1, *[1] * (x.ndim - 2))
    total = gain
    if lrelu:
        x, total = F.leaky_relu(x, 0.2), gain * math.sqrt(2)
    if not math.isclose(total, 1):
        x = x * total
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def connected(
    weights: Weights, name: str, x: Tensor, lr: float = 1.0, lrelu: bool = False
) -> Tensor:
    """A fully connected layer with equalised learning rate, [B, I] to [B, O]."""
    weight = weights[f"{name}.weight"]
    bias = weights[f"{name}.bias"] * lr
    weight = weight * (lr / math.sqrt(weight.shape[1]))
    return activated(x.matmul(weight.t()), bias) if lrelu else torch.addmm(bias, x, weight.t())


def unit(x: Tensor) -> Tensor:
    """Rows [B, F] brought to unit second moment."""
    return x * (x.square().mean(1, keepdim=True) + SQUARES).rsqrt()


def mapped(weights: Weights, name: str, z: Tensor | None, c: Tensor | None, layers: int) -> Tensor:
    """Latent [B, Z] and camera [B, 25], either of which may be left out, to w [B, W]."""
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
    """A convolution of x [B, I, H, W] with weight [O, I, k, k] whose input channels are scaled by
    the style [B, I], and its outputs to unit size. ``up``: of twice the size."""
    factor = None
    if demodulate:
        energy = style.square() @ weight.square().sum((2, 3)).t()
        factor = (energy + SQUARES).rsqrt()
    x = x * style[:, :, None, None]
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = filtered(x, 1, 4.0)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return x if factor is None else x * factor[:, :, None, None]


def styled(
    weights: Weights,
    name: str,
    x: Tensor,
    w: Tensor,
    up: bool,
    noise: Noise,
    clamp: float | None = None,
) -> Tensor:
    """A synthesis layer, [B, I, H, W] and w [B, 512] to [B, O, ...]."""
    style = connected(weights, f"{name}.affine", w)
    x = modulated(x, weights[f"{name}.weight"], style, up=up)
    if noise == "random":
        drawn = torch.randn(len(x), 1, *x.shape[2:], dtype=x.dtype)
        x = x + drawn * weights[f"{name}.noise_strength"]
    elif noise == "const":
        x = x + weights[f"{name}.noise_const"] * weights[f"{name}.noise_strength"]
    return activated(x, weights[f"{name}.bias"], clamp=clamp)


def to_rgb(weights: Weights, name: str, x: Tensor, w: Tensor, clamp: float | None = None) -> Tensor:
    """Features [B, I, H, W] and w [B, 512] to image channels [B, O, H, W]."""
    weight = weights[f"{name}.weight"]
    style = connected(weights, f"{name}.affine", w) / math.sqrt(weight.shape[1])
    x = modulated(x, weight, style, demodulate=False)
    return activated(x, weights[f"{name}.bias"], lrelu=False, clamp=clamp)
