"""Rays with a known depth: where fine samples lie, and gradients against a plain twin."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import DepthGuide, Jitter, RenderSettings, render
from nerfstudio_gan3d.rendering.samplers import around
from nerfstudio_gan3d.scene import Bounds, FieldSamples, Scene
from tests.rendering.scenes import Ball, Blob, Recorded

BOUNDS = Bounds((1.0, 1.0, 1.0), near=1.0, far=3.0)
COARSE, FINE = 6, 5
DENSITY = 3.0
OUTPUTS = ("features", "transmittance", "weights", "distance")


def rays(side: int = 3, focal: float = 3.0) -> tuple[Tensor, Tensor]:
    """A few rays through the box, in float64."""
    angle = torch.tensor([0.4], dtype=torch.float64)
    return pixel_rays(orbit_labels(angle, angle, 2.0, focal=focal), side, side)


def known(count: int = 9) -> Tensor:
    """Distances about the middle of the box, another one for each ray."""
    return torch.linspace(1.85, 2.15, count, dtype=torch.float64)[None, :, None]


def settings_of(conventions: str) -> RenderSettings:
    return RenderSettings(COARSE, FINE, conventions, "box")  # type: ignore[arg-type]


def blob() -> Tensor:
    """Weights of a `Blob`, which ask for gradients."""
    source = torch.Generator().manual_seed(3)
    return torch.randn(11, dtype=torch.float64, generator=source).requires_grad_()


def jitter(count: int = 9) -> Jitter:
    """Draws of float64."""
    return Jitter(*(torch.rand(1, count, n, dtype=torch.float64) for n in (COARSE, FINE)))


def asked_distances(asked: list[Tensor], origins: Tensor, directions: Tensor) -> list[Tensor]:
    """Where along the rays a field was looked at, pass by pass."""
    count = origins.shape[1]
    points = [part.view(1, count, -1, 3) for part in asked]
    return [((p - origins[:, :, None]) * directions[:, :, None]).sum(-1) for p in points]


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
@pytest.mark.parametrize("half_width", [None, 0.1])
def test_the_scale_changes_no_value(conventions: str, half_width: float | None) -> None:
    scene, settings = (
        Scene(Blob(blob()), BOUNDS, 1, density_scale=DENSITY),
        settings_of(conventions),
    )
    draws = jitter()
    plain, scaled = (
        render(scene, *rays(), settings, draws, guide=DepthGuide(known(), half_width, scale))
        for scale in (False, True)
    )
    for name in OUTPUTS:
        assert torch.equal(getattr(plain, name), getattr(scaled, name))
    if half_width is None:
        # Without a width samples lie where they would without a guide.
        without = render(scene, *rays(), settings, draws)
        for name in (*OUTPUTS, "edges"):
            assert torch.equal(getattr(without, name), getattr(scaled, name))


def test_offsets_by_hand() -> None:
    found = around(torch.tensor([[[2.0], [3.0]]]), 0.5, 3)
    assert found.tolist() == [[[1.5, 2.0, 2.5], [2.5, 3.0, 3.5]]]


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
def test_fine_samples_lie_evenly_about_the_known_distance(conventions: str) -> None:
    asked: list[Tensor] = []
    scene = Scene(Recorded(Blob(blob()).query, asked), BOUNDS, 1)
    origins, directions = rays()
    guide = DepthGuide(known(), 0.1, True)
    render(scene, origins, directions, settings_of(conventions), jitter(), guide=guide)
    fine = asked_distances(asked, origins, directions)[1]
    offsets = torch.tensor([-0.1, -0.05, 0.0, 0.05, 0.1], dtype=torch.float64)
    torch.testing.assert_close(fine, known() + offsets)


def test_corrected_samples_stay_between_the_rays_ends() -> None:
    """The box's front is 1.5 and its back 2.5 away."""
    asked: list[Tensor] = []
    scene = Scene(Recorded(Blob(blob()).query, asked), BOUNDS, 1)
    origins = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64).expand(1, 3, 3)
    directions = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).expand(1, 3, 3)
    distance = torch.tensor([1.55, 2.45, 9.0], dtype=torch.float64)[None, :, None]
    guide = DepthGuide(distance, 0.1, True)
    found = render(scene, origins, directions, settings_of("corrected"), jitter(3), guide=guide)
    fine = asked_distances(asked, origins, directions)[1][0]
    expected = [[1.5, 1.5, 1.55, 1.6, 1.65], [2.35, 2.4, 2.45, 2.5, 2.5], [2.5] * 5]
    torch.testing.assert_close(fine, torch.tensor(expected, dtype=torch.float64))
    assert (found.edges.diff(dim=-1) >= 0).all()
    assert found.edges[..., 0].tolist() == [[1.5] * 3]
    assert found.edges[..., -1].tolist() == [[2.5] * 3]
    torch.testing.assert_close(found.weights.sum(-1, keepdim=True), 1 - found.transmittance)


