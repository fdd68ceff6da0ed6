"""What evaluation measures of Scenes of images, on pictures whose figures are known."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, split_labels
from nerfstudio_gan3d.data.datamanager import GanDataManager
from nerfstudio_gan3d.models.reconstruction_config import NovelViewConfig
from nerfstudio_gan3d.scene import Bounds, FieldSamples, Scene
from nerfstudio_gan3d.training.reconstruction_evaluation import (
    Means,
    RgbdBatch,
    novel_batches,
    novel_view_figures,
    own_view_figures,
    photographed_twice,
    relit,
    seen,
    thick_distance,
    thicker_half,
    to_canonical,
    to_world,
)
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


def poses(*degrees: float, focal: float = FOCAL) -> Tensor:
    """Cameras on a circle, 5 away."""
    azimuth = torch.deg2rad(torch.tensor(degrees))
    return orbit_labels(azimuth, 0.2 * torch.ones_like(azimuth), RADIUS, focal=focal)


def test_cameras_go_to_a_scene_and_back() -> None:
    generator = small_generator()
    own, other = poses(20, 140, -90), poses(50, 100, 170, focal=2.0)
    there = to_canonical(generator, own, other)
    torch.testing.assert_close(to_world(generator, own, there), other, atol=1e-5, rtol=1e-5)
    # The image's own camera is the canonical one.
    canonical = generator.canonical_labels(3)
    torch.testing.assert_close(to_canonical(generator, own, own), canonical, atol=1e-5, rtol=1e-5)
    # Without elevation another azimuth is the same turn from the front.
    flat = [
        orbit_labels(torch.tensor([a]), torch.zeros(1), RADIUS, focal=FOCAL) for a in (0.3, 0.8)
    ]
    expected = orbit_labels(torch.tensor([0.5]), torch.zeros(1), RADIUS, focal=FOCAL)
    torch.testing.assert_close(to_canonical(generator, *flat), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(split_labels(there)[1], split_labels(other)[1])


def test_objects_photographed_twice_by_hand() -> None:
    """Object 0 at 0, 20, 25 and 60 degrees, object 1 at 20 and 45: apart by 20 and 25, not by 5,
    35 and more; of the other one by 25."""
    azimuth = torch.deg2rad(torch.tensor([0.0, 20, 25, 60, 20, 45]))
    labels = orbit_labels(azimuth, torch.zeros(6), RADIUS)
    found = photographed_twice(labels, [0, 0, 0, 0, 1, 1])
    assert sorted(found) == [(0, 1), (0, 2), (1, 0), (2, 0), (4, 5), (5, 4)]


def test_light_by_hand() -> None:
    """Brightness from black, x + 1: of 0.5 and 1 against 1 and 2 the factor is 2, where the mask
    is; a black channel keeps its own."""
    image = torch.tensor([[-0.5, 0.0, 0.9], [-0.5, 0.0, 0.9], [-1, -1, 0.9]])[None, :, None]
    target = torch.tensor([[0.0, 1.0, 0.0], [-0.75, -0.5, 0.0], [1, 1, 1.0]])[None, :, None]
    mask = torch.tensor([True, True, False])[None, None, None]
    found = relit(image, target, mask)
    expected = torch.tensor([[0.0, 1.0, 1.0], [-0.75, -0.5, -0.05], [-1, -1, 0.9]])[None, :, None]
    torch.testing.assert_close(found, expected)


def test_means_leave_out_images_without_a_figure() -> None:
    means = Means()
    means.add("a", torch.tensor([1.0, float("nan"), 4.0]))
    means.add("a", torch.tensor([4.0]))
    means.add("b", torch.tensor([float("nan")]))
    assert means.figures() == {"a": 3.0}
    assert means.counts == {"a": 3, "b": 0}
    # What is infinite is not dropped unseen.
    means.add("a", torch.tensor([float("inf")]))
    assert means.figures() == {"a": float("inf")}


class Layers(Ball):
    """Densities 0.1, 0.3, 1 and 3 at z from 0 to 4, one a unit."""

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        found = super().query(positions)
        density = torch.tensor([0.1, 0.3, 1.0, 3.0])[positions[..., 2:].floor().long()]
        # softplus(raw - 1) is the density.
        return FieldSamples(1 + torch.log(torch.expm1(density)), found.features)


def test_the_thinner_half_is_taken_away_by_hand() -> None:
    """Two rays along z, one of which misses the box: its intervals have no length. The middle of
    0.1, 0.3, 1 and 3 is 0.65, so that the light ends in the last two layers: 1 - 1/e in the third
    and the rest, but for e^-4, in the fourth."""
    edges = torch.stack([torch.arange(5.0), torch.zeros(5)])[None]
    thick = torch.tensor([0, 0, 1 - math.exp(-1), math.exp(-1) - math.exp(-4)])
    before = rendering(torch.zeros(1, 2, 3), torch.full((1, 2, 4), 0.25), edges)
    rays = torch.zeros(1, 2, 3), torch.tensor([0.0, 0, 1]).expand(1, 2, 3)
    scene = Scene(Layers(), Bounds((8.0, 8.0, 8.0), 0.0, 4.0), 1)
    for at_once in (1, 3, 4):
        found = thicker_half(scene, rays, before, at_once=at_once)
        torch.testing.assert_close(found.weights[0, 0], thick)
        assert found.weights[0, 1].tolist() == [0] * 4
        left = torch.tensor([math.exp(-4), 1])
        torch.testing.assert_close(found.transmittance[0, :, 0], left)
        assert torch.equal(found.edges, edges)
    # Twice the density everywhere is the same half.
    double = thicker_half(replace(scene, density_scale=2.0), rays, before)
    assert double.weights[0, 0, :2].tolist() == [0, 0]
    assert double.weights[0, 0, 2].item() == pytest.approx(1 - math.exp(-2))
    # Nothing is left of nothing.
    nothing = rendering(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), torch.zeros(1, 2, 5))
    assert thicker_half(scene, rays, nothing).weights.abs().max() == 0


class Wall(Ball):
    """An opaque plane at z = 0 and all that is behind it, of one colour."""

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        found = super().query(positions)
        solid = torch.where(positions[..., 2:] < 0, 1000.0, -1000.0)
        return FieldSamples(solid, found.features)


COLOUR = torch.tensor(Ball().colour)


def wall_batch(count: int = 2) -> RgbdBatch:
    """Photographs of the plane in its colour; on the right half they know of background alone."""
    generator = small_generator()
    labels = generator.canonical_labels(count)
    directions = generator.rays(labels, SIDE, SIDE)[1]
    distances = (RADIUS / -directions[..., 2:]).mT.unflatten(2, (SIDE, SIDE)).clone()
    distances[..., SIDE // 2 :] = 0
    pixels = (COLOUR * 255).round().to(torch.uint8)[:, None, None].expand(count, 3, SIDE, SIDE)
    return RgbdBatch(pixels.contiguous(), distances, labels)


def test_figures_of_a_generator_that_is_right() -> None:
    """The plane through the origin is found everywhere, and the wall stands there, too."""
    generator = shows(small_generator(samples=64, importance_samples=64), Wall())
    figures = own_view_figures(generator, iter([wall_batch(), wall_batch(1)]), wall=0.0)
    assert figures["canonical_psnr"] > 45
    assert figures["canonical_psnr_object"] > 45
    # Weights end within one interval of the plane, and 1 / 1.001 takes 0.005.
    assert figures["canonical_depth_error"] < 0.03
    assert figures["canonical_opacity"] == pytest.approx(1, abs=1e-3)
    # From 5 in the middle to 5.12 in the corners: four or five of the 64 parts of 4 to 6.
    assert 1 < figures["truth_non_flatness"] < 5
    assert figures["non_flatness"] == pytest.approx(figures["truth_non_flatness"], abs=1)
    # The half in front of the plane was empty before.
    flatness = figures["non_flatness_thicker_half"]
    assert flatness == pytest.approx(figures["non_flatness"], abs=1)


class Fog(Ball):
    """A plane at z = 0.3, and before it fog that is the denser the farther right it is."""

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        found = super().query(positions)
        fog = 1 + 6 * (positions[..., :1] + 0.8)
        return FieldSamples(torch.where(positions[..., 2:] < 0.3, 1000.0, fog), found.features)


def test_fog_is_no_relief_once_the_thinner_half_is_gone() -> None:
    """Samples are spread evenly over the box, of which the plane leaves 35 % before it: that is
    the thinner half, but for some of what lies behind. Without it, the plane is at 4.7 in the
    middle and at 4.81 in the corners: four or five of the 64 parts of 4 to 6."""
    generator = shows(small_generator(samples=64, importance_samples=0), Fog())
    figures = own_view_figures(generator, iter([wall_batch()]), wall=0.0)
    assert figures["non_flatness"] > 8
    assert 1 < figures["non_flatness_thicker_half"] < 5
    # Rays that lose all they have end at the Scene's far bound, where the box ends at the latest.
    nothing = shows(small_generator(), Ball(inside=-300.0, outside=-300.0))
    scene = nothing.scene(condition(1))
    labels = nothing.canonical_labels(1)
    found = thick_distance(nothing, scene, labels, seen(nothing, scene, labels))
    assert found.unique().tolist() == [pytest.approx(RADIUS + math.sqrt(3))]


def test_figures_of_a_generator_that_is_wrong_by_a_known_amount() -> None:
    """A wall 0.5 behind the plane where no depth is known: half of the pixels are off by it, and
    the object's are right. Nothing at all has the opacity 0 and the depth 0."""
    generator = shows(small_generator(samples=64, importance_samples=64), Wall())
    figures = own_view_figures(generator, iter([wall_batch()]), wall=0.5)
    assert figures["canonical_depth_error"] == pytest.approx(0.25, abs=0.03)
    nothing = shows(small_generator(), Ball(inside=-300.0))
    figures = own_view_figures(nothing, iter([wall_batch()]), wall=0.0)
    assert figures["canonical_opacity"] == pytest.approx(0, abs=1e-6)
    assert figures["canonical_depth_error"] == pytest.approx(5.042, abs=0.01)
    # Black is brighter by the colour itself: 10 log10(4 / mean (2 c)^2).
    error = float((2 * (COLOUR * 255).round() / 255).square().mean())
    assert figures["canonical_psnr"] == pytest.approx(10 * np.log10(4 / error), abs=1e-3)


