"""G3DR's objective: what a step does and when, weights, rays of every so many-th pixel, walls."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import camera_angles, project
from nerfstudio_gan3d.models import reconstruction
from nerfstudio_gan3d.models.image_generator import (
    ImageGenerator,
    distance_spread,
    expected_distance,
)
from nerfstudio_gan3d.models.reconstruction import ReconstructionObjective, with_wall
from nerfstudio_gan3d.models.reconstruction_config import NovelViewConfig, ReconstructionLossConfig
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import DepthGuide
from nerfstudio_gan3d.scene import Scene
from tests.models.small_g3dr import (
    FOCAL,
    RADIUS,
    SIDE,
    condition,
    rendering,
    shows,
    small_generator,
)
from tests.rendering.scenes import Ball

STEPS = 4000


def make_objective(novel: float | None = None, **changes: Any) -> ReconstructionObjective:
    """The published objective without networks; ``novel`` is the share of such steps, always."""
    losses = ReconstructionLossConfig(lpips=2.0, clip=0.35)
    for name, value in changes.items():
        assert hasattr(losses, name)
        setattr(losses, name, value)
    views = NovelViewConfig() if novel is None else NovelViewConfig(share=novel, share_reached=0.0)
    return ReconstructionObjective(losses, views, 0.95)


@pytest.mark.parametrize(
    ("share", "probability"), [(0.0, 0.0), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.6, 0.4)]
)
def test_how_often_steps_look_elsewhere(share: float, probability: float) -> None:
    """Published: min(0.4, 2 share); of the others 0.4 are guided."""
    objective = make_objective()
    objective.share = share
    assert objective.novel.probability(share) == pytest.approx(probability)
    turns = [objective.turn(step, 1) for step in range(STEPS)]
    novel = sum(turn.novel for turn in turns)
    # Four standard deviations of a count.
    assert novel == pytest.approx(
        probability * STEPS, abs=4 * math.sqrt(STEPS * probability * (1 - probability))
    )
    assert not any(turn.guided for turn in turns if turn.novel)
    own = [turn.guided for turn in turns if not turn.novel]
    assert sum(own) == pytest.approx(0.4 * len(own), abs=4 * math.sqrt(len(own) * 0.24))


def test_a_turn_is_a_pure_function_of_seed_step_and_share() -> None:
    first, other = make_objective(), make_objective()
    first.share = other.share = 0.5
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    turns = [first.turn(step, 7) for step in range(50)]
    assert torch.equal(torch_state, torch.get_rng_state())
    assert random.getstate() == python_state
    torch.rand(3)
    # Backwards, by an objective that has drawn nothing before.
    assert [other.turn(step, 7) for step in reversed(range(50))] == turns[::-1]
    assert [first.turn(step, 8) for step in range(50)] != turns
    # A step that is novel stays so while the probability rises.
    first.share = 0.1
    early = [first.turn(step, 7) for step in range(50)]
    assert all(late.novel for turn, late in zip(early, turns, strict=True) if turn.novel)


def test_azimuths_by_hand() -> None:
    """pi / D, D evenly from 24 to 6 over the first third: D = 15 at a sixth, 12 degrees."""
    novel = NovelViewConfig()
    shares = [0.0, 1 / 6, 1 / 3, 1.0]
    degrees = [math.degrees(novel.azimuth_range(share)) for share in shares]
    assert degrees == pytest.approx([7.5, 12, 30, 30])
    at_once = NovelViewConfig(azimuth_reached=0.0, share_reached=0.0)
    assert at_once.azimuth_range(0.0) == pytest.approx(math.pi / 6)
    assert at_once.probability(0.0) == 0.4


def two(value: float, other: float) -> Any:
    """A stand-in for a network that judges pairs of images: one figure a pair, mean (a + b) / 2."""
    return lambda image, target: torch.tensor([value, other]) + 0 * (image - target).mean()


def step(objective: ReconstructionObjective, generator: ImageGenerator, share: float) -> Any:
    """Losses as numbers, of two images of 0.5 that are 5 away."""
    objective.share = share
    images = torch.full((2, 3, SIDE, SIDE), 0.5)
    distances = torch.full((2, 1, SIDE, SIDE), 5.0)
    losses, _ = objective(generator, images, distances, 3, 0)
    # The trainer adds them up and asks the sum for gradients.
    assert all(value.shape == () for value in losses.values())
    return {name: value.item() for name, value in losses.items()}


def with_networks(objective: ReconstructionObjective) -> ReconstructionObjective:
    objective.perceptual, objective.coarse = two(2.0, 4.0), two(10.0, 30.0)
    objective.clip = two(0.5, 1.5)
    return objective


# Nothing is in the Scene: colours of -1 are 1.5 from 0.5, distances of 0 are 5 from 5, and 1 - W is
# 1, with a weight that is all there at half of training.
EARLY = {"rgb": 1.5, "depth": 10.0, "opacity": 0.5}
LATE = {"rgb": 1.5, "depth": 10.0, "opacity": 1.0}


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, {**EARLY, "opacity": 0.0}),
        (0.25, EARLY),
        (0.5, LATE),
        # LPIPS of all stages: 2 * 0.5 * 3. CLIP: 0.35 * 0.5 * 1.
        (0.51, {**LATE, "lpips": 3.0, "clip": 0.175}),
        (1.0, {**LATE, "lpips": 3.0, "clip": 0.175}),
    ],
)
def test_losses_of_the_images_own_view(share: float, expected: dict[str, float]) -> None:
    generator = shows(small_generator(), Ball(inside=-300.0))
    objective = with_networks(make_objective(novel=0.0))
    assert step(objective, generator, share) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("share", "opacity"), [(0.0, 0.0), (0.1, 0.2), (0.5, 1.0), (0.9, 1.0)])
def test_losses_of_a_novel_view(share: float, opacity: float) -> None:
    """LPIPS of the coarse stages, 2 * 20, and CLIP, 0.35 * 1, from the start; an empty Scene's
    depth is flat."""
    generator = shows(small_generator(), Ball(inside=-300.0))
    objective = with_networks(make_objective(novel=1.0))
    expected = {"depth_variation": 0.0, "opacity": opacity, "lpips": 40.0, "clip": 0.35}
    assert step(objective, generator, share) == pytest.approx(expected, abs=1e-5)


def test_terms_without_weight_are_left_out() -> None:
    generator = shows(small_generator(), Ball(inside=-300.0))
    off = {"rgb": 0.0, "depth": 0.0, "depth_variation": 0.0, "lpips": 0.0, "clip": 0.0}
    for novel in (0.0, 1.0):
        objective = make_objective(novel=novel, **off)
        objective.prepare()
        assert step(objective, generator, 1.0) == {"opacity": pytest.approx(1.0)}
    assert [sentence.split(" ")[0] for sentence in objective.left_out()] == [
        f"model.losses.{name}" for name in ("rgb", "depth", "depth_variation", "lpips", "clip")
    ]
    assert make_objective().left_out() == []
    assert [sentence.split(":")[0] for sentence in make_objective(novel=0.0).left_out()] == [
        "model.novel.share = 0"
    ]


def test_images_seen_count_all_processes() -> None:
    generator, given = shows(small_generator(), Ball()), condition()
    objective = make_objective(novel=1.0)
    objective.share = 0.3
    figures = {}
    for _ in range(2):
        _, figures = objective(generator, given.image, given.distance, 0, 0, world_size=3)
    assert int(objective.images_seen) == 12
    assert {name: float(value) for name, value in figures.items()} == pytest.approx(
        {"novel": 1.0, "share": 0.3}
    )


class Painted(ImageGenerator):
    """Shows at each pixel the pixel's own place, and a distance that follows from it."""

    guides: list[DepthGuide | None]

    def march(self, scene: Scene, rays: Any, jitter: bool = False, guide: Any = None) -> Rendering:
        assert jitter
        self.guides.append(guide)
        origins, directions = rays
        places, _ = project(self.canonical_labels(len(origins)), origins + 5 * directions)
        features = torch.cat([places, places[..., :1]], dim=-1)
        middle = 1.001 * (4 + places.sum(-1, keepdim=True))
        edges = torch.cat([middle - 1, middle + 1], dim=-1)
        return rendering(features, torch.ones_like(middle), edges)


