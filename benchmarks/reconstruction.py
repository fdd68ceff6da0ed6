"""Held-out images to 3D, by angle: ``python -m benchmarks.reconstruction --load-config FILE``.

Prints JSON for a run that makes Scenes of images with depth: PSNR on the object's pixels of the
Scene of one photograph against another photograph of the same object, for angles between the two
in steps of 5 degrees, beside that of the first photograph as it is (``unwarped``) and on a plane
through the origin (``plane``). With ``--picture FILE`` it draws some of these pairs, a column each:
the image that the Scene is made of; the Scene from the same camera, and its depth; the Scene from
the other camera, and the photograph that was taken from there; all twice as large as they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from nerfstudio_gan3d.export.pictures import color_depth
from nerfstudio_gan3d.metrics.reconstruction import psnr
from nerfstudio_gan3d.models.image_generator import ImageGenerator
from nerfstudio_gan3d.training.opening import open_pipeline
from nerfstudio_gan3d.training.reconstruction import ReconstructionPipeline
from nerfstudio_gan3d.training.reconstruction_evaluation import NovelViews, novel_views, seen

STEP_DEG = 5
AT_ONCE = 16


def angles_deg(views: NovelViews) -> list[float]:
    """Angles between the optical axes of both photographs."""
    axes = [
        torch.nn.functional.normalize(batch.labels[:, [2, 6, 10]], dim=1)
        for batch in (views.own, views.other)
    ]
    cosine = (axes[0] * axes[1]).sum(1).clamp(-1, 1)
    return cosine.acos().rad2deg().tolist()


def columns(
    generator: ImageGenerator, views: NovelViews, limits: tuple[float, float]
) -> list[Tensor]:
    """A picture [5 R, R, 3] for each pair, 0 to 255."""
    own = seen(generator, views.scene, generator.canonical_labels(len(views.given)))
    depth = color_depth(own.distance.movedim(1, -1), own.opacity.movedim(1, -1), limits)
    shown = [views.given, own.image, views.made, views.target]
    rows = [((image + 1) * 127.5).round().byte().movedim(1, -1) for image in shown]
    rows.insert(2, torch.from_numpy(depth))
    return list(torch.cat(rows, dim=1))


def main() -> None:
    """Measures, draws, and prints the figures."""
    parser = argparse.ArgumentParser(description="Views of held-out images from elsewhere")
    parser.add_argument("--load-config", type=Path, required=True, help="config.yml of a run")
    parser.add_argument("--picture", type=Path, help="PNG file to draw pairs to")
    parser.add_argument("--columns", type=int, default=10, help="pairs drawn, evenly spread")
    arguments = parser.parse_args()
    pipeline = open_pipeline(arguments.load_config)[1]
    if not isinstance(pipeline, ReconstructionPipeline):
        raise SystemExit(f"{arguments.load_config}: not a run that makes Scenes of images")
    model, data = pipeline.model, pipeline.datamanager
    generator, places = model.generator_ema, data.split_indices("test")
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    drawn: list[Tensor] = []
    for views in novel_views(generator, data, places, model.config.wall, AT_ONCE):
        drawn += columns(generator, views, model.config.depth_range)
        steps = [STEP_DEG * int(angle / STEP_DEG) for angle in angles_deg(views)]
        shown = {"made": views.made, "unwarped": views.given, "plane": views.plane}
        for name, image in shown.items():
            values = psnr(image, views.target, views.solid).tolist()
            for step, value in zip(steps, values, strict=True):
                found[step][name].append(value)
    rows = [
        {
            "angle_deg": [step, step + STEP_DEG],
            "pairs": len(of_names["made"]),
            **{name: round(statistics.mean(values), 2) for name, values in of_names.items()},
        }
        for step, of_names in sorted(found.items())
    ]
    print(json.dumps(rows))
    if arguments.picture is not None and drawn:
        count = min(arguments.columns, len(drawn))
        picture = torch.cat([drawn[len(drawn) * index // count] for index in range(count)], dim=1)
        image = Image.fromarray(picture.numpy())
        image.resize((2 * image.width, 2 * image.height), Image.Resampling.LANCZOS).save(
            arguments.picture
        )


if __name__ == "__main__":
    main()
