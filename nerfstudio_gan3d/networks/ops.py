"""Operators that StyleGAN2-type networks are built from, in plain torch.

All of them are differentiable any number of times, because the R1 penalty differentiates a
gradient. On a CPU, activations are kept in `torch.channels_last` (see `fast_memory_format`).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.networks.convolution import conv2d, downsample2d, filter2d, fir_filter

Activation = Literal["linear", "lrelu"]
"""`lrelu` is LeakyReLU with slope 0.2, followed by a gain of sqrt(2) that keeps the variance."""

ModulationForm = Literal["activations", "weights"]
"""Where a modulated convolution applies its style. Both forms give the same values."""

LRELU_SLOPE = 0.2
ACTIVATION_GAIN: dict[Activation, float] = {"linear": 1.0, "lrelu": 2.0**0.5}


def activate_(x: Tensor, activation: Activation, clamp: float | None = None) -> Tensor:
    """Activate in place an `x` that already carries the activation's gain, then clamp.

    LeakyReLU commutes with positive factors, so callers fold ACTIVATION_GAIN into weights and
    biases, which are much smaller than activations.
    """
    if activation == "lrelu":
        x = F.leaky_relu(x, LRELU_SLOPE, inplace=True)
    if clamp is None or _within(x, clamp):
        return x
    return x.clamp(-clamp, clamp)


def _within(x: Tensor, limit: float) -> bool:
    """Whether a clamp would change nothing, where it is cheap to know.

    Clamps guard half precision, and hardly ever act. On a CPU one look at the extremes takes a
    fraction of the clamp's forward and backward pass; a GPU would have to be waited for.
    """
    if x.device.type != "cpu" or x.numel() == 0:
        return False
    low, high = x.detach().aminmax()
    return bool(low >= -limit) and bool(high <= limit)


def norm2(x: Float[Tensor, "*b f"], eps: float = 1e-8) -> Float[Tensor, "*b f"]:
    """Scale feature vectors to unit second moment: x / sqrt(mean(x^2) + eps)."""
    return x * (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()


def conv2d_upsample(
    x: Float[Tensor, "b i h w"],
    weight: Float[Tensor, "i2 o 3 3"],
    kernel: Float[Tensor, "4 4"],
    groups: int = 1,
) -> Float[Tensor, "b o2 h2 w2"]:
    """Convolve and double the size: 3x3 transposed convolution (stride 2), then the low-pass.

    The weight is in the order of transposed convolutions, input channels first. They give 2H + 1
    rows, and the filter, padded by 1, leaves 2H.
    """
    x = F.conv_transpose2d(x, weight, stride=2, groups=groups)
    return filter2d(x, kernel, padding=1, gain=4.0)


def modulated_conv2d(
    x: Float[Tensor, "b i h w"],
    weight: Float[Tensor, "o i k k"],
    style: Float[Tensor, "b i"],
    bias: Float[Tensor, " o"] | None = None,
    demodulate: bool = True,
    upsample_kernel: Float[Tensor, "4 4"] | None = None,
    gain: float = 1.0,
    form: ModulationForm = "activations",
) -> Float[Tensor, "b o h2 w2"]:
    """gain * (x convolved with W_b + bias), where W_b is the weight modulated for sample b.

    W_b = weight * style[b] over input channels; demodulation divides each output channel of W_b by
    sqrt(sum of squares + 1e-8). Padding k // 2, or twice the size if `upsample_kernel` is given.
    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", 2.2.

    `form="activations"` scales the input by the style and the output by the demodulation, so one
    convolution serves the batch. `form="weights"` builds W_b and runs a grouped convolution, which
    takes about 1.4 times as long on a CPU.
    """
    scale = demodulation(weight, style) * gain if demodulate else None  # [B, O]
    offset = None if bias is None else (bias * gain).to(x.dtype)[:, None, None]
    if form == "weights":
        weights = weight[None] * style[:, None, :, None, None]  # [B, O, I, k, k]
        weights = weights * (gain if scale is None else scale[:, :, None, None, None])
        x = _conv2d_per_sample(x, weights.to(x.dtype), upsample_kernel)
        return x if offset is None else x + offset
    x = x * (style if demodulate else style * gain).to(x.dtype)[:, :, None, None]
    if upsample_kernel is not None:
        x = conv2d_upsample(x, weight.to(x.dtype).transpose(0, 1), upsample_kernel)
    else:
        x = F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2)
    if scale is None:
        return x if offset is None else x + offset
    scale = scale.to(x.dtype)[:, :, None, None]
    return x * scale if offset is None else torch.addcmul(offset, x, scale)


def demodulation(
    weight: Float[Tensor, "o i k k"], style: Float[Tensor, "b i"]
) -> Float[Tensor, "b o"]:
    """1 / sqrt(sum over i, k, k of (weight * style)^2 + 1e-8)."""
    taps = weight.shape[2] * weight.shape[3]
    # One matrix product over (i, k, k) is faster than reducing the many 3x3 kernels first.
    energy = (
        style.square()[:, :, None].expand(-1, -1, taps).flatten(1) @ weight.square().flatten(1).t()
    )
    return (energy + 1e-8).rsqrt()


def _conv2d_per_sample(
    x: Tensor, weights: Float[Tensor, "b o i k k"], upsample_kernel: Tensor | None
) -> Tensor:
    batch, out_channels, in_channels, k, _ = weights.shape
    x = x.reshape(1, batch * in_channels, *x.shape[2:])
    if upsample_kernel is not None:
        grouped = weights.transpose(1, 2).reshape(batch * in_channels, out_channels, k, k)
        x = conv2d_upsample(x, grouped, upsample_kernel, groups=batch)
    else:
        grouped = weights.reshape(batch * out_channels, in_channels, k, k)
        x = F.conv2d(x, grouped, padding=k // 2, groups=batch)
    return x.reshape(batch, out_channels, *x.shape[2:])


def conv1x1_per_sample(
    x: Float[Tensor, "b i h w"], weights: Float[Tensor, "b o i"], bias: Float[Tensor, " o"]
) -> Float[Tensor, "b o h w"]:
    """1x1 convolution with a weight for every sample, as one batched matrix product.

    The result has the memory format of `x`.
    """
    weights, bias = weights.to(x.dtype), bias.to(x.dtype)
    pixels = x.flatten(2)  # [B, I, HW]
    if x.is_contiguous(memory_format=torch.channels_last):
        y = torch.baddbmm(bias[None, None], pixels.transpose(1, 2), weights.transpose(1, 2))
        y = y.transpose(1, 2)
    else:
        y = torch.baddbmm(bias[None, :, None], weights, pixels)
    return y.unflatten(2, x.shape[2:])


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: y = act(x (W lr / sqrt(in))^T + b lr).

    Stored weights start at N(0, 1) / lr and the stored bias at `bias_init`, so `lr` changes the
    speed of learning and not the initial function.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: Activation = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.weight_gain = lr_multiplier / in_features**0.5
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))

    def forward(self, x: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
        gain = ACTIVATION_GAIN[self.activation]
        bias = (self.bias * (self.bias_gain * gain)).to(x.dtype)
        weight, gain = self.weight.to(x.dtype), self.weight_gain * gain
        # What is smaller is multiplied: of many positions it is the weight, also in backward.
        if x.shape[0] > weight.shape[0]:
            x = F.linear(x, weight * gain, bias)
        else:
            x = torch.addmm(bias, x, weight.t(), alpha=gain)
        return activate_(x, self.activation)

    def scaled(self, dtype: torch.dtype) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"]]:
        """Weight and bias as they act, without the activation's gain."""
        weight, bias = self.weight * self.weight_gain, self.bias * self.bias_gain
        return weight.to(dtype), bias.to(dtype)


