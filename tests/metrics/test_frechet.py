"""Distances between feature sets, against answers worked by hand and against plain twins."""

import math

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.metrics.frechet import (
    FeatureMoments,
    FeatureReservoir,
    frechet_distance,
    kernel_distance,
)


def test_frechet_distance_of_gaussians_with_diagonal_covariances():
    # |m|^2 = 9 + 16 = 25; per axis a + b - 2 sqrt(a b): (1, 9) gives 4, (4, 4) gives 0.
    distance = frechet_distance(
        torch.zeros(2).double(),
        torch.diag(torch.tensor([1.0, 4.0])).double(),
        torch.tensor([3.0, -4.0]).double(),
        torch.diag(torch.tensor([9.0, 4.0])).double(),
    )
    assert distance == pytest.approx(29.0, abs=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute():
    # A = diag(4, 1), B = [[2, 1], [1, 2]]. For 2x2, tr((A B)^(1/2)) = sqrt(tr(AB) + 2 sqrt(det AB))
    # with tr(AB) = 8 + 2 = 10 and det(AB) = 4 * 3 = 12.
    expected = 5 + 4 - 2 * math.sqrt(10 + 2 * math.sqrt(12))
    a = torch.diag(torch.tensor([4.0, 1.0])).double()
    b = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double()
    zero = torch.zeros(2).double()
    assert frechet_distance(zero, a, zero, b) == pytest.approx(expected, abs=1e-12)
    assert frechet_distance(zero, b, zero, a) == pytest.approx(expected, abs=1e-12)


def test_frechet_distance_of_singular_covariances():
    # Rank one along different axes: the root of the product is zero, the distance is the traces.
    a, b = torch.diag(torch.tensor([5.0, 0, 0])), torch.diag(torch.tensor([0, 2.0, 0]))
    zero = torch.zeros(3)
    assert frechet_distance(zero, a, zero, b) == pytest.approx(7.0, abs=1e-12)
    assert frechet_distance(zero, a, zero, a) == 0.0


def test_frechet_distance_refuses_other_sizes_and_nan():
    eye = torch.eye
    with pytest.raises(ValueError, match=r"2 features.*the other 3"):
        frechet_distance(torch.zeros(2), eye(2), torch.zeros(3), eye(3))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(torch.zeros(2), eye(2) * math.nan, torch.zeros(2), eye(2))


def test_moments_of_batches_equal_those_of_the_whole_far_from_zero():
    # The mean is 10^6 times the spread: a running sum of squares would lose the covariance.
    x = torch.randn(101, 5, dtype=torch.float64) + 1e6
    moments = FeatureMoments()
    for batch in x.split([1, 50, 0, 7, 43]):
        moments.update(batch)
    mean, covariance = moments.mean_and_covariance()
    assert moments.count == 101
    np.testing.assert_allclose(mean.numpy(), x.mean(0).numpy(), rtol=1e-14)
    np.testing.assert_allclose(covariance.numpy(), np.cov(x.numpy().T), rtol=0, atol=1e-9)


def test_moments_refuse_too_few_images_nan_and_a_changed_extractor():
    moments = FeatureMoments()
    with pytest.raises(ValueError, match=r"0 image\(s\) are too few"):
        moments.mean_and_covariance()
    moments.update(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"1 image\(s\) are too few"):
        moments.mean_and_covariance()
    with pytest.raises(ValueError, match="1 of 2 images are NaN"):
        moments.update(torch.tensor([[0.0, 0, 0, 0], [0, math.inf, 0, 0]]))
    with pytest.raises(ValueError, match=r"3 features per image.*had 4"):
        moments.update(torch.zeros(1, 3))


def test_kernel_distance_worked_by_hand():
    # One feature, a = {0, 1}, b = {0, 2}, k = (xy + 1)^3.
    # a-a off the diagonal: 1, 1 -> 1. b-b: 1, 1 -> 1. a-b: 1, 1, 1, 27 -> 7.5. 1 + 1 - 15 = -13.
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    assert kernel_distance(a, b) == pytest.approx(-13.0, abs=1e-12)
    # Two features halve the inner product: (1, 1).(2, 2) / 2 = 2 -> 27; the others are 1.
    a, b = torch.tensor([[0.0, 0], [1, 1]]), torch.tensor([[0.0, 0], [2, 2]])
    assert kernel_distance(a, b) == pytest.approx(-13.0, abs=1e-12)


def test_kernel_distance_equals_its_double_loop_in_blocks():
    a, b = torch.randn(7, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64) + 0.5

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    def off_diagonal(x: torch.Tensor) -> float:
        n = len(x)
        pairs = [kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j]
        return sum(pairs) / len(pairs)

    expected = off_diagonal(a) + off_diagonal(b) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b, block_size=2) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    # Small sets of one distribution: the mean over 400 draws must be zero within 4 standard errors.
    draws = [kernel_distance(torch.randn(10, 4), torch.randn(10, 4)) for _ in range(400)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / math.sqrt(400)
    shifted = [kernel_distance(torch.randn(10, 4) + 1, torch.randn(10, 4)) for _ in range(100)]
    assert np.mean(shifted) > 10 * np.std(draws) / math.sqrt(100)


def test_kernel_distance_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="1 and 3"):
        kernel_distance(torch.zeros(1, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="2 features per image and the other 4"):
        kernel_distance(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="NaN"):
        kernel_distance(torch.zeros(3, 2) * math.nan, torch.zeros(3, 2))


def test_reservoir_keeps_everything_that_fits_and_is_uniform_beyond():
    small = FeatureReservoir(10, seed=0)
    for batch in torch.arange(7.0)[:, None].split(3):
        small.update(batch)
    assert small.features()[:, 0].tolist() == list(range(7))

    # 5 of 20 items are kept. Over 2000 seeds each item is kept with p = 1/4: a share outside
    # 0.25 +- 0.05 is five standard deviations away.
    kept = np.zeros(20)
    for seed in range(2000):
        reservoir = FeatureReservoir(5, seed)
        reservoir.update(torch.arange(20.0)[:, None])
        items = reservoir.features()[:, 0].long().numpy()
        assert len(set(items.tolist())) == 5
        kept[items] += 1
    assert np.abs(kept / 2000 - 0.25).max() < 0.05
