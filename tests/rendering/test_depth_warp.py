"""An image carried along by its depth: planes and steps with known answers."""

import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import axis_cosine, make_intrinsics, make_labels, pixel_rays
from nerfstudio_gan3d.rendering.depth_warp import Warped, depth_warp

SIDE = 16
FOCAL = 2.0
AWAY = 2.0
TOLERANCE = 0.05
COLOUR = 2e-3
"""A thirtieth of a pixel: a pixel's distance is one of its nine points', not its centre's."""


def camera(x: float = 0.0, y: float = 0.0) -> Tensor:
    """A camera at (x, y, 0) that looks along +z, moved sideways and not turned."""
    pose = torch.eye(4)[None]
    pose[:, 0, 3], pose[:, 1, 3] = x, y
    return make_labels(pose, make_intrinsics(FOCAL, 1))


def along_rays(depth: Tensor) -> Tensor:
    """z-depth [1, 1, R, R] as distances along the rays of `camera`."""
    label = camera()
    cosine = axis_cosine(label, pixel_rays(label, SIDE, SIDE)[1])
    return depth / cosine.mT.unflatten(2, (SIDE, SIDE))


def wall(depth: float = AWAY) -> Tensor:
    """A plane parallel to the image: distances."""
    return along_rays(torch.full((1, 1, SIDE, SIDE), depth))


def picture() -> Tensor:
    """Colours that say where they are: columns in red, rows in green, both in sixteenths."""
    place = torch.arange(SIDE) / SIDE
    red, green = place.expand(SIDE, SIDE), place[:, None].expand(SIDE, SIDE)
    return torch.stack([red, green, torch.full((SIDE, SIDE), 0.5)])[None]


def pixels(count: float, depth: float = AWAY) -> float:
    """How far a camera has to move for a plane at this depth to move by so many pixels."""
    return count / SIDE * depth / FOCAL


def test_the_same_camera_sees_the_image() -> None:
    warped = depth_warp(picture(), wall(), camera(), camera(), TOLERANCE)
    assert warped.known.all()
    torch.testing.assert_close(warped.image, picture(), atol=1e-5, rtol=0)
    torch.testing.assert_close(warped.distance, wall(), atol=0.01, rtol=0)


@pytest.mark.parametrize("count", [1, 3, 2.5])
def test_a_camera_that_moves_to_the_right_sees_a_plane_move_to_the_left(count: float) -> None:
    warped = depth_warp(picture(), wall(), camera(), camera(x=pixels(count)), TOLERANCE)
    whole = math.floor(count)
    # What came in from the right was not in the image.
    assert warped.known[..., : SIDE - whole - 1].all()
    assert not warped.known[..., SIDE - whole :].any()
    red = picture()[:, 0, :, : SIDE - whole - 1] + count / SIDE
    torch.testing.assert_close(warped.image[:, 0, :, : SIDE - whole - 1], red, atol=COLOUR, rtol=0)
    # The plane is as far from the camera's own plane as before.
    there = camera(x=pixels(count))
    cosine = axis_cosine(there, pixel_rays(there, SIDE, SIDE)[1]).mT.unflatten(2, (SIDE, SIDE))
    depth = (warped.distance * cosine)[warped.known]
    assert (depth - AWAY).abs().max() < 0.02


def test_a_camera_that_moves_down_sees_a_plane_move_up() -> None:
    warped = depth_warp(picture(), wall(), camera(), camera(y=pixels(4)), TOLERANCE)
    green = picture()[:, 1, : SIDE - 5] + 4 / SIDE
    torch.testing.assert_close(warped.image[:, 1, : SIDE - 5], green, atol=COLOUR, rtol=0)
    assert not warped.known[:, :, SIDE - 4 :].any()


def step() -> tuple[Tensor, Tensor]:
    """The left half is red and near (depth 1), the right half blue and far (depth 2)."""
    near = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    near[..., : SIDE // 2] = True
    image = torch.cat([near, torch.zeros_like(near), ~near], dim=1).float()
    return image, along_rays(torch.where(near, 1.0, 2.0))


def test_what_is_near_covers_what_is_far() -> None:
    """A camera to the left: the near half moves by 4 pixels to the right, the far one by 2."""
    warped = depth_warp(*step(), camera(), camera(x=pixels(-4, depth=1.0)), TOLERANCE)
    covered = warped.known & (warped.distance < 1.5)
    assert covered[..., 4:12].all()
    assert not covered[..., 12:].any()
    # Behind the near edge the far half goes on; its first pixel has a nearer neighbour.
    far = warped.known & ~covered
    assert far[..., 13:].all()
    assert not far[..., :13].any()
    assert (warped.image[:, 2, :, 13:] > 0.99).all()
    assert (warped.image[:, 0, :, 4:11] > 0.99).all()


def test_what_the_near_half_hid_is_unknown() -> None:
    """A camera to the right: the near half moves by 4 to the left, the far one by 2, and between
    them nothing is known."""
    warped = depth_warp(*step(), camera(), camera(x=pixels(4, depth=1.0)), TOLERANCE)
    assert warped.known[..., :4].all()
    assert not warped.known[..., 4:6].any()
    assert warped.known[..., 7:14].all()
    assert not warped.known[..., 14:].any()


def test_images_of_a_batch_do_not_mix() -> None:
    image = torch.cat([picture(), 1 - picture()])
    distance = torch.cat([wall(2.0), wall(3.0)])
    labels = torch.cat([camera(x=0.1), camera(x=-0.2)])
    both = depth_warp(image, distance, camera().expand(2, -1), labels, TOLERANCE)
    for index in range(2):
        rows = slice(index, index + 1)
        one = depth_warp(image[rows], distance[rows], camera(), labels[rows], TOLERANCE)
        assert isinstance(one, Warped)
        for left, right in zip(one, both, strict=True):
            torch.testing.assert_close(left, right[rows])


def test_distances_have_to_be_positive() -> None:
    with pytest.raises(ValueError, match=r"a distance of 0\.0; .* over 0 everywhere"):
        depth_warp(picture(), torch.zeros(1, 1, SIDE, SIDE), camera(), camera(), TOLERANCE)
