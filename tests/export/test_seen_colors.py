"""Colours that pictures show: pictures painted by hand, and a ball whose colours are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.export.seen_colors import SeenColors, look_at_scene
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.scene import Bounds
from tests.export.analytic import Balls, scene_of

SIDE = 64
RED, GREEN, GREY = (204, 0, 0), (0, 102, 0), (90, 90, 90)


def painted(opacity: float = 1.0) -> SeenColors:
    """A plane z = 0 seen from z = 2: red where x < 0, green where x > 0."""
    camera = orbit_labels(torch.zeros(1), torch.zeros(1), 2.0)
    directions = pixel_rays(camera, SIDE, SIDE)[1]
    distance = (-2 / directions[0, :, 2]).view(SIDE, SIDE)
    picture = torch.full((5, SIDE, SIDE), opacity)
    left = torch.tensor(RED) / 255
    right = torch.tensor(GREEN) / 255
    picture[:3, :, : SIDE // 2] = opacity * left[:, None, None]
    picture[:3, :, SIDE // 2 :] = opacity * right[:, None, None]
    picture[4] = distance
    return SeenColors(picture[None], camera, tolerance=0.05)


def colors(
    seen: SeenColors, places: list[list[float]], normal: tuple[float, float, float]
) -> list[tuple[int, ...]]:
    positions = np.array(places, np.float64)
    normals = np.tile(np.array(normal, np.float64), (len(places), 1))
    field = np.tile(np.array(GREY, np.uint8), (len(places), 1))
    return [tuple(row) for row in seen.mixed(positions, normals, field).tolist()]


def test_places_have_the_colour_of_the_pixel_that_shows_them():
    places = [[-0.2, 0.1, 0.0], [0.2, -0.1, 0.02], [0.2, 0.0, 0.2], [0.2, 0.0, -0.2], [3, 0, 0]]
    # The last three are before the plane, behind it and outside of the picture.
    assert colors(painted(), places, (0, 0, 1)) == [RED, GREEN, GREY, GREY, GREY]
    # Turned away.
    assert colors(painted(), places[:2], (0, 0, -1)) == [GREY, GREY]
    # Behind the camera.
    assert colors(painted(), [[0.1, 0, 4.0]], (0, 0, 1)) == [GREY]


def test_colours_are_those_of_the_thing_and_not_of_what_shows_through():
    assert colors(painted(0.6), [[-0.2, 0.1, 0.0]], (0, 0, 1)) == [RED]
    assert colors(painted(0.4), [[-0.2, 0.1, 0.0]], (0, 0, 1)) == [GREY]


def test_places_seen_at_a_slant_are_mixed_with_the_field():
    # Straight before the camera the squared cosine is 0.1, half of what counts as seen.
    normal = (0.0, math.sqrt(0.9), math.sqrt(0.1))
    (found,) = colors(painted(), [[-0.1, 0.0, 0.0]], normal)
    np.testing.assert_allclose(found, (np.array(RED) + np.array(GREY)) / 2, atol=3)


def test_views_are_averaged():
    one = painted()
    both = replace(
        one,
        pictures=torch.cat([one.pictures, one.pictures.flip(-1)]),
        cameras=one.cameras.expand(2, -1),
    )
    (found,) = colors(both, [[-0.2, 0.1, 0.0]], (0, 0, 1))
    np.testing.assert_allclose(found, (np.array(RED) + np.array(GREEN)) / 2, atol=1)


def test_pictures_of_a_hard_ball_show_its_own_colours():
    # Opaque within a hundredth of a unit: pictures show the colour of the place, which is the
    # position.
    scene = replace(scene_of(Balls(slope=30000.0)), bounds=Bounds((1.0, 1.0, 1.0), 1.0, 3.0))
    angles = torch.arange(4) * math.pi / 2
    cameras = orbit_labels(angles, torch.full((4,), 0.3), 2.0)
    seen = look_at_scene(scene, RenderSettings(samples=48, importance_samples=24), cameras, 48)
    mesh = extract_mesh(scene, 16, math.log(2), seen=seen)
    assert isinstance(mesh.visual, ColorVisuals)
    expected = (np.asarray(mesh.vertices) + 0.5) * 255
    apart = np.abs(np.asarray(mesh.visual.vertex_colors)[:, :3] - expected)
    # A pixel is 0.03 wide on the ball, 7 of 255.
    assert apart.mean() < 2
    assert np.quantile(apart, 0.98) < 10
