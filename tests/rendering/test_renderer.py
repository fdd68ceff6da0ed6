"""Rendering of Scenes with known answers, and against a plain loop over rays and samples."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import Jitter, RenderSettings, render
from nerfstudio_gan3d.scene import Bounds, Scene, activate_density
from tests.rendering.scenes import Backdrop, Ball, Blob, LabelledBall, Recorded

BOUNDS = Bounds((1.0, 1.0, 1.0), near=1.0, far=3.0)
SETTINGS = RenderSettings(samples=96, importance_samples=32)


def rays(
    size: int = 16, count: int = 1, focal: float = 1.2, dtype=torch.float32
) -> tuple[Tensor, Tensor]:
    azimuth = torch.linspace(0.3, 2.0, count, dtype=dtype)
    labels = orbit_labels(azimuth, 0.4 * torch.ones_like(azimuth), 2.0, focal=focal)
    return pixel_rays(labels, size, size)


def closest_approach(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Distance from the origin of the world at which rays pass it, and where along them."""
    along = -(origins * directions).sum(-1, keepdim=True)
    return (origins + along * directions).norm(dim=-1, keepdim=True), along


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
def test_ball_has_the_depth_opacity_and_colour_of_a_ball(conventions) -> None:
    ball = Ball()
    scene = Scene(ball, BOUNDS, 1, Backdrop())
    origins, directions = rays(24)
    settings = replace(SETTINGS, conventions=conventions)
    found = render(scene, origins, directions, settings)
    passing, along = closest_approach(origins, directions)
    surface = along - (ball.radius**2 - passing.square()).clamp(min=0).sqrt()
    # Rays that graze the ball within one interval (box diagonal / samples) are left out.
    solid, empty = passing < ball.radius - 0.02, passing > ball.radius + 0.02
    assert solid.sum() > 20
    assert empty.sum() > 100
    assert (found.accumulation[solid] > 0.99).all()
    assert (found.accumulation[empty].abs() < 1e-5).all()
    step = 2 / SETTINGS.samples
    for name in ("distance", "foreground_distance"):
        error = getattr(found, name)[solid] - surface[solid]
        assert error.abs().max() < step + 0.02
    torch.testing.assert_close(
        found.distance[empty], torch.full_like(surface[empty], 3.0), atol=1e-3, rtol=0
    )
    for mask, colour in ((solid, ball.colour), (empty, Backdrop().colour)):
        expected = torch.tensor(colour).expand(int(mask.sum()), 3)
        seen = found.features[mask.expand(-1, -1, 3)].view(-1, 3)
        torch.testing.assert_close(seen, expected, atol=1e-2, rtol=0)


