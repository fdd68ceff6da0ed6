"""Rendering weights: hand-worked transmittance, plain loops, gradients."""

import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.rendering.compositing import (
    composite_weights,
    midpoint_weights,
    weighted_sum,
)


def loop_weights(density: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """w_i = alpha_i prod_{j<i} (1 - alpha_j), one ray and one interval after the other."""
    through, weights = torch.ones_like(density[..., 0]), []
    for i in range(density.shape[-1]):
        alpha = 1 - torch.exp(-density[..., i] * lengths[..., i])
        weights.append(alpha * through)
        through = through * (1 - alpha)
    return torch.stack(weights, -1), through[..., None]


def loop_midpoint_weights(raw: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """EG3D's marcher, written out from the specification."""
    through, weights = torch.ones_like(raw[..., 0]), []
    for i in range(raw.shape[-1] - 1):
        sigma = torch.log1p(torch.exp((raw[..., i] + raw[..., i + 1]) / 2 - 1))
        alpha = 1 - torch.exp(-sigma * (distances[..., i + 1] - distances[..., i]))
        weights.append(alpha * through)
        through = through * (1 - alpha + 1e-10)
    return torch.stack(weights, -1), through[..., None]


def test_hand_worked_transmittance() -> None:
    # Alphas 0, 0.3, 0.8, 0.8 are optical depths -ln(1 - alpha).
    # Transmittance before: [1.0, 1.0, 0.7, 0.14], behind all: 0.028.
    alpha = torch.tensor([0.0, 0.3, 0.8, 0.8])
    lengths = torch.tensor([0.5, 0.1, 2.0, 1.0])
    density = -torch.log1p(-alpha) / lengths
    found = composite_weights(density[None, None], lengths[None, None])
    expected = torch.tensor([0.0, 0.3, 0.56, 0.112])
    torch.testing.assert_close(found.weights[0, 0], expected)
    torch.testing.assert_close(found.transmittance[0, 0], torch.tensor([0.028]))


def test_empty_and_solid_intervals_give_exactly_nothing_and_everything() -> None:
    density = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1e6, 5.0]]])
    found = composite_weights(density, torch.ones(1, 2, 3))
    assert found.weights[0].tolist() == [[0, 0, 0], [0, 1, 0]]
    assert found.transmittance[0].tolist() == [[1], [0]]


def test_weights_and_transmittance_sum_to_one() -> None:
    density = torch.rand(2, 50, 64) * torch.logspace(-3, 4, 50)[:, None]
    found = composite_weights(density, torch.rand(2, 50, 64))
    assert (found.weights >= 0).all()
    total = found.weights.sum(-1, keepdim=True) + found.transmittance
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


def test_composite_weights_equal_the_loop_in_values_and_gradients() -> None:
    density = torch.rand(2, 3, 7, dtype=torch.float64, requires_grad=True)
    lengths = torch.rand(2, 3, 7, dtype=torch.float64, requires_grad=True)
    compare(composite_weights(density, lengths), loop_weights(density, lengths), density, lengths)


def test_midpoint_weights_equal_the_loop_in_values_and_gradients() -> None:
    raw = (torch.randn(2, 3, 7, dtype=torch.float64) * 4).requires_grad_()
    distances = torch.rand(2, 3, 7, dtype=torch.float64).sort(-1).values.requires_grad_()
    found = midpoint_weights(raw, distances)
    compare(found, loop_midpoint_weights(raw, distances), raw, distances)


def compare(found: tuple[Tensor, ...], twin: tuple[Tensor, ...], *inputs: Tensor) -> None:
    cotangents = [torch.randn_like(value) for value in twin]
    for value, expected in zip(found, twin, strict=True):
        torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, cotangents, retain_graph=True),
        torch.autograd.grad(twin, inputs, cotangents),
    )


def test_midpoint_weights_of_a_known_density() -> None:
    # softplus(x - 1) = ln(1 + e^(x - 1)) is ln 2 at x = 1; the length 2 leaves 1/4 of the light.
    raw = torch.ones(1, 1, 2)
    found = midpoint_weights(raw, torch.tensor([[[1.0, 3.0]]]))
    assert found.transmittance.item() == pytest.approx(0.25)
    assert found.weights.item() == pytest.approx(0.75)
    scaled = midpoint_weights(raw, torch.tensor([[[1.0, 3.0]]]), scale=3.0)
    assert scaled.transmittance.item() == pytest.approx(1 / 64)


def test_density_scale_is_a_factor() -> None:
    raw = torch.zeros(1, 1, 2, dtype=torch.float64)
    distances = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    for scale in (1.0, 12.0):
        left = midpoint_weights(raw, distances, scale).transmittance.item()
        assert left == pytest.approx(math.exp(-scale * math.log1p(math.exp(-1))), rel=1e-6)


def test_weighted_sum_is_the_sum_over_intervals() -> None:
    weights = torch.tensor([[[0.5, 0.25]]])
    values = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    assert weighted_sum(weights, values).tolist() == [[[1.5, 3.0]]]


def test_weighted_sum_has_first_and_second_derivatives() -> None:
    weights = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    values = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(weighted_sum, (weights, values))
    assert torch.autograd.gradgradcheck(weighted_sum, (weights, values))
    (found,) = torch.autograd.grad(weighted_sum(weights, values.detach()).sum(), weights)
    torch.testing.assert_close(found, values.detach().sum(-1))


def test_weighted_sum_under_autocast_has_gradients() -> None:
    weights = torch.rand(2, 3, 4, requires_grad=True)
    values = torch.rand(2, 3, 4, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        weighted_sum(weights, values).sum().backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, values.detach().sum(-1), atol=0.05, rtol=0.05)
