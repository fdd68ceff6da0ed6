"""pix2pix3D (arXiv 2302.08509): segmentation or edge map in, editable 3D thing out."""

from __future__ import annotations

from nerfstudio_gan3d.method_configs._defaults import specification
from nerfstudio_gan3d.models.pix2pix3d import (
    pix2pix3d,
    pix2pix3d_edges,
    pix2pix3d_edges_tiny,
    pix2pix3d_faces,
    pix2pix3d_tiny,
    small,
)

HELD_OUT = 0.1
"""Share of the objects on whose label maps Scenes are evaluated."""

gan3d_pix2pix3d = specification(
    "gan3d-pix2pix3d",
    "pix2pix3D, 512 px: segmentation maps to labelled 3D (GPU)",
    pix2pix3d(),
    batch_size=4,
    iterations=800_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
    eval_fraction=HELD_OUT,
)

gan3d_pix2pix3d_faces = specification(
    "gan3d-pix2pix3d-faces",
    "pix2pix3D, 512 px, for CelebAMask-HQ's 19 classes (GPU)",
    pix2pix3d_faces(),
    batch_size=4,
    iterations=800_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
    eval_fraction=HELD_OUT,
)

gan3d_pix2pix3d_edge = specification(
    "gan3d-pix2pix3d-edge",
    "pix2pix3D, 512 px: edge maps to 3D (GPU)",
    pix2pix3d_edges(),
    batch_size=4,
    iterations=800_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
    eval_fraction=HELD_OUT,
)

gan3d_pix2pix3d_128 = specification(
    "gan3d-pix2pix3d-128",
    "pix2pix3D, 128 px: segmentation maps to labelled 3D (GPU)",
    small(pix2pix3d()),
    batch_size=16,
    iterations=400_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
    eval_fraction=HELD_OUT,
)

gan3d_pix2pix3d_edge_128 = specification(
    "gan3d-pix2pix3d-edge-128",
    "pix2pix3D, 128 px: edge maps to 3D (GPU)",
    small(pix2pix3d_edges()),
    batch_size=16,
    iterations=400_000,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    mirror=False,
    tiny=False,
    eval_fraction=HELD_OUT,
)

gan3d_pix2pix3d_tiny = specification(
    "gan3d-pix2pix3d-tiny",
    "pix2pix3D, 64 px, for two CPU cores: learns the bundled cars from their part labels",
    pix2pix3d_tiny(),
    batch_size=8,
    iterations=50_000,
    generator_lr=0.003,
    discriminator_lr=0.003,
    mirror=True,
    tiny=True,
    eval_fraction=HELD_OUT,
)

gan3d_pix2pix3d_edge_tiny = specification(
    "gan3d-pix2pix3d-edge-tiny",
    "pix2pix3D, 64 px, for two CPU cores: edge maps to 3D",
    pix2pix3d_edges_tiny(),
    batch_size=8,
    iterations=50_000,
    generator_lr=0.003,
    discriminator_lr=0.003,
    mirror=True,
    tiny=True,
    eval_fraction=HELD_OUT,
)
