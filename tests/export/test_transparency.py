"""The foreground on nothing, before known colours and before what is rendered directly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import nerfstudio_gan3d
from nerfstudio_gan3d.api import Gan
from nerfstudio_gan3d.export.outputs import PictureOutput
from nerfstudio_gan3d.export.pictures import depth_range, tiles
from nerfstudio_gan3d.export.transparency import (
    composite,
    spread_colours,
    straight_colours,
    to_bytes,
)
from nerfstudio_gan3d.models.outputs import Backdrop
from nerfstudio_gan3d.scene import Bounds, Scene
from tests.rendering.scenes import Ball

BOUNDS = Bounds((1.0, 1.0, 1.0), 1.1, 2.7)
FOREGROUND: tuple[PictureOutput, ...] = ("foreground",)


@pytest.fixture(scope="module")
def ballgan() -> Gan:
    return nerfstudio_gan3d.load("ballgan-cars64", "cpu")


def test_colours_are_divided_by_alpha() -> None:
    # Colour (0.8, 0.2, 0.4) that covers half, a quarter, and nothing, before white:
    # 0.5 * 0.8 + 0.5 = 0.9, 0.5 * 0.2 + 0.5 = 0.6, ...; 0.25 * 0.8 + 0.75 = 0.95, ...
    before = np.array([[0.9, 0.6, 0.7], [0.95, 0.8, 0.85], [1.0, 1.0, 1.0]])
    alpha = np.array([[0.5], [0.25], [0.0]])
    expected = [[0.8, 0.2, 0.4, 0.5], [0.8, 0.2, 0.4, 0.25], [0, 0, 0, 0]]
    np.testing.assert_allclose(straight_colours(before, alpha), expected, atol=1e-12)
    # The same before (0, 1, 0): 0.4, 0.5 * 0.2 + 0.5, 0.2.
    found = straight_colours(np.array([[0.4, 0.6, 0.2]]), alpha[:1], (0.0, 1.0, 0.0))
    np.testing.assert_allclose(found, expected[:1], atol=1e-12)


def test_eight_bits_cost_one_level_at_most() -> None:
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0, 1, (20000, 1))
    colours = rng.uniform(0, 1, (20000, 3))
    stored = to_bytes(straight_colours(alpha * colours + 1 - alpha, alpha)).astype(float)
    for behind in (0.0, 0.5, 1.0):
        exact = 255 * (alpha * colours + (1 - alpha) * behind)
        shown = stored[:, 3:] / 255 * stored[:, :3] + (255 - stored[:, 3:]) * behind
        assert np.abs(shown - exact).max() <= 1.0001


def test_transparent_pixels_have_the_nearest_opaque_colour() -> None:
    picture = np.zeros((1, 6, 4), np.uint8)
    picture[0, 1] = [10, 20, 30, 255]
    # Less than half opaque: keeps its colour, and lends it to nobody.
    picture[0, 2] = [90, 90, 90, 40]
    picture[0, 5] = [40, 50, 60, 200]
    found = spread_colours(picture)
    ball, other = [10, 20, 30], [40, 50, 60]
    assert found[0, :, :3].tolist() == [ball, ball, [90, 90, 90], ball, other, other]
    assert found[0, :, 3].tolist() == [0, 255, 40, 0, 0, 200]
    # Without a pixel that is half opaque, those that show at all lend theirs.
    picture[0, [1, 5]] = 0
    assert spread_colours(picture)[0, :, :3].tolist() == [[90, 90, 90]] * 6
    nothing = np.zeros((2, 2, 4), np.uint8)
    assert (spread_colours(nothing) == 0).all()


def composites(gan: Gan, scene: Scene, size: int) -> np.ndarray:
    """Largest difference in levels of a composite before white and black from what is rendered
    before them."""
    cameras = gan.run.orbit([20.0, 140.0])
    stored = tiles(gan.run, scene, cameras, ["rgba"], size)["rgba"]
    spread = np.stack([spread_colours(one) for one in stored])
    far = []
    for value in (0, 255):
        grey = value / 255
        backdrop = Backdrop("colour", (grey, grey, grey))
        direct = gan.run.render(scene, cameras, FOREGROUND, size, backdrop)["foreground"]
        behind = np.full((*spread.shape[:-1], 3), value, np.uint8)
        shown = composite(spread, behind).astype(int)
        far.append(np.abs(shown - to_bytes(direct.numpy())).max())
        assert (stored[..., 3] > 0).any()
        assert (stored[..., 3] == 0).any()
    return np.array(far)


def test_a_ball_before_white_and_black_is_what_is_rendered_there(
    ballgan: Gan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ball that light goes through: alpha falls from 55 % in the middle to nothing."""
    generator = ballgan.run.generator
    monkeypatch.setattr(generator, "settings", dataclasses.replace(generator.settings, samples=64))
    ball = Ball(inside=2.0)
    scene = Scene(ball, BOUNDS, 1)
    assert composites(ballgan, scene, 16).max() <= 2
    stored = tiles(ballgan.run, scene, ballgan.run.orbit([20.0]), ["rgba"], 16)["rgba"][0]
    # Wherever the ball is, also at its edge, stands its own colour, without white or black.
    covered = stored[..., 3] > 12
    own = np.array(ball.colour) * 255
    np.testing.assert_allclose(
        stored[covered][:, :3], np.broadcast_to(own, (covered.sum(), 3)), atol=1
    )
    assert (spread_colours(stored)[~covered][:, :3] - own < 1.01).all()


def test_a_bundled_car_before_white_and_black_is_what_is_rendered_there(ballgan: Gan) -> None:
    assert composites(ballgan, ballgan.scene(3), 24).max() <= 2


def test_matte_depth_and_photograph_of_a_bundled_car(ballgan: Gan) -> None:
    run, scene = ballgan.run, ballgan.scene(3)
    cameras = run.orbit([20.0])
    photo = np.random.default_rng(1).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    found = tiles(run, scene, cameras, ["matte", "depth16", "rgb", "rgba"], 24, photo)
    with torch.no_grad():
        exact = run.render(scene, cameras, ("accumulation", "depth"), 24)
    alpha = exact["accumulation"].numpy()
    np.testing.assert_allclose(found["matte"] / 255, alpha, atol=0.51 / 255)
    near, far = depth_range(run)
    stored = found["depth16"]
    solid = alpha > 0.5
    assert solid.any()
    assert (stored[~solid] == 0).all()
    read = near + stored[solid] / 65536 * (far - near)
    np.testing.assert_allclose(
        read, exact["depth"].numpy()[solid], atol=0.51 * (far - near) / 65536
    )
    # The photograph behind the car is what a program makes of the transparent picture before it.
    by_hand = composite(found["rgba"], photo[None]).astype(int)
    assert np.abs(by_hand - found["rgb"]).max() <= 2
    empty = found["matte"][..., 0] == 0
    np.testing.assert_array_equal(found["rgb"][empty], photo[None][empty])
