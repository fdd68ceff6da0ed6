"""Silhouettes, depths and opacity of small maps whose figures are worked by hand."""

import math

import pytest
import torch

from nerfstudio_gan3d.metrics.geometry import (
    Agreement,
    ShapeStatistics,
    check_alpha,
    check_map,
    depth_abs_rel,
    foreground_depth,
    mask_iou,
)


def columns(*values: float, size: int = 4) -> torch.Tensor:
    """A [1, 1, size, len(values)] map that is constant down each column."""
    return torch.tensor(values).expand(1, 1, size, len(values)).clone()


def test_mask_iou_of_shifted_columns():
    # Seen: columns 0 and 1. Rendered: columns 1 and 2. One of three columns is common.
    seen, rendered = columns(5.0, 5, -5, -5), columns(0.0, 1, 1, 0)
    assert mask_iou(seen, rendered).tolist() == pytest.approx([1 / 3])
    empty = columns(0.0, 0, 0, 0)
    assert mask_iou(seen, empty).tolist() == [0]
    assert mask_iou(empty - 1, empty).tolist() == [1]


def test_mask_iou_brings_alpha_to_the_size_of_the_mask():
    alpha = torch.zeros(1, 1, 8, 8)
    alpha[..., 2:6] = 1
    # One more fine column covers half of the fourth cell: 0.5 is not over the threshold.
    alpha[..., 6] = 1
    assert mask_iou(columns(-1.0, 1, 1, -1), alpha).tolist() == [1]
    # Grown from one pixel, everything is foreground.
    assert mask_iou(columns(-1.0, 1, 1, -1), torch.ones(1, 1, 1, 1)).tolist() == [0.5]


def test_shrunk_depth_does_not_mix_with_what_is_behind():
    # A cell of an object at depth 2 with alpha 0.75 and of background at 10 with alpha 0.25.
    alpha, depth = columns(0.75, 0.25, size=2), columns(2.0, 10.0, size=2)
    shrunk, valid = foreground_depth(alpha, depth, (1, 1))
    assert shrunk.item() == pytest.approx((0.75 * 2 + 0.25 * 10) / 1.0)
    assert not valid.item()  # a mean alpha of 0.5 is not foreground
    alpha, depth = columns(1.0, 0.25, size=2), columns(2.0, 0.0, size=2)
    shrunk, valid = foreground_depth(alpha, depth, (1, 1))
    assert shrunk.item() == pytest.approx(2.0)  # depth 0 is no depth, whatever its alpha
    assert valid.item()


def test_depth_error_is_taken_on_common_foreground_only():
    seen = columns(1.0, 1, 1, -1)
    rendered_alpha = columns(0.0, 1, 1, 1)
    evaluator = columns(9.0, 2.2, 1.9, 9.0)
    rendered = columns(0.0, 2.0, 2.0, 2.0)
    # Common are columns 1 and 2: errors 0.2 / 2 and 0.1 / 2.
    error = depth_abs_rel(evaluator, seen, rendered_alpha, rendered)
    assert error.tolist() == pytest.approx([0.075])
    nothing = depth_abs_rel(evaluator, seen, rendered_alpha * 0, rendered)
    assert math.isnan(nothing.item())


def test_agreement_averages_images_and_pairs_the_control_across_batches():
    # Images 0 and 2 show columns 0-1, image 1 columns 2-3; the renders agree with them.
    left, right = columns(1.0, 1, 0, 0), columns(0.0, 0, 1, 1)
    alpha = torch.cat([left, right, left])
    depth = torch.cat([left * 2, right * 4, left * 2])
    seen, seen_depth = alpha * 2 - 1, torch.cat([left * 2.2, right * 4, left * 2])
    agreement = Agreement()
    agreement.update(seen[:2], seen_depth[:2], alpha[:2], depth[:2])
    agreement.update(seen[2:], seen_depth[2:], alpha[2:], depth[2:])
    figures = agreement.figures()
    assert figures["mask_iou"] == 1
    assert figures["mask_iou_control"] == 0
    assert figures["depth_abs_rel"] == pytest.approx((0.1 + 0 + 0) / 3)
    assert figures["depth_common_percent"] == 100
    assert "depth_abs_rel_control" not in figures  # neighbours have no common foreground

    # The same shapes everywhere: the control is as good as the figure.
    agreement = Agreement()
    for _ in range(3):
        agreement.update(left * 2 - 1, left * 2, left, left * 2)
    assert agreement.figures()["mask_iou_control"] == 1
    assert agreement.figures()["depth_abs_rel_control"] == 0


def test_images_without_common_foreground_are_counted_and_left_out():
    left, right = columns(1.0, 1, 0, 0), columns(0.0, 0, 1, 1)
    agreement = Agreement()
    agreement.update(
        torch.cat([left, right]) * 2 - 1,
        torch.full((2, 1, 4, 4), 3.0),
        torch.cat([left, left]),
        torch.full((2, 1, 4, 4), 2.0),
    )
    figures = agreement.figures()
    assert figures["depth_common_percent"] == 50
    assert figures["depth_abs_rel"] == pytest.approx(0.5)
    assert figures["mask_iou"] == 0.5


def test_shape_statistics_by_hand():
    statistics = ShapeStatistics()
    # Coverage 0.5 and 0.25 and 0; depth 1 and 3 in one image, 5 in the other, none in the third.
    alpha = torch.cat([columns(1.0, 1, 0, 0), columns(0.9, 0.1, 0, 0), columns(0.0, 0, 0, 0)])
    depth = torch.cat([columns(1.0, 3, 7, 7), columns(5.0, 7, 7, 7), columns(7.0, 7, 7, 7)])
    statistics.update(alpha[:1], depth[:1])
    statistics.update(alpha[1:], depth[1:])
    figures = statistics.figures("truth_")
    assert figures["truth_coverage_mean"] == pytest.approx(0.25)
    # Deviations 0.25, 0, -0.25.
    assert figures["truth_coverage_std"] == pytest.approx(math.sqrt(0.125 / 3))
    # Two of twelve columns have min(a, 1 - a) = 0.1.
    assert figures["truth_opacity_ambiguity"] == pytest.approx(0.2 / 12)
    assert figures["truth_foreground_depth_mean"] == pytest.approx((2 + 5) / 2)
    assert figures["truth_foreground_depth_std"] == pytest.approx(1.5)
    assert figures["truth_foreground_depth_relief"] == pytest.approx((1 + 0) / 2)


def test_shape_statistics_without_depth_or_foreground():
    statistics = ShapeStatistics()
    assert statistics.figures() == {}
    statistics.update(columns(0.0, 0), columns(1.0, 1))
    assert set(statistics.figures()) == {"coverage_mean", "coverage_std", "opacity_ambiguity"}


def test_maps_are_checked():
    with pytest.raises(ValueError, match=r"depth has shape \(2, 4, 4\); \[2, 1, H, W\]"):
        check_map("depth", torch.zeros(2, 4, 4), 2)
    with pytest.raises(ValueError, match="alpha holds NaN"):
        check_alpha(torch.full((1, 1, 2, 2), math.nan), 1)
    with pytest.raises(ValueError, match=r"0\.\.255; opacity must be in 0\.\.1"):
        check_alpha(torch.tensor([[[[0.0, 255.0]]]]), 1)
    assert check_alpha(torch.tensor([[[[-1e-6, 1 + 1e-6]]]]), 1).flatten().tolist() == [0, 1]
