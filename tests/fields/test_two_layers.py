"""Two layers a part at a time, against the formula as one expression."""

import weakref

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


@pytest.mark.parametrize("frozen", [(0,), (1, 2, 3, 4), (0, 2, 3), (1, 4)])
@pytest.mark.parametrize("create_graph", [True, False])
def test_what_is_not_learned_gets_no_gradient(frozen: tuple[int, ...], create_graph: bool) -> None:
    inputs = given()
    for index in frozen:
        inputs[index].requires_grad_(False)
    learned = [value for value in inputs if value.requires_grad]
    found = torch.cat(two_layers(*inputs, True), dim=1)
    towards = torch.randn_like(found)
    ours = torch.autograd.grad(found, learned, towards, create_graph=create_graph)
    theirs = torch.autograd.grad(formula(*inputs, True), learned, towards)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_no_rows_give_no_rows() -> None:
    first, others = two_layers(*given(rows=0), True)
    assert (first.shape, others.shape) == ((0, 1), (0, 2))
    torch.cat([first, others], dim=1).sum().backward()


@pytest.mark.parametrize("kept", [True, False])
def test_hidden_values_are_kept_for_gradients_alone(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: list[weakref.ref[Tensor]] = []

    def recorded(x: Tensor) -> Tensor:
        value = torch.nn.functional.softplus(x)
        hidden.append(weakref.ref(value))
        return value

    monkeypatch.setattr(module, "softplus", recorded)
    inputs = given()
    with torch.set_grad_enabled(kept):
        found = torch.cat(two_layers(*inputs, True), dim=1)
    assert [value() is not None for value in hidden] == [kept] * 3
    torch.testing.assert_close(found, formula(*inputs, True))


def test_autocast_takes_the_plain_operators() -> None:
    inputs = [value.detach().float().requires_grad_() for value in given()]
    x, a, b, c, d = inputs
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.cat(two_layers(x, a, b, c, d, True), dim=1)
    torch.testing.assert_close(found.float(), formula(x, a, b, c, d, True), atol=0.05, rtol=0.05)
    found.sum().backward()
    assert all(value.grad is not None for value in inputs)
