"""Ranges of single settings: numbers outside of them are refused before training starts."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nerfstudio_gan3d.models.gan import GanModelConfig

SHARES = ("schedule.pose_swap_final", "schedule.style_mixing", "ada.initial_p", "ada.max_p")
"""Settings from 0 to 1."""
NOT_NEGATIVE = (
    "importance_samples",
    "ema_kimg",
    "ema_rampup",
    "discriminator.camera_noise",
    "schedule.scenes_per_batch",
    "schedule.blur_sigma",
    "schedule.blur_fade_kimg",
    "schedule.neural_resolution_fade_kimg",
    "schedule.pose_swap_fade_kimg",
    "schedule.crop_start_kimg",
    "losses.r1_gamma",
    "losses.background",
    "losses.foreground",
    "losses.camera",
    "losses.wrong_camera",
    "losses.density_variation",
    "losses.normal_smoothness",
    "losses.background_warmup_kimg",
    "losses.foreground_warmup_kimg",
    "losses.density_variation_distance",
)
"""Settings of 0 or more."""
AT_LEAST_ONE = (
    "neural_resolution",
    "samples",
    "discriminator.minibatch_group",
    "losses.density_variation_points",
    "ada.interval",
)
"""Settings of 1 or more."""


def validate_ranges(config: GanModelConfig) -> None:
    """Raises ValueError, naming the field, for numbers that no configuration can have."""
    ranges = (
        (SHARES, 0.0, 1.0, "between 0 and 1"),
        (NOT_NEGATIVE, 0.0, math.inf, "0 or more"),
        (AT_LEAST_ONE, 1.0, math.inf, "1 or more"),
    )
    for names, least, most, words in ranges:
        for name in names:
            value = attrgetter(name)(config)
            if not least <= value <= most:
                raise ValueError(f"model.{name} = {value}: give {words}")
    if config.ada.mode == "fixed" and config.ada.initial_p == 0:
        raise ValueError(
            "model.ada.initial_p = 0: with mode = fixed nothing would be augmented; give the "
            "probability, or set mode to none"
        )
    if config.ada.mode == "adaptive" and config.ada.kimg <= 0:
        raise ValueError(f"model.ada.kimg = {config.ada.kimg}: give more than 0")