def painted() -> tuple[ImageGenerator, Tensor, Tensor]:
    """The generator with the images and distances that it shows from the canonical view."""
    generator = small_generator()
    generator.__class__ = Painted
    generator.guides = []  # type: ignore[assignment]
    centre = (torch.arange(SIDE) + 0.5) / SIDE
    u, v = centre.expand(2, 1, SIDE, SIDE), centre[:, None].expand(2, 1, SIDE, SIDE)
    return generator, torch.cat([u, v, u], dim=1) * 2 - 1, 4 + u + v


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_rays_are_compared_with_their_own_pixels(stride: int) -> None:
    """Whatever the offset is, nothing differs; 16 is no multiple of 3 and 5."""
    generator, images, distances = painted()
    objective = make_objective(novel=0.0, ray_stride=stride, guided=1.0)
    for _ in range(6):
        losses, _ = objective(generator, images, distances, 0, 0)
        assert losses["rgb"].item() == pytest.approx(0, abs=1e-5)
        assert losses["depth"].item() == pytest.approx(0, abs=1e-5)
    guides: list[DepthGuide] = getattr(generator, "guides")  # noqa: B009
    counts = {guide.distance.shape[1] for guide in guides}
    sides = {len(range(start, SIDE, stride)) for start in range(stride)}
    assert counts <= {rows * columns for rows in sides for columns in sides}
    # Every pixel's guide is its own distance: with a stride of 1 all of them in order.
    assert all(guide.half_width == 0.05 and guide.scale for guide in guides)
    if stride == 1:
        assert torch.equal(guides[0].distance[..., 0], distances.flatten(1))
    else:
        assert len({float(guide.distance[0, 0]) for guide in guides}) > 1


