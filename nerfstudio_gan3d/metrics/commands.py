"""The command `gan3d evaluate`: measure a checkpoint with another evaluator than its run was set up
with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.metrics.config import EvaluationConfig

if TYPE_CHECKING:
    from nerfstudio_gan3d.cli_options import EvaluateOptions


def evaluate(options: EvaluateOptions) -> str:
    """Evaluates a run and writes JSON of the same form as `ns-eval`; returns what to print.

    Raises ValueError for options that do not go together and files that are missing.
    """
    from nerfstudio_gan3d.training.opening import open_pipeline
    from nerfstudio_gan3d.training.pipeline import GanPipeline

    features = "none" if options.evaluator is None else "torchscript"
    config = EvaluationConfig(
        num_samples=options.num_samples,
        seed=options.seed,
        features="inception" if options.inception else features,
        evaluator=options.evaluator,
        evaluator_outputs=options.evaluator_outputs,
        evaluator_size=options.evaluator_size,
        inception_weights=options.inception_weights,
        allow_download=options.allow_download,
        truncation=options.truncation,
        mesh_samples=options.mesh_samples,
        mesh_resolution=options.mesh_resolution,
    )
    config.validate()
    if not options.load_config.is_file():
        raise ValueError(f"--load-config {options.load_config}: no such file; give a config.yml")
    trainer, pipeline, checkpoint = open_pipeline(options.load_config)
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
