"""Reductions against values worked by hand and against plain loops."""

import numpy as np
import pytest

from nerfstudio_gan3d.data.resize import (
    reduce_depth,
    reduce_label_map,
    resize_coverage,
    resize_depth,
    resize_image,
    resize_relative_depth,
)


def test_integer_reduction_is_the_rounded_mean_of_each_cell():
    image = np.array([[[0], [1], [10], [20]], [[1], [0], [30], [41]]], np.uint8)
    image = np.concatenate([image, image], axis=0)
    # Cells: (0+1+1+0)/4 = 0.5 -> 1;  (10+20+30+41)/4 = 25.25 -> 25.
    assert resize_image(image, 2)[..., 0].tolist() == [[1, 25], [1, 25]]


def plain_mean(image: np.ndarray, factor: int) -> np.ndarray:
    side = image.shape[0] // factor
    result = np.zeros((side, side, 3), np.uint8)
    for y in range(side):
        for x in range(side):
            cell = image[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
            result[y, x] = np.floor(cell.astype(np.float64).mean(axis=(0, 1)) + 0.5)
    return result


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_integer_reduction_equals_its_plain_twin(factor: int):
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_image(image, 24 // factor), plain_mean(image, factor))


def test_other_reductions_are_antialiased():
    # Stripes of one pixel average to grey; picking pixels would keep black and white.
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = resize_image(stripes, 15)[:, 2:-2]
    assert abs(reduced.astype(int) - 127).max() < 25


@pytest.mark.parametrize("resolution", [15, 40, 64])
def test_flat_images_and_ramps_survive_any_change(resolution: int):
    flat = np.full((40, 40, 3), 77, np.uint8)
    np.testing.assert_array_equal(
        resize_image(flat, resolution), np.full((resolution, resolution, 3), 77)
    )
    ramp = np.broadcast_to(np.arange(40)[None, :, None] * 5, (40, 40, 3)).astype(np.uint8)
    # A pixel centre at (i + 0.5) / R shows the ramp's value 5 * (40 (i + 0.5) / R - 0.5).
    expected = 5 * (40 * (np.arange(resolution) + 0.5) / resolution - 0.5)
    inner = slice(resolution // 5, -resolution // 5)
    np.testing.assert_allclose(resize_image(ramp, resolution)[3, inner, 0], expected[inner], atol=2)


def test_coverage_keeps_its_mean():
    mask = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    for resolution in (20, 15):
        assert resize_coverage(mask, resolution).mean() == pytest.approx(mask.mean(), abs=2e-3)


def test_depth_is_the_mean_of_the_foreground_of_cells_half_filled():
    depth = np.array(
        [[0, 0, 0, 2, 1, 2], [0, 1, 4, 0, 3, 4]],
        np.float32,
    )
    # One of four pixels: background. Two of four: (2 + 4) / 2. All: 2.5.
    assert reduce_depth(depth, 2).tolist() == [[0, 3, 2.5]]


def test_label_majority_goes_with_depth():
    label_map = np.array([[0, 0, 0, 2, 1, 2, 3, 3], [0, 1, 1, 0, 3, 3, 0, 1]], np.uint8)
    # 3 of 4 background; a tie of 1 and 2 in a half-filled cell; 3 twice; 3 twice.
    assert reduce_label_map(label_map, 2).tolist() == [[0, 1, 3, 3]]
    random = np.random.default_rng(0).integers(0, 3, (40, 40)).astype(np.uint8)
    depth = np.where(random > 0, 1.5, 0).astype(np.float32)
    np.testing.assert_array_equal(reduce_label_map(random, 2) > 0, reduce_depth(depth, 2) > 0)
    np.testing.assert_array_equal(reduce_label_map(random * 0, 2), np.zeros((20, 20)))


def test_reduction_must_divide_the_size():
    with pytest.raises(ValueError, match="9 x 9 pixels cannot be reduced 2 times"):
        reduce_depth(np.ones((9, 9), np.float32), 2)


def test_resized_depth_never_mixes_object_and_background():
    depth = np.array([[2, 4, 0], [2, 4, 0], [6, 0, 0]], np.float32)
    # A new pixel covers 1.5 x 1.5 old ones, 2.25 in all. Upper left: all object, the sum of
    # area times depth is 1 * 2 + 0.5 * 4 + 0.5 * 2 + 0.25 * 4 = 6. Upper right: object on 0.5 * 1 +
    # 0.5 * 0.5 = 0.75 of 2.25, background. Lower left: 0.5 * 1 * 2 + 0.5 * 0.5 * 4 + 1 * 6 = 8 on
    # 0.5 + 0.25 + 1 = 1.75. Lower right: 0.25 of 2.25, background.
    expected = [[(2 + 2 + 1 + 1) / 2.25, 0], [8 / 1.75, 0]]
    np.testing.assert_allclose(resize_depth(depth, 2), expected, rtol=1e-6)
    # Exactly half is object.
    half = np.array([[3, 0], [0, 5]], np.float32)
    assert resize_depth(half, 1).tolist() == [[4]]
    # Enlarged: each old pixel becomes four of its own value.
    assert resize_depth(half, 4).tolist() == np.repeat(np.repeat(half, 2, 0), 2, 1).tolist()
    assert resize_depth(half, 2) is half


@pytest.mark.parametrize("resolution", [12, 8, 5, 31, 24, 48])
def test_a_wall_keeps_its_depth_at_any_resolution(resolution: int):
    depth = np.where(np.random.default_rng(0).random((24, 24)) < 0.6, 1.7, 0).astype(np.float32)
    resized = resize_depth(depth, resolution)
    np.testing.assert_allclose(resized[resized > 0], 1.7, rtol=1e-6)
    if resolution < 24 and 24 % resolution == 0:
        np.testing.assert_allclose(resized, reduce_depth(depth, 24 // resolution), rtol=1e-6)


def test_relative_depth_is_averaged_and_stays_in_its_range():
    depth = np.array([[0, 16384, 0, 0], [65535, 1, 0, 3]], np.float32)
    depth = np.concatenate([depth, depth]) / np.float32(65536)
    # (0 + 16384 + 65535 + 1) / 4 = 20480, a fraction that integers would have lost in 0.75.
    expected = np.array([[20480, 0.75], [20480, 0.75]]) / 65536
    np.testing.assert_allclose(resize_relative_depth(depth, 2), expected, rtol=1e-6)
    step = np.zeros((40, 40), np.float32)
    step[:, 20:] = 65535 / 65536
    for resolution in (15, 33, 64):
        # Lanczos overshoots beside the step: without the limits these would be -0.1 and 1.1.
        resized = resize_relative_depth(step, resolution)
        assert resized.dtype == np.float32
        assert resized.min() == 0
        assert resized.max() == np.float32(65535 / 65536)
        assert resized.mean() == pytest.approx(0.5, abs=0.01)
