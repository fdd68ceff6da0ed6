"""The generator of G3DR: its camera, its rays, what its network is fed, and that it learns."""

import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import camera_angles, pixel_rays, project, split_labels
from nerfstudio_gan3d.models.g3dr_config import DetailConfig, MultiPlaneConfig
from nerfstudio_gan3d.models.image_generator import ImageGenerator, expected_distance, opacity
from nerfstudio_gan3d.networks.unet import PlaneUNet
from nerfstudio_gan3d.rendering.renderer import DepthGuide
from nerfstudio_gan3d.scene import ImageCondition
from tests.models.small_g3dr import (
    BOX,
    FOCAL,
    RADIUS,
    SIDE,
    condition,
    rendering,
    shows,
    small_generator,
)
from tests.rendering.scenes import Ball

TAN = math.tan(math.radians(9))


def test_the_canonical_camera_stands_in_front() -> None:
    generator = small_generator()
    labels = generator.canonical_labels(3)
    azimuth, elevation, radius = camera_angles(labels)
    assert azimuth.tolist() == elevation.tolist() == [0, 0, 0]
    assert radius.tolist() == [RADIUS] * 3
    pose, intrinsics = split_labels(labels)
    assert pose[0].tolist() == [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, RADIUS], [0, 0, 0, 1]]
    assert intrinsics[0, :2, 2].tolist() == [0.5, 0.5]
    assert intrinsics[0, 0, 0].item() == pytest.approx(FOCAL)
    # It belongs to the settings and not to the weights.
    assert "canonical" not in generator.state_dict()


@pytest.mark.parametrize(
    ("conventions", "outermost"), [("corrected", TAN * (1 - 1 / SIDE)), ("reference", TAN)]
)
def test_rays_of_the_corners_by_hand(conventions: str, outermost: float) -> None:
    """Pixel centres lie half a pixel inside of the border, which published rays go through."""
    generator = small_generator(conventions=conventions)
    origins, directions = generator.rays(generator.canonical_labels(1), SIDE, SIDE)
    assert (origins == torch.tensor([0, 0, RADIUS])).all()
    corners = directions[0, [0, SIDE - 1, -SIDE, -1]]
    expected = torch.tensor([[-1, 1], [1, 1], [-1, -1], [1, -1]]) * outermost
    torch.testing.assert_close(corners[:, :2] / -corners[:, 2:], expected)


def test_published_rays_are_evenly_spread_over_the_image() -> None:
    generator = small_generator(conventions="reference")
    labels = generator.canonical_labels(1)
    origins, directions = generator.rays(labels, 3, 5)
    places, _ = project(labels, origins + 4 * directions)
    rows = torch.tensor([0, 0.5, 1]).repeat_interleave(5)
    columns = torch.linspace(0, 1, 5).repeat(3)
    torch.testing.assert_close(places[0], torch.stack([columns, rows], dim=-1))
    # A single row or column has nothing to be spread between.
    assert pixel_rays(labels, 1, 1, to_border=True)[1].isfinite().all()


class Remembering(PlaneUNet):
    """Keeps what it is fed."""

    fed: Tensor

    def encode(self, image_and_depth: Tensor) -> tuple[Tensor, list[Tensor]]:
        self.fed = image_and_depth
        return super().encode(image_and_depth)


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
def test_what_the_network_is_fed(conventions: str) -> None:
    """Distances of 4, 5 and 6 are -1, 0 and 1 in half sides of the box from the origin's."""
    generator = small_generator(conventions=conventions)
    generator.unet = Remembering(SIDE, 4, 16, (1, 2), 1, True, 4, 8)
    given = condition(1)
    given.distance[0, 0, 0, :3] = torch.tensor([4.0, 5.0, 6.0])
    generator.scene(given)
    fed = generator.unet.fed
    assert torch.equal(fed[:, :3], given.image)
    expected = [-1, 0, 1] if conventions == "corrected" else [4, 5, 6]
    assert fed[0, 3, 0, :3].tolist() == expected
    span = (given.distance - RADIUS) if conventions == "corrected" else given.distance
    torch.testing.assert_close(fed[:, 3:], span)


def test_the_images_description_is_the_mean_of_the_middle() -> None:
    """Its two levels are 16 and 8 pixels wide: 8 x 8 features of 32 channels."""
    generator = small_generator()
    given = condition(2)
    planes, description = generator.encode(given)
    distance = given.distance - RADIUS
    middle, skips = generator.unet.encode(torch.cat([given.image, distance], dim=1))
    assert middle.shape == (2, 32, 8, 8)
    torch.testing.assert_close(description, middle.flatten(2).sum(2) / 64)
    torch.testing.assert_close(planes, generator.unet.decode(middle, skips))


def test_a_hash_grid_takes_part_and_learns() -> None:
    """Images of one planes' worth: what differs with the description comes from the grid alone."""
    detail = DetailConfig(levels=3, max_resolution=32, log2_table_size=10, implementation="torch")
    generator = small_generator(detail=detail)
    torch.nn.init.normal_(generator.field.decoder.out.weight)
    given = condition(2)
    scene = generator.scene(given)
    places = (torch.rand(2, 50, 3) - 0.5) * BOX
    found = scene.field.query(places)
    (found.raw_density.sum() + found.features.sum()).backward()
    grid = generator.field.detail
    assert grid is not None
    for part in (*grid.parameters(), generator.unet.mid_block2.block2.proj.weight):
        assert part.grad is not None
        assert bool(part.grad.any())
    planes, description = generator.encode(given)
    field, unit = generator.field, places / BOX
    apart = [
        field.query(field.prepare(planes, one), unit).features
        for one in (description, description + 1)
    ]
    assert (apart[0] - apart[1]).abs().max() > 1e-3


