"""The moving average: its half-life, its ramp-up, and what is copied."""

import pytest
import torch
from torch import nn

from nerfstudio_gan3d.training.ema import ema_decay, update_ema


def test_after_a_half_life_half_of_the_old_weights_is_left() -> None:
    average, current = nn.Linear(2, 2), nn.Linear(2, 2)
    start, target = average.weight.detach().clone(), current.weight.detach().clone()
    # 1,000 images in batches of 50 are 20 steps.
    for step in range(20):
        update_ema(average, current, ema_decay(50, 10**9 + 50 * step, 1000.0, 0.05))
    torch.testing.assert_close(average.weight.detach(), (start + target) / 2)


def test_half_life_does_not_depend_on_the_batch_size() -> None:
    assert ema_decay(8, 10**9, 1000.0, 0.0) ** 4 == pytest.approx(ema_decay(32, 10**9, 1000.0, 0.0))


def test_early_averages_follow_quickly() -> None:
    # 5 % of 2,000 images seen is a half-life of 100 images.
    assert ema_decay(100, 2000, 1e4, 0.05) == pytest.approx(0.5)
    assert ema_decay(100, 2000, 1e4, 0.0) == pytest.approx(0.5**0.01)
    assert ema_decay(32, 0, 1e4, 0.05) == 0


def test_buffers_are_copied_and_parameters_are_not() -> None:
    average, current = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        current.weight.fill_(3)
    assert current.running_mean is not None
    current.running_mean.fill_(7)
    update_ema(average, current, 0.75)
    assert average.running_mean is not None
    assert average.running_mean.tolist() == [7, 7, 7]
    # 0.75 * 1 + 0.25 * 3
    assert average.weight.tolist() == [1.5, 1.5, 1.5]
    assert current.weight.tolist() == [3, 3, 3]
    assert average.weight.requires_grad
