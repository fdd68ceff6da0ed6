"""The occupancy grid: what it says of a known density, and pictures equal to those without it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.rendering import occupancy
from nerfstudio_gan3d.rendering.occupancy import build_occupancy, render_occupied
from nerfstudio_gan3d.rendering.renderer import RenderSettings, render
from nerfstudio_gan3d.rendering.samplers import box_interval
from nerfstudio_gan3d.scene import Bounds, FieldSamples, Scene
from tests.rendering.scenes import Backdrop, Ball, Recorded

BOUNDS = Bounds((0.8, 1.0, 1.2), near=1.0, far=3.0)
SETTINGS = RenderSettings(48, 48)


class Soft:
    """A ball of radius 0.3 with a soft edge, painted by position."""

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        raw = 150 * (0.3 - positions.norm(dim=-1, keepdim=True))
        return FieldSamples(raw, (positions * 4).sin() / 2 + 0.5)


class Haze:
    """The same thin density everywhere."""

    raw = -2.0

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        return FieldSamples(torch.full_like(positions[..., :1], self.raw), positions * 0 + 0.5)


class Ramp:
    """Raw density that grows along x, y and z at different rates."""

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        raw = positions @ positions.new_tensor([[1.0], [10.0], [100.0]])
        return FieldSamples(raw, torch.zeros(*raw.shape[:2], 3))


def rays(size: int = 24) -> tuple[Tensor, Tensor]:
    labels = orbit_labels(torch.tensor([0.7]), torch.tensor([0.4]), 2.0, focal=1.2)
    return pixel_rays(labels, size, size)


def closest(origins: Tensor, directions: Tensor) -> Tensor:
    """Distance from the world's origin at which rays pass it."""
    along = -(origins * directions).sum(-1, keepdim=True)
    return (origins + along * directions).norm(dim=-1)


def psnr(first: Tensor, second: Tensor) -> float:
    return -10 * math.log10(float((first - second).square().mean()))


def test_cells_hold_the_density_of_their_middles_and_of_their_neighbours() -> None:
    scene = Scene(Ramp(), BOUNDS, 1, density_scale=2.0)
    grid = build_occupancy(scene, 5)
    assert grid.values.shape == (125, 3)
    sides = torch.tensor(BOUNDS.box)

    def density(place: tuple[int, ...]) -> Tensor:
        middle = (torch.tensor(place) + 0.5) / 5 - 0.5
        return scene.density((middle * sides)[None, None])[0, 0]

    for place in ((0, 0, 0), (1, 2, 3), (4, 0, 2), (4, 4, 4)):
        x, y, z = place
        found = grid.values[(z * 5 + y) * 5 + x]
        above = tuple(min(part + 1, 4) for part in place)
        below = tuple(max(part - 1, 0) for part in place)
        expected = torch.cat([density(place), density(above), density(below)])
        torch.testing.assert_close(found, expected)


def test_places_along_rays_are_found_in_their_cells() -> None:
    grid = build_occupancy(Scene(Ramp(), BOUNDS, 1), 4)
    origin = torch.tensor([[-1.0, 0.1, 0.2]])
    along_x = torch.tensor([[1.0, 0.0, 0.0]])
    # Cells along x are 0.2 wide from -0.4 on; y = 0.1 and z = 0.2 lie in cells 2 and 2.
    distances = torch.tensor([[0.65, 0.85, 1.05, 1.35, 0.1, 9.0]])
    row = (2 * 4 + 2) * 4
    expected = grid.values[[row, row + 1, row + 2, row + 3, row, row + 3]]
    cells = grid.along(origin, along_x, distances)
    torch.testing.assert_close(torch.stack(cells, dim=-1)[0], expected)


@pytest.mark.parametrize("background", [None, Backdrop()])
@pytest.mark.parametrize("fine", [48, 0])
def test_pictures_equal_those_of_every_sample(background: Backdrop | None, fine: int) -> None:
    asked: list[Tensor] = []
    scene = Scene(Recorded(Soft().query, asked), BOUNDS, 1, background)
    origins, directions = rays()
    settings = replace(SETTINGS, importance_samples=fine)
    full = render(scene, origins, directions, settings)
    everything = sum(points.shape[1] for points in asked)
    grid = build_occupancy(scene)
    asked.clear()
    found = render_occupied(scene, grid, origins, directions, settings)
    # 40 dB is what a picture may differ by; without fine samples the positions are the same.
    assert psnr(found.features, full.features) > (60 if fine == 0 else 42)
    assert psnr(found.accumulation, full.accumulation) > (60 if fine == 0 else 40)
    solid = full.accumulation[0, :, 0] > 0.95
    assert solid.sum() > 20
    assert (found.distance - full.distance)[0, solid].abs().max() < 0.02
    if background is None:
        empty = full.accumulation[0, :, 0] < 1e-6
        assert empty.sum() > 100
        torch.testing.assert_close(found.distance[0, empty], full.distance[0, empty])
    assert sum(points.shape[1] for points in asked) < everything / (5 if fine else 3)


