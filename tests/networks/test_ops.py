"""Building blocks of StyleGAN2 against plain twins and hand-worked numbers."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nerfstudio_gan3d.networks.convolution import fir_filter
from nerfstudio_gan3d.networks.ops import (
    Conv2d,
    FullyConnected,
    activate_,
    conv1x1_per_sample,
    modulated_conv2d,
    norm2,
)

ROOT_2 = 2**0.5


def test_norm2_by_hand() -> None:
    # mean([9, 16]) = 12.5
    expected = torch.tensor([[3.0, 4.0]]) / 12.5**0.5
    torch.testing.assert_close(norm2(torch.tensor([[3.0, 4.0]])), expected)


def test_activation_by_hand() -> None:
    assert activate_(torch.tensor([-10.0, 5.0]), "lrelu").tolist() == [-2, 5]
    assert activate_(torch.tensor([-10.0, 5.0]), "lrelu", clamp=1.5).tolist() == [-1.5, 1.5]
    assert activate_(torch.tensor([-10.0, 5.0]), "linear").tolist() == [-10, 5]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-3.0, 1.0), (-1.0, 3.0), (-3.0, 3.0)])
def test_a_clamp_stops_values_and_gradients_beyond_it(low: float, high: float) -> None:
    x = torch.tensor([low, 0.5, high], requires_grad=True)
    y = activate_(x, "linear", clamp=2.0)
    assert y.tolist() == [max(low, -2), 0.5, min(high, 2)]
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == [low > -2, 1, high < 2]
    assert activate_(torch.tensor([torch.nan, 3.0]), "linear", clamp=2.0)[1] == 2


def modulated_twin(
    x: Tensor, weight: Tensor, style: Tensor, bias: Tensor, demodulate: bool, up: bool, gain: float
) -> Tensor:
    """One sample after the other, with the transposed convolution written as zero insertion."""
    samples = []
    for image, scale in zip(x, style, strict=True):
        w = weight * scale[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            spread = torch.zeros(1, x.shape[1], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1).to(x)
            spread[:, :, ::2, ::2] = image
            y = F.conv2d(spread, w.flip(2, 3), padding=2)  # [1, O, 2H + 1, 2W + 1]
            kernel = 4 * fir_filter().to(x).expand(y.shape[1], 1, 4, 4)
            y = F.conv2d(F.pad(y, [1, 1, 1, 1]), kernel, groups=y.shape[1])
        else:
            y = F.conv2d(image[None], w, padding=weight.shape[-1] // 2)
        samples.append(gain * (y[0] + bias[:, None, None]))
    return torch.stack(samples)


@pytest.mark.parametrize("form", ["activations", "weights"])
@pytest.mark.parametrize(
    ("kernel", "demodulate", "up"),
    [(3, True, False), (3, True, True), (1, True, False), (3, False, False), (3, False, True)],
)
def test_modulated_conv2d(
    form: Literal["activations", "weights"], kernel: int, demodulate: bool, up: bool
) -> None:
    double = {"dtype": torch.float64, "requires_grad": True}
    x, style = torch.randn(2, 3, 4, 5, **double), torch.randn(2, 3, **double)
    weight, bias = torch.randn(6, 3, kernel, kernel, **double), torch.randn(6, **double)
    fir = fir_filter().double() if up else None
    y = modulated_conv2d(x, weight, style, bias, demodulate, fir, gain=1.7, form=form)
    expected = modulated_twin(x, weight, style, bias, demodulate, up, 1.7)
    torch.testing.assert_close(y, expected)
    cotangent = torch.randn_like(y)
    inputs = (x, weight, style, bias)
    torch.testing.assert_close(
        torch.autograd.grad(y, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
    )


def test_demodulation_makes_the_result_independent_of_the_size_of_the_style() -> None:
    x, weight, style = torch.randn(2, 3, 4, 4), torch.randn(6, 3, 3, 3), torch.rand(2, 3) + 0.5
    torch.testing.assert_close(
        modulated_conv2d(x, weight, style), modulated_conv2d(x, weight, 100 * style)
    )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_conv1x1_per_sample(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
    x.requires_grad_()
    weights = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    y = conv1x1_per_sample(x, weights, bias)
    expected = torch.einsum("bihw,boi->bohw", x, weights) + bias[:, None, None]
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous(memory_format=memory_format)
    cotangent = torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad(y, (x, weights, bias), cotangent),
        torch.autograd.grad(expected, (x, weights, bias), cotangent),
    )


@pytest.mark.parametrize("activation", ["linear", "lrelu"])
@pytest.mark.parametrize("rows", [4, 9])  # fewer and more than outputs
def test_fully_connected(activation: Literal["linear", "lrelu"], rows: int) -> None:
    layer = FullyConnected(8, 5, activation, lr_multiplier=0.01, bias_init=3.0)
    x = torch.randn(rows, 8, requires_grad=True)
    expected = x @ (layer.weight * 0.01 / 8**0.5).t() + layer.bias * 0.01
    if activation == "lrelu":
        expected = F.leaky_relu(expected, 0.2) * ROOT_2
    found = layer(x)
    torch.testing.assert_close(found, expected)
    inputs, cotangent = (x, layer.weight, layer.bias), torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
    )


def test_learning_rate_multiplier_leaves_the_initial_scale_alone() -> None:
    for multiplier in (1.0, 0.01):
        layer = FullyConnected(512, 512, lr_multiplier=multiplier)
        assert layer.weight.std().item() == pytest.approx(1 / multiplier, rel=0.01)
        y = layer(torch.randn(256, 512))
        assert y.std().item() == pytest.approx(1, rel=0.05)


def discriminator_conv_twin(layer: Conv2d, x: Tensor, gain: float) -> Tensor:
    """Bias, activation, gain and clamp one after the other, as the layer is defined."""
    weight = layer.weight * (layer.weight.shape[1] * layer.weight.shape[2] ** 2) ** -0.5
    kernel = layer.resample_filter.expand(x.shape[1], 1, 4, 4)
    if layer.downsample and weight.shape[-1] == 3:
        y = F.conv2d(F.conv2d(F.pad(x, [2] * 4), kernel, groups=x.shape[1]), weight, stride=2)
    elif layer.downsample:
        y = F.conv2d(F.conv2d(F.pad(x, [1] * 4), kernel, groups=x.shape[1])[:, :, ::2, ::2], weight)
    else:
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if layer.bias is not None:
        y = y + layer.bias[:, None, None]
    if layer.activation == "lrelu":
        y = F.leaky_relu(y, 0.2) * ROOT_2
    y = y * gain
    return y if layer.clamp is None else y.clamp(-layer.clamp * gain, layer.clamp * gain)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("downsample", [False, True])
@pytest.mark.parametrize(("bias", "activation"), [(True, "lrelu"), (False, "linear")])
def test_discriminator_convolution(
    kernel_size: Literal[1, 3], downsample: bool, bias: bool, activation: Literal["linear", "lrelu"]
) -> None:
    layer = Conv2d(3, 5, kernel_size, bias, activation, downsample, clamp=0.8).double()
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    x = (3 * torch.randn(2, 3, 6, 6, dtype=torch.float64)).requires_grad_()
    y, expected = layer(x, gain=0.5), discriminator_conv_twin(layer, x, gain=0.5)
    assert (y.abs() == 0.4).any()
    torch.testing.assert_close(y, expected)
    inputs = [x, *layer.parameters()]
    cotangent = torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad(y, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
    )
