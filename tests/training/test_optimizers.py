"""Adam's settings, and the fall of the learning rate."""

import copy
import math

import pytest
import torch

from nerfstudio_gan3d.training.optimizers import GanAdamConfig, LrSchedule


def test_lr_falls_along_half_a_cosine() -> None:
    # From 1 to 0.2: half way between start and end the cosine is 0, so 0.2 + 0.8 / 2.
    schedule = LrSchedule(0.6, 0.2)
    factors = [schedule.factor(share) for share in (0.0, 0.59, 0.6, 0.8, 1.0, 1.5)]
    assert factors == pytest.approx([1.0, 1.0, 1.0, 0.6, 0.2, 0.2])
    assert schedule.factor(0.7) == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi / 4)))


def test_lr_stays_when_the_decay_is_off() -> None:
    assert [LrSchedule(1.0, 0.1).factor(share) for share in (0.0, 0.999, 1.0)] == [1.0, 1.0, 1.0]


def test_with_a_warm_up_the_learning_rate_is_torchs_one_cycle() -> None:
    """Rate and first beta of OneCycleLR over 200 steps, of which a fifth rises."""
    total, rise = 200, 0.2
    parameter = torch.nn.Parameter(torch.zeros(()))
    adam = torch.optim.Adam([parameter], lr=1.0, betas=(0.9, 0.99))
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        adam, max_lr=1.0, total_steps=total, pct_start=rise, div_factor=25, final_div_factor=1e4
    )
    # It counts phases in steps from 0 to 199, and the first one ends at step 39.
    warmup = (rise * total - 1) / (total - 1)
    schedule = LrSchedule(warmup, 1 / 25 / 1e4, warmup, 1 / 25)
    low, high = 0.95, 0.85
    for step in range(total):
        share = step / (total - 1)
        group = adam.param_groups[0]
        assert schedule.factor(share) == pytest.approx(group["lr"], abs=1e-9)
        beta = low + (high - low) * schedule.height(share)
        assert beta == pytest.approx(group["betas"][0], abs=1e-9)
        adam.step()
        if step < total - 1:
            cycle.step()


def test_lazy_correction_is_the_published_one() -> None:
    # StyleGAN2's generator regularises every 4 steps: 0.0025 * 4/5 and 0.99 ** (4/5).
    lr, betas = GanAdamConfig(lr=0.0025, lazy_interval=4).corrected()
    assert lr == pytest.approx(0.002)
    assert betas == pytest.approx((0.0, 0.99**0.8))
    assert GanAdamConfig(lr=0.0025).corrected() == (0.0025, (0.0, 0.99))


def test_integers_from_a_command_line_or_yaml_file_work() -> None:
    config = GanAdamConfig()
    config.betas = (0, 0.99)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = config.setup([weight])
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.99)


def test_steps_equal_the_update_rule_written_out() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5, dtype=torch.float64))
    expected, moment = weight.detach().clone(), torch.zeros(5, dtype=torch.float64)
    optimizer = GanAdamConfig(lr=0.01, eps=1e-8).setup([weight])
    for step in range(1, 4):
        gradient = torch.randn(5, dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        # With beta1 = 0 the first moment is the gradient itself.
        moment = 0.99 * moment + 0.01 * gradient**2
        expected -= 0.01 * gradient / ((moment / (1 - 0.99**step)).sqrt() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0),
        ("lr", math.nan),
        ("betas", (0.0, 1.0)),
        ("betas", (-0.1, 0.9)),
        ("eps", 0.0),
        ("lazy_interval", -1),
    ],
)
def test_values_out_of_range_are_named(name: str, value: object) -> None:
    config = copy.copy(GanAdamConfig())
    setattr(config, name, value)
    with pytest.raises(ValueError, match=f"optimizer.{name} = "):
        config.setup([torch.nn.Parameter(torch.ones(1))])