class Photographs(GanDataManager):
    """A data manager of pictures that the test makes itself."""

    image_set: Any = None

    def __init__(self, batch: RgbdBatch, objects: list[int] | None) -> None:
        torch.nn.Module.__init__(self)
        self.batch = batch
        kept = {"objects": objects, "labels": batch.labels, "depth_kind": "z"}
        self.image_set = SimpleNamespace(**kept)

    def rgbd(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        images, distances, labels = self.batch
        rows = list(indices)
        return images[rows], distances[rows], labels[rows]


def test_other_photographs_of_an_object() -> None:
    """Three pictures of one colour, two of them 20 degrees apart: each candidate is right on the
    object, but for the plane where it ends."""
    batch = wall_batch(3)
    data = Photographs(batch._replace(labels=poses(0, 20, 90)), [0, 0, 0])

    class Everywhere(Wall):
        def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
            found = Ball.query(self, positions)
            return FieldSamples(torch.full_like(found.raw_density, 1000.0), found.features)

    generator = shows(small_generator(), Everywhere())
    figures = novel_view_figures(generator, data, [0, 1, 2], 0.0, size=1)
    assert figures["novel_pairs"] == 2
    assert figures["novel_psnr"] > 45
    # One colour stays what it is, to infinitely many dB, which count as 100.
    assert figures["novel_psnr_unwarped"] == figures["novel_psnr_unwarped_relit"] == 100
    assert figures["novel_psnr_plane"] < 40
    # A photograph of nothing but background is no pair's target.
    batch.distances[1] = 0
    figures = novel_view_figures(generator, data, [0, 1, 2], 0.0, size=2)
    assert figures["novel_pairs"] == 1
    batch.distances[0] = 0
    assert novel_view_figures(generator, data, [0, 1, 2], 0.0, size=2) == {"novel_pairs": 0}
    data = Photographs(batch, None)
    assert novel_view_figures(generator, data, [0, 1, 2], 0.0, size=1) == {}


def test_views_that_features_are_taken_of() -> None:
    """The same in every run, within the range at the end of training, in the data set's world."""
    generator = shows(small_generator(), Ball())
    batch = wall_batch(2)._replace(labels=poses(90, 90))
    novel = NovelViewConfig()
    first, again = (
        list(novel_batches(generator, iter([batch, batch]), novel, 0.0, 3)) for _ in range(2)
    )
    labels = torch.cat([made.label for made in first])
    assert torch.equal(labels, torch.cat([made.label for made in again]))
    back = to_canonical(generator, poses(90, 90, 90, 90), labels)
    axis = -back[:, [2, 6, 10]]  # from the origin to the camera
    assert (torch.atan2(axis[:, 0], axis[:, 2]).abs() <= np.pi / 6 + 1e-4).all()
    assert (axis[:, 1].asin().abs() <= np.pi / 18 + 1e-4).all()
    assert len(torch.unique(labels, dim=0)) == 4
