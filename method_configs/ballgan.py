"""BallGAN (arXiv 2301.09091): a foreground field inside an opaque spherical background."""

from __future__ import annotations

from nerfstudio_gan3d.method_configs._defaults import specification
from nerfstudio_gan3d.models.ballgan import ballgan, ballgan_256, ballgan_tiny

gan3d_ballgan = specification(
    "gan3d-ballgan",
    "BallGAN, 512 px: 3D-aware GAN that separates foreground and background (GPU)",
    ballgan(),
    batch_size=8,
    iterations=800_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
)

gan3d_ballgan_256 = specification(
    "gan3d-ballgan-256",
    "BallGAN, 256 px (GPU)",
    ballgan_256(),
    batch_size=16,
    iterations=400_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
)

gan3d_ballgan_tiny = specification(
    "gan3d-ballgan-tiny",
    "BallGAN, 64 px, for two CPU cores; learns the bundled cars in minutes",
    ballgan_tiny(),
    batch_size=16,
    iterations=50_000,
    generator_lr=0.003,
    discriminator_lr=0.003,
    mirror=True,
    tiny=True,
)
