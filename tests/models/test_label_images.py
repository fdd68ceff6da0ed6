"""Rendered labels as ids, maps and pictures, on a picture of four pixels."""

import torch

from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.label_images import (
    as_label_map,
    label_ids,
    label_picture,
    map_picture,
)

SEG = LabelConfig(kind="seg", classes=3, palette=((255, 255, 255), (204, 0, 0), (0, 128, 51)))
EDGE = LabelConfig(kind="edge")
SCORES = torch.tensor([[[[3.0, 0.0], [1.0, 0.0]], [[1.0, 2.0], [4.0, 0.0]], [[0.0, 9.0], [0, 1]]]])
VALUES = torch.tensor([[[[1.0, -1.0], [0.0, -3.0]]]])


def test_ids_are_those_of_the_highest_score() -> None:
    assert label_ids(SCORES, SEG)[0, 0].tolist() == [[0, 2], [1, 2]]
    assert as_label_map(SCORES, SEG)[0, :, 0, 1].tolist() == [0, 0, 1]


def test_edges_are_grey_values_with_white_paper() -> None:
    assert label_ids(VALUES, EDGE)[0, 0].tolist() == [[255, 0], [128, 0]]
    assert torch.equal(as_label_map(VALUES, EDGE), VALUES)
    picture = label_picture(VALUES, EDGE)
    assert picture[0, :, 0, 0].tolist() == [1, 1, 1]
    assert picture[0, :, 1, 1].tolist() == [0, 0, 0]


def test_pictures_have_exactly_the_palettes_colours() -> None:
    picture = label_picture(SCORES, SEG)
    pixels = (picture * 255).round().to(torch.uint8)
    assert pixels[0, :, 0, 1].tolist() == [0, 128, 51]
    assert pixels[0, :, 1, 0].tolist() == [204, 0, 0]
    assert torch.equal(map_picture(label_ids(SCORES, SEG), SEG), picture)
