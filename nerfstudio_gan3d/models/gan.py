"""The nerfstudio Model that every GAN here is: a training objective, and one Scene to look at."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from dataclasses import field as default
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import (
    TrainingCallback,
    TrainingCallbackAttributes,
    TrainingCallbackLocation,
)
from nerfstudio.models.base_model import Model, ModelConfig
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
from nerfstudio_gan3d.models.objective import AdaConfig, LossConfig, Objective, ScheduleConfig
from nerfstudio_gan3d.models.outputs import Backdrop, SceneOutputs
from nerfstudio_gan3d.models.parts import Representation
from nerfstudio_gan3d.models.settings import FillsDefaults
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from nerfstudio_gan3d.networks.patch_discriminator import PatchDiscriminator
from nerfstudio_gan3d.rendering.occupancy import OccupancyGrid, build_occupancy
from nerfstudio_gan3d.rendering.renderer import Conventions, RenderSettings
from nerfstudio_gan3d.scene import Scene
from nerfstudio_gan3d.training.ema import ema_decay, update_ema
from nerfstudio_gan3d.viewer.controls import SceneControls

GRID_PAYS = 32
"""Samples a ray from which on the viewer builds an occupancy grid."""


TURNED = 3
"""Picture of one Scene at which it is taken to be turned: a still view takes two, a quick and a
sharp one."""


@dataclass(frozen=True)
class _Kept:
    """The Scene that is shown, and what is known of it."""

    key: Any
    scene: Scene
    pictures: int = 1
    occupancy: OccupancyGrid | None = None


@dataclass
class GanModelConfig(FillsDefaults, ModelConfig):
    """What all methods share. A method's own file overrides what differs."""

    _target: type = default(default_factory=lambda: GanModel)
    representation: Representation = "hashgrid"
    """What the foreground is made of: a style-modulated hash grid, three planes, or the networks of
    UNISURF or GRAF with codes."""
    conventions: Conventions = "corrected"
    """corrected, or reference: the published code's rules, which official weights were trained
    with."""
    sampling: Literal["auto", "corrected", "reference"] = "auto"
    """Rules by which rays are sampled and composited; auto follows conventions. Official weights
    under corrected sampling show no flicker and use every interval."""
    ray_bounds: Literal["constant", "box"] = "constant"
    """Where rays start and end under reference sampling: at near and far, or where they enter and
    leave the box (EG3D's ray_start = auto). Corrected sampling does both."""
    image_resolution: int = 512
    """Side of the images that are learned, pixels."""
    neural_resolution: int = 64
    """Side of the rendered image that super-resolution takes. Equal to the image resolution:
    none."""
    patch_resolution: int = 0
    """Side of what the discriminator sees without super-resolution: whole images reduced to it, and
    crops (schedule.crop_share). 0: the image resolution."""
    samples: int = 48
    """Samples a ray that are spread evenly."""
    importance_samples: int = 48
    """Further samples a ray where the first ones found weight."""
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
    seed: int = 0
    """Seed of the Scene that is shown first, and rendered and exported by nerfstudio's commands."""
    background_seed: int | None = None
    """Seed of its background; None is the same as the foreground's."""
    truncation: float = 1.0
    """Truncation psi with which it is shown."""
    truncation_cutoff: int | None = None
    """Levels of w, from the coarsest, that truncation acts on; None is all of them."""
    ema_kimg: float = 10.0
    """Half-life of the moving average of the generator's weights, thousands of images."""
    ema_rampup: float = 0.05
    """Upper limit of that half-life as a share of the images seen so far; 0 switches the limit
    off."""
    view_radius: float = 0.0
    """Distance of the viewer's first camera from the pivot, object-world units. 0: that of the data
    set's cameras."""
    view_pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Point that the viewer's first camera looks at, object-world units."""
    view_focal: float = 0.0
    """Focal length of the viewer's first camera in image sides. 0: that of the data set's
    cameras."""

    @property
    def has_super_resolution(self) -> bool:
        """Whether the final image is larger than the rendered one."""
        larger = self.image_resolution != self.neural_resolution
        return larger or self.super_resolution.input_resolution > 0


