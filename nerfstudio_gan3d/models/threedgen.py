"""3DGEN (arXiv 2312.08094): a GAN whose generator is a surface; sizes and weights of its presets.

The generator is a conditional UNISURF: a shape code decides where the surface is, an appearance
code its colours. Rays are sampled in a shell about the surface that narrows while training, from a
volume at first to a surface at last. GRAF is the baseline: the same game with a density. The models
themselves are `GanModel`.
"""

from __future__ import annotations

from nerfstudio_gan3d.models.ballgan import ballgan_tiny
from nerfstudio_gan3d.models.config import (
    HashGridConfig,
    LatentConfig,
    SurfaceConfig,
)
from nerfstudio_gan3d.models.gan import GanModelConfig


def threedgen_tiny() -> GanModelConfig:
    """64 px on two CPU cores: small tri-planes in front of BallGAN's sphere, since photographs
    have backgrounds."""
    config = ballgan_tiny()
    config.representation = "triplane"
    config.latent = LatentConfig(z_dim=128, w_dim=128, lr_multiplier=0.1, separate=True)
    config.field.volume = "occupancy"
    config.field.density_scale = 1.0
    config.field.hashgrid = HashGridConfig(
        levels=3,
        base_resolution=8,
        max_resolution=32,
        log2_table_size=15,
        features_per_level=4,
        bases=32,
    )
    config.field.surface = SurfaceConfig(march_steps=16, secant_steps=3)
    config.losses.normal_smoothness = 0.01
    config.losses.normal_points = 64
    return config
