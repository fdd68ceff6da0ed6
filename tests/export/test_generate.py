"""Images of any function that makes some become exactly the view that a Scene is made of."""

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.data.dataset import DataError
from nerfstudio_gan3d.export.generate import imagine
from tests.models.tiny_g3dr import FAR, NEAR, SIDE, g3dr_config


def sideways(pixels: np.ndarray) -> np.ndarray:
    """A depth function: distance grows from left to right."""
    height, width = pixels.shape[:2]
    return np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))


def noise(prompt: str, seed: int) -> Image.Image:
    """An image that is half as wide again as the model's, another one for each prompt and seed."""
    source = np.random.default_rng([seed, *prompt.encode()])
    shape = (SIDE, SIDE * 3 // 2, 3)
    return Image.fromarray(source.integers(0, 256, shape, dtype=np.uint8))


def test_the_middle_of_the_image_and_its_depth() -> None:
    made = imagine("a car", 3, noise, sideways, g3dr_config())
    picture = np.array(noise("a car", 3))
    np.testing.assert_array_equal(made.picture, picture)
    middle = picture[:, SIDE // 4 : SIDE // 4 + SIDE]
    np.testing.assert_array_equal(made.image, middle)
    np.testing.assert_array_equal(made.view.image[0].permute(1, 2, 0), middle)
    # Column k of 16 is k / 15 of the way from near to far, in steps of 1 / 65535.
    expected = np.rint(65535 * np.arange(SIDE) / (SIDE - 1))
    np.testing.assert_array_equal(made.depth[5], expected)
    distance = NEAR + torch.from_numpy(expected) / 65536 * (FAR - NEAR)
    torch.testing.assert_close(made.view.distance[0, 0, 5], distance.float())


def test_the_background_is_taken_away_and_the_subject_is_followed() -> None:
    coverage = np.zeros((SIDE, SIDE * 3 // 2), np.float32)
    coverage[:8, :8] = 1
    made = imagine(
        "a car",
        0,
        noise,
        sideways,
        g3dr_config(),
        foreground=lambda _: coverage,
        crop="subject",
        background="black",
    )
    # 8 pixels and a tenth on each side are 10, from row and column -1 on: enlarged to 16.
    # The filter rings by a few values.
    assert max(made.image[-1].max(), made.image[:, -1].max()) < 16
    assert made.image[2:14, 2:14].max() > 100
    inside = np.zeros((SIDE, SIDE), bool)
    inside[2:14, 2:14] = True
    assert (made.depth[~inside] == 65535).all()
    assert (made.depth[inside] < 65535).sum() > 100
    assert made.view.distance.min() == NEAR


def test_images_are_read_as_their_files_would_be() -> None:
    def clear(prompt: str, seed: int) -> Image.Image:
        return Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 0))

    assert (imagine("glass", 0, clear, sideways, g3dr_config()).image == 255).all()

    def floats(prompt: str, seed: int) -> Image.Image:
        return Image.new("F", (SIDE, SIDE))

    with pytest.raises(
        DataError, match=r"the image of 'fog' with seed 2 has the mode F; the maker"
    ):
        imagine("fog", 2, floats, sideways, g3dr_config())

    def nothing(prompt: str, seed: int) -> None:
        return None

    with pytest.raises(DataError, match="is a NoneType; the maker has to return a PIL image"):
        imagine("air", 0, nothing, sideways, g3dr_config())  # pyright: ignore[reportArgumentType]


def test_an_image_without_shape_is_named_by_its_words() -> None:
    def flat(pixels: np.ndarray) -> np.ndarray:
        return np.ones(pixels.shape[:2], np.float32)

    with pytest.raises(DataError, match="the image of 'a wall' with seed 1: the depth model sees"):
        imagine("a wall", 1, noise, flat, g3dr_config())