def test_more_samples_find_the_surface_more_closely() -> None:
    ball, (origins, directions) = Ball(), rays(16)
    passing, along = closest_approach(origins, directions)
    surface = along - (ball.radius**2 - passing.square()).clamp(min=0).sqrt()
    solid = passing < 0.25
    errors = []
    for samples in (16, 64, 256):
        scene = Scene(ball, BOUNDS, 1, density_scale=100.0)
        found = render(scene, origins, directions, RenderSettings(samples, 0))
        errors.append((found.distance - surface)[solid].abs().mean().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_importance_samples_find_it_more_closely_than_as_many_even_ones() -> None:
    ball, (origins, directions) = Ball(), rays(16)
    passing, along = closest_approach(origins, directions)
    surface = along - (ball.radius**2 - passing.square()).clamp(min=0).sqrt()
    scene, solid = Scene(ball, BOUNDS, 1, density_scale=100.0), passing < 0.25
    even, placed = (
        (render(scene, origins, directions, settings).distance - surface)[solid].abs().mean()
        for settings in (RenderSettings(48, 0), RenderSettings(24, 24))
    )
    assert placed < even / 2


def test_homogeneous_box_lets_exactly_the_known_light_through() -> None:
    # exp(-sigma * chord), whatever the number of samples; sigma = softplus(1 - 1) = ln 2.
    scene = Scene(Ball(radius=9.0, inside=1.0), BOUNDS, 1)
    origins = torch.tensor([[[0.0, 0.0, 2.0], [0.3, 0.4, 2.0]]])
    directions = torch.tensor([[[0.0, 0.0, -1.0]]]).expand_as(origins)
    found = render(scene, origins, directions, RenderSettings(5, 3))
    torch.testing.assert_close(found.transmittance, torch.full((1, 2, 1), 0.5))


def test_foreground_is_premultiplied_and_goes_over_the_background() -> None:
    ball = Ball(inside=3.0)
    scene = Scene(ball, BOUNDS, 1, Backdrop())
    found = render(scene, *rays(), SETTINGS)
    alpha = found.accumulation
    assert 0.05 < alpha.max() < 0.95
    colour, behind = torch.tensor(ball.colour), torch.tensor(Backdrop().colour)
    torch.testing.assert_close(found.foreground, alpha * colour)
    assert found.background is not None
    torch.testing.assert_close(found.background, behind.expand_as(found.background))
    torch.testing.assert_close(found.features, alpha * colour + (1 - alpha) * behind)


def test_without_background_rays_end_in_nothing() -> None:
    scene = Scene(Ball(inside=3.0), BOUNDS, 1)
    found = render(scene, *rays(), SETTINGS)
    assert found.background is None
    assert torch.equal(found.features, found.foreground)
    assert torch.equal(found.distance, found.foreground_distance)


def test_empty_rays_lie_at_the_far_bound_whether_they_meet_the_box_or_not() -> None:
    scene = Scene(Ball(radius=0.01), BOUNDS, 1)
    origins = torch.tensor([[[0.4, 0.4, 2.0], [0.9, 0.9, 2.0]]])
    directions = torch.tensor([[[0.0, 0.0, -1.0]]]).expand_as(origins)
    found = render(scene, origins, directions, SETTINGS)
    assert found.foreground_distance.flatten().tolist() == [3, 3]


def test_clip_hides_what_lies_in_front_of_and_behind_it() -> None:
    scene = Scene(Ball(), BOUNDS, 1)
    origins, directions = torch.tensor([[[0.0, 0.0, 2.0]]]), torch.tensor([[[0.0, 0.0, -1.0]]])

    def distance(near: float, far: float) -> float:
        clip = torch.tensor([[[near]]]), torch.tensor([[[far]]])
        return render(scene, origins, directions, SETTINGS, clip=clip).distance.item()

    assert distance(0.0, 9.0) == pytest.approx(1.7, abs=0.03)
    assert distance(1.9, 9.0) == pytest.approx(1.9, abs=0.03)
    # The ball begins at 1.7, behind this clip.
    assert distance(0.0, 1.6) == 3


@pytest.mark.parametrize("importance", [0, 8])
def test_leaving_out_missing_rays_changes_neither_values_nor_gradients(importance: int) -> None:
    weight = torch.randn(11, generator=torch.Generator().manual_seed(1)).requires_grad_()
    # A narrow box that most rays miss, a different number of them in each Scene.
    bounds = Bounds((0.4, 0.3, 0.5), near=1.0, far=3.0)
    origins, directions = rays(12, count=2)
    settings = RenderSettings(10, importance)
    middles = Jitter(torch.full((2, 144, 10), 0.5), torch.full((2, 144, importance), 0.5))
    asked: list[Tensor] = []
    scene = Scene(Recorded(Blob(weight).query, asked), bounds, 2, Backdrop(), density_scale=5.0)
    fast = render(scene, origins, directions, settings)
    marched = sum(points.shape[1] for points in asked)
    asked.clear()
    plain = render(scene, origins, directions, settings, middles)
    assert marched < sum(points.shape[1] for points in asked) / 2
    for field in fields(Rendering):
        torch.testing.assert_close(getattr(fast, field.name), getattr(plain, field.name))
    gradients = [torch.autograd.grad(r.features.square().sum(), weight)[0] for r in (fast, plain)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.01


def test_view_that_misses_the_box_entirely_shows_the_background() -> None:
    origins, directions = rays(4)
    found = render(Scene(Ball(), BOUNDS, 1, Backdrop()), origins, -directions, SETTINGS)
    expected = torch.tensor(Backdrop().colour).expand_as(found.features)
    torch.testing.assert_close(found.features, expected)
    assert (found.transmittance == 1).all()


def test_scenes_of_a_batch_do_not_affect_each_other() -> None:
    origins, directions = rays(8, count=2)
    scene = Scene(Ball(), BOUNDS, 2)
    both = render(scene, origins, directions, SETTINGS)
    alone = render(replace(scene, batch_size=1), origins[1:], directions[1:], SETTINGS)
    torch.testing.assert_close(both.features[1:], alone.features)
    torch.testing.assert_close(both.distance[1:], alone.distance)


def loop_corrected(scene: Scene, origin: Tensor, direction: Tensor, count: int) -> Tensor:
    """One ray in the middle of its strata, sample by sample: features, transmittance, distance."""
    slabs = [((side * 0.5 - origin) / direction) for side in (-1.0, 1.0)]
    near = torch.minimum(*slabs).max()
    far = torch.maximum(*slabs).min()
    length = (far - near) / count
    through, features, moment = torch.ones_like(near), torch.zeros(3).to(near), 0.0
    for i in range(count):
        t = near + (i + 0.5) * length
        samples = scene.field.query((origin + t * direction)[None, None])
        sigma = activate_density(samples.raw_density[0, 0, 0], scene.density_scale)
        alpha = 1 - torch.exp(-sigma * length)
        features = features + through * alpha * samples.features[0, 0]
        moment = moment + through * alpha * t
        through = through * (1 - alpha)
    return torch.cat([features, through[None], (moment / (1 - through))[None]])


def loop_reference(scene: Scene, origin: Tensor, direction: Tensor, u: Tensor) -> Tensor:
    """The published marcher for one ray with jitter u."""
    count, near, far = len(u), scene.bounds.near, scene.bounds.far
    t = [near + (i + float(u[i])) * (far - near) / (count - 1) for i in range(count)]
    points = torch.stack([origin + x * direction for x in t])
    samples = scene.field.query(points[None])
    raw, colour = samples.raw_density[0, :, 0], samples.features[0]
    through, features, moment, total = 1.0, torch.zeros(3).to(raw), 0.0, 0.0
    for i in range(count - 1):
        sigma = activate_density((raw[i] + raw[i + 1]) / 2, scene.density_scale)
        alpha = 1 - torch.exp(-sigma * (t[i + 1] - t[i]))
        weight = alpha * through
        features = features + weight * (colour[i] + colour[i + 1]) / 2
        moment, total = moment + weight * (t[i] + t[i + 1]) / 2, total + weight
        through = through * (1 - alpha + 1e-10)
    return torch.stack([*features, through, moment / total])  # type: ignore[arg-type]


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
def test_rendering_equals_the_loop_in_values_and_gradients(conventions) -> None:
    weight = torch.randn(11, dtype=torch.float64).requires_grad_()
    scene = Scene(Blob(weight), BOUNDS, 1, density_scale=3.0)
    origins, directions = rays(3, focal=3.0, dtype=torch.float64)
    count = 7
    u = torch.rand(1, 9, count, dtype=torch.float64)
    jitter = None if conventions == "corrected" else Jitter(u, u[..., :0])
    settings = RenderSettings(count, 0, conventions)
    found = render(scene, origins, directions, settings, jitter)
    values = torch.cat([found.features, found.transmittance, found.distance], dim=-1)[0]
    pairs = zip(origins[0], directions[0], u[0], strict=True)
    if conventions == "corrected":
        twin = torch.stack([loop_corrected(scene, o, d, count) for o, d, _ in pairs])
    else:
        twin = torch.stack([loop_reference(scene, o, d, draws) for o, d, draws in pairs])
    torch.testing.assert_close(values, twin)
    cotangent = torch.randn_like(twin)
    torch.testing.assert_close(
        torch.autograd.grad(values, weight, cotangent),
        torch.autograd.grad(twin, weight, cotangent),
    )


def test_merged_samples_keep_their_own_colours() -> None:
    weight = torch.randn(11, dtype=torch.float64)
    asked: list[Tensor] = []
    scene = Scene(Recorded(Blob(weight).query, asked), BOUNDS, 1, density_scale=3.0)
    origins, directions = rays(3, focal=3.0, dtype=torch.float64)
    found = render(scene, origins, directions, RenderSettings(6, 5))
    coarse, fine = (points.view(1, 9, -1, 3) for points in asked)
    assert coarse.shape[2] == 6
    assert fine.shape[2] == 5
    points = torch.cat([coarse, fine], dim=2)
    distances = ((points - origins[:, :, None]) * directions[:, :, None]).sum(-1)
    order = distances.argsort(-1)
    points = points.gather(2, order[..., None].expand(-1, -1, -1, 3))
    distances = distances.gather(2, order)
    middles = (distances[..., 1:] + distances[..., :-1]) / 2
    torch.testing.assert_close(found.edges[..., 1:-1], middles)
    samples = scene.field.query(points.flatten(1, 2))
    density = activate_density(samples.raw_density, 3.0).view(1, 9, 11)
    optical_depth = (density * found.edges.diff(dim=-1)).cumsum(-1)
    torch.testing.assert_close(found.transmittance[..., 0], (-optical_depth[..., -1]).exp())
    expected = (found.weights[..., None] * samples.features.view(1, 9, 11, 3)).sum(2)
    torch.testing.assert_close(found.features, expected)


def test_drawn_jitter_differs_from_call_to_call_and_stays_near_the_truth() -> None:
    scene, (origins, directions) = Scene(Ball(inside=3.0), BOUNDS, 1), rays()
    first, second = (
        render(scene, origins, directions, SETTINGS, "draw").transmittance for _ in range(2)
    )
    middle = render(scene, origins, directions, SETTINGS).transmittance
    assert not torch.equal(first, second)
    assert (first - middle).abs().max() < 0.1


def test_reference_draws_come_in_the_published_order() -> None:
    settings = RenderSettings(4, 5, "reference")
    torch.manual_seed(5)
    drawn = Jitter.draw(2, 3, settings, torch.device("cpu"))
    torch.manual_seed(5)
    assert torch.equal(drawn.coarse, torch.rand(2, 3, 4, 1)[..., 0])
    assert torch.equal(drawn.fine, torch.rand(6, 5).view(2, 3, 5))


def test_reference_depth_of_empty_rays_is_the_largest_of_the_batch() -> None:
    # Opacity is exactly zero there: 0 / 0 becomes infinity, then the farthest sample of the batch.
    scene = Scene(Ball(), BOUNDS, 1)
    origins = torch.tensor([[[0.0, 0.0, 2.0], [0.9, 0.9, 2.0]]])
    directions = torch.tensor([[[0.0, 0.0, -1.0]]]).expand_as(origins)
    found = render(scene, origins, directions, replace(SETTINGS, conventions="reference"))
    assert found.foreground_distance[0, 1] == found.edges.max()
    assert found.foreground_distance[0, 0].item() == pytest.approx(1.7, abs=0.05)
    assert math.isfinite(found.distance.sum().item())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((1, 0, "corrected"), "samples = 1"),
        ((8, -1, "corrected"), "importance_samples = -1"),
        ((3, 4, "reference"), "samples = 3"),
    ],
)
def test_impossible_settings_are_refused(settings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RenderSettings(*settings)


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
@pytest.mark.parametrize("nothing", [0.0, 1.0])
def test_rays_without_background_end_in_black_or_white(conventions, nothing: float) -> None:
    ball = Ball()
    scene = Scene(ball, BOUNDS, 1, nothing=nothing)
    origins, directions = rays(24)
    found = render(scene, origins, directions, replace(SETTINGS, conventions=conventions))
    passing, _ = closest_approach(origins, directions)
    empty = found.features[(passing > ball.radius + 0.02).expand(-1, -1, 3)]
    torch.testing.assert_close(empty, torch.full_like(empty, nothing), atol=1e-4, rtol=0)
    solid = found.features[(passing < ball.radius - 0.02).expand(-1, -1, 3)].view(-1, 3)
    torch.testing.assert_close(solid, torch.tensor(ball.colour).expand_as(solid), atol=1e-2, rtol=0)
    # A background takes its place.
    other = replace(scene, background=Backdrop())
    behind = render(other, origins, directions, replace(SETTINGS, conventions=conventions))
    same = render(replace(other, nothing=1 - nothing), origins, directions, SETTINGS)
    if conventions == "corrected":
        assert torch.equal(behind.features, same.features)


def test_reference_rays_can_be_clipped() -> None:
    """A ball between 1.7 and 2.3 on the axis: clipped in front of it, inside of it, and not at
    all."""
    scene = Scene(Ball(), BOUNDS, 1)
    origins, directions = rays(1)
    settings = RenderSettings(48, 0, "reference")
    near = torch.full_like(origins[..., :1], 1.0)
    for stop, opaque in ((1.5, False), (2.0, True), (3.0, True)):
        clip = (near, torch.full_like(near, stop))
        found = render(scene, origins, directions, settings, clip=clip)
        assert bool(found.accumulation > 0.9) == opaque


def test_reference_rays_can_start_and_end_at_the_box() -> None:
    seen: list[Tensor] = []
    origins, directions = rays(6)
    settings = replace(
        SETTINGS, samples=8, importance_samples=0, conventions="reference", ray_bounds="box"
    )
    wide = Bounds(BOUNDS.box, near=0.0, far=50.0)
    # Jitter 0 puts the first sample on the entry and the last one on the exit.
    zero = Jitter(torch.zeros(1, 36, 8), torch.zeros(1, 36, 0))
    render(Scene(Recorded(Ball().query, seen), wide, 1), origins, directions, settings, zero)
    points = seen[0].view(36, 8, 3)
    largest = points.abs().amax(-1)
    hit = (largest <= 0.5 + 1e-5).all(1)
    assert hit.sum() > 10
    for end in (0, -1):
        torch.testing.assert_close(largest[hit][:, end], torch.full((int(hit.sum()),), 0.5))


def test_labels_are_composited_as_colours_are_over_what_lies_behind() -> None:
    # A thin ball lets light through, so that both sides of the sum count.
    ball = LabelledBall(inside=3.0)
    behind = (10.0, 0.0, 0.0)
    scene = Scene(ball, BOUNDS, 1, Backdrop(), behind_labels=behind)
    found = render(scene, *rays(12), RenderSettings(48, 0))
    assert found.labels is not None
    left = found.transmittance
    assert bool(((left > 0.2) & (left < 0.8)).any())
    expected = (1 - left) * torch.tensor(ball.labels) + left * torch.tensor(behind)
    torch.testing.assert_close(found.labels, expected, atol=1e-4, rtol=1e-4)
    assert found.foreground.shape[-1] == 3
    plain = render(Scene(Ball(inside=3.0), BOUNDS, 1, Backdrop()), *rays(12), RenderSettings(48, 0))
    assert plain.labels is None
    torch.testing.assert_close(found.features, plain.features)


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
def test_rays_that_meet_nothing_say_what_lies_behind(conventions) -> None:
    behind = (1.0, 1.0, 1.0) if conventions == "reference" else (10.0, 0.0, 0.0)
    scene = Scene(LabelledBall(), BOUNDS, 1, nothing=1.0, behind_labels=behind)
    origins, directions = rays(12)
    found = render(scene, origins, directions, replace(SETTINGS, conventions=conventions))
    missed = closest_approach(origins, directions)[0][..., 0] > 0.4
    assert found.labels is not None
    torch.testing.assert_close(
        found.labels[missed], torch.tensor(behind).expand(int(missed.sum()), 3)
    )
