"""Files of a user's own become exactly the view that a data set's files would."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from nerfstudio_gan3d.data.depth import read_rgbd
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.viewer.image_files import (
    DepthMap,
    Photo,
    WaitingFiles,
    estimate_depth,
    make_view,
    read_depth,
    read_photo,
    view_picture,
)
from tests.data.sets import encode, image, relative, rgbd_files, write_folder

RANGE = (1.0, 3.0)


def photo_of(width: int, height: int, name: str = "photo.jpg") -> Photo:
    return Photo(name, np.zeros((height, width, 3), np.uint8))


def depth_of(width: int, height: int, name: str = "depth.png") -> DepthMap:
    return DepthMap(name, np.zeros((height, width), np.float32))


def test_the_middle_square_of_both_is_taken_and_resized() -> None:
    # Columns 0, 10, ... 70 of eight; the middle square is columns 2 to 5 of four rows.
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:] = 10 * np.arange(8, dtype=np.uint8)[None, :, None]
    # A depth map of half the size, whose middle square is columns 1 and 2.
    values = np.tile(np.array([0, 1 / 4, 1 / 2, 3 / 4], np.float32), (2, 1))
    view = make_view(Photo("a.jpg", pixels), DepthMap("a.png", values), 2, RANGE)
    # Means of columns 2, 3 and of 4, 5; distances 1 + 2 / 4 and 1 + 2 / 2.
    assert torch.equal(view.image, torch.tensor([25, 45]).to(torch.uint8).expand(1, 3, 2, 2))
    assert torch.equal(view.distance, torch.tensor([1.5, 2.0]).expand(1, 1, 2, 2))


@pytest.mark.parametrize("resolution", [8, 4, 5])
def test_files_are_read_as_those_of_a_data_set(tmp_path: Path, resolution: int) -> None:
    content = rgbd_files()
    zero = torch.zeros(1)
    images = ImageSet(write_folder(tmp_path / "set", content), orbit_labels(zero, zero, 2.0))
    pixels, distances, _ = read_rgbd(images, [3], resolution, RANGE)
    photo = read_photo(content["2/1554.jpg"], "1554.jpg")
    view = make_view(photo, read_depth(content["2/1554_depth.png"], "d.png"), resolution, RANGE)
    assert torch.equal(view.image, pixels)
    assert torch.equal(view.distance, distances)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_photographs_are_turned_upright(orientation: int, turns: int) -> None:
    """EXIF 6: the stored first row is the right side, so upright is a quarter turn clockwise."""
    stored = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    Image.fromarray(stored).save(file, "PNG", exif=exif)
    found = read_photo(file.getvalue(), "photo.png").pixels
    assert np.array_equal(found, np.rot90(stored, turns))


def test_webp_and_transparency_are_read() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True)
    assert np.array_equal(read_photo(file.getvalue(), "a.webp").pixels, pixels)
    clear = np.concatenate([pixels, np.zeros((4, 4, 1), np.uint8)], axis=2)
    assert (read_photo(encode(clear), "a.png").pixels == 255).all()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no image", "a.png: not a readable image"),
        (encode(relative(0)), "save it with 8 bits a channel"),
        (encode(image(0))[:100], "a.png: truncated or damaged"),
    ],
    ids=["text", "depth", "truncated"],
)
def test_what_is_no_photograph_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read_photo(content, "a.png")


def test_what_is_no_depth_map_is_refused() -> None:
    with pytest.raises(DataError, match=r"a\.png: a depth map of mode RGB; expected 16-bit grey"):
        read_depth(encode(np.zeros((4, 4, 3), np.uint8)), "a.png")


@pytest.mark.parametrize(
    ("photo", "depth", "fits"),
    [
        ((300, 200), (300, 200), True),
        ((300, 200), (30, 20), True),
        ((300, 200), (600, 400), True),
        # 100 rows of this photograph have 150 columns; programs round in either direction.
        ((300, 200), (151, 100), True),
        ((300, 200), (153, 100), False),
        ((300, 200), (200, 300), False),
        ((300, 200), (200, 200), False),
    ],
)
def test_depth_maps_have_the_shape_of_their_photograph(
    photo: tuple[int, int], depth: tuple[int, int], fits: bool
) -> None:
    if fits:
        make_view(photo_of(*photo), depth_of(*depth), 4, RANGE)
        return
    sentence = f"depth.png: {depth[0]} x {depth[1]} pixels, but photo.jpg has 300 x 200 (upright)"
    with pytest.raises(DataError, match=re.escape(sentence)):
        make_view(photo_of(*photo), depth_of(*depth), 4, RANGE)


def test_depth_is_estimated_on_the_middle_square_and_fills_the_range() -> None:
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[..., 0] = [[9, 50, 150, 9], [9, 100, 250, 9]]
    # Distances 50, 150, 100, 250 are 0, 1/2, 1/4 and 1 of the way from the nearest on.
    photo, depth = estimate_depth(Photo("a.jpg", pixels), lambda rgb: rgb[..., 0].astype("f4"))
    assert np.array_equal(photo.pixels, pixels[:, 1:3])
    expected = np.rint(65535 * np.array([[0, 0.5], [0.25, 1]])) / 65536
    np.testing.assert_array_equal(depth.values, expected)
    assert depth.name == "estimated depth of a.jpg"
    view = make_view(photo, depth, 2, RANGE)
    assert view.distance[0, 0, 1, 1] == pytest.approx(3, abs=1e-4)


def test_an_estimate_without_any_shape_is_refused() -> None:
    with pytest.raises(DataError, match=r"photo\.jpg: the depth model sees no shape in it"):
        estimate_depth(photo_of(3, 2), lambda rgb: np.ones(rgb.shape[:2], np.float32))


def test_image_and_depth_stand_side_by_side_and_near_is_white() -> None:
    image = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    # Of the range 1 to 3: its start, its middle, its end, and a wall behind it.
    view = ImageView(image, torch.tensor([[1.0, 2.0], [3.0, 3.5]])[None, None])
    picture = view_picture(view, RANGE)
    assert np.array_equal(picture[:, :2], image[0].permute(1, 2, 0).numpy())
    assert np.array_equal(picture[:, 2:, 0], [[255, 128], [0, 0]])
    assert (picture[:, 2:] == picture[:, 2:, :1]).all()


@pytest.mark.parametrize("image_first", [True, False])
def test_either_file_may_come_first(image_first: bool) -> None:
    photo, depth, waiting = photo_of(4, 4), depth_of(2, 2), WaitingFiles()
    first, second = (photo, depth) if image_first else (depth, photo)
    assert waiting.add(first) is None
    assert (waiting.photo, waiting.depth) == ((photo, None) if image_first else (None, depth))
    assert waiting.add(second) == (photo, depth)
    # The next image does not take the depth of this one.
    assert (waiting.photo, waiting.depth) == (None, None)
    assert waiting.add(photo_of(4, 4)) is None


def test_a_file_that_does_not_fit_leaves_the_other_waiting() -> None:
    photo, depth, waiting = photo_of(4, 4), depth_of(4, 4), WaitingFiles()
    waiting.add(photo)
    with pytest.raises(DataError, match=r"but photo\.jpg has 4 x 4"):
        waiting.add(depth_of(8, 4))
    assert waiting.photo is photo
    other = photo_of(8, 8, "other.jpg")
    waiting.add(other)
    assert waiting.add(depth) == (other, depth)


def test_only_the_image_that_is_meant_is_forgotten() -> None:
    photo, other, waiting = photo_of(4, 4), photo_of(4, 4), WaitingFiles()
    waiting.add(photo)
    waiting.forget(other)
    assert waiting.photo is photo
    waiting.forget(photo)
    assert waiting.photo is None
