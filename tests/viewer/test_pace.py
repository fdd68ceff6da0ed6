"""Sizes of the pictures while something moves."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nerfstudio_gan3d.viewer.pace import full_size, keep_pace, preview_size


@pytest.mark.parametrize(
    ("rate", "aspect", "largest", "expected"),
    [
        # 1 / 12 s at 480,000 pixels a second are 40,000 pixels: 200 squared, or 141 x 283.
        (4.8e5, 1.0, 512, (200, 200)),
        (4.8e5, 2.0, 512, (142, 283)),
        (4.8e5, 0.5, 512, (283, 142)),
        # Too slow for a readable picture: the shorter side keeps 96 pixels.
        (1e3, 1.5, 512, (96, 144)),
        # The largest size goes first, both ways.
        (1e9, 1.5, 300, (200, 300)),
        (1e3, 1.5, 90, (60, 90)),
    ],
)
def test_preview_size(rate: float, aspect: float, largest: int, expected: tuple[int, int]) -> None:
    assert preview_size(rate, aspect, largest) == expected


def test_full_size_of_a_sliver_keeps_a_pixel() -> None:
    assert full_size(1000.0, 100) == (1, 100)


def fake_machine(state: str, trainer: object | None = None) -> Any:
    """A render thread that takes no processor time but waits for 0.3 s."""

    def render(camera_state: Any) -> dict[str, torch.Tensor]:
        time.sleep(0.3)
        return {"rgb": torch.zeros(100, 100, 3)}

    return SimpleNamespace(
        state=state,
        interrupt_render_flag=True,
        viewer=SimpleNamespace(control_panel=SimpleNamespace(max_res=400), trainer=trainer),
        _render_img=render,
    )


def test_waiting_for_the_training_does_not_shrink_pictures() -> None:
    """100 x 100 pixels in 0.3 s are 33,000 a second, less than what pictures start with."""
    machine = fake_machine("low_move", trainer=object())
    pace = keep_pace(machine)
    before, size = pace.rate, machine._calculate_image_res(1.0)
    machine._render_img(None)
    assert pace.rate > before
    assert machine._calculate_image_res(1.0) > size


def test_a_busy_machine_shrinks_pictures() -> None:
    """Without training, what a picture took is what it will take."""
    machine = fake_machine("low_move")
    pace = keep_pace(machine)
    before = pace.rate
    machine._render_img(None)
    assert pace.rate < before


def test_small_pictures_are_not_dropped_for_an_interruption_meant_for_a_sharp_one() -> None:
    machine = fake_machine("low_static")
    keep_pace(machine)
    machine._calculate_image_res(1.0)
    assert machine.interrupt_render_flag is False


def test_sharp_pictures_have_the_full_size_and_can_be_interrupted() -> None:
    machine = fake_machine("high")
    keep_pace(machine)
    assert machine._calculate_image_res(2.0) == (200, 400)
    assert machine.interrupt_render_flag is True
