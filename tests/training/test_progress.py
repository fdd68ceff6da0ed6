"""The progress line: shares, speed, time left, and what is written where."""

import io

import pytest
import torch
from rich.console import Console

from nerfstudio_gan3d.training.progress import Progress, ProgressLine, clock


def test_share_is_that_of_iterations_or_of_time_the_larger() -> None:
    progress = Progress(iterations=100, budget=60.0)
    assert progress.share(10, 3.0) == pytest.approx(0.1)
    assert progress.share(10, 30.0) == pytest.approx(0.5)
    assert progress.share(10, 90.0) == 1.0
    assert Progress(100, 0.0).share(10, 1e6) == pytest.approx(0.1)


def test_training_is_over_at_whichever_comes_first() -> None:
    progress = Progress(iterations=100, budget=60.0)
    assert not progress.over(99, 59.9)
    assert progress.over(100, 0.0)
    assert progress.over(3, 60.0)
    assert not Progress(100, 0.0).over(99, 1e6)


def test_speed_and_time_left() -> None:
    progress = Progress(iterations=100, budget=0.0)
    assert progress.remaining is None
    progress.mark(20, 50.0, 320)
    assert progress.images_per_second == 0
    progress.mark(30, 55.0, 480)
    # 10 iterations and 160 images in 5 s; 70 iterations are left.
    assert progress.images_per_second == pytest.approx(32)
    assert progress.remaining == pytest.approx(35)


def test_a_time_budget_can_end_first() -> None:
    progress = Progress(iterations=100, budget=70.0)
    progress.mark(20, 50.0, 320)
    progress.mark(30, 55.0, 480)
    assert progress.remaining == pytest.approx(15)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0.4, "0:00"), (59.6, "1:00"), (192.0, "3:12"), (3725.0, "1:02:05")],
)
def test_clock(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def line_to(stream: io.StringIO, terminal: bool, width: int) -> ProgressLine:
    progress = Progress(iterations=100, budget=0.0)
    progress.mark(20, 50.0, 320)
    progress.mark(30, 55.0, 480)
    return ProgressLine(progress, Console(file=stream, force_terminal=terminal, width=width))


def test_a_log_gets_whole_lines() -> None:
    stream = io.StringIO()
    line = line_to(stream, terminal=False, width=20)
    assert line.due
    line.write(30, 480, {"generator": torch.tensor(0.71234), "r1": 0.01})
    assert not line.due
    line.close()
    assert stream.getvalue() == (
        "iter 30/100  0.5 kimg  32 img/s  ETA 0:35  generator 0.712  r1 0.010\n"
    )


def test_a_terminal_gets_one_line_that_is_rewritten() -> None:
    stream = io.StringIO()
    line = line_to(stream, terminal=True, width=48)
    line.write(30, 480, {"generator": torch.tensor(0.71234)})
    assert stream.getvalue() == "iter 30/100  0.5 kimg  32 img/s  ETA 0:35  gene\r"
    assert len(stream.getvalue()) == 48
    line.close()
    line.close()
    assert stream.getvalue().endswith("gene\r\n")
