"""The pipeline between nerfstudio's trainer and a GAN: image batches in, both players' losses
out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from nerfstudio.pipelines.base_pipeline import (
    Pipeline,
    VanillaPipeline,
    VanillaPipelineConfig,
)
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torchvision.utils import make_grid

from nerfstudio_gan3d.cameras import cameras_to_labels
from nerfstudio_gan3d.data.datamanager import GanDataManager, GanDataManagerConfig
from nerfstudio_gan3d.latents import STORED_MAPS, make_condition
from nerfstudio_gan3d.metrics.config import EvaluationConfig, build_extractor
from nerfstudio_gan3d.metrics.evaluate import EvaluationResult, evaluate
from nerfstudio_gan3d.models.checks import (
    check_labels,
    fit_to_cameras,
    fit_to_labels,
    validate_batch,
)
from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig
from nerfstudio_gan3d.models.label_images import label_picture, map_picture
from nerfstudio_gan3d.models.scene_model import SceneModelConfig
from nerfstudio_gan3d.training.checkpoints import check_fits
from nerfstudio_gan3d.training.evaluation import (
    generated_batches,
    judged,
    label_figures,
    label_inputs,
    make_images,
    real_batches,
    sampled_mesh_figures,
)
from nerfstudio_gan3d.training.exits import user_errors

GRID_SEEDS = tuple(range(16))


@dataclass
class GanPipelineConfig(VanillaPipelineConfig):
    """Data, model and evaluation of a GAN."""

    _target: type = field(default_factory=lambda: GanPipeline)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What ns-eval measures."""


