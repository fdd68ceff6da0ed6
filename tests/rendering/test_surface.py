"""Root finding, the shell's samples and occupancy compositing, on surfaces known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.rendering.compositing import occupancy_weights
from nerfstudio_gan3d.rendering.renderer import RenderSettings, render
from nerfstudio_gan3d.rendering.samplers import box_interval
from nerfstudio_gan3d.rendering.surface import (
    find_surface,
    first_crossing,
    reference_shell_samples,
    shell_samples,
    shell_width,
)
from nerfstudio_gan3d.scene import Bounds, Scene
from tests.rendering.scenes import Backdrop
from tests.rendering.surfaces import Sphere, Surface, Torus

BOUNDS = Bounds((1.0, 1.0, 1.0), near=1.0, far=3.0)


def rays(size: int, count: int = 2) -> tuple[Tensor, Tensor]:
    azimuth = torch.linspace(0.3, 2.0, count)
    return pixel_rays(orbit_labels(azimuth, azimuth / 3, 2.0, focal=1.5), size, size)


def found(surface: Surface, origins: Tensor, directions: Tensor, steps: int = 64) -> Tensor:
    near, far = box_interval(origins, directions, BOUNDS.box, BOUNDS.near, BOUNDS.far)
    return find_surface(surface.raw_density, origins, directions, near, far, steps, 8)


@pytest.mark.parametrize("surface", [Sphere(), Sphere(radius=0.05), Torus(), Torus(ring=0.36)])
def test_rays_meet_a_surface_where_it_is(surface: Sphere | Torus) -> None:
    """To 1e-4, for several Scenes and cameras at once; grazing rays, which dip in for less than a
    step, may be missed."""
    origins, directions = rays(24)
    seen, expected = found(surface, origins, directions), surface.hit(origins, directions)
    both = seen.isfinite() & expected.isfinite()
    assert both.sum() >= 4
    torch.testing.assert_close(seen[both], expected[both], atol=1e-4, rtol=0)
    assert not (seen.isfinite() & ~expected.isfinite()).any()
    missed = expected.isfinite() & ~seen.isfinite()
    middle = origins + directions * torch.where(missed, expected + 1.5 / 63 / 2, 0)
    depth = -surface.distance(middle)[missed.squeeze(-1)]
    assert missed.sum() <= 0.05 * expected.isfinite().sum()
    assert (depth < 1.5 / 63).all()


def test_a_curved_root_is_found_from_both_sides() -> None:
    """A plain secant keeps one end of a convex function for ever and creeps; seen from here,
    exp(8 (t - 1/2)) - 1 has its root at 0.5."""
    origins = torch.tensor([[[-0.5, 0.0, 0.0]]])
    directions = torch.tensor([[[1.0, 0.0, 0.0]]])
    ends = torch.tensor([[[0.0]]]), torch.tensor([[[0.9]]])

    def raw(positions: Tensor) -> Tensor:
        return torch.expm1(8 * positions[..., :1])

    error = {
        name: abs(float(find_surface(raw, origins, directions, *ends, 2, 12, name)) - 0.5)
        for name in ("corrected", "reference")
    }
    assert error["corrected"] < 1e-4 < 0.01 < error["reference"]


def test_a_ray_that_starts_inside() -> None:
    origins, directions = torch.tensor([[[0.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 0.0, 1.0]]])
    near, far = torch.tensor([[[0.1]]]), torch.tensor([[[1.0]]])
    given = Sphere().raw_density, origins, directions, near, far, 32, 4
    assert float(find_surface(*given)) == pytest.approx(0.1)
    assert float(find_surface(*given, "reference")) == math.inf


def test_crossing_between_samples() -> None:
    """Logits -1 and 3 at 2 and 4: a straight line between them is zero at 2.5."""
    distances = torch.tensor([[[1.0, 2.0, 4.0, 5.0]] * 3])
    raw = torch.tensor([[[-2.0, -1.0, 3.0, -1.0], [-1.0, -1.0, -1.0, -2.0], [1.0, -1.0, 2.0, 0]]])
    expected = torch.tensor([[[2.5], [math.inf], [1.0]]])
    torch.testing.assert_close(first_crossing(distances, raw), expected)


def test_samples_lie_before_the_shell_and_in_it() -> None:
    """Rays from 1 to 3. A surface at 2 with half width 0.2: two samples in [1, 1.8] and four in
    [1.8, 2.2], in the middle of equal parts. A surface at 1.1: the shell begins with the ray, so
    all six share [1, 1.3]. No surface: all six share [1, 3]."""
    near, far = torch.ones(1, 3, 1), torch.full((1, 3, 1), 3.0)
    surface = torch.tensor([[[2.0], [1.1], [math.inf]]])
    samples = shell_samples(near, far, surface, 0.2, inside=4, outside=2)
    middle = (torch.arange(6) + 0.5) / 6
    expected = torch.stack(
        [
            torch.tensor([1.2, 1.6, 1.85, 1.95, 2.05, 2.15]),
            1 + 0.3 * middle,
            1 + 2 * middle,
        ]
    )
    torch.testing.assert_close(samples[0], expected)
    jitter = torch.zeros(1, 3, 6)
    first = shell_samples(near, far, surface, 0.2, 4, 2, jitter)[0, 0]
    torch.testing.assert_close(first, torch.tensor([1.0, 1.4, 1.8, 1.9, 2.0, 2.1]))
    alone = shell_samples(near, far, surface, 0.2, 4, 0)[0, 0]
    torch.testing.assert_close(alone, torch.tensor([1.85, 1.95, 2.05, 2.15]))


def test_reference_samples_include_both_ends() -> None:
    """UNISURF spreads from the camera on, and leaves out what lies before a shell that reaches the
    camera, for all rays of the batch."""
    far = torch.full((1, 2, 1), 4.0)
    surface = torch.tensor([[[2.0], [math.inf]]])
    samples = reference_shell_samples(far, surface, 1.0, inside=3, outside=2)
    expected = torch.tensor([[0.0, 1.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(samples[0], expected)
    wide = reference_shell_samples(far, surface, 2.5, inside=3, outside=2)
    torch.testing.assert_close(wide[0, 0], torch.tensor([0.0, 2.0, 4.0]))


def test_width_of_the_shell() -> None:
    """Half of the start after ln 2 / decay, and never less than the end."""
    assert shell_width(100.0, 2.0, 0.1, math.log(2) / 100) == pytest.approx(1.0)
    assert shell_width(1e6, 2.0, 0.1, 0.01) == 0.1


def test_weights_of_occupancies() -> None:
    """By hand: 0.5, 0.5 * 0.2, 0.5 * 0.8 * 1, and nothing behind the last one."""
    weights, left = occupancy_weights(torch.tensor([[[0.5, 0.2, 1.0, 0.7]]]))
    expected = torch.tensor([[[0.5, 0.1, 0.4, 0.0]]])
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)
    assert float(left) < 1e-5


def test_gradients_of_the_weights() -> None:
    """Against finite differences, also behind a sample that is fully occupied."""
    torch.manual_seed(0)
    occupancy = torch.rand(2, 3, 5, dtype=torch.float64)
    occupancy[0, 0, 2] = 1.0
    occupancy.requires_grad_()
    assert torch.autograd.gradcheck(lambda o: tuple(occupancy_weights(o)), occupancy)


def scene(surface: Surface, shell: float) -> Scene:
    return Scene(surface, BOUNDS, 2, Backdrop(), volume="occupancy", shell=shell)


@pytest.mark.parametrize("shell", [0.02, math.inf])
def test_a_scene_made_of_a_surface(shell: float) -> None:
    """Rays that hit the sphere squarely are opaque, have its colour and its distance; those that
    pass it by a wide margin show the background."""
    sphere = Sphere(slope=2000.0)
    origins, directions = rays(16)
    settings = RenderSettings(samples=64, importance_samples=0)
    seen = render(scene(sphere, shell), origins, directions, settings)
    expected = sphere.hit(origins, directions)
    along = -(origins * directions).sum(-1, keepdim=True)
    passing = (origins + along * directions).norm(dim=-1, keepdim=True)
    solid, empty = passing < 0.36, passing > 0.44
    assert seen.surface is not None
    step = 0.02 if shell < 1 else 1.7 / 64
    assert (seen.accumulation[solid] > 0.99).all()
    assert (seen.foreground_distance - expected)[solid].abs().max() < step
    assert (seen.surface - expected)[solid].abs().max() < (1e-4 if shell < 1 else step)
    place = origins + directions * torch.where(solid, expected, 0)
    error = (seen.features - (place + 0.5)).abs()[solid.expand_as(place)]
    assert error.max() < step
    assert (seen.accumulation[empty] < 1e-3).all()
    assert seen.surface[empty].isinf().all()
    # Rays that miss the box are left out of the march, and know no surface either.
    assert seen.surface.shape == seen.distance.shape


def test_jitter_stays_in_the_shell() -> None:
    sphere, shell = Sphere(), 0.05
    origins, directions = rays(12)
    settings = RenderSettings(samples=8, importance_samples=0, march_steps=32)
    torch.manual_seed(3)
    seen = render(scene(sphere, shell), origins, directions, settings, "draw")
    plain = render(scene(sphere, shell), origins, directions, settings)
    assert seen.surface is not None
    hit = seen.surface.isfinite()
    # Inner edges lie between neighbouring samples.
    inside = (seen.edges[..., 1:-1] - seen.surface).abs() <= shell + 1e-5
    assert inside[hit.expand_as(inside)].all()
    assert not torch.equal(seen.features, plain.features)


def test_gradients_reach_the_field_through_the_samples_alone() -> None:
    """Moving the sphere's radius moves colour and opacity as a difference quotient says, at the
    samples as they are: where the surface was found is not differentiated."""
    origins, directions = (x.double() for x in rays(8))
    settings = RenderSettings(samples=16, importance_samples=4)

    class Grown(Sphere):
        def distance(self, positions: Tensor) -> Tensor:
            return positions.norm(dim=-1, keepdim=True) - self.radius

    radius = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    ball = replace(Sphere(slope=30.0))
    grown = Grown(30.0, radius)  # type: ignore[arg-type]
    seen = render(scene(grown, 0.2), origins, directions, settings)
    (gradient,) = torch.autograd.grad(seen.transmittance.sum(), radius)
    hit = found(ball, origins, directions)
    near, far = box_interval(origins, directions, BOUNDS.box, BOUNDS.near, BOUNDS.far)
    distances = shell_samples(near, far, hit, 0.2, 16, 4)
    places = origins.unsqueeze(2) + directions.unsqueeze(2) * distances.unsqueeze(-1)

    def left(size: float) -> Tensor:
        raw = Sphere(30.0, size).raw_density(places).squeeze(-1)
        transmittance = occupancy_weights(raw.sigmoid()).transmittance
        return torch.where(far > near, transmittance, 1.0).sum()

    quotient = (left(0.4 + 1e-5) - left(0.4 - 1e-5)) / 2e-5
    torch.testing.assert_close(gradient, quotient, atol=1e-5, rtol=1e-4)
