"""Two layers a part at a time, against the formula as one expression."""

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.fields import two_layers as module
from nerfstudio_gan3d.fields.two_layers import two_layers


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three rows: seven rows make two whole parts and one that is not."""
    monkeypatch.setattr(module, "PART", 12)


Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def given(rows: int = 7) -> Inputs:
    """Rows of 3 values, a hidden layer of 4, and 1 + 2 outputs."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

    return leaf(rows, 3), leaf(4, 3), leaf(4), leaf(3, 4), leaf(3)


def formula(
    x: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    ranged: bool,
) -> Tensor:
    hidden = torch.log1p((x @ hidden_weight.T + hidden_bias).exp())
    out = hidden @ weight.T + bias
    if not ranged:
        return out
    return torch.cat([out[:, :1], torch.sigmoid(out[:, 1:]) * 1.002 - 0.001], dim=1)


@pytest.mark.parametrize("ranged", [True, False])
def test_values_and_gradients_are_those_of_the_formula(ranged: bool) -> None:
    inputs = given()
    found = torch.cat(two_layers(*inputs, ranged), dim=1)
    expected = formula(*inputs, ranged)
    torch.testing.assert_close(found, expected)
    towards = torch.randn_like(expected)
    gradients = (torch.autograd.grad(out, inputs, towards) for out in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("ranged", [True, False])
def test_first_and_second_derivatives_are_difference_quotients(ranged: bool) -> None:
    def layers(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        return two_layers(x, a, b, c, d, ranged)

    assert torch.autograd.gradcheck(layers, given())
    assert torch.autograd.gradgradcheck(layers, given())


@pytest.mark.parametrize("output", [0, 1])
def test_one_output_alone_gives_gradients(output: int) -> None:
    inputs = given()
    found = torch.autograd.grad(two_layers(*inputs, True)[output].sum(), inputs)
    columns = slice(0, 1) if output == 0 else slice(1, None)
    expected = torch.autograd.grad(formula(*inputs, True)[:, columns].sum(), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_inputs_that_are_not_learned_get_no_gradient() -> None:
    x, *weights = given()
    a, b, c, d = weights
    torch.cat(two_layers(x.detach(), a, b, c, d, True), dim=1).sum().backward()
    assert x.grad is None
    assert all(weight.grad is not None for weight in weights)


def test_no_rows_give_no_rows() -> None:
    first, others = two_layers(*given(rows=0), True)
    assert (first.shape, others.shape) == ((0, 1), (0, 2))
    torch.cat([first, others], dim=1).sum().backward()


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    inputs = given()
    with torch.no_grad():
        found = torch.cat(two_layers(*inputs, True), dim=1)
    assert not found.requires_grad
    torch.testing.assert_close(found, formula(*inputs, True))
