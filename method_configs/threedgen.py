"""3DGEN (arXiv 2312.08094): a GAN whose generator is a surface; and GRAF, its baseline."""

from __future__ import annotations

from nerfstudio_gan3d.method_configs._defaults import as_graf_trains, specification
from nerfstudio_gan3d.models.threedgen import (
    graf,
    graf_tiny,
    threedgen,
    threedgen_mlp,
    threedgen_tiny,
)

gan3d_3dgen = specification(
    "gan3d-3dgen",
    "3DGEN, 128 px: surfaces with shape and appearance codes, hash grid (GPU)",
    threedgen(),
    batch_size=16,
    iterations=300_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
)

gan3d_3dgen_mlp = as_graf_trains(
    specification(
        "gan3d-3dgen-mlp",
        "3DGEN, 128 px, with UNISURF's networks and GRAF's patches (GPU)",
        threedgen_mlp(),
        batch_size=8,
        iterations=300_000,
        generator_lr=5e-4,
        discriminator_lr=1e-4,
        mirror=False,
        tiny=False,
    )
)

gan3d_graf = as_graf_trains(
    specification(
        "gan3d-graf",
        "GRAF, 128 px: the baseline of 3DGEN, a density with codes (GPU)",
        graf(),
        batch_size=8,
        iterations=300_000,
        generator_lr=5e-4,
        discriminator_lr=1e-4,
        mirror=False,
        tiny=False,
    )
)

gan3d_graf_tiny = specification(
    "gan3d-graf-tiny",
    "GRAF, 64 px, for two CPU cores: the baseline of gan3d-3dgen-tiny",
    graf_tiny(),
    batch_size=8,
    iterations=50_000,
    generator_lr=0.001,
    discriminator_lr=0.003,
    mirror=True,
    tiny=True,
)

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
