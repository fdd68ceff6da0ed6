"""BallGAN (arXiv 2301.09091): sizes and weights of its presets; the model itself is `GanModel`.

The foreground is a field in a box, the background an opaque sphere around it that is looked up once
per ray: ``phi(r) = sum_i w_i phi_i + T_bg phi_bg``. L_bg and L_fg keep them apart.
"""

from __future__ import annotations

from nerfstudio_gan3d.data.augment import AugmentConfig
from nerfstudio_gan3d.models.config import (
    BackgroundConfig,
    DiscriminatorConfig,
    FieldConfig,
    HashGridConfig,
    LatentConfig,
    SuperResolutionConfig,
    TriPlaneConfig,
)
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.models.objective_config import AdaConfig, LossConfig, ScheduleConfig


def ballgan() -> GanModelConfig:
    """512 px on a GPU; sizes of the published model, with our field and with the paper's losses
    on."""
    return GanModelConfig(
        image_resolution=512,
        neural_resolution=128,
        field=FieldConfig(density_scale=8.0),
        losses=LossConfig(
            r1_gamma=5.0,
            background=0.1,
            background_warmup_kimg=15.0,
            foreground=0.05,
            foreground_warmup_kimg=15.0,
        ),
        eval_num_rays_per_chunk=16384,
    )


def ballgan_256() -> GanModelConfig:
    """256 px on a GPU."""
    config = ballgan()
    config.image_resolution = 256
    config.neural_resolution = 64
    config.super_resolution = SuperResolutionConfig(channels=(128, 64))
    config.losses.r1_gamma = 2.0
    return config


def ballgan_tiny() -> GanModelConfig:
    """64 px on two CPU cores: the small networks with a palette, since cars are painted in few
    colours, and a discriminator that knows wrong cameras."""
    config = small_networks()
    config.samples = 12
    config.convolutions = "auto"
    config.field.palette = 8
    config.losses.wrong_camera = 0.5
    config.schedule.scenes_per_batch = 0
    return config


def small_networks() -> GanModelConfig:
    """What all methods' presets for two CPU cores start from: 64 px, small networks, direct
    rendering, patches of 32 px for the discriminator."""
    return GanModelConfig(
        representation="triplane",
        image_resolution=64,
        neural_resolution=64,
        patch_resolution=32,
        samples=8,
        importance_samples=0,
        latent=LatentConfig(z_dim=128, w_dim=128, lr_multiplier=0.1),
        field=FieldConfig(
            triplane=TriPlaneConfig(
                plane_size=32, plane_channels=16, channel_base=1024, channel_max=128
            ),
            hashgrid=HashGridConfig(
                levels=3,
                base_resolution=8,
                max_resolution=32,
                log2_table_size=15,
                features_per_level=4,
                bases=16,
            ),
            hidden_dim=32,
            feature_dim=3,
            density_scale=12.0,
            box=(0.7, 0.7, 1.0),
        ),
        sphere=BackgroundConfig(octaves=4, hidden_dim=32, layers=3, mapping_layers=2),
        discriminator=DiscriminatorConfig(
            channel_base=1536,
            channel_max=128,
            blocks="strided",
            mapping_layers=2,
            lr_multiplier=0.1,
        ),
        losses=LossConfig(
            r1_gamma=0.3,
            background=0.1,
            background_warmup_kimg=3.0,
            camera=1.0,
            density_variation=0.02,
            density_variation_points=250,
            density_variation_distance=0.03,
        ),
        schedule=ScheduleConfig(
            blur_sigma=0.0, crop_share=0.5, crop_start_kimg=50.0, scenes_per_batch=4
        ),
        ada=AdaConfig(mode="adaptive", kimg=60.0, transforms=light_augmentation()),
        ema_kimg=5.0,
        ema_rampup=0.1,
        eval_num_rays_per_chunk=16384,
    )


def light_augmentation() -> AugmentConfig:
    """Augmentation that costs little: brightness, contrast, saturation, shifts by whole pixels."""
    config = AugmentConfig.off()
    config.brightness = 0.2
    config.contrast = 0.5
    config.saturation = 1.0
    config.integer_translation = 0.125
    return config
