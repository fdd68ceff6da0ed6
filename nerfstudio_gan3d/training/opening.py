"""A run with its data set, opened as nerfstudio's own commands open it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.eval_utils import eval_setup

from nerfstudio_gan3d.run import checkpoint_folder, read_config
from nerfstudio_gan3d.training.checkpoints import newest_whole


def open_pipeline(
    config_path: Path, test_mode: Literal["test", "val", "inference"] = "test"
) -> tuple[TrainerConfig, Pipeline, Path]:
    """Configuration, pipeline and checkpoint of a run: the newest whole checkpoint beside its
    config.yml, so that a copied run is not taken for the one that it was copied from.

    Raises:
        ValueError: If the file is no configuration, or there is no whole checkpoint; nerfstudio
            reports both with errors that name neither.
    """
    folder = checkpoint_folder(read_config(config_path), config_path.absolute().parent)
    newest = newest_whole(folder).path

    def of_newest(config: TrainerConfig) -> TrainerConfig:
        config.relative_model_dir = folder
        config.load_step = int(newest.stem.removeprefix("step-"))
        return config

    config, pipeline, checkpoint, _ = eval_setup(
        config_path, test_mode=test_mode, update_config_callback=of_newest
    )
    return config, pipeline, checkpoint
