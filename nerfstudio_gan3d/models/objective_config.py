"""Settings of BallGAN's and EG3D's objective: losses, schedules, augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nerfstudio_gan3d.data.augment import AugmentConfig
from nerfstudio_gan3d.models.settings import FillsDefaults


@dataclass
class LossConfig:
    """Weights of the losses. All of them really act; a weight of 0 leaves its term out."""

    r1_gamma: float = 1.0
    """R1 weight (gamma), on both resolutions. 0 disables."""
    r1_interval: int = 16
    """Steps between R1 penalties; the penalty is multiplied by it (lazy regularisation)."""
    background: float = 0.1
    """Weight of L_bg = mean min(T_bg, 1 - T_bg). 0 disables."""
    background_warmup_kimg: float = 0.0
    """Thousands of images over which that weight rises from 0."""
    foreground: float = 0.0
    """Weight of L_fg, the distortion loss of the foreground's samples. 0 disables."""
    foreground_warmup_kimg: float = 0.0
    """Thousands of images over which that weight rises from 0."""
    camera: float = 0.0
    """Weight of the camera loss: the discriminator learns to see where real images are taken from,
    and the generator has to be seen from where it was rendered (pi-GAN, GRAM). Needs camera labels.
    0 disables."""
    wrong_camera: float = 0.0
    """Weight of each discriminator's loss ``mean softplus(D(x_i, c_j))`` on real images x with the
    camera of their neighbour in the batch, which it has to refuse as it refuses generated ones (the
    matching-aware discriminator of Reed et al. 2016). Needs a camera-conditioned discriminator.
    0 disables."""
    density_variation: float = 0.25
    """Weight of the density's total variation. 0 disables."""
    density_variation_interval: int = 4
    """Steps between its evaluations; the term is multiplied by it."""
    density_variation_points: int = 1000
    """Points of the box at which it is evaluated, for each Scene."""
    density_variation_distance: float = 0.004
    """Standard deviation of their displacement, object-world units."""
    normal_smoothness: float = 0.0
    """Weight of the smoothness of normals on surfaces (UNISURF, 3DGEN). 0 disables."""
    normal_points: int = 512
    """Surface points of each Scene at which it is evaluated."""
    normal_distance: float = 0.01
    """How far their neighbours are at most along each axis, half sides of the box."""
    normal_step: float = 0.03
    """Half of the distance over which normals are differences, half sides of the box; used by
    fields whose lookups can be differentiated once (hashgrid, triplane)."""


@dataclass
class ScheduleConfig:
    """What changes while training, counted in thousands of real images shown (kimg)."""

    update: Literal["simultaneous", "alternating"] = "simultaneous"
    """simultaneous: both players learn from one generator pass; alternating: they take turns."""
    scenes_per_batch: int = 0
    """Scenes in a batch; each is seen by batch / scenes cameras. 0: one Scene an image."""
    neural_resolution_final: int = 0
    """Neural rendering resolution at the end of its schedule; 0 keeps it constant."""
    neural_resolution_fade_kimg: float = 1000.0
    """Length of that schedule."""
    blur_sigma: float = 10.0
    """Blur of what the discriminator sees at the start, pixels (EG3D's sigma). 0 disables."""
    blur_fade_kimg: float = 200.0
    """Over which the blur fades to none."""
    pose_swap_final: float = 0.5
    """With pose conditioning: probability in the end that the generator is told another image's
    pose."""
    pose_swap_fade_kimg: float = 1000.0
    """Over which that probability falls from 1."""
    style_mixing: float = 0.0
    """Probability that an image's fine layers take the latent of another one."""
    crop_share: float = 0.0
    """Share of images of which the discriminator sees a crop at full resolution instead of the
    whole at patch resolution. Needs a patch resolution below the image resolution."""
    crop_start_kimg: float = 0.0
    """When crops start."""
    patches: Literal["crops", "scales"] = "crops"
    """What patches are: whole images and crops at full resolution (crop_share), or GRAF's, of all
    scales between a smallest one and the whole image, at any place."""
    scale_start: float = 0.9
    """With scales: the smallest one at the start, in sides of the image."""
    scale_end: float = 0.25
    """The smallest one at the end."""
    scale_kimg: float = 1067.0
    """It follows exp(-kimg / scale_kimg) between these two."""


@dataclass
class AdaConfig(FillsDefaults):
    """Adaptive discriminator augmentation (ADA)."""

    mode: Literal["none", "adaptive", "fixed"] = "none"
    """none; adaptive: p follows the discriminator's confidence; fixed: p = initial_p."""
    initial_p: float = 0.0
    """Probability of each transformation at the start."""
    max_p: float = 0.8
    """Largest probability; more leaks into what is generated."""
    target: float = 0.6
    """Mean sign of D(real) that p is steered to."""
    interval: int = 4
    """Steps between adjustments."""
    kimg: float = 500.0
    """Thousands of images in which p can rise from 0 to 1."""
    transforms: AugmentConfig = field(default_factory=AugmentConfig)
    """Which transformations, and how strong."""
