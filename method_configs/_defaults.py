"""What all presets share: data, optimisers, trainer."""

from __future__ import annotations

from typing import Any

from nerfstudio.configs.base_config import LoggingConfig, MachineConfig
from nerfstudio.engine.schedulers import MultiStepSchedulerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from nerfstudio_gan3d.data.datamanager import GanDataManagerConfig
from nerfstudio_gan3d.data_parsers.images import Gan3dImagesDataParserConfig
from nerfstudio_gan3d.metrics.config import EvaluationConfig
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.training.optimizers import GanAdamConfig, GanRmsPropConfig
from nerfstudio_gan3d.training.pipeline import GanPipelineConfig
from nerfstudio_gan3d.training.trainer import GanTrainerConfig
from nerfstudio_gan3d.viewer.settings import gan_viewer_config


def trainer(
    name: str,
    pipeline: VanillaPipelineConfig,
    optimizers: dict[str, dict[str, Any]],
    *,
    iterations: int,
    tiny: bool,
) -> GanTrainerConfig:
    """A trainer whose machine and intervals suit a GPU, or with ``tiny`` two CPU cores."""
    return GanTrainerConfig(
        method_name=name,
        machine=MachineConfig(device_type="cpu" if tiny else "cuda"),
        logging=LoggingConfig(steps_per_log=20),
        max_num_iterations=iterations,
        steps_per_save=500 if tiny else 2000,
        steps_per_eval_batch=0,
        steps_per_eval_image=500 if tiny else 2000,
        steps_per_eval_all_images=0,
        mixed_precision=False,
        pipeline=pipeline,
        optimizers=optimizers,
        viewer=gan_viewer_config(),
        vis="viewer",
    )


def specification(
    name: str,
    description: str,
    model: GanModelConfig,
    *,
    batch_size: int,
    iterations: int,
    generator_lr: float,
    discriminator_lr: float,
    mirror: bool,
    tiny: bool,
    eval_fraction: float = 0.0,
) -> MethodSpecification:
    """A method as nerfstudio registers it: what `ns-train NAME` starts with.

    Adam's betas are (0, 0.99). ``tiny`` presets are for two CPU cores, take snapshots more often
    and let the learning rates fall from 60 % of training on, which short runs gain most from.
    ``eval_fraction`` of the objects is held out for evaluation.
    """
    config = trainer(
        name,
        GanPipelineConfig(
            datamanager=GanDataManagerConfig(
                dataparser=Gan3dImagesDataParserConfig(eval_fraction=eval_fraction),
                batch_size=batch_size,
                mirror=mirror,
            ),
            model=model,
            evaluation=EvaluationConfig(),
        ),
        {
            "generator": {"optimizer": GanAdamConfig(lr=generator_lr), "scheduler": None},
            "discriminator": {"optimizer": GanAdamConfig(lr=discriminator_lr), "scheduler": None},
        },
        iterations=iterations,
        tiny=tiny,
    )
    config.lr_decay_start = 0.6 if tiny else 1.0
    return MethodSpecification(config, description=description)


def as_graf_trains(method: MethodSpecification) -> MethodSpecification:
    """The same with GRAF's optimizers: RMSprop, whose rates are halved after 50, 100 and 200
    thousand steps."""
    for name, group in method.config.optimizers.items():
        halving = MultiStepSchedulerConfig(gamma=0.5, milestones=(50_000, 100_000, 200_000))
        rate = group["optimizer"].lr
        method.config.optimizers[name] = {
            "optimizer": GanRmsPropConfig(lr=rate),
            "scheduler": halving,
        }
    return method
