"""Gradient scaling by the distance to a known surface: published values, finite differences."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from nerfstudio_gan3d.rendering.proximity import proximity_scale, scale_gradient
from tests.parity.fill import Fixture


def test_scale_equals_the_published_values() -> None:
    stored = Fixture("losses")
    reference = stored["scale_depth"]
    distance = stored["scale_t"].expand(len(reference), -1)
    found = proximity_scale(distance, reference[:, None])
    torch.testing.assert_close(found, stored["scale_s"], rtol=0, atol=1e-6)


def test_scale_at_hand_worked_distances() -> None:
    # 1.25 exp(-x^2 / 0.03): it falls to 1 at sqrt(0.03 ln 1.25) = 0.08182 and to 0.05 at
    # sqrt(0.03 ln 25) = 0.31075; 1.25 exp(-1/3) = 0.89566 at 0.1, 1.25 exp(-4/3) = 0.32950 at 0.2.
    offset = torch.tensor([0.0, 0.0818, 0.0819, 0.1, 0.2, 0.310, 0.311, 1.0], dtype=torch.float64)
    expected = torch.tensor([1.0, 1.0, 0.99955, 0.89566, 0.32950, 0.05079, 0.05, 0.05]).double()
    for sign in (1, -1):
        found = proximity_scale(5 + sign * offset[None], torch.full((1, 1), 5.0).double())
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)
    assert found[0, :2].tolist() == [1, 1]
    assert found[0, 2] < 1


def test_scale_of_other_constants() -> None:
    # 2 exp(-1 / 0.5) = 0.27067; 2 exp(0) is held at 1; far off the floor of 0.2.
    distance = torch.tensor([[0.0, 1.0, 3.0]])
    found = proximity_scale(distance, torch.zeros(1, 1), gain=2.0, width=0.5, floor=0.2)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.27067, 0.2]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"width": 0.0}, {"width": -1.0}, {"floor": -0.1}, {"floor": 1.1}]
)
def test_constants_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"proximity {next(iter(wrong))} is"):
        proximity_scale(torch.zeros(1, 2), torch.zeros(1, 1), **wrong)


def curved(x: Tensor) -> Tensor:
    """A function whose gradient differs at every entry, and couples neighbours."""
    return (x.sin() * x.roll(1, 0)).sum() + x.pow(3).mean()


@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [((3, 4), (3, 4)), ((3, 4, 2), (3, 4)), ((3, 4, 2), (3, 1, 1)), ((3, 4), (1, 4)), ((5,), ())],
)
def test_gradient_is_the_scale_times_finite_differences(
    shape: tuple[int, ...], scale_shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(scale_shape, dtype=torch.float64, requires_grad=True)
    passed = scale_gradient(values, scale)
    assert torch.equal(passed, values)
    gradient, into_scale = torch.autograd.grad(
        curved(passed), (values, scale), allow_unused=True, retain_graph=True
    )
    assert into_scale is None
    factor = scale.detach().reshape(scale_shape + (1,) * (len(shape) - len(scale_shape)))
    factor = factor.expand(shape).reshape(-1)
    flat = values.detach().reshape(-1)
    for index in range(flat.numel()):
        step = torch.zeros_like(flat)
        step[index] = 1e-5
        ahead, behind = (curved((flat + s * step).reshape(shape)) for s in (1, -1))
        slope = (ahead - behind) / 2e-5
        torch.testing.assert_close(gradient.reshape(-1)[index], factor[index] * slope)


def test_values_and_scales_may_lie_in_memory_in_any_order() -> None:
    values = torch.randn(2, 3, 4).transpose(0, 2).requires_grad_()  # [4, 3, 2]
    scale = torch.rand(3, 8)[:, ::2].T  # [4, 3]
    passed = scale_gradient(values, scale)
    assert torch.equal(passed, values)
    cotangent = torch.randn(2, 4, 3).permute(1, 2, 0)
    (gradient,) = torch.autograd.grad(passed, values, cotangent)
    torch.testing.assert_close(gradient, cotangent * scale[..., None])
    spread = torch.randn(4, 1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(scale_gradient(spread.expand(4, 3, 2), scale).sum(), spread)
    torch.testing.assert_close(gradient, scale.sum(1)[:, None, None].expand(4, 1, 2))


def test_the_backward_pass_is_differentiable_and_scales_once_each_time() -> None:
    values = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    ones, scale = torch.ones(3, dtype=torch.float64), torch.tensor([0.05, 0.5, 1.0]).double()
    assert gradcheck(lambda x: scale_gradient(x, ones), (values,))
    assert gradgradcheck(lambda x: scale_gradient(x, scale), (values,))
    # sum y^2 has the gradient s 2 x, and its sum the derivative s 2 s.
    (first,) = torch.autograd.grad(
        scale_gradient(values, scale).square().sum(), values, create_graph=True
    )
    torch.testing.assert_close(first, 2 * scale[:, None] * values)
    (second,) = torch.autograd.grad(first.sum(), values)
    torch.testing.assert_close(second, 2 * scale.square()[:, None].expand(3, 2))


def test_half_precision_stays_half_precision() -> None:
    values = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        scale_gradient(values, torch.tensor([0.5, 0.25])).sum(), values
    )
    assert gradient.dtype == torch.bfloat16
    assert gradient.tolist() == [[0.5] * 3, [0.25] * 3]


def test_scales_that_do_not_fit_are_refused() -> None:
    for shape in ((3,), (2, 3, 1, 1), (2, 4)):
        with pytest.raises(ValueError, match="gradient scale of shape"):
            scale_gradient(torch.zeros(2, 3, 5), torch.zeros(shape))
