"""Where rays are sampled: box entry and exit, strata, and distributions with a known inverse."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.rendering.samplers import (
    box_interval,
    importance,
    interval_edges,
    reference_box_interval,
    reference_importance,
    reference_stratified,
    stratified,
)

BOX = (1.0, 2.0, 4.0)


def interval(origin: tuple[float, ...], direction: tuple[float, ...], near=0.0, far=10.0):
    rays = torch.tensor([[origin]]), torch.tensor([[direction]])
    start, end = box_interval(*rays, BOX, near, far)
    return start.item(), end.item()


@pytest.mark.parametrize(
    ("origin", "direction", "expected"),
    [
        ((3.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (2.5, 3.5)),
        ((0.0, -4.0, 0.0), (0.0, 1.0, 0.0), (3.0, 5.0)),
        ((0.2, 0.3, 5.0), (0.0, 0.0, -1.0), (3.0, 7.0)),
        # From the inside: the entry lies behind the camera.
        ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 2.0)),
        # Through two corners of the side x = -0.5 .. 0.5, z = -0.5 .. 0.5.
        ((-1.0, 0.0, -1.0), (0.5**0.5, 0.0, 0.5**0.5), (0.5 * 2**0.5, 1.5 * 2**0.5)),
    ],
)
def test_entry_and_exit(origin, direction, expected) -> None:
    assert interval(origin, direction) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("origin", "direction"),
    [
        ((3.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
        ((3.0, 1.5, 0.0), (-1.0, 0.0, 0.0)),
        ((0.6, 0.0, 5.0), (0.0, 0.0, -1.0)),
        ((0.0, 0.0, 20.0), (0.0, 0.0, -1.0)),
    ],
)
def test_rays_that_miss_get_nothing_at_near(origin, direction) -> None:
    # The last one meets the box behind far.
    assert interval(origin, direction, near=0.7) == pytest.approx((0.7, 0.7))


def test_near_and_far_cut_the_interval() -> None:
    ray = (0.0, 0.0, 5.0), (0.0, 0.0, -1.0)
    assert interval(*ray, near=4.0, far=6.0) == (4, 6)
    assert interval(*ray, near=1.0, far=3.5) == (3, 3.5)


def test_every_direction_along_axes_from_every_octant_is_finite_and_right() -> None:
    for axis, sign in itertools.product(range(3), (-1.0, 1.0)):
        for offset in itertools.product((-0.4, 0.4), repeat=2):
            origin, direction = list(offset), [0.0, 0.0]
            origin.insert(axis, -sign * 5)
            direction.insert(axis, sign)
            half = BOX[axis] / 2
            found = interval(tuple(origin), tuple(direction))
            assert found == pytest.approx((5 - half, 5 + half))


def test_points_between_entry_and_exit_are_inside_and_others_are_not() -> None:
    origins = torch.randn(1, 300, 3) * 2
    targets = (torch.rand(1, 300, 3) - 0.5) * torch.tensor(BOX) * 1.5
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    start, end = box_interval(origins, directions, BOX, 0.0, 10.0)
    t = torch.linspace(0, 10, 1001)
    points = origins[:, :, None] + directions[:, :, None] * t[:, None]
    inside = (points.abs() <= torch.tensor(BOX) / 2).all(-1)
    # A hundredth of a unit at the ends is left to rounding and to the grid of t.
    within = (t > start + 0.01) & (t < end - 0.01)
    beyond = (t < start - 0.01) | (t > end + 0.01)
    assert inside[within].all()
    assert not inside[beyond].any()
    assert 50 < (end > start).sum() < 290


def test_strata_without_jitter_are_middles_of_equal_bins() -> None:
    near, far = torch.tensor([[[1.0]]]), torch.tensor([[[3.0]]])
    assert stratified(near, far, 4)[0, 0].tolist() == [1.25, 1.75, 2.25, 2.75]


def test_jitter_moves_within_the_bin() -> None:
    near, far = torch.tensor([[[1.0]]]), torch.tensor([[[3.0]]])
    jitter = torch.tensor([[[0.0, 1.0, 0.5, 0.25]]])
    assert stratified(near, far, 4, jitter)[0, 0].tolist() == [1.0, 2.0, 2.25, 2.625]


def test_interval_edges_are_midpoints_and_the_ends() -> None:
    distances = torch.tensor([[[1.0, 2.0, 4.0]]])
    edges = interval_edges(distances, torch.tensor([[[0.5]]]), torch.tensor([[[4.5]]]))
    assert edges[0, 0].tolist() == [0.5, 1.5, 3.0, 4.5]


def widened(weights: list[float]) -> list[float]:
    """mip-NeRF's blur: maximum of neighbours, mean of two maxima, plus 0.01."""
    padded = [0.0, *weights, 0.0]
    widest = [max(a, b) for a, b in itertools.pairwise(padded)]
    return [(a + b) / 2 + 0.01 for a, b in itertools.pairwise(widest)]