@pytest.mark.parametrize(
    ("guided", "scale", "expected"),
    [(0.0, False, None), (0.0, True, (None, True)), (1.0, False, (0.05, False))],
)
def test_when_rays_are_guided(guided: float, scale: bool, expected: Any) -> None:
    generator, images, distances = painted()
    objective = make_objective(novel=0.0, guided=guided, scale_gradients=scale)
    objective(generator, images, distances, 0, 0)
    (guide,) = generator.guides  # type: ignore[attr-defined]
    assert (guide and tuple(guide[1:])) == expected


def test_novel_cameras_fill_their_range() -> None:
    generator = shows(small_generator(), Ball())
    objective, seen = make_objective(novel=1.0), []
    plain = generator.rays

    def rays(labels: Tensor, height: int, width: int) -> Any:
        seen.append(labels)
        return plain(labels, height, width)

    generator.rays = rays  # type: ignore[method-assign]
    # A range of 12 degrees at a sixth of training.
    objective.share = 1 / 6
    objective.condition = lambda *_: condition(200)  # type: ignore[method-assign, assignment]
    objective.losses.ray_stride = 8
    objective(generator, torch.zeros(200, 3, SIDE, SIDE), torch.ones(200, 1, SIDE, SIDE), 0, 0)
    azimuth, elevation, radius = camera_angles(seen[-1])
    for angle, limit in ((azimuth, 12.0), (elevation, 10.0)):
        degrees = torch.rad2deg(angle)
        assert degrees.abs().max() <= limit + 1e-3
        assert degrees.max() > 0.9 * limit
        assert degrees.min() < -0.9 * limit
        assert degrees.mean().abs() < 0.2 * limit
    assert abs(float(torch.corrcoef(torch.stack([azimuth, elevation]))[0, 1])) < 0.3
    torch.testing.assert_close(radius, torch.full_like(radius, RADIUS))
    torch.testing.assert_close(seen[-1][:, 16], torch.full_like(radius, FOCAL))


class PaintedPlane(ImageGenerator):
    """Shows the plane z = 0, and on it the place at which the canonical camera sees it."""

    shift: float

    def march(self, scene: Scene, rays: Any, jitter: bool = False, guide: Any = None) -> Rendering:
        origins, directions = rays
        away = -origins[..., 2:] / directions[..., 2:]
        points = origins + away * directions
        places, _ = project(self.canonical_labels(len(origins)), points)
        features = torch.cat([places, places[..., :1]], dim=-1) + self.shift
        middle = 1.001 * (away + self.shift)
        edges = torch.cat([middle - 1, middle + 1], dim=-1)
        return rendering(features, torch.ones_like(middle), edges)


