"""Sampling of the planes: ramps that interpolation reproduces, a plain twin, the axes."""

import itertools

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.fields.decoder import initial_ball
from nerfstudio_gan3d.fields.triplane import PLANE_AXES, PlaneAxes, TriPlane, sample_planes
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.rendering.renderer import Conventions

W = 8


def ramps(size: int = 8) -> Tensor:
    """Planes [1, 3, 2, size, size] whose channels are the texels' own (u, v) in [-0.5, 0.5]."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    u, v = centre.expand(size, size), centre[:, None].expand(size, size)
    return torch.stack([u, v]).expand(1, 3, 2, size, size)


def inside(count: int = 20, margin: float = 0.0625) -> Tensor:
    """Positions further from the faces than half a texel."""
    return (torch.rand(1, count, 3, dtype=torch.float64) - 0.5) * (1 - 2 * margin)


@pytest.mark.parametrize("axes", list(PLANE_AXES))
def test_planes_of_ramps_give_the_mean_of_the_projected_coordinates(axes: str) -> None:
    positions = inside()
    found = sample_planes(ramps(), positions, PLANE_AXES[axes])
    x, y, z = positions.unbind(-1)
    # Widths run along x, x and the third plane's first axis, heights along y, z and its second.
    width, height = {"xy_xz_zy": (z, y), "xy_xz_zx": (z, x), "xy_xz_yz": (y, z)}[axes]
    expected = torch.stack([(x + x + width) / 3, (y + z + height) / 3], dim=-1)
    torch.testing.assert_close(found, expected)


def test_corrected_planes_are_the_three_pairs_of_axes() -> None:
    pairs = {frozenset(pair) for pair in PLANE_AXES["xy_xz_zy"]}
    assert pairs == {frozenset(pair) for pair in itertools.combinations(range(3), 2)}
    assert len({frozenset(pair) for pair in PLANE_AXES["xy_xz_zx"]}) == 2


def bilinear(plane: Tensor, u: float, v: float) -> Tensor:
    """A texel-by-texel lookup with zeros around the plane; u and v in [-0.5, 0.5]."""
    size = plane.shape[-1]
    column, row = (u + 0.5) * size - 0.5, (v + 0.5) * size - 0.5
    value = torch.zeros(len(plane), dtype=plane.dtype)
    for i, j in itertools.product(range(size), repeat=2):
        weight = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
        value = value + weight * plane[:, i, j]
    return value


def test_lookup_equals_the_plain_twin_inside_and_outside() -> None:
    planes = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    positions = (torch.rand(2, 12, 3, dtype=torch.float64) - 0.5) * 1.6
    axes = PLANE_AXES["xy_xz_zy"]
    found = sample_planes(planes, positions, axes)
    for batch, point in itertools.product(range(2), range(12)):
        position = positions[batch, point].tolist()
        values = [
            bilinear(planes[batch, k], position[a], position[b]) for k, (a, b) in enumerate(axes)
        ]
        torch.testing.assert_close(found[batch, point], torch.stack(values).mean(0))


def test_outside_of_all_planes_there_is_nothing() -> None:
    planes = torch.randn(1, 3, 4, 5, 5)
    found = sample_planes(planes, torch.full((1, 1, 3), 0.7), PLANE_AXES["xy_xz_zy"])
    assert (found == 0).all()


def test_lookup_has_right_gradients() -> None:
    planes = torch.randn(1, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    positions = inside(4).requires_grad_()
    axes = PLANE_AXES["xy_xz_zy"]
    assert torch.autograd.gradcheck(lambda p, x: sample_planes(p, x, axes), (planes, positions))


def tiny(
    ball: bool = True, conventions: Conventions = "corrected", axes: PlaneAxes = "auto"
) -> TriPlane:
    return TriPlane(W, 3, 8, 4, 64, 8, 8, conventions, initial_ball if ball else None, axes)


def test_untrained_field_is_the_ball_alone() -> None:
    field = tiny()
    positions = torch.rand(2, 9, 3) - 0.5
    samples = field.query(field.prepare(torch.randn(2, field.num_ws, W)), positions)
    torch.testing.assert_close(samples.raw_density, initial_ball(positions))
    plain = tiny(ball=False)
    samples = plain.query(plain.prepare(torch.randn(2, plain.num_ws, W)), positions)
    assert (samples.raw_density == 0).all()


def test_every_scene_of_a_batch_gets_its_own_planes() -> None:
    field = tiny()
    ws, positions = torch.randn(2, field.num_ws, W), torch.rand(2, 9, 3) - 0.5
    both = field.query(field.prepare(ws), positions).features
    alone = field.query(field.prepare(ws[1:]), positions[1:]).features
    torch.testing.assert_close(both[1:], alone)
    assert not torch.allclose(both[0], both[1])


def test_conventions_choose_the_axes() -> None:
    assert tiny(conventions="reference").axes == PLANE_AXES["xy_xz_zx"]
    assert tiny().axes == PLANE_AXES["xy_xz_zy"]
    assert tiny(axes="xy_xz_yz").axes == PLANE_AXES["xy_xz_yz"]


def test_object_positions_are_measured_in_sides_of_the_box() -> None:
    field = tiny()
    prepared = field.prepare(torch.randn(1, field.num_ws, W))
    positions = torch.rand(1, 9, 3) - 0.5
    box = (0.5, 2.0, 4.0)
    bound = BoundField(field, prepared, box).query(positions * torch.tensor(box))
    plain = field.query(prepared, positions)
    torch.testing.assert_close(bound.features, plain.features)
    torch.testing.assert_close(bound.raw_density, plain.raw_density)


def test_last_latent_repaints_without_moving_anything() -> None:
    torch.manual_seed(0)
    field = TriPlane(W, 3, 8, 4, 64, 8, 8, palette=4)
    with torch.no_grad():
        field.decoder.out.weight.normal_()
    plain = TriPlane(W, 3, 8, 4, 64, 8, 8)
    assert field.num_ws == plain.num_ws + 1
    ws, positions = torch.randn(1, field.num_ws, W), inside().float()
    repainted = ws.clone()
    repainted[:, -1] = torch.randn(W)
    first, second = (field.query(field.prepare(w), positions) for w in (ws, repainted))
    assert torch.equal(first.raw_density, second.raw_density)
    assert (first.channels - second.channels).abs().max() > 0.05
    raw = field.raw_density(field.prepare(ws), positions)
    assert torch.equal(raw, first.raw_density)