def test_importance_samples_lie_where_the_distribution_function_says() -> None:
    weights = [0.0, 0.6, 0.1, 0.0, 0.3]
    edges = [0.0, 0.5, 1.0, 2.0, 2.2, 3.0]
    count = 40
    found = importance(torch.tensor([[edges]]), torch.tensor([[weights]]), count)[0, 0]
    masses = widened(weights)
    total = sum(masses)
    for index, value in enumerate(found.tolist()):
        cdf = 0.0
        for mass, (low, high) in zip(masses, itertools.pairwise(edges), strict=True):
            cdf += mass / total * min(max((value - low) / (high - low), 0), 1)
        assert cdf == pytest.approx((index + 0.5) / count, abs=1e-5)


def test_importance_samples_follow_the_weights_when_drawn() -> None:
    weights, edges = [0.0, 0.6, 0.1, 0.0, 0.3], [0.0, 0.5, 1.0, 2.0, 2.2, 3.0]
    rays, count = 2000, 4
    drawn = importance(
        torch.tensor(edges).expand(1, rays, -1),
        torch.tensor(weights).expand(1, rays, -1),
        count,
        torch.rand(1, rays, count),
    )
    assert (drawn.diff(dim=-1) >= 0).all()
    counts = torch.histogram(drawn.flatten(), torch.tensor(edges)).hist
    masses = torch.tensor(widened(weights))
    expected = masses / masses.sum() * rays * count
    # Strata only lower the variance; 18.5 is the 99.9th percentile with 4 degrees of freedom.
    assert ((counts - expected).square() / expected).sum() < 18.5


def test_no_weight_at_all_gives_evenly_spread_samples() -> None:
    edges = torch.linspace(1, 2, 9).expand(1, 1, -1)
    found = importance(edges, torch.zeros(1, 1, 8), 4)
    torch.testing.assert_close(found[0, 0], torch.tensor([1.125, 1.375, 1.625, 1.875]))


def test_importance_passes_no_gradient_to_weights() -> None:
    weights = torch.rand(1, 1, 4, requires_grad=True)
    edges = torch.linspace(0, 1, 5).expand(1, 1, -1)
    assert not importance(edges, weights, 3).requires_grad


def test_reference_strata_reach_behind_far() -> None:
    # Steps of (far - near) / (s - 1) = 0.5, and jitter of up to one step.
    jitter = torch.tensor([[[0.0, 0.5, 1.0]]])
    near, far = torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]])
    assert reference_stratified(near, far, jitter)[0, 0].tolist() == [1.0, 1.75, 2.5]


def test_reference_limits_of_rays_that_miss_come_from_those_that_hit() -> None:
    # Two rays enter a cube of side 2 at 3 and 4 and leave at 5 and 6; the third passes beside it.
    origins = torch.tensor([[[0.0, 0.0, 4.0], [0.0, 0.5, 5.0], [9.0, 0.0, 4.0]]])
    directions = torch.tensor([0.0, 0.0, -1.0]).expand(1, 3, 3)
    near, far = reference_box_interval(origins, directions, (2.0, 2.0, 2.0), 0.5, 7.0)
    assert near[0, :, 0].tolist() == [3.0, 4.0, 3.0]
    assert far[0, :, 0].tolist() == [5.0, 6.0, 4.0]
    # Nothing hits: the Scene's own limits.
    near, far = reference_box_interval(origins[:, 2:], directions[:, 2:], (2.0, 2.0, 2.0), 0.5, 7.0)
    assert (near.item(), far.item()) == (0.5, 7.0)


def loop_reference_importance(t: list[float], weights: list[float], u: list[float]) -> list[float]:
    """The published rule for one ray, number by number."""
    padded = [-math.inf, *weights, -math.inf]
    widest = [max(a, b) for a, b in itertools.pairwise(padded)]
    smooth = [(a + b) / 2 + 0.01 for a, b in itertools.pairwise(widest)]
    bins = [(a + b) / 2 for a, b in itertools.pairwise(t)]
    pdf = [w + 1e-5 for w in smooth[1:-1]]
    cdf = [0.0]
    for p in pdf:
        cdf.append(cdf[-1] + p / sum(pdf))
    found = []
    for draw in u:
        index = sum(edge <= draw for edge in cdf)
        low, high = max(index - 1, 0), min(index, len(t) - 3)
        width = cdf[high] - cdf[low]
        width = 1.0 if width < 1e-5 else width
        found.append(bins[low] + (draw - cdf[low]) / width * (bins[high] - bins[low]))
    return found


def test_reference_importance_equals_the_published_rule() -> None:
    t = torch.rand(9, 8, dtype=torch.float64).sort(-1).values
    weights = torch.rand(9, 7, dtype=torch.float64).square()
    draws = torch.rand(9, 20, dtype=torch.float64)
    draws[:, 0] = 0
    draws[:, 1] = 1 - 1e-12
    found: Tensor = reference_importance(t[None], weights[None], draws[None])[0]
    for row in range(9):
        expected = loop_reference_importance(*(x[row].tolist() for x in (t, weights, draws)))
        assert found[row].tolist() == pytest.approx(expected)
    # One and a half coarse intervals at the end stay empty.
    assert (found <= ((t[:, -3] + t[:, -2]) / 2)[:, None] + 1e-9).all()
