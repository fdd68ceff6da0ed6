"""Models of G3DR at a few pixels, for tests."""

from __future__ import annotations

import torch
from nerfstudio.data.scene_box import SceneBox

from nerfstudio_gan3d.image_views import STORED_IMAGES
from nerfstudio_gan3d.models.g3dr import G3drModel, G3drModelConfig
from nerfstudio_gan3d.models.g3dr_config import MultiPlaneConfig, UNetConfig
from nerfstudio_gan3d.models.reconstruction_config import ReconstructionLossConfig

SIDE = 16
NEAR, FAR = 1.0, 3.0
"""Distances that relative depth runs from and to."""


def g3dr_config() -> G3drModelConfig:
    """16 px, seen from a distance of 2, in a box of side 2, without LPIPS and CLIP."""
    return G3drModelConfig(
        image_resolution=SIDE,
        samples=4,
        importance_samples=2,
        view_radius=2.0,
        view_focal=1.5,
        unet=UNetConfig(
            width=8, multipliers=(1, 2), blocks=1, attention=False, position_channels=2
        ),
        # Solid, so that an untrained model has something to show.
        planes=MultiPlaneConfig(channels=4, hidden_dim=8, density_scale=50.0),
        losses=ReconstructionLossConfig(clip=0.0, lpips=0.0),
    )


def make_g3dr(config: G3drModelConfig | None = None) -> G3drModel:
    """An untrained model that keeps 16 different images: `kept_images`."""
    box = SceneBox(torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))
    model = G3drModel(config or g3dr_config(), scene_box=box, num_train_data=1).eval()
    model.images.fill(*kept_images())
    return model


def kept_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of noise, uint8 [16, 3, 16, 16], and flat distances [16, 1, 16, 16]: 1.5 + 0.05 i."""
    random = torch.Generator().manual_seed(7)
    images = torch.randint(256, (STORED_IMAGES, 3, SIDE, SIDE), generator=random)
    distances = 1.5 + 0.05 * torch.arange(STORED_IMAGES).view(-1, 1, 1, 1)
    return images.to(torch.uint8), distances.expand(-1, 1, SIDE, SIDE)
