"""Training images and orbit frames per second, as JSON.

    python benchmarks/training.py [--threads 2] [--steps 16] [--cases tiny,tiny64]

Cases:
    tiny      the presets gan3d-ballgan-tiny and gan3d-eg3d-tiny, with both representations
    tiny64    a scaled-down EG3D and BallGAN of published building blocks (64 px output, planes of
    64 px, channel base
              4096, at most 128 channels, 24 + 24 samples, rendered at 32 px, batch 4), for
              comparison with the published implementation on the same configuration

A step is everything but reading data: generator, both discriminator passes, all regularisers when
they are due (R1 every 16 steps, density variation every 4), backward pass, both optimisers, moving
average. Steps are measured in whole cycles of 16.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from dataclasses import replace

import torch

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.latents import SceneRequest, request_latents
from nerfstudio_gan3d.models.ballgan import ballgan_tiny
from nerfstudio_gan3d.models.config import (
    BackgroundConfig,
    DiscriminatorConfig,
    FieldConfig,
    LatentConfig,
    SuperResolutionConfig,
    TriPlaneConfig,
)
from nerfstudio_gan3d.models.eg3d import eg3d_tiny
from nerfstudio_gan3d.models.gan import GanModelConfig, make_generator, make_objective
from nerfstudio_gan3d.models.objective import LossConfig, ScheduleConfig
from nerfstudio_gan3d.training.ema import ema_decay, update_ema

# The published EG3D and BallGAN on the configuration tiny64, measured once on two idle cores of
# another machine (amortised milliseconds a step of 4 images); they cannot be distributed with this
# project.
PUBLISHED_MS = {"eg3d": 610.0, "ballgan": 815.0}


def tiny64(background: bool, conventions: str) -> GanModelConfig:
    """The scaled-down published model."""
    return GanModelConfig(
        representation="triplane",
        conventions=conventions,  # type: ignore[arg-type]
        image_resolution=64,
        neural_resolution=32,
        samples=24,
        importance_samples=24,
        background=background,
        latent=LatentConfig(pose_conditioning=True),
        field=FieldConfig(
            triplane=TriPlaneConfig(64, 32, 4096, 128), near=2.25, far=3.3, initial_ball=False
        ),
        sphere=BackgroundConfig(),
        super_resolution=SuperResolutionConfig((128, 64)),
        discriminator=DiscriminatorConfig(4096, 128),
        losses=LossConfig(background=0.1 if background else 0.0),
        schedule=ScheduleConfig(blur_sigma=0.0),
        view_radius=2.7,
        view_focal=4.2647,
    )


def training_speed(config: GanModelConfig, batch: int, steps: int) -> dict[str, float]:
    """Milliseconds a step and images a second."""
    torch.manual_seed(0)
    generator = make_generator(config)
    average = copy.deepcopy(generator).requires_grad_(False)
    objective = make_objective(config)
    players = [generator, objective.discriminator]
    optimizers = [torch.optim.Adam(p.parameters(), lr=0.002, betas=(0.0, 0.99)) for p in players]
    images = torch.rand(batch, 3, config.image_resolution, config.image_resolution) * 2 - 1
    angles = torch.linspace(-1, 1, batch)
    focal = config.view_focal or 1.5
    radius = config.view_radius or 1.9
    labels = orbit_labels(angles, angles * 0.3, radius, focal=focal)

    def step(index: int) -> None:
        losses, _ = objective(generator, images, labels, labels.roll(1, 0), index)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        seen = int(objective.images_seen)
        update_ema(average, generator, ema_decay(batch, seen, 10000, 0.05))

    for index in range(1, 4):
        step(index)
    start = time.perf_counter()
    for index in range(steps):
        step(index)
    seconds = (time.perf_counter() - start) / steps
    return {"ms_per_step": 1000 * seconds, "images_per_second": batch / seconds}


@torch.no_grad()
def orbit_speed(config: GanModelConfig, frames: int = 20) -> dict[str, float]:
    """Frames a second of an orbit at the neural resolution, the Scene being kept."""
    generator = make_generator(config).eval()
    scene = generator.scene(request_latents(generator, SceneRequest()))
    angles = torch.linspace(0, 6, frames)
    radius, focal = config.view_radius or 1.9, config.view_focal or 1.5
    labels = orbit_labels(angles, angles * 0 + 0.3, radius, focal=focal)
    generator.render(scene, labels[:1])
    start = time.perf_counter()
    for label in labels:
        generator.render(scene, label[None])
    return {"frames_per_second": frames / (time.perf_counter() - start)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--cases", default="tiny,tiny64")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    report: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": options.threads,
        "steps": options.steps,
    }
    cases = options.cases.split(",")
    if "tiny" in cases:
        for name, preset in (("ballgan", ballgan_tiny()), ("eg3d", eg3d_tiny())):
            for representation in ("triplane", "hashgrid"):
                config = replace(preset, representation=representation)
                config.field = replace(config.field, near=1.1, far=2.7)
                figures = training_speed(config, 8, options.steps) | orbit_speed(config)
                report[f"{name}-tiny {representation}"] = figures
    if "tiny64" in cases:
        for name, background in (("eg3d", False), ("ballgan", True)):
            for conventions in ("corrected", "reference"):
                figures = training_speed(tiny64(background, conventions), 4, options.steps)
                figures["published_ms_per_step"] = PUBLISHED_MS[name]
                figures["speedup"] = PUBLISHED_MS[name] / figures["ms_per_step"]
                report[f"{name}-tiny64 {conventions}"] = figures
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
