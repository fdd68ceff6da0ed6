"""The command `gan3d evaluate`: measure a checkpoint with another evaluator than its run was set up
with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.metrics.config import EvaluationConfig

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import TrainerConfig

    from nerfstudio_gan3d.cli_options import EvaluateOptions


def evaluate(options: EvaluateOptions) -> str:
    """Evaluates a run and writes JSON of the same form as `ns-eval`; returns what to print.

    Raises ValueError for options that do not go together and files that are missing.
    """
    from nerfstudio.utils.eval_utils import eval_setup

    from nerfstudio_gan3d.run import checkpoint_folder, read_config
    from nerfstudio_gan3d.training.checkpoints import newest_whole
    from nerfstudio_gan3d.training.pipeline import GanPipeline

    config = EvaluationConfig(
        num_samples=options.num_samples,
        seed=options.seed,
        features="none" if options.evaluator is None else "torchscript",
        evaluator=options.evaluator,
        evaluator_outputs=options.evaluator_outputs,
        evaluator_size=options.evaluator_size,
        truncation=options.truncation,
        mesh_samples=options.mesh_samples,
        mesh_resolution=options.mesh_resolution,
    )
    if options.inception:
        config.features = "inception"
    config.validate()
    if not options.load_config.is_file():
        raise ValueError(f"--load-config {options.load_config}: no such file; give a config.yml")
    # nerfstudio reports a file that is no configuration, and a folder without a whole checkpoint,
    # with errors that name neither.
    folder = checkpoint_folder(
        read_config(options.load_config), options.load_config.absolute().parent
    )
    newest = newest_whole(folder).path

    def of_newest(config: TrainerConfig) -> TrainerConfig:
        # A copied run is measured by its own checkpoint, and not by that which it was copied from.
        config.relative_model_dir = folder
        config.load_step = int(newest.stem.removeprefix("step-"))
        return config

    trainer, pipeline, checkpoint, _ = eval_setup(
        options.load_config, test_mode="test", update_config_callback=of_newest
    )
    if not isinstance(pipeline, GanPipeline):
        raise ValueError(f"--load-config {options.load_config}: not a run of a gan3d method")
    result = pipeline.evaluate(config)
    report = {
        "experiment_name": trainer.experiment_name,
        "method_name": trainer.method_name,
        "checkpoint": str(checkpoint),
        "results": result.as_dict(),
    }
    text = json.dumps(report, indent=2)
    if options.output_path is not None:
        with replaced(options.output_path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return text
