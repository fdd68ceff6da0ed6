"""The nerfstudio Model that shows one Scene: what all methods share, however they make it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import (
    TrainingCallback,
    TrainingCallbackAttributes,
    TrainingCallbackLocation,
)
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor, nn
from torch.nn import Parameter

from nerfstudio_gan3d.models.outputs import Backdrop, SceneOutputs
from nerfstudio_gan3d.models.scene_generator import SceneGenerator
from nerfstudio_gan3d.models.settings import FillsDefaults
from nerfstudio_gan3d.rendering.occupancy import OccupancyGrid, build_occupancy
from nerfstudio_gan3d.rendering.renderer import Conventions
from nerfstudio_gan3d.scene import Scene
from nerfstudio_gan3d.training.ema import ema_decay, update_ema

if TYPE_CHECKING:
    from nerfstudio_gan3d.image_views import ImageStore
    from nerfstudio_gan3d.latents import LabelStore, SceneRequest
    from nerfstudio_gan3d.viewer.view_controls import ViewControls

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
class SceneModelConfig(FillsDefaults, ModelConfig):
    """How Scenes are rendered, and where they are first looked at from."""

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
    samples: int = 48
    """Samples a ray that are spread evenly."""
    importance_samples: int = 48
    """Further samples a ray where the first ones found weight."""
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

    # nerfstudio's models of single scenes have these; nothing here reads them.
    enable_collider: tyro.conf.Suppress[bool] = False
    collider_params: tyro.conf.Suppress[dict[str, float] | None] = None
    loss_coefficients: tyro.conf.Suppress[dict[str, float]] = field(default_factory=dict)
    prompt: tyro.conf.Suppress[str | None] = None

    @property
    def has_super_resolution(self) -> bool:
        """Whether the final image is larger than the rendered one."""
        return False

    @property
    def box(self) -> tuple[float, float, float]:
        """Sides of the box about the origin that holds a Scene's foreground, object-world units."""
        # Each kind of model has its own.
        raise NotImplementedError


G = TypeVar("G", bound=SceneGenerator)
J = TypeVar("J", bound=nn.Module)
C = TypeVar("C", bound="ViewControls")


class SceneModel(Model, Generic[G, J, C]):
    """A generator and its moving average, and the objective that trains them.

    What a user sees (viewer, evaluation, renders, exports) is the moving average, showing the Scene
    that the viewer's controls name.
    """

    config: SceneModelConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    generator: G
    generator_ema: G
    objective: J
    controls: C
    label_store: LabelStore | None
    image_store: ImageStore | None
    _kept: _Kept | None
    _last_batch: int

    @property
    def images_seen(self) -> Tensor:
        """Real images that training has seen, int64."""
        return self.objective.get_buffer("images_seen")

    def make_scene(self, request: SceneRequest) -> Scene:
        """The Scene of a request, by the moving average of the generator."""
        # Each kind of model has its own.
        raise NotImplementedError

    def prepare_training(self) -> None:
        """Loads what training alone needs; raises ValueError where it is not on this machine."""

    def train(self, mode: bool = True) -> SceneModel[G, J, C]:
        """The moving average never trains: the viewer toggles modes between steps."""
        super().train(mode)
        self.generator_ema.eval()
        return self

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Group ``generator``."""
        return {"generator": list(self.generator.parameters())}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Updates the moving average after every step."""
        return [TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.after_step)]

    def set_training_share(self, share: float) -> None:
        """Tells how much of training is done, 0..1, before each step."""

    def after_step(self, step: int) -> None:
        """Moves the average towards the generator."""
        batch = self._last_batch
        seen = int(self.images_seen)
        decay = ema_decay(batch, seen, self.config.ema_kimg * 1000, self.config.ema_rampup)
        update_ema(self.generator_ema, self.generator, decay)
        self._kept = None

    def request(self) -> tuple[SceneRequest, Backdrop]:
        """What the controls ask for at this moment."""
        return self.controls.request(), self.controls.backdrop()

    @torch.no_grad()
    def scene(self) -> SceneOutputs:
        """The Scene that the controls name, kept until they or the weights change."""
        request, backdrop = self.request()
        key = (request, int(self.images_seen), self.device)
        kept = self._kept
        if kept is None or kept.key != key:
            kept = _Kept(key, self.make_scene(request))
        else:
            kept = replace(kept, pictures=kept.pictures + 1)
            if kept.pictures >= TURNED and kept.occupancy is None and self._skips_empty_space():
                kept = replace(kept, occupancy=build_occupancy(kept.scene))
        self._kept = kept
        shown = self.controls.shown_output()
        return SceneOutputs(self.generator_ema, kept.scene, backdrop, shown, kept.occupancy)

    def _skips_empty_space(self) -> bool:
        """Where pictures follow each other, and a ray has so many samples that the grid pays."""
        settings, kept = self.generator_ema.settings, self._kept
        return (
            self.controls.watched
            and settings.conventions == "corrected"
            and (kept is None or kept.scene.volume == "density")
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
        plain = self.controls.behind_splats(camera)
        if plain is not None:
            return plain
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
        """Raises: these methods' losses need whole images; the pipeline calls
        `training_losses`."""
        raise ValueError(
            "gan3d methods train with their own pipelines (GanPipeline), not with this one"
        )

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: Any
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The rendered outputs; what they are measured by is the pipeline's evaluation."""
        return {}, {"rgb": outputs["rgb"]}
