"""The pipeline between nerfstudio's trainer and models that make Scenes of images (G3DR)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torchvision.utils import make_grid

from nerfstudio_gan3d.cameras import cameras_to_labels
from nerfstudio_gan3d.data.datamanager import GanDataManagerConfig
from nerfstudio_gan3d.image_views import STORED_IMAGES, as_condition
from nerfstudio_gan3d.metrics.config import EvaluationConfig, build_extractor
from nerfstudio_gan3d.metrics.evaluate import EvaluationResult, evaluate
from nerfstudio_gan3d.models.g3dr import G3drModel, G3drModelConfig, fit_to_cameras
from nerfstudio_gan3d.models.image_generator import expected_distance
from nerfstudio_gan3d.models.reconstruction import with_wall
from nerfstudio_gan3d.models.scene_model import SceneModelConfig
from nerfstudio_gan3d.training.evaluation import real_batches, turned
from nerfstudio_gan3d.training.pipeline import GanPipeline, GanPipelineConfig
from nerfstudio_gan3d.training.reconstruction_evaluation import (
    novel_batches,
    novel_view_figures,
    own_view_figures,
    rgbd_batches,
)

GRID_IMAGES = 8
"""Images of the grids that are logged while training."""
GRID_TURN = 0.35
"""Azimuth of their novel views, radians."""


@dataclass
class ReconstructionPipelineConfig(GanPipelineConfig):
    """Data, model and evaluation of a method that makes Scenes of images."""

    _target: type = field(default_factory=lambda: ReconstructionPipeline)


class ReconstructionPipeline(GanPipeline):
    """Feeds images with depth to the model's objective."""

    config: ReconstructionPipelineConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    _model: G3drModel  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def model(self) -> G3drModel:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The model."""
        return self._model

    def _configure_data(
        self, model_config: SceneModelConfig, data_config: GanDataManagerConfig
    ) -> None:
        assert isinstance(model_config, G3drModelConfig)
        data_config.with_depth = True
        if model_config.view_radius > 0:
            data_config.depth_range = model_config.depth_range

    def _fit_model(self, model_config: SceneModelConfig) -> None:
        assert isinstance(model_config, G3drModelConfig)
        if self.test_mode == "val":
            data = self.datamanager
            fit_to_cameras(model_config, cameras_to_labels(data.train_dataset.cameras))
            data.config.depth_range = model_config.depth_range

    def _fill_store(self) -> None:
        images, distances, _ = self.datamanager.rgbd(self._shown_places(STORED_IMAGES))
        wall = with_wall(self.model.generator, distances.to(self.device), self.model.config.wall)
        self.model.images.fill(images.to(self.device), wall)
        for sentence in self.model.objective.left_out():
            CONSOLE.log(sentence)

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Losses of one batch of images with depth."""
        batch = self.datamanager.next_images(step)
        images = batch["image"].to(self.device, non_blocking=True).float() / 127.5 - 1
        depth = batch["depth"]
        assert depth is not None
        distances = depth.to(self.device, non_blocking=True)
        seed = self.datamanager.config.seed
        losses, figures = self.model.training_losses(images, distances, step, seed, self.world_size)
        figures["kimg"] = self.model.images_seen / 1000
        return {}, losses, figures

    @torch.no_grad()
    def get_eval_image_metrics_and_images(
        self, step: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Grids of kept images: as given, seen from their own view, and from elsewhere; depth."""
        model, generator = self.model, self.model.generator_ema
        rows = slice(0, GRID_IMAGES)
        condition = as_condition(model.images.images[rows], model.images.distances[rows])
        scene = generator.scene(condition)
        own = generator.canonical_labels(GRID_IMAGES)
        views = {
            "reconstruction": generator.render(scene, own),
            "novel": generator.render(scene, turned(own, GRID_TURN)),
        }
        grids = {"input": condition.image / 2 + 0.5}
        near, far = model.config.depth_range
        for name, made in views.items():
            grids[name] = (made.image / 2 + 0.5).clamp(0, 1)
            side = made.raw.shape[2:]
            distance = expected_distance(made.rendering).mT.unflatten(2, tuple(side))
            shade = ((far - distance) / (far - near)).clamp(0, 1)
            grids[f"{name}_depth"] = shade.expand(-1, 3, -1, -1)
        pictures = {
            name: make_grid(value, nrow=4).permute(1, 2, 0) for name, value in grids.items()
        }
        return {"num_rays": 2 * GRID_IMAGES * generator.image_resolution**2}, pictures

    @torch.no_grad()
    def evaluate(self, config: EvaluationConfig | None = None) -> EvaluationResult:
        """Measures held-out images as `EvaluationConfig` asks for.

        Raises ValueError for what it asks for and is missing, and where the data set is.
        """
        config = config or self.config.evaluation
        data, generator, wall = self.datamanager, self.model.generator_ema, self.model.config.wall
        if data.images_missing:
            raise ValueError(
                f"the data set {data.config.dataparser.data} is missing: what a Scene of an image "
                "is measured by is that image; put it back"
            )
        extractor = build_extractor(config, self.device)
        places, size = data.split_indices("test"), config.batch_size
        figures = own_view_figures(generator, rgbd_batches(data, places, size, self.device), wall)
        figures |= novel_view_figures(generator, data, places, wall, size)
        provenance: dict[str, str | int | float] = {
            "images": len(places),
            "images_seen": int(self.model.images_seen),
            "depth_range": "{} to {}".format(*self.model.config.depth_range),
        }
        if extractor is not None:
            # Each image as often as the samples take; every time from another side.
            repeated = [places[i % len(places)] for i in range(config.num_samples)]
            batches = rgbd_batches(data, repeated, size, self.device)
            distances = evaluate(
                novel_batches(generator, batches, self.model.config.novel, wall, config.seed),
                real_batches(data),
                extractor,
                seed=config.seed,
                num_samples=config.num_samples,
                kernel_samples=config.kernel_samples,
                ground_truth=config.ground_truth,
                conditioning="none",
            )
            figures |= distances.figures
            provenance |= distances.provenance
        return EvaluationResult(figures, provenance)
