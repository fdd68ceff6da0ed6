"""What Python code hands in, in all forms: images and depth of known content, and cameras."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.api_inputs import camera_labels, image_view, one_camera, sized_cameras
from nerfstudio_gan3d.cameras import labels_to_cameras
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.run import Run, load_run
from tests.cli.g3dr_run import untrained_g3dr
from tests.models.tiny_g3dr import FAR, NEAR, SIDE

ROWS = np.arange(SIDE)
PIXELS = np.stack(
    np.broadcast_arrays(ROWS[:, None] * 16, ROWS[None] * 16, np.uint8(100)), axis=-1
).astype(np.uint8)
VALUES = np.ascontiguousarray(np.broadcast_to(ROWS[:, None] * 4096, (SIDE, SIDE))).astype(np.uint16)
"""Depth of 16 bits: row i is i / 16 of the way from near to far."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(untrained_g3dr(tmp_path_factory.mktemp("g3dr") / "run"), "cpu")


def check(view: int | ImageView) -> None:
    assert isinstance(view, ImageView)
    np.testing.assert_array_equal(view.image[0].permute(1, 2, 0), PIXELS)
    expected = NEAR + ROWS / 16 * (FAR - NEAR)
    np.testing.assert_allclose(view.distance[0, 0, :, 5], expected, atol=1e-6)


def test_an_image_in_any_form(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bird.png"
    Image.fromarray(PIXELS).save(file)
    for image in (
        PIXELS,
        PIXELS / np.float32(255),
        torch.from_numpy(PIXELS),
        Image.fromarray(PIXELS),
        file,
        str(file),
    ):
        check(image_view(run, image, VALUES))


def test_depth_in_any_form(run: Run, tmp_path: Path) -> None:
    beside = tmp_path / "bird_depth.png"
    Image.fromarray(VALUES).save(beside)
    for depth in (
        VALUES,
        VALUES.astype(np.int32),
        VALUES / 65536,
        torch.from_numpy(VALUES.astype(np.float32) / 65536),
        Image.fromarray(VALUES),
        beside,
        str(beside),
    ):
        check(image_view(run, PIXELS, depth))
    # That which lies beside a file need not be named.
    Image.fromarray(PIXELS).save(tmp_path / "bird.png")
    check(image_view(run, tmp_path / "bird.png"))


def test_the_middle_square_is_taken(run: Run) -> None:
    wide = np.zeros((SIDE, SIDE + 8, 3), np.uint8)
    wide[:, 4:-4] = PIXELS
    depth = np.zeros((SIDE, SIDE + 8), np.uint16)
    depth[:, 4:-4] = VALUES
    check(image_view(run, wide, depth))


def test_kept_images_and_views_are_passed_on(run: Run) -> None:
    assert image_view(run, 7) == 7
    view = image_view(run, PIXELS, VALUES)
    assert image_view(run, view) is view


@pytest.mark.parametrize(
    ("image", "depth", "message"),
    [
        (PIXELS, None, "image: it has no depth; give depth, small is near$"),
        (PIXELS[..., 0], VALUES, r"image has the shape \[16, 16\]; give RGB, \[H, W, 3\]"),
        (PIXELS, VALUES[None], r"depth has the shape \[1, 16, 16\]; give \[H, W\]"),
        (PIXELS * 2.0, VALUES, "image: an array of float64 with 0 to 480; .* between 0 and 1$"),
        (PIXELS, VALUES / 4096, "depth: an array of float64 with 0 to 15; .* between 0 and 1$"),
        (PIXELS, np.full((SIDE, SIDE), np.nan), "depth: an array of float64 with nan to nan"),
        (PIXELS, VALUES.astype(int) - 1, "depth: an array of int64 with -1 to .* 0 and 65535$"),
        (PIXELS, PIXELS[..., 0], "depth: an array of uint8; give 16-bit integers, or floats"),
        (PIXELS, VALUES[:8], "depth: 16 x 8 pixels, but image has 16 x 16"),
    ],
)
def test_what_cannot_be_used_is_named(
    run: Run, image: np.ndarray, depth: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        image_view(run, image, depth)


def test_a_file_without_depth_is_named(run: Run, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "bird.png")
    with pytest.raises(ValueError, match=r"give depth, .* or lay bird_depth\.png beside it"):
        image_view(run, tmp_path / "bird.png")
    with pytest.raises(ValueError, match=r"none\.png: cannot be read"):
        image_view(run, tmp_path / "none.png", VALUES)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([30, 15], r"cameras has the shape \[2\]; give rows of \(azimuth, elevation\)"),
        ([], r"cameras has the shape \[0\]"),
        (np.zeros((2, 3)), r"cameras has the shape \[2, 3\]; .* camera labels \[V, 25\]"),
        (torch.zeros(1, 24), r"cameras has the shape \[1, 24\]"),
        ([(0, 0), (0, 91)], "camera 1 has azimuth 0 and elevation 91; give degrees"),
        ([(math.nan, 0)], "camera 0 has azimuth nan"),
        (["front", "left"], "cameras: these are no numbers"),
        (np.zeros((1, 25)), "cameras: the label of 'camera 0' has a rotation that is not one"),
    ],
)
def test_cameras_that_are_none(
    run: Run, cameras: list[object] | np.ndarray | torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        camera_labels(run, cameras)


def test_one_camera_needs_no_row_of_its_own(run: Run) -> None:
    expected = run.orbit([40.0], 20.0)
    for camera in ((40, 20), [(40, 20)], expected[0], expected, labels_to_cameras(expected, 8, 8)):
        torch.testing.assert_close(one_camera(run, camera, "it"), expected)


def test_nerfstudios_cameras_have_one_size(run: Run) -> None:
    cameras = labels_to_cameras(run.orbit([0.0, 10.0]), 8, 8)
    assert sized_cameras(cameras).shape == (2,)
    assert sized_cameras(cameras[1]).shape == (1,)
    with pytest.raises(ValueError, match="cameras: none is given"):
        sized_cameras(cameras[:0])
    cameras.width = torch.tensor([[8], [9]])
    with pytest.raises(ValueError, match="8 x 8, 9 x 8 pixels; give cameras of one size"):
        sized_cameras(cameras)
