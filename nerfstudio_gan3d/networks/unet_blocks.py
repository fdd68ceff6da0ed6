"""Building blocks of the U-Net that turns an image with depth into feature planes.

Source: Reddy et al. 2024 (G3DR, arXiv 2403.00939); weight standardisation: Qiao et al. 2019 (arXiv
1903.10520); linear attention: Shen et al. 2021 (arXiv 1812.01243). Tensor names are those of
official weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPS = 1e-5
"""Added to variances."""


class StandardisedConv2d(nn.Conv2d):
    """Convolution whose weights have mean 0 and variance 1 in each output channel.

    ``(w - mean) / sqrt(variance + 1e-5)``, both over input channels, rows and columns; the variance
    is the biased one.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "b i h w"]
    ) -> Float[Tensor, "b o h2 w2"]:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return self._conv_forward(x, (self.weight - mean) * (variance + EPS).rsqrt(), self.bias)


class ChannelNorm(nn.Module):
    """Mean 0 and variance 1 over the channels of each pixel, times a gain ``g`` [1, C, 1, 1].

    At least in float32: in half precision the variance of activations can overflow.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(precise, dim=1, correction=0, keepdim=True)
        return ((precise - mean) * (variance + EPS).rsqrt() * self.g).to(x.dtype)


class Sinusoids(nn.Module):
    """Numbers [B] to ``(sin f_k t, cos f_k t)``, f_k from 1 down to 1/10000 in a geometric row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pairs = channels // 2

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b c"]:
        steps = torch.arange(self.pairs, device=t.device, dtype=t.dtype)
        angles = t[:, None] * torch.exp(steps * (-math.log(10000) / max(self.pairs - 1, 1)))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class ConvolutionBlock(nn.Module):
    """Standardised 3x3 convolution, group normalisation, ``* (scale + 1) + shift``, SiLU."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.proj = StandardisedConv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.GroupNorm(groups, out_channels)

    def forward(
        self,
        x: Float[Tensor, "b i h w"],
        scale: Float[Tensor, "1 o 1 1"] | None = None,
        shift: Float[Tensor, "1 o 1 1"] | None = None,
    ) -> Float[Tensor, "b o h w"]:
        x = self.norm(self.proj(x))
        if scale is not None and shift is not None:
            x = x * (scale + 1) + shift
        return F.silu(x)


class ResidualBlock(nn.Module):
    """Two convolution blocks around which the input is added; the time modulates the first.

    Args:
        in_channels, out_channels: where they differ, a 1x1 convolution brings the input along.
        time_channels: size of the time vector.
        groups: of the group normalisation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, time_channels: int, groups: int
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * out_channels))
        self.block1 = ConvolutionBlock(in_channels, out_channels, groups)
        self.block2 = ConvolutionBlock(out_channels, out_channels, groups)
        self.res_conv = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(
        self, x: Float[Tensor, "b i h w"], time: Float[Tensor, "1 t"]
    ) -> Float[Tensor, "b o h w"]:
        scale, shift = self.mlp(time)[..., None, None].chunk(2, dim=1)
        return self.block2(self.block1(x, scale, shift)) + self.res_conv(x)


class _Attention(nn.Module):
    """Queries, keys and values of every pixel, without bias."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.to_qkv = nn.Conv2d(channels, 3 * heads * head_dim, 1, bias=False)

    def queries_keys_values(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[
        Float[Tensor, "b k d n"],  # k heads, d features, n = h w pixels
        Float[Tensor, "b k d n"],
        Float[Tensor, "b k d n"],
    ]:
        query, key, value = (
            self.to_qkv(x).unflatten(1, (3, self.heads, self.head_dim)).flatten(-2).unbind(1)
        )
        return query, key, value


class LinearAttention(_Attention):
    """Attention whose cost grows with the pixels n, not with their square.

    Queries are a softmax over the features of a head, keys one over the pixels:
    ``out = (key value^T / n)^T query / sqrt(d)``, then a 1x1 convolution and a `ChannelNorm`. The
    factor 1/n is that of the published network, whose weights depend on it.
    """

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__(channels, heads, head_dim)
        self.to_out = nn.Sequential(nn.Conv2d(heads * head_dim, channels, 1), ChannelNorm(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        query, key, value = self.queries_keys_values(x)
        # Both factors go to the smallest tensor.
        factor = self.head_dim**-0.5 / query.shape[-1]
        context = key.softmax(dim=-1) @ value.transpose(-1, -2) * factor  # [B, K, D, D]
        out = context.transpose(-1, -2) @ query.softmax(dim=-2)
        return self.to_out(out.flatten(1, 2).unflatten(-1, x.shape[-2:]))


class FullAttention(_Attention):
    """Softmax attention between all pixels, then a 1x1 convolution."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__(channels, heads, head_dim)
        self.to_out = nn.Conv2d(heads * head_dim, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        query, key, value = (rows.transpose(-1, -2) for rows in self.queries_keys_values(x))
        out = F.scaled_dot_product_attention(query, key, value).transpose(-1, -2)  # [B, K, D, N]
        return self.to_out(out.flatten(1, 2).unflatten(-1, x.shape[-2:]))


class PreNormed(nn.Module):
    """A module of the normalised input."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = ChannelNorm(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.fn(self.norm(x))


class ResidualAttention(nn.Module):
    """Attention on the normalised input, added to the input."""

    def __init__(self, channels: int, attention: LinearAttention | FullAttention) -> None:
        super().__init__()
        self.fn = PreNormed(channels, attention)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.fn(x)
