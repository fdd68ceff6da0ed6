"""Class ids to colours and back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.palettes import (
    OFFICIAL_COLOURS,
    SEG2CAT_CLASSES,
    SEG2FACE_CLASSES,
    SEG2FACE_MIRROR,
    class_colours,
    colorize,
    default_palette,
    ids_from_colors,
)
from nerfstudio_gan3d.models.config import LabelConfig

RGB = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def test_the_first_colours_are_the_published_ones():
    palette = default_palette(19)
    assert palette == OFFICIAL_COLOURS
    # Background white, skin 204, 0, 0, hair 0, 0, 204, cloth 0, 204, 0.
    assert (palette[0], palette[1]) == ((255, 255, 255), (204, 0, 0))
    assert (palette[13], palette[18]) == ((0, 0, 204), (0, 204, 0))
    assert len(SEG2CAT_CLASSES) == 6
    assert len(SEG2FACE_CLASSES) == 19
    mirrored = [(SEG2FACE_CLASSES[a], SEG2FACE_CLASSES[b]) for a, b in SEG2FACE_MIRROR]
    assert mirrored == [(f"left {part}", f"right {part}") for part in ("eye", "brow", "ear")]


def test_further_colours_are_distinct_and_do_not_depend_on_their_number():
    everything = np.array(default_palette(256))
    assert everything.min() >= 0
    assert everything.max() <= 255
    steps = everything[:, None] - everything
    distance = np.sqrt((steps**2).sum(-1)) + 1000 * np.eye(256)
    # The published colours come as near as 51; the grid of the others has steps of 32.
    assert distance[:19, :19].min() == 51
    assert distance.min() > 30
    # 30 classes are still as far apart as the published 19.
    assert distance[:30, :30].min() >= 51
    for count in (1, 6, 20, 255):
        assert default_palette(count) == default_palette(256)[:count]


def test_classes_without_colours_have_the_published_ones():
    assert class_colours(LabelConfig(kind="seg", classes=2)) == ((255, 255, 255), (204, 0, 0))
    assert class_colours(LabelConfig(kind="seg", classes=3, palette=RGB)) == RGB


@pytest.mark.parametrize("count", [0, -1, 257])
def test_impossible_numbers_of_colours(count: int):
    with pytest.raises(ValueError, match=f"a palette of {count} colours: give 1 to 256"):
        default_palette(count)


def test_colours_of_ids_by_hand():
    ids = np.array([[0, 2], [1, 1]], np.uint8)
    expected = [[[255, 0, 0], [0, 0, 255]], [[0, 255, 0], [0, 255, 0]]]
    assert colorize(ids, RGB).tolist() == expected
    tensor = colorize(torch.from_numpy(ids).long()[None, None], [list(c) for c in RGB])
    assert tensor.dtype == torch.uint8
    assert tensor.tolist() == [[expected]]
    assert colorize(torch.zeros(0, 4, 4, dtype=torch.uint8), RGB).shape == (0, 4, 4, 3)


@pytest.mark.parametrize("bad", [3, -1])
def test_an_id_without_a_colour(bad: int):
    with pytest.raises(ValueError, match=f"class id {bad} has no colour; the palette has 3"):
        colorize(torch.full((2, 2), bad), RGB)


@pytest.mark.parametrize("count", [1, 3, 19, 256])
def test_ids_survive_the_way_to_colours_and_back(count: int):
    palette = default_palette(count)
    ids = np.random.default_rng(0).integers(0, count, (40, 30), dtype=np.uint8)
    np.testing.assert_array_equal(ids_from_colors(colorize(ids, palette), palette, "a"), ids)


def test_a_colour_of_no_class_is_named_with_its_pixel():
    pixels = colorize(np.zeros((4, 5), np.uint8), RGB)
    pixels[3, 0] = 1, 2, 3
    pixels[2, 4] = 0, 250, 9
    with pytest.raises(DataError) as caught:
        ids_from_colors(pixels, RGB, str(Path("my.png")))
    message = str(caught.value)
    assert message.startswith("my.png: the colour 0, 250, 9 (column 4, row 2) is none of the 3")
    assert "nearest being 0, 255, 0 of class 1" in message


def test_two_classes_of_one_colour():
    pixels = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="classes 0 and 2 both have the colour 7, 7, 7"):
        ids_from_colors(pixels, [[7, 7, 7], [0, 0, 0], [7, 7, 7]], "a")
