"""How far training is: one line for the user, and scalars for TensorBoard and wandb."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils import writer
from nerfstudio.utils.writer import EventName
from rich.console import Console
from torch import Tensor

TERMINAL_SECONDS = 0.5
"""Between two lines on a terminal."""
LOG_SECONDS = 15.0
"""Between two lines in a log file."""
WINDOW = 20
"""Lines over which the speed is averaged."""


class Progress:
    """How far training is, how fast it goes, and when it will end.

    Args:
        iterations: total number of iterations, those before a resume included.
        budget: seconds of training; 0 sets no limit.
    """

    def __init__(self, iterations: int, budget: float) -> None:
        self.iterations = iterations
        self.budget = budget
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=WINDOW)

    def share(self, step: int, elapsed: float) -> float:
        """Share of training done before ``step``, 0..1: of iterations or of time, the larger."""
        done = step / self.iterations
        if self.budget > 0:
            done = max(done, elapsed / self.budget)
        return min(done, 1.0)

    def over(self, step: int, elapsed: float) -> bool:
        """Whether training ends before ``step``."""
        return step >= self.iterations or (self.budget > 0 and elapsed >= self.budget)

    def mark(self, done: int, elapsed: float, images: int) -> None:
        """Notes that ``done`` iterations and ``images`` images took ``elapsed`` seconds."""
        self._marks.append((elapsed, done, images))

    @property
    def images_per_second(self) -> float:
        """Over the last marks; 0 before the second one."""
        return self._rate(2)

    @property
    def remaining(self) -> float | None:
        """Seconds until iterations or budget are used up, whichever is first; None: unknown."""
        if not self._marks:
            return None
        elapsed, done, _ = self._marks[-1]
        rate = self._rate(1)
        limits = [(self.iterations - done) / rate] if rate > 0 else []
        if self.budget > 0:
            limits.append(self.budget - elapsed)
        return max(min(limits), 0.0) if limits else None

    def _rate(self, which: int) -> float:
        if len(self._marks) < 2:
            return 0.0
        first, last = self._marks[0], self._marks[-1]
        return (last[which] - first[which]) / max(last[0] - first[0], 1e-9)


class ProgressLine:
    """Writes `Progress` with the losses to a console."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self.progress = progress
        self.console = console
        self._next = 0.0
        self._open = False

    @property
    def due(self) -> bool:
        """Whether it is time for a new line."""
        return time.monotonic() >= self._next

    def write(self, done: int, images: int, losses: Mapping[str, Any]) -> None:
        """Writes the line for ``done`` iterations. Reads the losses, so a GPU is waited for."""
        terminal = self.console.is_terminal
        self._next = time.monotonic() + (TERMINAL_SECONDS if terminal else LOG_SECONDS)
        line = self.line(done, images, losses)
        if terminal:
            # One column stays free: a full line would wrap, and the return go to the second row.
            width = self.console.width - 1
            line = line[:width].ljust(width)
        self._open = terminal
        self.console.print(
            line, end="\r" if terminal else "\n", markup=False, highlight=False, soft_wrap=True
        )

    def close(self) -> None:
        """Leaves the last line of a terminal standing."""
        if self._open:
            self.console.print()
            self._open = False

    def line(self, done: int, images: int, losses: Mapping[str, Any]) -> str:
        """The text, such as ``iter 1200/40000  19.2 kimg  85 img/s  ETA 3:12  generator 0.712``."""
        progress = self.progress
        parts = [
            f"iter {done}/{progress.iterations}",
            f"{images / 1000:.1f} kimg",
            f"{progress.images_per_second:.0f} img/s",
            f"ETA {clock(progress.remaining)}",
        ]
        parts += [f"{name} {float(value):.3f}" for name, value in losses.items()]
        return "  ".join(parts)


def clock(seconds: float | None) -> str:
    """Seconds as m:ss or h:mm:ss; ``?`` for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def put_scalars(
    step: int,
    loss: Tensor,
    losses: dict[str, Tensor],
    figures: dict[str, Tensor],
    optimizers: Optimizers,
    progress: Progress,
) -> None:
    """Hands the figures of a step to nerfstudio's writers: TensorBoard, wandb, comet, its table."""
    writer.put_scalar(name="Train Loss", scalar=loss, step=step)
    writer.put_dict(name="Train Loss Dict", scalar_dict=losses, step=step)
    writer.put_dict(name="Train Metrics Dict", scalar_dict=figures, step=step)
    writer.put_scalar(name="Images / Sec", scalar=progress.images_per_second, step=step)
    for name, optimizer in optimizers.optimizers.items():
        rate = optimizer.param_groups[0]["lr"]
        writer.put_scalar(name=f"learning_rate/{name}", scalar=rate, step=step)
    if loss.is_cuda:
        used = torch.cuda.max_memory_allocated() / 1024**2
        writer.put_scalar(name="GPU Memory (MB)", scalar=used, step=step)
    if progress.remaining is not None:
        # nerfstudio's own estimate knows no time budget.
        writer.put_scalar(EventName.ETA.value, progress.remaining, step)


def flush_writers() -> None:
    """Brings everything that was logged to the disk."""
    writer.write_out_storage()
    for event_writer in writer.EVENT_WRITERS:
        if isinstance(event_writer, writer.TensorboardWriter):
            event_writer.tb_writer.flush()