def damped(values: Tensor, factor: Tensor) -> Tensor:
    """The values, whose gradients are multiplied."""
    return values.detach() + factor * (values - values.detach())


def closeness(distance: Tensor, reference: Tensor) -> Tensor:
    """The published scale."""
    return (1.25 * torch.exp(-((distance - reference) ** 2) / 0.03)).clamp(0.05, 1)


def twin(
    field: Blob, ray: tuple[Tensor, Tensor], t: Tensor, ends: tuple[float, float], surface: Tensor
) -> Tensor:
    """One ray at sorted distances t: colours, what is left of the light, and the weights.

    ``ends`` are those of the ray by the corrected rules; by the published ones they are none, and
    intervals lie between samples.
    """
    samples = field.query((ray[0] + t[:, None] * ray[1])[None])
    raw, colours = samples.raw_density[0, :, 0], samples.features[0]
    places, lengths = t, t.diff()
    if math.isfinite(ends[0]):
        middle = (t[1:] + t[:-1]) / 2
        edges = torch.cat([t.new_tensor(ends[:1]), middle, t.new_tensor(ends[1:])])
        lengths = edges.diff()
    else:
        raw, colours = (raw[1:] + raw[:-1]) / 2, (colours[1:] + colours[:-1]) / 2
        places = (t[1:] + t[:-1]) / 2
    scale = closeness(places, surface)
    sigma = DENSITY * torch.nn.functional.softplus(raw - 1)
    alpha = damped(1 - torch.exp(-sigma * lengths), scale)
    colours = damped(colours, scale[:, None])
    through, features, weights = t.new_ones(()), t.new_zeros(3), []
    for i in range(len(alpha)):
        weights.append(through * alpha[i])
        features = features + weights[-1] * colours[i]
        through = through * (1 - alpha[i])
    return torch.cat([features, through[None], torch.stack(weights)])


def flat(found: Rendering) -> Tensor:
    """What the twin returns, of all rays [R, 4 + S]."""
    return torch.cat([found.features, found.transmittance, found.weights], dim=-1)[0]


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
@pytest.mark.parametrize("half_width", [None, 0.1])
def test_gradients_equal_those_of_the_plain_twin(
    conventions: str, half_width: float | None
) -> None:
    weight = blob()
    asked: list[Tensor] = []
    scene = Scene(Recorded(Blob(weight).query, asked), BOUNDS, 1, density_scale=DENSITY)
    origins, directions = rays()
    guide = DepthGuide(known(), half_width, True)
    found = render(scene, origins, directions, settings_of(conventions), jitter(), guide=guide)
    together = torch.cat(asked_distances(asked, origins, directions), dim=-1).detach()
    sorted_distances = together.sort(dim=-1).values[0]
    rows = []
    for i, t in enumerate(sorted_distances):
        ends = (math.inf, math.inf)
        if conventions == "corrected":
            slabs = [(side * 0.5 - origins[0, i]) / directions[0, i] for side in (-1, 1)]
            ends = (float(torch.minimum(*slabs).max()), float(torch.maximum(*slabs).min()))
        ray = origins[0, i], directions[0, i]
        rows.append(twin(Blob(weight), ray, t, ends, known()[0, i]))
    expected = torch.stack(rows)
    # The published product of (1 - alpha + 1e-10) is within that of the twin's.
    torch.testing.assert_close(flat(found), expected, atol=1e-8, rtol=1e-7)
    cotangent = torch.randn_like(expected)
    ours, wanted = (
        torch.autograd.grad(value, weight, cotangent)[0] for value in (flat(found), expected)
    )
    torch.testing.assert_close(ours, wanted, atol=1e-8, rtol=1e-7)
    undamped = render(
        scene,
        origins,
        directions,
        settings_of(conventions),
        jitter(),
        guide=guide._replace(scale=False),
    )
    (free,) = torch.autograd.grad(flat(undamped), weight, cotangent)
    assert (free - ours).abs().max() > 0.05 * ours.abs().max()


