"""Layers of the published networks, every operator a pass of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
"""Tensors under official names."""

CLAMP = 256.0
SQUARES = 1e-8


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
