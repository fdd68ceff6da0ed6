"""How large the viewer's pictures are while something moves.

nerfstudio chooses their size from the time that pictures took, and counts in the time spent waiting
for a training step to end. While a GAN trains on a CPU that time is most of it, and pictures shrink
to 36x30 pixels. Here only the rendering itself is timed, and no picture gets smaller than can be
read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nerfstudio.viewer.render_state_machine import RenderStateMachine

TARGET_FPS = 12.0
SMALLEST_SIDE = 96
MEMORY = 0.7


def preview_size(
    rate: float, aspect: float, largest: int, fps: float = TARGET_FPS, smallest: int = SMALLEST_SIDE
) -> tuple[int, int]:
    """Height and width of a picture that takes ``1 / fps`` seconds at ``rate`` pixels a second.

    The shorter side has at least ``smallest`` pixels, however long that takes, and the longer side
    at most ``largest``, which goes first.
    """
    shorter = max((rate / fps / max(aspect, 1 / aspect)) ** 0.5, float(smallest))
    return full_size(aspect, min(round(shorter * max(aspect, 1 / aspect)), largest))


def full_size(aspect: float, longer: int) -> tuple[int, int]:
    """Height and width of a picture of this aspect, width by height, from its longer side."""
    shorter = max(round(longer / max(aspect, 1 / aspect)), 1)
    return (shorter, longer) if aspect >= 1 else (longer, shorter)


@dataclass
class Pace:
    """Pixels a second that one browser's pictures are rendered with, a moving average."""

    rate: float = 60_000.0

    def note(self, pixels: int, seconds: float) -> None:
        """Takes a picture's size and the time it took into the average."""
        rate = pixels / max(seconds, 1e-3)
        self.rate = MEMORY * self.rate + (1 - MEMORY) * rate


def keep_pace(machine: RenderStateMachine) -> Pace:
    """Lets a browser's render thread choose sizes by `preview_size`.

    nerfstudio has no setting for either rule, so two methods of this one object are replaced. In
    training, the thread's own processor time is what a picture costs without the wait for the
    training step; the thread takes part in every operation that torch spreads over several.
    """
    pace = Pace()
    clock = time.perf_counter if machine.viewer.trainer is None else time.thread_time
    render: Callable[..., dict[str, Any]] = machine._render_img

    def size(aspect_ratio: float) -> tuple[int, int]:
        largest = machine.viewer.control_panel.max_res
        if machine.state == "high":
            return full_size(aspect_ratio, largest)
        # nerfstudio raises this flag for any move after a finished high-resolution picture, when
        # there is nothing to interrupt; the small picture that answers the move would be the one to
        # be dropped, and the next attempt would start a fifth of a second later.
        machine.interrupt_render_flag = False
        return preview_size(pace.rate, aspect_ratio, largest)

    def timed(camera_state: Any) -> dict[str, Any]:
        start = clock()
        outputs = render(camera_state)
        height, width = outputs["rgb"].shape[:2]
        pace.note(height * width, clock() - start)
        return outputs

    machine._calculate_image_res = size
    machine._render_img = timed
    return pace
