"""Exponential moving average of a generator's weights."""

from __future__ import annotations

import torch
from torch import nn


def ema_decay(batch: int, images_seen: int, half_life: float, rampup: float) -> float:
    """Factor that keeps the old average in a step of ``batch`` images.

    ``0.5^(batch / min(half_life, rampup * images_seen))``, in images; a small ``rampup`` (EG3D:
    0.05) lets early averages forget the untrained weights. 0 leaves the limit out.
    """
    if rampup > 0:
        half_life = min(half_life, rampup * images_seen)
    return 0.5 ** (batch / max(half_life, 1e-8))


@torch.no_grad()
def update_ema(average: nn.Module, current: nn.Module, decay: float) -> None:
    """``average <- decay * average + (1 - decay) * current``; buffers (such as w's mean) are
    copied."""
    for kept, new in zip(average.parameters(), current.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for kept, new in zip(average.buffers(), current.buffers(), strict=True):
        kept.copy_(new)
