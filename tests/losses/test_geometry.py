"""Regularisers of the volume: known values, an O(n^2) twin, published values."""

import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.losses.geometry import (
    background_loss,
    density_variation,
    depth_variation,
    distortion_loss,
)
from nerfstudio_gan3d.scene import FieldSamples
from tests.parity.fill import Fixture


def test_background_loss_is_zero_for_decided_rays_and_half_at_most() -> None:
    # min(T, 1 - T): 0, 0, 0.5, 0.2, 0.1; the mean is 0.16.
    transmittance = torch.tensor([0.0, 1.0, 0.5, 0.8, 0.1])[None, :, None]
    assert background_loss(transmittance).item() == pytest.approx(0.16)


def test_background_loss_pushes_each_ray_to_its_nearer_end() -> None:
    transmittance = torch.tensor([[[0.2], [0.9]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(background_loss(transmittance), transmittance)
    assert gradient.flatten().tolist() == [0.5, -0.5]


def test_background_loss_equals_the_published_values() -> None:
    stored = Fixture("losses")
    for transmittance, expected in zip(stored["T_bg"], stored["L_bg"], strict=True):
        torch.testing.assert_close(background_loss(transmittance[None, :, None]), expected)


def pairwise_distortion(weights: Tensor, edges: Tensor) -> Tensor:
    """The double sum as it is written in the paper."""
    middle, length = (edges[..., 1:] + edges[..., :-1]) / 2, edges.diff(dim=-1)
    apart = (middle[..., :, None] - middle[..., None, :]).abs()
    pairs = (weights[..., :, None] * weights[..., None, :] * apart).sum((-1, -2))
    return pairs + (weights.square() * length).sum(-1) / 3


def test_distortion_of_two_hand_worked_rays() -> None:
    # Half the weight in [0, 1], half in [3, 4]: 2 * 0.25 * 3 + (0.25 + 0.25) / 3 = 1.6667.
    # All of it in [1, 3]: no pairs, 1 * 2 / 3.
    edges = torch.tensor([[[0.0, 1, 3, 4], [0.0, 1, 3, 4]]])
    weights = torch.tensor([[[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    found = distortion_loss(weights, edges)
    torch.testing.assert_close(found, torch.tensor([[5 / 3, 2 / 3]]))


def test_distortion_equals_the_double_sum_in_values_and_gradients() -> None:
    weights = torch.rand(2, 3, 9, dtype=torch.float64, requires_grad=True)
    edges = torch.rand(2, 3, 10, dtype=torch.float64).sort(-1).values.requires_grad_()
    found, twin = distortion_loss(weights, edges), pairwise_distortion(weights, edges)
    torch.testing.assert_close(found, twin)
    cotangent = torch.randn_like(twin)
    torch.testing.assert_close(
        torch.autograd.grad(found, (weights, edges), cotangent),
        torch.autograd.grad(twin, (weights, edges), cotangent),
    )


def test_distortion_equals_the_published_values() -> None:
    stored = Fixture("losses")
    found = distortion_loss(stored["distortion_weights"][None], stored["distortion_edges"][None])
    torch.testing.assert_close(found[0], stored["distortion"], atol=1e-5, rtol=1e-5)


class Slope:
    """Raw density that rises by 10 per unit along x, and a record of the points asked for."""

    def __init__(self) -> None:
        self.points = torch.empty(0)

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        self.points = positions
        return FieldSamples(10 * positions[..., :1], positions)


def test_density_variation_of_a_constant_slope_is_known() -> None:
    # |10 distance n| for n ~ N(0, 1) has the mean 10 distance sqrt(2 / pi).
    field, distance = Slope(), 0.02
    found = density_variation(field, 4, (1.0, 0.5, 2.0), points=5000, distance=distance)
    # The standard error of 20,000 points is 0.4 %.
    assert found.item() == pytest.approx(10 * distance * math.sqrt(2 / math.pi), rel=0.02)


def test_density_variation_asks_all_over_the_box_of_every_scene() -> None:
    field, box = Slope(), torch.tensor([1.0, 0.5, 2.0])
    density_variation(field, 3, (1.0, 0.5, 2.0), points=500, distance=0.01)
    assert field.points.shape == (3, 1000, 3)
    start, moved = field.points.chunk(2, dim=1)
    assert (start.abs() <= box / 2).all()
    torch.testing.assert_close(start.abs().amax(1), (box / 2).expand(3, 3), atol=0.02, rtol=0)
    assert (moved - start).std().item() == pytest.approx(0.01, rel=0.1)
    assert not torch.equal(start[0], start[1])


def test_density_variation_does_not_see_the_end_of_the_box() -> None:
    class Box:
        """A constant inside, nothing at all outside, as a hash grid has it."""

        def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
            inside = (positions.abs() <= 0.5).all(-1, keepdim=True)
            raw = torch.where(inside, 1.0, -1e4)
            return FieldSamples(raw, torch.zeros(*raw.shape[:2], 3))

    assert float(density_variation(Box(), 1, (1.0, 1.0, 1.0), 500, 0.1)) == 0


def test_depth_variation_of_a_hand_worked_map() -> None:
    # Horizontal differences 1, 2, 0, -1: mean square 6 / 4. Vertical: 3, 2, -1: 14 / 3.
    depth = torch.tensor([[[[1.0, 2, 4], [4, 4, 3]]]])
    assert depth_variation(depth).item() == pytest.approx(6 / 4 + 14 / 3)
    # Two images: one mean over both of them.
    both = torch.cat([depth, torch.full_like(depth, 7.0)])
    assert depth_variation(both).item() == pytest.approx((6 / 4 + 14 / 3) / 2)
    assert depth_variation(depth[..., :1]).item() == 9
    assert depth_variation(depth[..., :1, :1]).item() == 0


def test_depth_variation_of_a_slope_is_its_two_steps_squared() -> None:
    row, column = torch.meshgrid(torch.arange(5.0), torch.arange(9.0), indexing="ij")
    depth = (4 + 0.1 * column - 0.3 * row)[None, None].double().requires_grad_()
    found = depth_variation(depth)
    torch.testing.assert_close(found.item(), 0.01 + 0.09, rtol=1e-6, atol=0)
    uneven = torch.rand(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depth_variation, (uneven,))


def test_depth_variation_equals_the_published_values() -> None:
    stored = Fixture("losses")
    found = depth_variation(stored["nfs_depth"][:, None])
    torch.testing.assert_close(found, stored["depth_tv"][0], rtol=1e-5, atol=0)
    rendered = Fixture("g3dr_128")
    found = depth_variation(rendered["novel_depth"])
    torch.testing.assert_close(found, rendered["depth_tv"][0], rtol=1e-5, atol=0)
