"""ADA's controller against sequences worked by hand."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from nerfstudio_gan3d.data.augment import AugmentController


def test_controller_by_hand() -> None:
    # 100 images from 0 to 1, so two steps of 10 images move p by 0.2.
    controller = AugmentController(target=0.5, interval=2, ada_kimg=0.1, max_p=0.55)
    steps = [
        ([1.0, 2.0, 0.1, 5.0], 0.0),  # the interval is not over
        ([3.0, 3.0, 3.0, -1.0], 0.2),  # signs 7 to 1: r = 0.75, up
        ([1.0, 1.0], 0.2),
        ([2.0, 2.0], 0.4),  # r = 1
        ([1.0, 1.0], 0.4),
        ([1.0, 1.0], 0.55),  # r = 1, and held at max_p
        ([9.0, 9.0, 9.0], 0.55),
        ([-0.1], 0.55),  # signs 3 to 1: r = 0.5 is on target
        ([1.0, -1.0], 0.55),
        ([0.0, -1.0], 0.35),  # r = -0.25, down
    ]
    for step, (logits, expected) in enumerate(steps):
        controller.accumulate(torch.tensor(logits)[:, None])
        assert controller.update(10).item() == pytest.approx(expected, abs=1e-6), step


def test_controller_stays_at_zero_and_keeps_still_without_logits() -> None:
    controller = AugmentController(interval=1, ada_kimg=0.1, initial_p=0.15)
    controller.update(10)
    assert controller.p.item() == pytest.approx(0.15)
    for expected in (0.05, 0.0, 0.0):
        controller.accumulate(torch.tensor([-1.0]))
        assert controller.update(10).item() == pytest.approx(expected, abs=1e-6)


def test_controller_resumes_in_the_middle_of_an_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(23, 8, generator=generator)
    whole, first, second = (AugmentController(0.1, 4, 0.5) for _ in range(3))
    for row in logits:
        whole.accumulate(row)
        whole.update(8)
    for row in logits[:9]:
        first.accumulate(row)
        first.update(8)
    second.load_state_dict(first.state_dict())
    for row in logits[9:]:
        second.accumulate(row)
        second.update(8)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_controller_counts_the_signs_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = AugmentController(target=0.2, interval=2, ada_kimg=0.1)
    # Another process sees three logits in a step; these are its sums since the last interval.
    others = iter([[3.0, 3.0], [6.0, 6.0], [-3.0, 3.0], [-6.0, 6.0]])
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda total: total.add_(torch.tensor(next(others))))
    for sign, expected in [(-1, 0.0), (-1, 0.08), (1, 0.08), (1, 0.0)]:
        # Alone, r is -1 in the first interval and 1 in the second. Together it is (6 - 2) / 8 = 0.5
        # and -0.5, so p goes the other way.
        controller.accumulate(torch.tensor([float(sign)]))
        assert controller.update(4).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 1.5}, "target is 1.5"),
        ({"interval": 0}, "interval is 0"),
        ({"ada_kimg": 0.0}, "ada_kimg is 0.0"),
        ({"initial_p": 0.5, "max_p": 0.4}, "initial_p is 0.5 and max_p is 0.4"),
        ({"max_p": 1.2}, "max_p is 1.2"),
    ],
)
def test_controller_refuses_impossible_settings(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentController(**arguments)