@pytest.mark.parametrize("half_width", [None, 0.1])
def test_leaving_out_rays_that_miss_changes_neither_values_nor_gradients(
    half_width: float | None,
) -> None:
    weight = blob()
    bounds = Bounds((0.4, 0.3, 0.5), near=1.0, far=3.0)
    scene = Scene(Blob(weight), bounds, 1, density_scale=DENSITY)
    origins, directions = rays(8, focal=3.0)
    guide = DepthGuide(known(64), half_width, True)
    middles = Jitter(*(torch.full((1, 64, n), 0.5, dtype=torch.float64) for n in (COARSE, FINE)))
    left_out = render(scene, origins, directions, settings_of("corrected"), guide=guide)
    everything = render(scene, origins, directions, settings_of("corrected"), middles, guide=guide)
    missed = left_out.weights.sum(-1) == 0
    assert 10 < int(missed.sum()) < 60
    assert torch.equal(missed, everything.weights.sum(-1) == 0)
    for name in OUTPUTS:
        torch.testing.assert_close(getattr(left_out, name), getattr(everything, name))
    assert (left_out.features[missed] == 0).all()
    assert (left_out.transmittance[missed] == 1).all()
    cotangent = torch.randn_like(flat(left_out))
    gradients = [
        torch.autograd.grad(flat(one), weight, cotangent)[0] for one in (left_out, everything)
    ]
    torch.testing.assert_close(*gradients)
    assert gradients[0].isfinite().all()
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
def test_no_ray_meets_the_box(conventions: str) -> None:
    weight = blob()
    scene = Scene(Blob(weight), BOUNDS, 1, density_scale=DENSITY)
    origins, directions = rays()
    guide = DepthGuide(known(), 0.1, True)
    found = render(scene, origins, -directions, settings_of(conventions), jitter(), guide=guide)
    assert flat(found).isfinite().all()
    (gradient,) = torch.autograd.grad(flat(found).sum(), weight, allow_unused=True)
    assert gradient is None or bool(gradient.isfinite().all())
    if conventions == "corrected":
        assert (found.transmittance == 1).all()
        assert (found.features == 0).all()


def test_a_guided_surface_is_found_where_even_samples_step_over_it() -> None:
    """A shell of 0.02 between samples 0.25 apart: nobody sees it without the guide."""
    wall = replace(Ball(), radius=0.31, inside=300.0)

    class Shell:
        def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
            found = wall.query(positions)
            hollow = positions.norm(dim=-1, keepdim=True) < 0.29
            return replace(found, raw_density=torch.where(hollow, -100.0, found.raw_density))

    scene = Scene(Shell(), BOUNDS, 1)
    origins = torch.tensor([[[0.0, 0.0, 2.0]]], dtype=torch.float64)
    directions = torch.tensor([[[0.0, 0.0, -1.0]]], dtype=torch.float64)
    settings = RenderSettings(4, 21)
    missed = render(scene, origins, directions, replace(settings, importance_samples=0))
    assert missed.transmittance.item() == pytest.approx(1)
    guide = DepthGuide(torch.tensor([[[1.7]]], dtype=torch.float64), 0.05, False)
    found = render(scene, origins, directions, settings, guide=guide)
    assert found.transmittance.item() < 0.01
    # Its front is 1.69 away, and samples are 0.005 apart.
    assert found.distance.item() == pytest.approx(1.692, abs=0.005)
