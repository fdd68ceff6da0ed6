"""3DGEN (arXiv 2312.08094): a GAN whose generator is a surface; sizes and weights of its presets.

The generator is a conditional UNISURF: a shape code decides where the surface is, an appearance
code its colours. Rays are sampled in a shell about the surface that narrows while training, from a
volume at first to a surface at last. GRAF is the baseline: the same game with a density. The models
themselves are `GanModel`.
"""

from __future__ import annotations

from nerfstudio_gan3d.models.ballgan import small_networks
from nerfstudio_gan3d.models.config import (
    DiscriminatorConfig,
    FieldConfig,
    HashGridConfig,
    LatentConfig,
    MlpConfig,
    SurfaceConfig,
)
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.models.objective_config import LossConfig, ScheduleConfig


def threedgen() -> GanModelConfig:
    """128 px on a GPU: a hash grid that grows from coarse to fine, in front of BallGAN's sphere."""
    return GanModelConfig(
        representation="hashgrid",
        image_resolution=128,
        neural_resolution=128,
        samples=32,
        importance_samples=16,
        latent=LatentConfig(z_dim=256, w_dim=256, separate=True),
        field=FieldConfig(
            feature_dim=3,
            volume="occupancy",
            surface=SurfaceConfig(slope_final=40.0, grow_share=0.4),
        ),
        discriminator=DiscriminatorConfig(channel_base=16384),
        losses=LossConfig(r1_gamma=1.0, background=0.1, normal_smoothness=0.02),
        schedule=ScheduleConfig(blur_sigma=0.0),
        eval_num_rays_per_chunk=16384,
    )


def threedgen_mlp() -> GanModelConfig:
    """128 px on a GPU, as close to the paper as its sources allow: UNISURF's networks, trained as
    GRAF is, on objects in front of white."""
    return GanModelConfig(
        representation="unisurf",
        image_resolution=128,
        neural_resolution=128,
        patch_resolution=32,
        samples=64,
        importance_samples=32,
        background=False,
        latent=LatentConfig(z_dim=256, w_dim=128, mapping_layers=0, separate=True),
        field=FieldConfig(
            feature_dim=3,
            white_back=True,
            volume="occupancy",
            surface=SurfaceConfig(shell_end=0.05),
        ),
        discriminator=DiscriminatorConfig(kind="patch", camera_conditioning=False),
        losses=LossConfig(
            # GRAF takes the mean over the pixels of a patch where R1 is a sum, and no half.
            r1_gamma=2 * 10 / 32**2,
            r1_interval=1,
            background=0.0,
            density_variation=0.0,
            normal_smoothness=0.005,
            normal_distance=0.005,
        ),
        schedule=ScheduleConfig(blur_sigma=0.0, patches="scales"),
        ema_kimg=5.5,
        ema_rampup=0.0,
        eval_num_rays_per_chunk=16384,
    )


def graf() -> GanModelConfig:
    """128 px on a GPU: GRAF, the baseline. Its density has softplus in place of a ReLU with
    noise."""
    config = threedgen_mlp()
    config.representation = "graf"
    config.samples, config.importance_samples = 64, 0
    config.field.volume = "density"
    config.field.density_scale = 8.0
    config.field.mlp = MlpConfig(octaves=10)
    config.losses.normal_smoothness = 0.0
    return config


def graf_tiny() -> GanModelConfig:
    """64 px on two CPU cores: GRAF's density, small, in the place of 3DGEN's surface; everything
    else is that of `threedgen_tiny`."""
    config = threedgen_tiny()
    config.representation = "graf"
    config.field.volume = "density"
    config.field.density_scale = 12.0
    config.field.mlp = MlpConfig(hidden_dim=64, layers=4, octaves=5, view_octaves=None, skip=2)
    config.losses.normal_smoothness = 0.0
    return config


def threedgen_tiny() -> GanModelConfig:
    """64 px on two CPU cores: small tri-planes in front of BallGAN's sphere, since photographs
    have backgrounds."""
    config = small_networks()
    config.representation = "triplane"
    config.latent = LatentConfig(z_dim=128, w_dim=128, lr_multiplier=0.1, separate=True)
    config.field.volume = "occupancy"
    config.field.density_scale = 1.0
    # The longest cars are 1.012 long; a surface that leaves the box ends in a flat lid.
    config.field.box = (0.7, 0.7, 1.04)
    config.field.hashgrid = HashGridConfig(
        levels=3,
        base_resolution=8,
        max_resolution=32,
        log2_table_size=15,
        features_per_level=4,
        bases=32,
    )
    config.field.surface = SurfaceConfig(
        slope_final=30.0, shell_end=0.1, march_steps=16, secant_steps=3
    )
    config.losses.normal_smoothness = 0.05
    config.losses.normal_points = 64
    return config
