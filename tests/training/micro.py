"""A GAN small enough to train for a few steps in a test, as options and as a configuration."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from nerfstudio.plugins.types import MethodSpecification

from nerfstudio_gan3d.method_configs.ballgan import gan3d_ballgan_tiny
from nerfstudio_gan3d.training.trainer import GanTrainer, GanTrainerConfig
from tests.data.sets import files, write_folder

# Lazy terms and ADA fall due within a handful of steps.
OPTIONS: dict[str, Any] = {
    "machine.device_type": "cpu",
    "vis": "tensorboard",
    "steps_per_save": 1000,
    "steps_per_eval_image": 0,
    "pipeline.datamanager.batch_size": 4,
    "pipeline.model.image_resolution": 16,
    "pipeline.model.neural_resolution": 16,
    "pipeline.model.patch_resolution": 16,
    "pipeline.model.samples": 4,
    "pipeline.model.latent.z_dim": 8,
    "pipeline.model.latent.w_dim": 8,
    "pipeline.model.field.triplane.plane_size": 8,
    "pipeline.model.field.triplane.channel_base": 64,
    "pipeline.model.field.triplane.channel_max": 8,
    "pipeline.model.discriminator.channel_base": 128,
    "pipeline.model.discriminator.channel_max": 8,
    "pipeline.model.schedule.crop_share": 0.0,
    "pipeline.model.losses.r1_interval": 2,
    "pipeline.model.losses.density_variation": 0.1,
    "pipeline.model.losses.density_variation_points": 16,
    "pipeline.model.ada.initial_p": 0.3,
    # Far from what a micro GAN says of reals, so that p moves one way and never back to its start.
    "pipeline.model.ada.target": -0.9,
    "pipeline.model.ada.interval": 2,
    "pipeline.model.ada.kimg": 0.2,
}


def arguments(data: Path, output: Path, **options: Any) -> list[str]:
    """The command line of the micro GAN, after `ns-train`."""
    options = {"data": data, "output_dir": output, "timestamp": "run", **options}
    words = ["gan3d-ballgan-tiny"]
    for name, value in {**OPTIONS, **options}.items():
        words += [f"--{name.replace('__', '.').replace('_', '-')}", str(value)]
    return words


def micro_config(
    data: Path,
    output: Path,
    method: MethodSpecification = gan3d_ballgan_tiny,
    **options: Any,
) -> GanTrainerConfig:
    """The same as a configuration; another method gets the same sizes."""
    places = {"pipeline.datamanager.data": data, "output_dir": output}
    return configured(method, {**OPTIONS, **places, **options})


def configured(method: MethodSpecification, options: dict[str, Any]) -> GanTrainerConfig:
    """A method's configuration with these options, for a run that shows no progress."""
    config = copy.deepcopy(method.config)
    assert isinstance(config, GanTrainerConfig)
    named = {"timestamp": "run", "experiment_name": "micro", "progress": "none"}
    for name, value in {**named, **options}.items():
        *path, last = name.replace("__", ".").split(".")
        place: Any = config
        for part in path:
            place = getattr(place, part)
        assert hasattr(place, last), name
        setattr(place, last, value)
    return config


def data_set(folder: Path) -> Path:
    """Ten images of 16 pixels with cameras."""
    return write_folder(folder, files(10, 16))


def trainer(config: GanTrainerConfig) -> GanTrainer:
    """A trainer that is set up, from the same seed each time."""
    from nerfstudio.scripts.train import _set_random_seed

    _set_random_seed(config.machine.seed)
    made = config.setup(local_rank=0, world_size=1)
    made.setup()
    return made
