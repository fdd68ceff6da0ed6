"""EG3D (arXiv 2112.07945), the baseline: BallGAN's presets without the sphere and its losses."""

from __future__ import annotations

from nerfstudio_gan3d.models.ballgan import ballgan, ballgan_256, ballgan_tiny
from nerfstudio_gan3d.models.gan import GanModelConfig


def without_sphere(config: GanModelConfig) -> GanModelConfig:
    """The same method where rays end in black: no sphere, no L_bg, no L_fg, the box as large as the
    view."""
    config.background = False
    config.losses.background = 0.0
    config.losses.foreground = 0.0
    config.field.box = (1.0, 1.0, 1.0)
    return config


def eg3d() -> GanModelConfig:
    """512 px on a GPU."""
    return without_sphere(ballgan())


def eg3d_256() -> GanModelConfig:
    """256 px on a GPU."""
    return without_sphere(ballgan_256())


def eg3d_tiny() -> GanModelConfig:
    """64 px on two CPU cores."""
    return without_sphere(ballgan_tiny())