def make_generator(config: GanModelConfig) -> Generator:
    """A fresh generator of this configuration."""
    return Generator(
        config.representation,
        config.latent,
        config.field,
        config.sphere if config.background else None,
        config.super_resolution if config.has_super_resolution else None,
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


class GanModel(Model):
    """A generator and its moving average, and the objective that trains them.

    What a user sees (viewer, evaluation, renders, exports) is the moving average, showing the Scene
    that the viewer's controls name.
    """

    config: GanModelConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def populate_modules(self) -> None:
        """Builds generator, discriminator and controls; raises ValueError for impossible
        settings."""
        config = self.config
        validate(config)
        self.generator = make_generator(config)
        self.generator_ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.objective = make_objective(config)
        self.label_store: LabelStore | None = None
        if config.labels.kind != "none":
            self.label_store = LabelStore(config.labels, config.image_resolution)
        self.controls = SceneControls(self)
        self._kept: _Kept | None = None

    def train(self, mode: bool = True) -> GanModel:
        """The moving average never trains: the viewer toggles modes between steps."""
        super().train(mode)
        self.generator_ema.eval()
        return self

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Groups ``generator`` and ``discriminator``."""
        return {
            "generator": list(self.generator.parameters()),
            "discriminator": list(self.objective.parameters()),
        }

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Updates the moving average after every step."""
        return [TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.after_step)]

    def set_training_share(self, share: float) -> None:
        """Tells the generator how much of training is done, 0..1, before each step."""
        self.generator.set_training_share(share)

    def after_step(self, step: int) -> None:
        """Moves the average towards the generator."""
        batch = self._last_batch
        seen = int(self.objective.images_seen)
        decay = ema_decay(batch, seen, self.config.ema_kimg * 1000, self.config.ema_rampup)
        update_ema(self.generator_ema, self.generator, decay)
        self._kept = None

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

    def request(self) -> tuple[SceneRequest, Backdrop]:
        """What the controls ask for at this moment."""
        return self.controls.request(), self.controls.backdrop()

    @torch.no_grad()
    def scene(self) -> SceneOutputs:
        """The Scene that the controls name, kept until they or the weights change."""
        request, backdrop = self.request()
        key = (request, int(self.objective.images_seen), self.device)
        kept = self._kept
        if kept is None or kept.key != key:
            scene = self.generator_ema.scene(
                request_latents(self.generator_ema, request, self.label_store)
            )
            kept = _Kept(key, scene)
        else:
            kept = replace(kept, pictures=kept.pictures + 1)
            if kept.pictures >= TURNED and kept.occupancy is None and self._skips_empty_space():
                kept = replace(kept, occupancy=build_occupancy(kept.scene))
        self._kept = kept
        shown = self.controls.shown_output()
        return SceneOutputs(self.generator_ema, kept.scene, backdrop, shown, kept.occupancy)

    def _skips_empty_space(self) -> bool:
        """Where pictures follow each other, and a ray has so many samples that the grid pays."""
        settings = self.generator_ema.settings
        return (
            self.controls.watched
            and settings.conventions == "corrected"
            and self.generator_ema.volume == "density"
            and settings.samples + settings.importance_samples >= GRID_PAYS
        )

    @torch.no_grad()
    def get_outputs(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, ray_bundle: RayBundle | Cameras
    ) -> dict[str, Tensor]:
        """Outputs along single rays, without super-resolution, which needs whole images."""
        assert isinstance(ray_bundle, RayBundle)
        return self.scene().rays(ray_bundle, self.config.eval_num_rays_per_chunk)

    @torch.no_grad()
    def get_outputs_for_camera(
        self, camera: Cameras, obb_box: OrientedBox | None = None
    ) -> dict[str, Tensor]:
        """Whole images as a camera sees them, [H, W, C]."""
        return self.scene().camera(
            camera.to(self.device), obb_box, self.config.eval_num_rays_per_chunk
        )

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colour with the foreground's opacity, so that exports leave the background out."""
        return torch.cat([outputs[output_name], outputs["accumulation"]], dim=-1)

    def get_metrics_dict(self, outputs: Any, batch: Any) -> dict[str, Tensor]:
        """Nothing: the pipeline hands the figures of a step over with its losses."""
        return {}

    def get_loss_dict(
        self, outputs: Any, batch: Any, metrics_dict: Any = None
    ) -> dict[str, Tensor]:
        """Raises: a GAN's losses need images and both players; the pipeline calls
        `training_losses`."""
        raise ValueError("GAN methods train with their own pipeline (GanPipeline), not this one")

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: Any
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The rendered outputs; a generated image has no ground truth to be compared with."""
        return {}, {"rgb": outputs["rgb"]}
