"""The nerfstudio Model that every GAN here is: both players, and Scenes that seeds name."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from dataclasses import field as default
from typing import Literal

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from nerfstudio_gan3d.cameras import LABEL_SIZE
from nerfstudio_gan3d.latents import LabelStore, SceneRequest, request_latents
from nerfstudio_gan3d.models.checks import validate
from nerfstudio_gan3d.models.config import (
    BackgroundConfig,
    DiscriminatorConfig,
    FieldConfig,
    LabelConfig,
    LatentConfig,
    SuperResolutionConfig,
)
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.label_objective import LabelLossConfig, LabelObjective
from nerfstudio_gan3d.models.objective import Objective
from nerfstudio_gan3d.models.objective_config import AdaConfig, LossConfig, ScheduleConfig
from nerfstudio_gan3d.models.parts import Representation
from nerfstudio_gan3d.models.scene_model import SceneModel, SceneModelConfig
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from nerfstudio_gan3d.networks.patch_discriminator import PatchDiscriminator
from nerfstudio_gan3d.networks.stylegan2 import SynthesisNetwork
from nerfstudio_gan3d.networks.superresolution import SuperResolution
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.scene import Scene
from nerfstudio_gan3d.viewer.controls import SceneControls


@dataclass
class GanModelConfig(SceneModelConfig):
    """What all GANs share. A method's own file overrides what differs."""

    _target: type = default(default_factory=lambda: GanModel)
    representation: Representation = "hashgrid"
    """What the foreground is made of: a style-modulated hash grid, three planes, or the networks of
    UNISURF or GRAF with codes."""
    neural_resolution: int = 64
    """Side of the rendered image that super-resolution takes. Equal to the image resolution:
    none."""
    patch_resolution: int = 0
    """Side of what the discriminator sees without super-resolution: whole images reduced to it, and
    crops (schedule.crop_share). 0: the image resolution."""
    background: bool = True
    """BallGAN's opaque sphere behind the foreground; False is EG3D."""
    latent: LatentConfig = default(default_factory=LatentConfig)
    """Latents and mapping network."""
    field: FieldConfig = default(default_factory=FieldConfig)
    """The foreground."""
    sphere: BackgroundConfig = default(default_factory=BackgroundConfig)
    """The background, where there is one."""
    super_resolution: SuperResolutionConfig = default(default_factory=SuperResolutionConfig)
    """Used where the image resolution exceeds the neural resolution."""
    discriminator: DiscriminatorConfig = default(default_factory=DiscriminatorConfig)
    """The discriminator."""
    losses: LossConfig = default(default_factory=LossConfig)
    """Weights of the losses."""
    labels: LabelConfig = default(default_factory=LabelConfig)
    """Label maps that Scenes are made from (pix2pix3D)."""
    label_losses: LabelLossConfig = default(default_factory=LabelLossConfig)
    """Weights of the losses that label maps bring, where there are any."""
    schedule: ScheduleConfig = default(default_factory=ScheduleConfig)
    """What changes while training."""
    ada: AdaConfig = default(default_factory=AdaConfig)
    """Augmentation of what the discriminator sees."""
    convolutions: Literal["auto", "float32", "bfloat16"] = "float32"
    """Precision of the convolutions of planes, super-resolution and discriminator in training;
    passes that R1 differentiates twice, and all that is shown, are in float32. auto: bfloat16 on
    CPUs that compute with it (AVX-512 BF16 or AMX), else float32."""
    seed: int = 0
    """Seed of the Scene that is shown first, and rendered and exported by nerfstudio's commands."""
    background_seed: int | None = None
    """Seed of its background; None is the same as the foreground's."""
    truncation: float = 1.0
    """Truncation psi with which it is shown."""
    truncation_cutoff: int | None = None
    """Levels of w, from the coarsest, that truncation acts on; None is all of them."""

    @property
    def box(self) -> tuple[float, float, float]:
        """Sides of the box that holds a Scene's foreground."""
        return self.field.box

    @property
    def has_super_resolution(self) -> bool:
        """Whether the final image is larger than the rendered one."""
        larger = self.image_resolution != self.neural_resolution
        return larger or self.super_resolution.input_resolution > 0

    @property
    def super_resolution_input(self) -> int:
        """Side of the image that super-resolution's first block takes; others are resized to it."""
        largest = max(self.neural_resolution, self.schedule.neural_resolution_final)
        return self.super_resolution.input_resolution or largest


def convolution_dtype(
    convolutions: Literal["auto", "float32", "bfloat16"], device: torch.device
) -> torch.dtype:
    """The precision that `GanModelConfig.convolutions` means on a device."""
    if convolutions == "auto" and device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if convolutions == "bfloat16" else torch.float32


def set_training_precision(generator: Generator, objective: Objective, dtype: torch.dtype) -> None:
    """Makes both players train with convolutions of this precision."""
    objective.dtype = dtype
    for part in generator.modules():
        if isinstance(part, SynthesisNetwork | SuperResolution):
            part.training_dtype = dtype


