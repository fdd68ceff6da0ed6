"""Figures and pictures of a trained run, as JSON and PNG.

    python benchmarks/quality.py --load-config RUN/config.yml --evaluator FILE.pt --output DIR

Writes DIR/figures.json (what `gan3d evaluate` measures), DIR/samples.png (one sample a column: rgb,
foreground on white, depth), DIR/views.png (a sample a row, six azimuths each of rgb, foreground and
depth) and DIR/nearest.png (samples beside their nearest training images, by pixels and by
features), so that copies would be seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nerfstudio_gan3d.export.pictures import azimuths, tiles
from nerfstudio_gan3d.latents import SceneRequest, make_condition
from nerfstudio_gan3d.metrics.config import EvaluationConfig, build_extractor
from nerfstudio_gan3d.metrics.nearest import (
    nearest_by_features,
    nearest_by_pixels,
    neighbour_sheet,
)
from nerfstudio_gan3d.run import Run, load_run
from nerfstudio_gan3d.training.evaluation import make_images, real_batches
from nerfstudio_gan3d.training.opening import open_pipeline
from nerfstudio_gan3d.training.pipeline import GanPipeline

ROWS = ("rgb", "foreground", "depth")


def samples_picture(run: Run, seeds: range, truncation: float) -> np.ndarray:
    """One seed a column, seen from spread azimuths; rgb, foreground and depth below each other."""
    columns = []
    for index, seed in enumerate(seeds):
        scene = run.scene(SceneRequest(seed=seed, truncation=truncation))
        label = run.orbit([azimuths(len(seeds))[index]])
        found = tiles(run, scene, label, ROWS)
        columns.append(np.concatenate([found[name][0] for name in ROWS]))
    return np.concatenate(columns, axis=1)


def views_picture(run: Run, seeds: range, truncation: float) -> np.ndarray:
    """One seed a row from six azimuths: rgb, then foreground, then depth."""
    rows = []
    for seed in seeds:
        scene = run.scene(SceneRequest(seed=seed, truncation=truncation))
        found = tiles(run, scene, run.orbit(azimuths(6)), ROWS)
        rows.append(np.concatenate([view for name in ROWS for view in found[name]], axis=1))
    return np.concatenate(rows)


@torch.no_grad()
def nearest_picture(pipeline: GanPipeline, evaluator: Path, count: int = 8) -> torch.Tensor:
    """Samples, then their two nearest training images by pixels and by features."""
    generator = pipeline.model.generator_ema
    labels = pipeline.datamanager.sample_labels(count, 1).to(pipeline.device)
    samples = make_images(generator, make_condition(generator, range(count)), labels, 1.0).image
    extractor = build_extractor(EvaluationConfig(features="torchscript", evaluator=evaluator))
    assert extractor is not None
    reals = [b.image.float() / 127.5 - 1 for b in real_batches(pipeline.datamanager, 50)]
    bank = torch.cat([extractor(batch).features for batch in reals])
    found = [
        nearest_by_pixels(samples, reals, 2),
        nearest_by_features(extractor(samples).features, bank, 2),
    ]
    images = torch.cat(reals)
    return neighbour_sheet(samples, found, lambda index: images[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load-config", type=Path, required=True)
    parser.add_argument("--evaluator", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--truncation", type=float, default=1.0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    run = load_run(options.load_config)
    pictures = {
        "samples": samples_picture(run, range(12), options.truncation),
        "views": views_picture(run, range(6), options.truncation),
    }
    _, pipeline, _ = open_pipeline(options.load_config)
    assert isinstance(pipeline, GanPipeline)
    pictures["nearest"] = nearest_picture(pipeline, options.evaluator).numpy()
    for name, picture in pictures.items():
        Image.fromarray(picture).save(options.output / f"{name}.png", optimize=True)
    settings = EvaluationConfig(
        num_samples=options.num_samples, features="torchscript", evaluator=options.evaluator
    )
    text = json.dumps(pipeline.evaluate(settings).as_dict(), indent=2)
    (options.output / "figures.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
