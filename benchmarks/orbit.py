"""Times an orbit of a 512-px model: ``python -m benchmarks.orbit [--threads N] [--frames N]``.

Prints JSON. The networks have the sizes of the published ffhq512 model and random weights; what
they would show is fog, so a solid ball of radius 0.3 is put in their density's place, to which the
network's own density is added: a surface with small bumps, painted by the network. Each frame is
one camera of the orbit at neural resolution 128, 48 + 48 samples a ray.

``every_sample`` looks up all of them, ``occupied`` those that the occupancy grid leaves
(`nerfstudio_gan3d.rendering.occupancy`); both from planes that are computed once. ``rendering`` is
the volume rendering alone, ``frame`` includes super-resolution, which no grid makes faster.
``psnr_db`` compares the rendered colours and the final images of both. ``build_s`` is what the grid
costs once a latent, ``planes_s`` what the planes do.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.models.eg3d import eg3d
from nerfstudio_gan3d.models.gan import make_generator
from nerfstudio_gan3d.rendering.occupancy import build_occupancy, render_occupied
from nerfstudio_gan3d.rendering.renderer import render
from nerfstudio_gan3d.scene import Condition, FieldSamples

RADIUS, SHARPNESS = 0.3, 60.0
FOCAL, DISTANCE = 4.2647, 2.7


class Ball:
    """A field with a ball's density added to its own."""

    def __init__(self, field: BoundField) -> None:
        self.field = field

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        found = self.field.query(positions)
        inside = SHARPNESS * (RADIUS - positions.norm(dim=-1, keepdim=True))
        return replace(found, raw_density=found.raw_density + inside)


def psnr(first: Tensor, second: Tensor, span: float) -> float:
    """Of values that cover ``span``, dB."""
    error = float((first - second).square().mean())
    return round(10 * math.log10(span**2 / max(error, 1e-12)), 1)


@torch.no_grad()
def measure(frames: int, neural_resolution: int) -> dict[str, Any]:
    """Medians over the frames of one orbit."""
    torch.manual_seed(0)
    config = eg3d()
    config.representation, config.conventions, config.sampling = (
        "triplane",
        "reference",
        "corrected",
    )
    config.neural_resolution = neural_resolution
    config.super_resolution.input_resolution = 128
    config.latent.pose_conditioning = True
    config.field.density_scale, config.field.initial_ball = 1.0, False
    config.field.near, config.field.far = 2.25, 3.3
    generator = make_generator(config).eval()
    torch.nn.init.normal_(generator.field.decoder.out.weight)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    latents = generator.map(Condition(torch.randn(1, 512)))
    start = time.perf_counter()
    scene = generator.scene(latents)
    planes = time.perf_counter() - start
    scene = replace(scene, field=Ball(scene.field))  # pyright: ignore[reportArgumentType]
    start = time.perf_counter()
    grid = build_occupancy(scene)
    build = time.perf_counter() - start
    angles = torch.linspace(-0.5, 0.5, frames + 1)
    labels = orbit_labels(angles, torch.zeros_like(angles), DISTANCE, focal=FOCAL)
    times: dict[str, list[float]] = {
        name: [] for name in ("every_sample", "occupied", "super_resolution")
    }
    quality: list[tuple[float, float]] = []
    covered: list[float] = []
    for index, label in enumerate(labels.split(1)):
        rays = pixel_rays(label, neural_resolution, neural_resolution)
        images = []
        for name in ("every_sample", "occupied"):
            start = time.perf_counter()
            if name == "occupied":
                found = render_occupied(scene, grid, *rays, generator.settings)
            else:
                found = render(scene, *rays, generator.settings)
            middle = time.perf_counter()
            images.append(generator.finish(scene, found, neural_resolution, neural_resolution))
            # The first frame warms up.
            if index:
                times[name].append(middle - start)
                times["super_resolution"].append(time.perf_counter() - middle)
                covered.append(float(found.accumulation.mean()))
        if index:
            full, fast = images
            quality.append((psnr(full.raw, fast.raw, 2), psnr(full.image, fast.image, 2)))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    after = seconds.pop("super_resolution")
    both = {name: {"rendering_s": round(s, 3), "frame_s": round(s + after, 3)}
            for name, s in seconds.items()}  # fmt: skip
    slow, fast = seconds["every_sample"], seconds["occupied"]
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "neural_resolution": neural_resolution,
        "frames": frames,
        "coverage": round(statistics.mean(covered), 3),
        **both,
        "rendering_speedup": round(slow / fast, 2),
        "frame_speedup": round((slow + after) / (fast + after), 2),
        "psnr_db": {
            "rendered": min(first for first, _ in quality),
            "final": min(second for _, second in quality),
        },
        "super_resolution_s": round(after, 3),
        "build_s": round(build, 3),
        "planes_s": round(planes, 3),
    }


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--neural-resolution", type=int, default=128)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(json.dumps(measure(arguments.frames, arguments.neural_resolution), indent=2))


if __name__ == "__main__":
    main()