def make_generator(config: GanModelConfig) -> Generator:
    """A fresh generator of this configuration."""
    return Generator(
        config.representation,
        config.latent,
        config.field,
        config.sphere if config.background else None,
        replace(config.super_resolution, input_resolution=config.super_resolution_input)
        if config.has_super_resolution
        else None,
        RenderSettings(
            config.samples,
            config.importance_samples,
            config.conventions if config.sampling == "auto" else config.sampling,
            config.ray_bounds,
            config.field.surface.march_steps,
            config.field.surface.secant_steps,
        ),
        config.neural_resolution,
        config.image_resolution,
        config.conventions,
        config.labels if config.labels.kind != "none" else None,
    )


def make_objective(config: GanModelConfig) -> Objective:
    """A fresh discriminator with the losses of this configuration."""
    seen = config.patch_resolution or config.image_resolution
    common = config.losses, config.schedule, config.ada, config.image_resolution, seen
    if config.discriminator.kind == "patch":
        patches = PatchDiscriminator(seen, 3, config.discriminator.channel_max)
        return Objective(patches, *common)
    discriminator = _make_discriminator(config, 3, camera_head=config.losses.camera > 0)
    if config.labels.kind == "none":
        return Objective(discriminator, *common)
    pairs = None
    if config.label_losses.adversarial > 0:
        pairs = _make_discriminator(config, 3 + config.labels.channels, camera_head=False)
    return LabelObjective(discriminator, pairs, config.labels, config.label_losses, *common)


def _make_discriminator(
    config: GanModelConfig, channels: int, camera_head: bool
) -> DualDiscriminator:
    settings = config.discriminator
    return DualDiscriminator(
        config.patch_resolution or config.image_resolution,
        LABEL_SIZE if settings.camera_conditioning else 0,
        img_channels=channels,
        dual=config.has_super_resolution,
        channel_base=settings.channel_base,
        channel_max=settings.channel_max,
        mbstd_group=settings.minibatch_group,
        conv_clamp=settings.clamp,
        mapping_layers=settings.mapping_layers,
        mapping_lr_multiplier=settings.lr_multiplier,
        disc_c_noise=settings.camera_noise,
        camera_head=camera_head,
        blocks=settings.blocks,
    )


class GanModel(SceneModel[Generator, Objective, SceneControls]):
    """Generator and discriminator; the Scene that is shown is named by seeds and label maps."""

    config: GanModelConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def populate_modules(self) -> None:
        """Builds generator, discriminator and controls; raises ValueError for impossible
        settings."""
        config = self.config
        validate(config)
        self.generator = make_generator(config)
        self.generator_ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.objective = make_objective(config)
        self.image_store = None
        self.label_store = None
        if config.labels.kind != "none":
            self.label_store = LabelStore(config.labels, config.image_resolution)
        self.controls = SceneControls(self)
        self._kept = None
        self.register_load_state_dict_post_hook(_follow_schedule)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Groups ``generator`` and ``discriminator``."""
        return {
            "generator": list(self.generator.parameters()),
            "discriminator": list(self.objective.parameters()),
        }

    def training_losses(
        self,
        images: Tensor,
        labels: Tensor,
        fake_labels: Tensor,
        step: int,
        world_size: int,
        label_maps: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses whose sum is all players' objective, and figures to log; see `Objective` and
        `LabelObjective`."""
        self._last_batch = len(images) * world_size
        given = (self.generator, images, labels, fake_labels, step, world_size)
        if label_maps is None:
            return self.objective(*given)
        return self.objective(*given, label_maps)

    def prepare_training(self) -> None:
        """Loads what training alone needs; raises ValueError where it is not on this machine."""
        self.objective.prepare()
        dtype = convolution_dtype(self.config.convolutions, self.device)
        if self.config.convolutions == "auto":
            name = str(dtype).removeprefix("torch.")
            CONSOLE.print(f"Convolutions of training passes in {name} (model.convolutions = auto)")
        set_training_precision(self.generator, self.objective, dtype)

    def after_step(self, step: int) -> None:
        """Moves the average towards the generator."""
        super().after_step(step)
        _follow_schedule(self)

    def set_training_share(self, share: float) -> None:
        """Tells the generator how much of training is done, 0..1, before each step."""
        self.generator.set_training_share(share)

    @torch.no_grad()
    def make_scene(self, request: SceneRequest) -> Scene:
        """The Scene of a request, by the moving average of the generator."""
        latents = request_latents(self.generator_ema, request, self.label_store)
        return self.generator_ema.scene(latents)


def _follow_schedule(model: GanModel, *_: object) -> None:
    """What is shown is rendered at the size that training has come to."""
    if model.generator.superresolution is not None:
        kimg = int(model.images_seen) / 1000
        side = model.objective.neural_resolution(model.generator, kimg)
        model.generator_ema.neural_resolution = side
