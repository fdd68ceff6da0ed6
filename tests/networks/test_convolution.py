"""Convolution and resampling against plain twins: values, gradients and second derivatives."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nerfstudio_gan3d.networks.convolution import (
    conv2d,
    downsample2d,
    fast_memory_format,
    filter2d,
    fir_filter,
    input_gradients_only,
    upsample2d,
)

# A kernel without any symmetry shows a missing or superfluous flip.
SKEWED = torch.arange(16, dtype=torch.float64).reshape(4, 4).square() / 100


def correlate(x: Tensor, kernel: Tensor) -> Tensor:
    """y[i, j] = sum over a, b of kernel[a, b] x[i + a, j + b]."""
    rows, columns = x.shape[2] - kernel.shape[0] + 1, x.shape[3] - kernel.shape[1] + 1
    y = torch.zeros(*x.shape[:2], rows, columns, dtype=x.dtype)
    for a in range(kernel.shape[0]):
        for b in range(kernel.shape[1]):
            y = y + kernel[a, b] * x[:, :, a : a + rows, b : b + columns]
    return y


def insert_zeros(x: Tensor) -> Tensor:
    y = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
    y[:, :, ::2, ::2] = x
    return y


def same_values_and_gradients(
    fast: Callable[..., Tensor], twin: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """Compares outputs and, for one random cotangent, the gradient of every input."""
    y, expected = fast(*inputs), twin(*inputs)
    torch.testing.assert_close(y, expected)
    cotangent = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(y, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
    )


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_fir_filter_is_the_outer_product_of_1_3_3_1() -> None:
    kernel = fir_filter()
    assert kernel.sum() == 1
    assert kernel[0].tolist() == [1 / 64, 3 / 64, 3 / 64, 1 / 64]
    assert kernel[:, 1].tolist() == [3 / 64, 9 / 64, 9 / 64, 3 / 64]


@pytest.mark.parametrize(("padding", "stride"), [(1, 1), (2, 1), (1, 2), (0, 1)])
def test_filter2d(padding: int, stride: int) -> None:
    def twin(x: Tensor) -> Tensor:
        return correlate(F.pad(x, [padding] * 4), 4 * SKEWED)[:, :, ::stride, ::stride]

    same_values_and_gradients(
        lambda x: filter2d(x, SKEWED, padding, stride, gain=4.0), twin, leaf(2, 3, 7, 6)
    )


def test_upsample2d() -> None:
    def twin(x: Tensor) -> Tensor:
        return correlate(F.pad(insert_zeros(x), [2, 1, 2, 1]), 4 * SKEWED)

    same_values_and_gradients(lambda x: upsample2d(x, SKEWED), twin, leaf(2, 3, 5, 4))


def test_downsample2d() -> None:
    def twin(x: Tensor) -> Tensor:
        return correlate(F.pad(x, [1, 1, 1, 1]), SKEWED)[:, :, ::2, ::2]

    same_values_and_gradients(lambda x: downsample2d(x, SKEWED), twin, leaf(2, 3, 8, 5))


def test_upsampling_a_constant_keeps_it_away_from_the_border() -> None:
    y = upsample2d(torch.full((1, 1, 4, 4), 5.0), fir_filter())
    assert y[0, 0, 1:-1, 1:-1].eq(5).all()
    # At a corner one of the two taps of each axis falls on zeros: 5 * (3/4)^2.
    assert y[0, 0, 0, 0] == 5 * 9 / 16


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((5, 6), 3, 1, 1), ((5, 4), 3, 2, 0), ((6, 5), 3, 2, 0), ((4, 3), 1, 1, 0), ((6, 6), 3, 2, 1)],
)
def test_conv2d_equals_torch_up_to_second_derivatives(
    size: tuple[int, int], kernel: int, stride: int, padding: int
) -> None:
    x, weight, bias = leaf(2, 3, *size), leaf(4, 3, kernel, kernel), leaf(4)

    def fast(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv2d(x, weight, bias, stride, padding)

    def twin(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    same_values_and_gradients(fast, twin, x, weight, bias)
    second = []
    for function in (fast, twin):
        torch.manual_seed(1)
        y = function(x, weight, bias)
        cotangent = torch.randn_like(y).requires_grad_()
        first = torch.autograd.grad(y, (x, weight), cotangent, create_graph=True)
        loss = first[0].square().sum() + first[1].square().sum()
        second.append(torch.autograd.grad(loss, (x, weight, cotangent)))
    torch.testing.assert_close(second[0], second[1])


def test_gradients_of_gradients_by_finite_differences() -> None:
    x, weight = leaf(1, 1, 4, 3), leaf(2, 1, 3, 3)
    assert torch.autograd.gradgradcheck(lambda x, w: conv2d(x, w, None, 2, 1), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x: upsample2d(x, SKEWED) ** 2, (x,))
    assert torch.autograd.gradgradcheck(lambda x: filter2d(x, SKEWED, 2, 2) ** 2, (x,))


def test_conv2d_under_autocast_has_the_gradients_of_full_precision() -> None:
    x, weight = torch.randn(2, 8, 6, 6), torch.randn(4, 8, 3, 3, requires_grad=True)
    expected = torch.autograd.grad(F.conv2d(x, weight, padding=1).square().mean(), weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y = conv2d(x, weight, padding=1)
    assert y.dtype == torch.bfloat16
    (actual,) = torch.autograd.grad(y.float().square().mean(), weight)
    assert actual.dtype == torch.float32
    assert (actual - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("resample", [upsample2d, downsample2d])
def test_resampling_in_bfloat16_has_values_and_gradients_of_full_precision(
    resample: Callable[[Tensor, Tensor], Tensor],
) -> None:
    x = torch.randn(2, 8, 6, 6)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        given = x.to(dtype).requires_grad_()
        y = resample(given, SKEWED.float())
        assert y.dtype == dtype
        (gradient,) = torch.autograd.grad(y.float().square().sum(), given)
        assert gradient.dtype == dtype
        found.append((y.detach().float(), gradient.float()))
    for precise, rough in zip(*found, strict=True):
        assert 0 < (rough - precise).norm() < 0.01 * precise.norm()


def test_fast_memory_format_keeps_values() -> None:
    x = torch.randn(2, 3, 4, 5)
    y = fast_memory_format(x)
    assert torch.equal(x, y)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_input_gradients_only_leaves_out_parameters_and_nothing_else() -> None:
    x, weight, bias = leaf(2, 3, 5, 5), leaf(4, 3, 3, 3), leaf(4)
    (expected,) = torch.autograd.grad(conv2d(x, weight, bias, padding=1).square().sum(), x)
    y = conv2d(x, weight, bias, padding=1).square().sum()
    with input_gradients_only():
        found = torch.autograd.grad(y, (x, weight, bias), retain_graph=True, allow_unused=True)
    torch.testing.assert_close(found[0], expected)
    assert found[1] is None
    assert found[2] is None
    # The graph is as it was: outside, parameters get their gradients.
    assert all(g is not None for g in torch.autograd.grad(y, (x, weight, bias)))


def test_a_penalty_on_input_gradients_reaches_the_weight() -> None:
    """R1 differentiates what was found inside with respect to the parameters."""

    def penalty(convolve: Callable[..., Tensor]) -> Tensor:
        y = convolve(x, weight, padding=1).tanh().sum()
        with input_gradients_only():
            (gradient,) = torch.autograd.grad(y, x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    x, weight = leaf(2, 3, 5, 5), leaf(4, 3, 3, 3)
    torch.testing.assert_close(penalty(conv2d), penalty(F.conv2d))


def test_an_error_inside_ends_the_state() -> None:
    x, weight = leaf(1, 1, 3, 3), leaf(1, 1, 3, 3)
    with pytest.raises(KeyError), input_gradients_only():
        raise KeyError
    assert torch.autograd.grad(conv2d(x, weight).sum(), weight)[0] is not None