class Conv2d(nn.Module):
    """Convolution with equalised learning rate, optional halving, bias, activation and clamp.

    The stored weight is N(0, 1); its gain 1 / sqrt(in * k * k) is applied in forward. `gain` in
    forward scales the output, and the clamp with it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Literal[1, 3],
        bias: bool = True,
        activation: Activation = "linear",
        downsample: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.downsample = downsample
        self.clamp = clamp
        self.weight_gain = (in_channels * kernel_size**2) ** -0.5
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", fir_filter())

    def forward(self, x: Float[Tensor, "b i h w"], gain: float = 1.0) -> Float[Tensor, "b o h2 w2"]:
        total_gain = gain * ACTIVATION_GAIN[self.activation]
        weight = (self.weight * (self.weight_gain * total_gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * total_gain).to(x.dtype)
        kernel_size = weight.shape[-1]
        if not self.downsample:
            x = conv2d(x, weight, bias, padding=kernel_size // 2)
        elif kernel_size == 1:
            x = conv2d(downsample2d(x, self.resample_filter), weight, bias)
        else:
            x = conv2d(filter2d(x, self.resample_filter, padding=2), weight, bias, stride=2)
        clamp = None if self.clamp is None else self.clamp * gain
        return activate_(x, self.activation, clamp)