@pytest.mark.parametrize("samples", [12, 96])
def test_haze_stays_as_opaque_as_it_is(samples: int) -> None:
    """Opacity 1 - exp(-sigma L) over the length L in the box, however many samples a ray has."""
    scene = Scene(Haze(), BOUNDS, 1)
    origins, directions = rays(12)
    settings = RenderSettings(samples, samples)
    found = render_occupied(scene, build_occupancy(scene, 32), origins, directions, settings)
    near, far = box_interval(origins, directions, BOUNDS.box, BOUNDS.near, BOUNDS.far)
    sigma = math.log1p(math.exp(Haze.raw - 1))
    expected = 1 - torch.exp(-sigma * (far - near))
    assert expected.max() > 0.04
    torch.testing.assert_close(found.accumulation, expected, atol=2.5e-3, rtol=0)


def test_nothing_is_looked_up_behind_a_solid_surface_or_in_front_of_it() -> None:
    asked: list[Tensor] = []
    scene = Scene(Recorded(Ball().query, asked), BOUNDS, 1)
    grid = build_occupancy(scene, 64)
    asked.clear()
    origins, directions = rays()
    render_occupied(scene, grid, origins, directions, SETTINGS)
    radius = asked[0][0].norm(dim=-1)
    assert radius.numel() > 100
    # Two cells' diagonals to both sides of the surface (the longest side is 1.2).
    reach = 2 * 1.2 / 64 * 3**0.5
    assert radius.max() < 0.3 + reach
    # One sample inside of the ball ends a ray; which of them is the first depends on their spacing.
    hits = int((closest(origins, directions) < 0.3).sum())
    assert hits > 50
    assert int((radius < 0.3 - reach).sum()) <= hits


def test_an_empty_scene_shows_its_background_alone() -> None:
    scene = Scene(Ball(inside=-100.0), BOUNDS, 1, Backdrop())
    origins, directions = rays(8)
    found = render_occupied(scene, build_occupancy(scene, 16), origins, directions, SETTINGS)
    expected = torch.tensor(Backdrop().colour).expand(1, 64, 3)
    torch.testing.assert_close(found.features, expected)
    assert (found.transmittance == 1).all()


def test_clipped_rays_show_what_is_left() -> None:
    scene = Scene(Soft(), BOUNDS, 1)
    origins, directions = rays()
    grid = build_occupancy(scene)
    near = torch.full_like(origins[..., :1], 2.0)
    clip = (near, torch.full_like(near, 3.0))
    full = render(scene, origins, directions, SETTINGS, clip=clip)
    found = render_occupied(scene, grid, origins, directions, SETTINGS, clip)
    assert psnr(found.features, full.features) > 40
    everything = render_occupied(scene, grid, origins, directions, SETTINGS)
    assert psnr(found.features, everything.features) < 30


def test_fewer_fine_samples_are_what_makes_it_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(Soft(), BOUNDS, 1)
    origins, directions = rays(8)
    grid = build_occupancy(scene, 32)
    assert render_occupied(scene, grid, origins, directions, SETTINGS).weights.shape[-1] == 16
    monkeypatch.setattr(occupancy, "FINE_SHARE", 1)
    assert render_occupied(scene, grid, origins, directions, SETTINGS).weights.shape[-1] == 48


def test_what_the_grid_cannot_do_is_refused() -> None:
    scene = Scene(Soft(), BOUNDS, 1)
    with pytest.raises(ValueError, match="2 Scenes"):
        build_occupancy(replace(scene, batch_size=2))
    for cells in (1, 256):
        with pytest.raises(ValueError, match=f"cells = {cells}"):
            build_occupancy(scene, cells)
    grid = build_occupancy(scene, 4)
    with pytest.raises(ValueError, match="corrected sampling only"):
        render_occupied(scene, grid, *rays(4), RenderSettings(8, 8, "reference"))
