"""Smoothness of normals, on surfaces whose normals are known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.losses.surface import density_gradient, normal_smoothness
from nerfstudio_gan3d.scene import Bounds, FieldSamples, Scene
from tests.rendering.surfaces import Sphere


def scene(field) -> Scene:
    return Scene(field, Bounds(), 1, volume="occupancy")


def sphere_points(count: int, radius: float = 0.4) -> Tensor:
    torch.manual_seed(0)
    points = torch.randn(1, count, 3, dtype=torch.float64)
    return radius * torch.nn.functional.normalize(points, dim=-1)


@pytest.mark.parametrize("step", [None, 0.01])
def test_gradient_of_a_sphere(step: float | None) -> None:
    """The logit falls by the slope along the normal. Central differences of the distance to a
    point have the error h^2 / (6 r^2) at most, relative."""
    points = sphere_points(50)
    gradient = density_gradient(scene(Sphere(slope=7.0)), points, step)
    expected = -7.0 * torch.nn.functional.normalize(points, dim=-1)
    torch.testing.assert_close(gradient, expected, atol=7 * 0.01**2 / 0.4**2, rtol=0)


@pytest.mark.parametrize("step", [None, 0.005])
def test_smoothness_is_the_angle_between_normals(step: float | None) -> None:
    """Two places of a sphere whose normals differ by an angle a: the difference has the length
    2 sin(a / 2)."""
    angle = torch.tensor([0.1, 0.5, 0.02], dtype=torch.float64)
    first = torch.tensor([0.4, 0.0, 0.0], dtype=torch.float64).expand(1, 3, 3)
    second = 0.4 * torch.stack([angle.cos(), angle.sin(), torch.zeros(3).double()], -1)[None]
    valid = torch.tensor([[True, True, False]])
    found = normal_smoothness(scene(Sphere()), first, valid, 0.1, step, second)
    expected = (2 * (angle[:2] / 2).sin()).mean()
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_nothing_counts_nothing() -> None:
    points, valid = sphere_points(4), torch.zeros(1, 4, dtype=torch.bool)
    assert normal_smoothness(scene(Sphere()), points, valid, 0.1, None) == 0


def test_neighbours_are_drawn_within_reach() -> None:
    """On a sphere of radius 0.4, places that lie up to 0.004 apart along each axis have normals
    that differ by up to 0.004 sqrt(3) / 0.4, and on average by more than nothing."""
    points = sphere_points(400)
    valid = torch.ones(1, 400, dtype=torch.bool)
    value = float(normal_smoothness(scene(Sphere()), points, valid, 0.004, None))
    assert 0.25 * 0.01 < value < 0.01 * 3**0.5


@dataclass(frozen=True)
class Wave:
    """A plane z = 0 with bumps of a height that is a parameter."""

    height: Tensor

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        raw = self.height * (20 * positions[..., :1]).sin() - positions[..., 2:]
        return FieldSamples(raw, positions)


@pytest.mark.parametrize("step", [None, 0.01])
def test_the_loss_flattens(step: float | None) -> None:
    """Its gradient in the height of bumps agrees with a difference quotient, and is positive."""
    torch.manual_seed(1)
    points = torch.rand(1, 50, 3, dtype=torch.float64) - 0.5
    near = points + 0.02 * torch.randn_like(points)
    valid = torch.ones(1, 50, dtype=torch.bool)

    def loss(height: Tensor) -> Tensor:
        return normal_smoothness(scene(Wave(height)), points, valid, 0.1, step, near)

    height = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, height, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss(height), height)
    assert gradient > 0
