"""pix2pix3D (arXiv 2302.08509): label map in, labelled 3D thing out; sizes and weights of its
presets.

The first latents w come from an encoder of the label map, the others from z. The field has a colour
network and a network of density and labels; labels are rendered as colours are. The model itself is
`GanModel` with labels, its objective `LabelObjective`.
"""

from __future__ import annotations

from nerfstudio_gan3d.models.ballgan import ballgan, small_networks
from nerfstudio_gan3d.models.config import LabelConfig, SuperResolutionConfig
from nerfstudio_gan3d.models.eg3d import without_sphere
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.models.label_objective import LabelLossConfig


def pix2pix3d() -> GanModelConfig:
    """Segmentation maps, 512 px on a GPU, with the weights of the published runs on cats."""
    config = without_sphere(ballgan())
    config.labels = LabelConfig(kind="seg")
    config.label_losses = LabelLossConfig()
    config.latent.pose_conditioning = True
    config.discriminator.minibatch_group = 2
    config.schedule.blur_sigma = 0.0
    return config


def pix2pix3d_faces() -> GanModelConfig:
    """Segmentation maps with CelebAMask-HQ's 19 classes, 512 px on a GPU."""
    config = pix2pix3d()
    config.labels.classes = 19
    config.label_losses.class_weights = "celeba_squared"
    config.losses.r1_gamma = 1.0
    config.discriminator.minibatch_group = 1
    return config


def pix2pix3d_edges() -> GanModelConfig:
    """Edge maps, 512 px on a GPU."""
    config = pix2pix3d()
    config.labels.kind = "edge"
    return config


def small(config: GanModelConfig) -> GanModelConfig:
    """The same at 128 px, with the weights of the published runs on ShapeNet's cars."""
    config.image_resolution = 128
    config.neural_resolution = 64
    config.super_resolution = SuperResolutionConfig(channels=(128, 64))
    config.latent.pose_conditioning = False
    config.discriminator.minibatch_group = 4
    config.losses.r1_gamma = 0.3
    config.label_losses.raw_only = False
    config.label_losses.cross_view = 1e-6
    if config.labels.kind == "edge":
        config.label_losses.labels = 10.0
    return config


def pix2pix3d_tiny() -> GanModelConfig:
    """Segmentation maps, 64 px on two CPU cores: BallGAN's small networks, sphere included, since
    photographs have backgrounds; L1 in the place of LPIPS, whose network is larger than ours."""
    config = small_networks()
    # The published model lets the map decide all layers up to 32 texels, the side of these planes;
    # the last two of their eight latents are left to the appearance.
    config.labels = LabelConfig(kind="seg", geometry_layers=6, encoder_base=1024, encoder_max=128)
    config.label_losses = LabelLossConfig(
        adversarial=0.5,
        adversarial_colours=True,
        image_l1=1.0,
        lpips=0.0,
        labels=5.0,
        cross_view=0.01,
        cross_view_interval=8,
    )
    config.schedule.crop_start_kimg = 30.0
    return config


def pix2pix3d_edges_tiny() -> GanModelConfig:
    """Edge maps, 64 px on two CPU cores."""
    config = pix2pix3d_tiny()
    config.labels.kind = "edge"
    config.label_losses.labels = 10.0
    return config