@pytest.mark.parametrize("stride", [1, 3])
def test_the_image_carried_along_by_its_depth_is_what_novel_views_show(stride: int) -> None:
    """A plane that shows the image: nothing differs. Colours and distances that are 0.1 too large:
    2 * 0.1 (colours run from -1 to 1) and 2 * 0.1 (weight 2), and all of that half if warped images
    count half."""
    generator, images, _ = painted()
    generator.__class__ = PaintedPlane
    generator.shift = 0.0  # type: ignore[assignment]
    origins, directions = generator.rays(generator.canonical_labels(2), SIDE, SIDE)
    away = (-origins[..., 2:] / directions[..., 2:]).mT.unflatten(2, (SIDE, SIDE))
    objective = make_objective(novel=1.0, warp=0.5, depth_spread=1.0, ray_stride=stride)
    objective.share = 0.5
    losses, _ = objective(generator, images, away, 0, 0)
    # The outermost half of the image's border pixels has no change of colour: up to 1 / 32 there.
    assert losses["novel_rgb"].item() == pytest.approx(0, abs=5e-3)
    assert losses["novel_depth"].item() == pytest.approx(0, abs=0.02)
    # The plane's one interval is 2 long, with its middle on the plane.
    assert losses["novel_depth_spread"].item() == pytest.approx(0, abs=0.02)
    generator.shift = 0.1  # type: ignore[assignment]
    losses, _ = objective(generator, images, away, 0, 0)
    assert losses["novel_rgb"].item() == pytest.approx(0.1, abs=5e-3)
    assert losses["novel_depth"].item() == pytest.approx(0.1, abs=0.02)
    assert losses["novel_depth_spread"].item() == pytest.approx(0.05, abs=0.02)
    without = make_objective(novel=1.0)
    assert "novel_rgb" not in without(generator, images, away, 0, 0)[0]


def test_light_from_far_off_by_hand() -> None:
    """Middles 0.5, 1.5, 2.5 and a surface at 1.5: 0.25 * 1 + 0.5 * 0, and 0.25 that passed through
    counts as 2 away. The gradient of a weight is its distance less 2."""
    weights = torch.tensor([[[0.25, 0.5, 0.0]]], requires_grad=True)
    edges = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    found = rendering(torch.zeros(1, 1, 3), weights, edges)
    spread = distance_spread(found, torch.full((1, 1, 1), 1.5), 2.0)
    assert spread.item() == pytest.approx(0.75)
    (slope,) = torch.autograd.grad(spread.sum(), weights)
    torch.testing.assert_close(slope, torch.tensor([[[-1.0, -2.0, -1.0]]]))
    # Fog before and behind a surface is on it in the mean.
    fog = rendering(torch.zeros(1, 1, 3), torch.tensor([[[0.5, 0.0, 0.5]]]), edges)
    assert expected_distance(fog).item() == pytest.approx(1.5, abs=2e-3)
    assert distance_spread(fog, torch.full((1, 1, 1), 1.5), 2.0).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("conventions", "offset"), [("corrected", 0.5), ("reference", 0.0)])
def test_the_wall_is_a_plane_by_hand(conventions: str, offset: float) -> None:
    """Half a half side of the box behind the origin, 5.5 along the axis, and over the cosine to
    the side."""
    generator = small_generator(conventions=conventions)
    given = torch.zeros(2, 1, SIDE, SIDE)
    given[0, 0, 3, 4] = 4.25
    found = with_wall(generator, given, 0.5)
    assert found[0, 0, 3, 4] == 4.25
    last = SIDE if conventions == "corrected" else SIDE - 1
    u, v = (offset / last - 0.5) / FOCAL, ((2 + offset) / last - 0.5) / FOCAL
    assert found[1, 0, 2, 0].item() == pytest.approx(5.5 * math.sqrt(1 + u * u + v * v))
    # All of its points lie in the plane z = -0.5.
    origins, directions = generator.rays(generator.canonical_labels(2), SIDE, SIDE)
    points = origins + directions * found.flatten(2).mT
    torch.testing.assert_close(points[1, :, 2], torch.full((SIDE**2,), -0.5), atol=1e-5, rtol=0)


def test_networks_are_asked_for_by_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    for name in ("PerceptualDistance", "ClipDistance"):
        monkeypatch.setattr(
            reconstruction, name, lambda *args, **words: asked.append((args, words)) or two(0, 0)
        )
    files: dict[str, Any] = {
        "lpips_weights": Path("vgg.pth"),
        "clip_weights": Path("clip.pt"),
    }
    make_objective(**files).prepare()
    coarse, fine, clip = asked
    assert coarse[0] == fine[0] == (files["lpips_weights"],)
    assert coarse[1]["layers"] == (0, 0, 0, 1, 1)
    assert "layers" not in fine[1]
    assert clip[0] == ("ViT-B-16", "openai", files["clip_weights"])
    assert clip[1]["without"] == "--pipeline.model.losses.clip 0"
    asked.clear()
    make_objective(lpips=0.0, clip=0.0).prepare()
    assert asked == []
    # Without weight on the image's own view only novel views need LPIPS.
    make_objective(canonical_factor=0.0, clip=0.0).prepare()
    assert [words["layers"] for _, words in asked] == [(0, 0, 0, 1, 1)]