def test_expected_distance_and_opacity_by_hand() -> None:
    # Middles 1.5 and 3: (0.5 * 1.5 + 0.25 * 3) / (0.75 + 0.001). Where nothing is, 0.
    weights = torch.tensor([[[0.5, 0.25], [0.0, 0.0]]])
    edges = torch.tensor([[[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]])
    found = rendering(torch.zeros(1, 2, 3), weights, edges)
    torch.testing.assert_close(expected_distance(found).flatten(), torch.tensor([1.5 / 0.751, 0]))
    assert opacity(found).flatten().tolist() == [0.75, 0]


def test_a_known_scene_has_its_distance_in_the_middle_of_the_image() -> None:
    """A ball of 0.5 seen from 5 away: 4.5, times 1 / 1.001."""
    ball = Ball(radius=0.5, inside=300.0)
    generator = shows(small_generator(samples=64, importance_samples=64), ball)
    labels = generator.canonical_labels(1)
    made = generator.render(generator.scene(condition(1)), labels, resolution=1)
    found = expected_distance(made.rendering).item()
    assert found == pytest.approx(4.5 / 1.001, abs=0.02)
    torch.testing.assert_close(
        made.image.flatten(), torch.tensor(ball.colour) * 2 - 1, atol=2e-3, rtol=0
    )


def test_marching_the_rays_of_an_image_is_rendering_it() -> None:
    generator, given = small_generator(), condition()
    scene, labels = generator.scene(given), generator.canonical_labels(2)
    found = generator.march(scene, generator.rays(labels, SIDE, SIDE))
    made = generator.render(scene, labels)
    colours = found.features.mT.unflatten(2, (SIDE, SIDE)) * 2 - 1
    assert torch.equal(made.image, colours)
    assert torch.equal(generator(given, labels).image, made.image)


def test_jitter_and_guide_reach_the_renderer() -> None:
    generator, given = small_generator(), condition(1)
    scene = generator.scene(given)
    rays = generator.rays(generator.canonical_labels(1), SIDE, SIDE)
    guide = DepthGuide(given.distance.flatten(2).mT, 0.05, True)
    edges = [
        generator.march(scene, rays, jitter, guide).edges
        for jitter, guide in ((False, None), (False, guide), (True, None), (True, None))
    ]
    for one in range(4):
        for other in range(one):
            assert not torch.equal(edges[one], edges[other])


def test_scenes_of_a_batch_do_not_affect_each_other() -> None:
    generator, given = small_generator(), condition()
    labels = generator.canonical_labels(2)
    both = generator(given, labels).image
    alone = generator(ImageCondition(given.image[1:], given.distance[1:]), labels[:1]).image
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)
    assert (both[0] - both[1]).abs().max() > 1e-4


def objective(generator: ImageGenerator, given: ImageCondition) -> tuple[Tensor, Tensor]:
    """Mean differences of colours and of distances, seen from the canonical camera."""
    made = generator(given, generator.canonical_labels(len(given.image)))
    distance = expected_distance(made.rendering).mT.view_as(given.distance)
    return (made.image - given.image).abs().mean(), (distance - given.distance).abs().mean()


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
def test_every_parameter_gets_a_gradient(conventions: str) -> None:
    generator = small_generator(conventions=conventions)
    # The density starts at zero everywhere, whatever the hidden layer says.
    torch.nn.init.normal_(generator.field.decoder.out.weight)
    sum(objective(generator, condition())).backward()  # type: ignore[union-attr]
    without = [
        name
        for name, value in generator.named_parameters()
        if value.grad is None or not bool((value.grad != 0).any())
    ]
    assert without == []


def test_two_images_are_learned() -> None:
    """Ramps to the right and downwards, in colour and depth: 60 steps bring both errors, which are
    about a half, below a fifth of what they were."""
    planes = MultiPlaneConfig(channels=8, hidden_dim=16, density_scale=4.0)
    sizes = {"image_resolution": 8, "samples": 12, "importance_samples": 8}
    generator = small_generator(planes=planes, **sizes)
    ramp = torch.linspace(0, 1, 8).expand(8, 8)
    shade = torch.stack([ramp, ramp.T])[:, None]
    tint = torch.tensor([0.9, 0.2, -0.8])[:, None, None]
    given = ImageCondition(shade * tint - (1 - shade) * 0.7, 5.6 - shade)
    optimizer = torch.optim.Adam(generator.parameters(), lr=3e-3, betas=(0.9, 0.99))
    errors = []
    for _ in range(61):
        rgb, depth = objective(generator, given)
        errors.append((rgb.item(), depth.item()))
        optimizer.zero_grad()
        (rgb + 2 * depth).backward()
        optimizer.step()
    for first, last in zip(errors[0], errors[-1], strict=True):
        assert first > 0.3
        assert last < first / 5
