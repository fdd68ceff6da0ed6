"""Generators, objectives and models of a few pixels, for tests."""

from __future__ import annotations

from typing import Literal

import torch
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from nerfstudio_gan3d.cameras import PosePrior
from nerfstudio_gan3d.models.config import (
    BackgroundConfig,
    DiscriminatorConfig,
    FieldConfig,
    HashGridConfig,
    LatentConfig,
    SuperResolutionConfig,
    TriPlaneConfig,
)
from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.objective_config import AdaConfig, LossConfig, ScheduleConfig
from nerfstudio_gan3d.rendering.renderer import RenderSettings

LATENT = 16


def field_config(features: int = 3) -> FieldConfig:
    return FieldConfig(
        triplane=TriPlaneConfig(plane_size=8, plane_channels=4, channel_base=64, channel_max=8),
        hashgrid=HashGridConfig(
            levels=2, base_resolution=4, max_resolution=8, log2_table_size=8, bases=4
        ),
        hidden_dim=8,
        feature_dim=features,
        density_scale=10.0,
        box=(0.8, 0.9, 1.0),
        near=1.0,
        far=3.0,
    )


def make_generator(
    representation: Literal["hashgrid", "triplane"] = "triplane",
    background: bool = True,
    super_resolution: bool = False,
    pose_conditioning: bool = False,
    conventions: Literal["corrected", "reference"] = "corrected",
) -> Generator:
    """8 px rendered, and 16 px after super-resolution where there is one."""
    sphere = BackgroundConfig(hidden_dim=8, layers=2, octaves=3, mapping_layers=2)
    return Generator(
        representation,
        LatentConfig(LATENT, LATENT, lr_multiplier=0.1, pose_conditioning=pose_conditioning),
        field_config(5 if super_resolution else 3),
        sphere if background else None,
        SuperResolutionConfig(channels=(8, 8)) if super_resolution else None,
        RenderSettings(6, 4, conventions),
        8,
        16 if super_resolution else 8,
    )


def model_config(**changes: object) -> GanModelConfig:
    """BallGAN at 8 px without super-resolution; ``changes`` are fields."""
    config = GanModelConfig(
        representation="triplane",
        image_resolution=8,
        neural_resolution=8,
        samples=6,
        importance_samples=4,
        latent=LatentConfig(LATENT, LATENT, lr_multiplier=0.1),
        field=field_config(),
        sphere=BackgroundConfig(hidden_dim=8, layers=2, octaves=3, mapping_layers=2),
        super_resolution=SuperResolutionConfig(channels=(8, 8)),
        discriminator=DiscriminatorConfig(
            channel_base=64, channel_max=8, mapping_layers=2, lr_multiplier=0.1
        ),
        losses=LossConfig(density_variation_points=16),
        schedule=ScheduleConfig(blur_sigma=0.0),
        ada=AdaConfig(),
        view_radius=1.9,
        view_focal=1.5,
    )
    for name, value in changes.items():
        assert hasattr(config, name)
        setattr(config, name, value)
    return config


def upsampled_config() -> GanModelConfig:
    """The same with super-resolution to 16 px."""
    return model_config(image_resolution=16, field=field_config(5))


def make_model(config: GanModelConfig | None = None) -> GanModel:
    box = SceneBox(torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))
    return GanModel(config or model_config(), scene_box=box, num_train_data=1)


def labels(count: int, seed: int = 0) -> Tensor:
    """Cameras around the object."""
    return PosePrior().sample(count, torch.Generator().manual_seed(seed))


def images(count: int, size: int = 8, seed: int = 0) -> Tensor:
    """Noise in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