class GanPipeline(VanillaPipeline):
    """Feeds image batches to the model's objective.

    Unlike nerfstudio's own pipeline it does not wrap the model for distribution: both players share
    one backward pass, so the trainer reduces gradients once per optimizer.
    """

    config: GanPipelineConfig
    datamanager: GanDataManager  # pyright: ignore[reportIncompatibleVariableOverride]
    _model: GanModel

    def __init__(
        self,
        config: GanPipelineConfig,
        device: str | torch.device,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: GradScaler | None = None,
    ) -> None:
        # The parent's constructor would wrap the model; only nn.Module's part of it is wanted here.
        Pipeline.__init__(self)
        self.config = config
        self.test_mode = test_mode
        self.world_size = world_size
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else local_rank
        model_config = cast(SceneModelConfig, config.model)
        data_config = cast(GanDataManagerConfig, config.datamanager)
        data_config.resolution = model_config.image_resolution
        self._configure_data(model_config, data_config)
        if test_mode == "val":
            # A file that is missing is found now, and not when the first evaluation is due.
            build_extractor(config.evaluation)
        self.datamanager = data_config.setup(  # pyright: ignore[reportIncompatibleVariableOverride]
            device=device, test_mode=test_mode, world_size=world_size, local_rank=rank
        )
        self.datamanager.to(device)
        self._fit_model(model_config)
        self._model = model_config.setup(
            scene_box=self.datamanager.train_dataset.scene_box,
            num_train_data=len(self.datamanager.train_dataset),
            metadata=self.datamanager.train_dataset.metadata,
            device=device,
            grad_scaler=grad_scaler,
        )
        self.model.to(device)
        if test_mode == "val":
            self.model.prepare_training()
            self._fill_store()
            # Settings that it refuses would else end training at its first step.
            _ = self.datamanager.batches

    def _configure_data(
        self, model_config: SceneModelConfig, data_config: GanDataManagerConfig
    ) -> None:
        """Tells the data manager, before it is built, what the model wants to be fed."""
        assert isinstance(model_config, GanModelConfig)
        data_config.label_kind = model_config.labels.kind
        data_config.num_classes = model_config.labels.channels or None
        if self.test_mode == "val":
            validate_batch(model_config, data_config.batch_size)

    def _fit_model(self, model_config: SceneModelConfig) -> None:
        """Fills in, before the model is built, what its settings leave to the data set."""
        assert isinstance(model_config, GanModelConfig)
        if model_config.labels.kind != "none" and not self.datamanager.images_missing:
            images = self.datamanager.image_set
            fit_to_labels(model_config, images.classes, images.palette)
            self.datamanager.config.num_classes = model_config.labels.channels
        if self.test_mode == "val":
            check_labels(model_config, self.datamanager.image_set.labels is not None)
            fit_to_cameras(model_config, cameras_to_labels(self.datamanager.train_dataset.cameras))

    def _fill_store(self) -> None:
        """Keeps some of the data set in the model, to be looked at without it."""
        if self.model.label_store is not None:
            self.model.label_store.fill(*self._shown_maps())

    def _shown_places(self, count: int) -> list[int]:
        """Positions of images of the evaluation split, evenly spread."""
        places = self.datamanager.split_indices("test")
        return [places[i * len(places) // count] for i in range(count)]

    def _shown_maps(self) -> tuple[Tensor, Tensor]:
        """Label maps with their poses that are shown first: of the evaluation split."""
        data = self.datamanager
        chosen = self._shown_places(STORED_MAPS)
        labels = data.image_set.labels
        assert labels is not None
        return data.label_maps(chosen), torch.as_tensor(labels)[chosen]

    @property
    def model(self) -> GanModel:
        """The model."""
        return self._model

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Losses of one batch of real images and as many generated ones."""
        batch = self.datamanager.next_images(step)
        images = batch["image"].to(self.device, non_blocking=True).float() / 127.5 - 1
        fake_labels = self.datamanager.sample_labels(len(images), torch.default_generator)
        fake_labels = fake_labels.to(self.device)
        # Without labels nothing looks at those of real images; `check_labels` made sure of it.
        known = batch["label"]
        labels = fake_labels if known is None else known.to(self.device, non_blocking=True)
        maps = batch["label_map"]
        if maps is not None:
            maps = maps.to(self.device, non_blocking=True)
        losses, figures = self.model.training_losses(
            images, labels, fake_labels, step, self.world_size, maps
        )
        figures["kimg"] = self.model.images_seen / 1000
        return {}, losses, figures

    def get_eval_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Nothing: a GAN has no loss on held-out images. nerfstudio's trainer wants an entry."""
        zero = torch.zeros((), device=self.device)
        return {}, {"none": zero}, {}

    @torch.no_grad()
    def get_eval_image_metrics_and_images(
        self, step: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Grids of the same seeds from the same cameras at every step: colour, foreground,
        depth."""
        generator = self.model.generator_ema
        labels = self.datamanager.sample_labels(len(GRID_SEEDS), 0).to(self.device)
        pose, maps = None, None
        store = self.model.label_store
        if store is not None:
            # Each map from its own pose, so that picture and map can be compared.
            labels, pose, maps = store.poses, store.poses, store.maps
        condition = make_condition(generator, GRID_SEEDS, None, pose, maps)
        made = make_images(generator, condition, labels, 1.0)
        found = judged(made, labels)
        depth = found.depth
        assert depth is not None
        assert found.alpha is not None
        near, far = depth[found.alpha > 0.5].aminmax() if (found.alpha > 0.5).any() else (0.0, 1.0)
        shade = ((far - depth) / (far - near + 1e-6)).clamp(0, 1) * found.alpha
        images = {
            "samples": found.image / 2 + 0.5,
            "alpha": found.alpha.expand(-1, 3, -1, -1),
            "depth": shade.expand(-1, 3, -1, -1),
        }
        if store is not None:
            assert made.labels is not None
            images["labels"] = label_picture(made.labels, store.labels)
            images["label_maps"] = map_picture(store.maps, store.labels)
        grids = {name: make_grid(value, nrow=4).permute(1, 2, 0) for name, value in images.items()}
        pixels = len(GRID_SEEDS) * found.image[0, 0].numel()
        return {"num_rays": pixels}, grids

    @torch.no_grad()
    def evaluate(self, config: EvaluationConfig | None = None) -> EvaluationResult:
        """Measures the moving average of the generator as `EvaluationConfig` asks for.

        Raises ValueError for what it asks for and is missing.
        """
        config = config or self.config.evaluation
        cameras = self._mesh_cameras() if config.mesh_samples else None
        if self.datamanager.images_missing and config.features != "none":
            raise ValueError(
                f"the data set {self.datamanager.config.dataparser.data} is missing: distances to "
                "real images need it; put it back, or evaluate with features none"
            )
        extractor = build_extractor(config, self.device)
        generator = self.model.generator_ema
        inputs = label_inputs(self.datamanager, self.model.label_store, config.seed)
        result = evaluate(
            generated_batches(generator, self.datamanager, config, inputs),
            () if self.datamanager.images_missing else real_batches(self.datamanager),
            extractor,
            seed=config.seed,
            num_samples=config.num_samples,
            kernel_samples=config.kernel_samples,
            ground_truth=config.ground_truth,
            conditioning="independent" if generator.latent.pose_conditioning else "none",
            settings={
                "truncation": config.truncation,
                "images_seen": int(self.model.images_seen),
                "samples_per_ray": generator.settings.samples
                + generator.settings.importance_samples,
            },
        )
        figures, provenance = dict(result.figures), dict(result.provenance)
        if inputs is not None and not inputs.blank:
            figures |= label_figures(generator, inputs, extractor, config)
            provenance["label_maps"] = len(inputs.maps)
        if cameras is not None:
            figures |= sampled_mesh_figures(generator, self.model.label_store, cameras, config)
            provenance["mesh_samples"] = config.mesh_samples
            provenance["mesh_resolution"] = config.mesh_resolution
        return EvaluationResult(figures, provenance)

    def _mesh_cameras(self) -> Tensor:
        """Cameras on the viewer's orbit, from which meshes are compared with images."""
        from nerfstudio_gan3d.metrics.meshes import mesh_cameras

        settings = cast(GanModelConfig, self.config.model)
        if settings.view_radius <= 0 or settings.view_focal <= 0:
            raise ValueError(
                f"model.view_radius = {settings.view_radius} and model.view_focal = "
                f"{settings.view_focal}; both must be positive to compare meshes with images, or "
                "set mesh_samples to 0"
            )
        return mesh_cameras(settings.view_radius, settings.view_focal, settings.view_pivot)

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, Any]:
        """What ns-eval writes: figures, and (outside of training) how they were obtained.

        ns-eval always asks for deviations over images (``get_std``), which distances between sets
        of images do not have.
        """
        if step is not None:
            return dict(self.evaluate().figures)
        with user_errors():
            result = self.evaluate()
        if output_path is not None:
            output_path.mkdir(parents=True, exist_ok=True)
            _, grids = self.get_eval_image_metrics_and_images(0)
            for name, grid in grids.items():
                save_picture(grid, output_path / f"{name}.png")
        return result.as_dict()

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Loads a checkpoint's state whole or not at all.

        Raises ValueError naming the tensors that differ; nerfstudio's pipeline would leave them
        random.
        """
        check_fits(self, loaded_state)
        torch.nn.Module.load_state_dict(self, loaded_state, strict=True)
        self.model.update_to_step(step)


def save_picture(image: Tensor, path: Path) -> None:
    """Writes a float image [H, W, 3] in 0..1 as PNG."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    Image.fromarray(pixels).save(path)
