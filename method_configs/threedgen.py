"""3DGEN (arXiv 2312.08094): a GAN whose generator is a surface; and GRAF, its baseline."""

from __future__ import annotations

from nerfstudio_gan3d.method_configs._defaults import specification
from nerfstudio_gan3d.models.threedgen import threedgen_tiny

gan3d_3dgen_tiny = specification(
    "gan3d-3dgen-tiny",
    "3DGEN, 64 px, for two CPU cores; learns surfaces of the bundled cars",
    threedgen_tiny(),
    batch_size=8,
    iterations=50_000,
    generator_lr=0.003,
    discriminator_lr=0.003,
    mirror=True,
    tiny=True,
)
