"""G3DR at a few pixels, and generators of Scenes that are known in closed form."""

from __future__ import annotations

import math
from typing import Any

import torch
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from nerfstudio_gan3d.models.g3dr import G3drModel, G3drModelConfig, make_image_generator
from nerfstudio_gan3d.models.g3dr_config import MultiPlaneConfig, UNetConfig
from nerfstudio_gan3d.models.image_generator import ImageGenerator
from nerfstudio_gan3d.models.reconstruction_config import ReconstructionLossConfig
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.scene import Bounds, Field, ImageCondition, Scene

RADIUS, BOX, SIDE = 5.0, 2.0, 16
FOCAL = 0.5 / math.tan(math.radians(9))


def small_config(**changes: Any) -> G3drModelConfig:
    """G3DR at 16 px without networks that judge images; ``changes`` are fields."""
    config = G3drModelConfig(
        image_resolution=SIDE,
        samples=8,
        importance_samples=6,
        unet=UNetConfig(width=16, multipliers=(1, 2), blocks=1, position_channels=4),
        planes=MultiPlaneConfig(channels=8, hidden_dim=16),
        losses=ReconstructionLossConfig(lpips=0.0, clip=0.0),
        view_radius=RADIUS,
        view_focal=FOCAL,
        box_side=BOX,
    )
    for name, value in changes.items():
        assert hasattr(config, name)
        setattr(config, name, value)
    return config


def small_generator(**changes: Any) -> ImageGenerator:
    """Its generator."""
    return make_image_generator(small_config(**changes))


def make_model(config: G3drModelConfig) -> G3drModel:
    """The whole model of a configuration."""
    box = SceneBox(torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))
    return G3drModel(config, scene_box=box, num_train_data=1)


def small_model(**changes: Any) -> G3drModel:
    """The whole small model."""
    return make_model(small_config(**changes))


def condition(count: int = 2, seed: int = 0) -> ImageCondition:
    """Images of noise, and distances in the box."""
    source = torch.Generator().manual_seed(seed)
    image = torch.rand(count, 3, SIDE, SIDE, generator=source) * 2 - 1
    distance = 4.3 + 1.4 * torch.rand(count, 1, SIDE, SIDE, generator=source)
    return ImageCondition(image, distance)


def shows(generator: ImageGenerator, field: Field, density_scale: float = 1.0) -> ImageGenerator:
    """The generator with this field in all Scenes, whatever the image is."""

    def scene(given: ImageCondition) -> Scene:
        side = BOX
        corner = side / 2 * math.sqrt(3)
        bounds = Bounds((side, side, side), RADIUS - corner, RADIUS + corner)
        return Scene(field, bounds, len(given.image), density_scale=density_scale)

    generator.scene = scene  # type: ignore[method-assign]
    return generator


def rendering(features: Tensor, weights: Tensor, edges: Tensor) -> Rendering:
    """What rays show: features [B, R, F], weights [B, R, S] and edges [B, R, S + 1]."""
    opacity = weights.sum(-1, keepdim=True)
    distance = edges[..., :1]
    return Rendering(features, features, None, 1 - opacity, distance, distance, weights, edges)
