"""The baseline: BallGAN without its sphere, which is EG3D (arXiv 2112.07945) with our field."""

from __future__ import annotations

from nerfstudio_gan3d.method_configs._defaults import specification
from nerfstudio_gan3d.models.eg3d import eg3d, eg3d_256, eg3d_tiny

gan3d_eg3d = specification(
    "gan3d-eg3d",
    "EG3D, 512 px: 3D-aware GAN without a background model (GPU)",
    eg3d(),
    batch_size=8,
    iterations=800_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
)

gan3d_eg3d_256 = specification(
    "gan3d-eg3d-256",
    "EG3D, 256 px (GPU)",
    eg3d_256(),
    batch_size=16,
    iterations=400_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
)

gan3d_eg3d_tiny = specification(
    "gan3d-eg3d-tiny",
    "EG3D, 64 px, for two CPU cores",
    eg3d_tiny(),
    batch_size=16,
    iterations=50_000,
    generator_lr=0.003,
    discriminator_lr=0.003,
    mirror=True,
    tiny=True,
)
