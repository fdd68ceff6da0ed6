"""How pictures are put together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.export.pictures import (
    azimuths,
    block,
    color_depth,
    grid,
    table,
    write_video,
)


def flat(value: int, height: int = 2, width: int = 2) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_views_go_once_around() -> None:
    assert azimuths(1) == [30.0]
    assert azimuths(4) == [30.0, 120.0, 210.0, 300.0]


def test_one_view_puts_outputs_side_by_side() -> None:
    joined = block({"rgb": flat(1)[None], "depth": flat(2)[None]})
    assert joined.shape == (2, 6, 3)
    assert joined[0, :, 0].tolist() == [1, 1, 255, 255, 2, 2]


def test_several_views_put_outputs_below_each_other() -> None:
    views = np.stack([flat(1), flat(2), flat(3)])
    joined = block({"rgb": views, "depth": views + 10})
    assert joined.shape == (6, 10, 3)
    assert joined[0, ::4, 0].tolist() == [1, 2, 3]
    assert joined[-1, ::4, 0].tolist() == [11, 12, 13]


@pytest.mark.parametrize(
    ("count", "height", "width", "shape"),
    [
        (1, 4, 4, (4, 4)),
        (16, 4, 4, (22, 22)),
        # Wide blocks go below each other.
        (3, 4, 14, (16, 14)),
        # Five square blocks need a row of three and a row of two.
        (5, 4, 4, (10, 16)),
    ],
)
def test_grids_are_nearly_square(
    count: int, height: int, width: int, shape: tuple[int, int]
) -> None:
    joined = grid([flat(index, height, width) for index in range(count)])
    assert joined.shape == (*shape, 3)
    assert joined[0, 0, 0] == 0
    if count == 5:
        assert joined[-1, -1, 0] == 255


def test_a_table_has_a_picture_before_each_row() -> None:
    rows = [[flat(1, 4), flat(2, 4)], [flat(3, 4), flat(4, 4)]]
    joined = table([flat(5), flat(6)], rows)
    # Pictures of two pixels, blocks of 4 x 2, gaps of two.
    assert joined.shape == (4 + 2 + 4, 2 + 2 + 2 + 2 + 2, 3)
    assert joined[0, :, 0].tolist() == [5, 5, 255, 255, 1, 1, 255, 255, 2, 2]
    assert joined[6, ::4, 0].tolist() == [6, 3, 4]
    # Below the picture, which is lower than its row, there is nothing.
    assert (joined[2:6, :2] == 255).all()
    assert (joined[8:, :2] == 255).all()


def test_depth_is_bright_where_it_is_near_and_white_where_nothing_is() -> None:
    depth = torch.tensor([1.0, 1.5, 2.0, 1.0]).view(1, 1, 4, 1)
    opacity = torch.tensor([1.0, 0.9, 0.6, 0.4]).view(1, 1, 4, 1)
    colors = color_depth(depth, opacity, (1.0, 2.0))[0, 0]
    # The ends and the middle of viridis.
    np.testing.assert_allclose(colors[:3], [[253, 231, 37], [33, 145, 140], [68, 1, 84]], atol=1)
    assert colors[3].tolist() == [255, 255, 255]


def test_an_interrupted_video_leaves_nothing(tmp_path) -> None:
    def frames():
        yield flat(1, 16, 16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(frames(), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
