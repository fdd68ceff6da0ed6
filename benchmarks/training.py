"""Training images and orbit frames per second, as JSON.

    python -m benchmarks.training [--threads 2] [--steps 16] [--cases tiny,tiny64,published]

Cases:
    tiny      the presets gan3d-ballgan-tiny and gan3d-eg3d-tiny, with both representations
    tiny64    EG3D and BallGAN on a small configuration (64 px output, planes of 64 px, channel base
              4096, at most 128 channels, 24 + 24 samples, rendered at 32 px, batch 4); with "auto
              precision" convolutions are in bfloat16 where the processor computes with it
    published EG3D and BallGAN on the same configuration as they were published, restated in plain
              torch (see published/), since the programs cannot be part of this project;
              "forward_ms" is the generator alone, "gradients_ms" that with its backward pass

A step is everything but reading data: generator, both discriminator passes, all regularisers when
they are due (R1 every 16 steps, density variation every 4), backward pass, both optimisers, moving
average. Steps are measured in whole cycles of 16. Machines differ, and virtual ones vary from
minute to minute, so cases that are to be compared are measured in turns, ``--rounds`` times, and
the median is reported with all values beside it. Every measurement has a process of its own, so
that the memory of one does not matter to another.
"gflops" is what a matrix product of 1024 reaches at the time.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch
from torch import Tensor

from benchmarks.published.training import Training
from benchmarks.published.weights import first_discriminator, first_generator
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
from nerfstudio_gan3d.models.gan import (
    GanModelConfig,
    convolution_dtype,
    make_generator,
    make_objective,
    set_training_precision,
)
from nerfstudio_gan3d.models.objective_config import LossConfig, ScheduleConfig
from nerfstudio_gan3d.training.ema import ema_decay, update_ema
from nerfstudio_gan3d.training.memory import keep_freed_memory
from nerfstudio_gan3d.training.optimizers import GanAdamConfig

AUTO = "auto precision"


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


def real_images(config: GanModelConfig, batch: int) -> tuple[Tensor, Tensor]:
    """Noise in the place of photographs, and cameras in front of the thing."""
    images = torch.rand(batch, 3, config.image_resolution, config.image_resolution) * 2 - 1
    angles = torch.linspace(-1, 1, batch)
    radius, focal = config.view_radius or 1.9, config.view_focal or 1.5
    return images, orbit_labels(angles, angles * 0.3, radius, focal=focal)


def step_times(step: Callable[[int], None], batch: int, steps: int) -> dict[str, float]:
    """Milliseconds a step and images a second, after three steps that do not count."""
    for index in range(1, 4):
        step(index)
    start = time.perf_counter()
    for index in range(steps):
        step(index)
    seconds = (time.perf_counter() - start) / steps
    return {"ms_per_step": 1000 * seconds, "images_per_second": batch / seconds}


def median_ms(function: Callable[[], None], runs: int = 7) -> float:
    """Milliseconds that a function takes, after two calls that do not count."""
    times = []
    for _ in range(2 + runs):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def published_speed(config: GanModelConfig, batch: int, steps: int) -> dict[str, float]:
    """The published system with the sizes of `tiny64`."""
    torch.manual_seed(0)
    players = first_generator(config.background), first_discriminator()
    training = Training(*players, background=config.background)
    images, labels = real_images(config, batch)

    def forward() -> None:
        with torch.no_grad():
            training.fakes(labels)

    def gradients() -> None:
        fakes = training.fakes(labels)
        (fakes.image.sum() + fakes.raw.sum()).backward()

    def step(index: int) -> None:
        training.step(images, labels, index)

    parts = {"forward_ms": median_ms(forward), "gradients_ms": median_ms(gradients)}
    for optimizer in training.optimizers:
        optimizer.zero_grad()
    return parts | step_times(step, batch, steps)


def training_speed(config: GanModelConfig, batch: int, steps: int) -> dict[str, float]:
    """Ours, with everything that a trainer does in a step."""
    torch.manual_seed(0)
    generator = make_generator(config)
    average = copy.deepcopy(generator).requires_grad_(False)
    objective = make_objective(config)
    dtype = convolution_dtype(config.convolutions, torch.device("cpu"))
    set_training_precision(generator, objective, dtype)
    players = [generator, objective.discriminator]
    optimizers = [GanAdamConfig().setup(player.parameters()) for player in players]
    images, labels = real_images(config, batch)

    def step(index: int) -> None:
        losses, _ = objective(generator, images, labels, labels.roll(1, 0), index)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        seen = int(objective.images_seen)
        update_ema(average, generator, ema_decay(batch, seen, 10000, 0.05))

    return step_times(step, batch, steps)


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


def gflops() -> float:
    """Speed of a matrix product in 10^9 operations a second, the best of ten."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times) / 1e9


def summary(rounds: list[dict[str, float]], batch: int) -> dict[str, object]:
    """Medians over rounds, with every round's step beside them."""
    steps = [found["ms_per_step"] for found in rounds]
    middle = statistics.median(steps)
    report: dict[str, object] = {
        "ms_per_step": middle,
        "images_per_second": 1000 * batch / middle,
        "rounds_ms": steps,
    }
    for name in ("frames_per_second", "forward_ms", "gradients_ms"):
        if name in rounds[0]:
            report[name] = statistics.median(figures[name] for figures in rounds)
    return report


@dataclass(frozen=True)
class Case:
    """What is measured: a configuration, and how."""

    config: GanModelConfig
    batch: int
    orbit: bool = False
    published: bool = False


def measured(case: Case, threads: int, steps: int) -> dict[str, float]:
    """Figures of a case, in this process."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    # As in training; the published case profits alike.
    keep_freed_memory()
    found = {"gflops": gflops()}
    if case.published:
        return found | published_speed(case.config, case.batch, steps)
    found |= training_speed(case.config, case.batch, steps)
    return found | orbit_speed(case.config) if case.orbit else found


def chosen_cases(names: Sequence[str]) -> dict[str, Case]:
    """The cases of these groups."""
    cases: dict[str, Case] = {}
    if "tiny" in names:
        for name, preset in (("ballgan", ballgan_tiny()), ("eg3d", eg3d_tiny())):
            for representation in ("triplane", "hashgrid"):
                config = replace(preset, representation=representation)
                config.field = replace(config.field, near=1.1, far=2.7)
                cases[f"{name}-tiny {representation}"] = Case(config, 16, orbit=True)
    for name, background in (("eg3d", False), ("ballgan", True)):
        if "tiny64" in names:
            for conventions in ("corrected", "reference"):
                config = tiny64(background, conventions)
                case = f"{name}-tiny64 {conventions}"
                cases[case] = Case(config, 4)
                cases[f"{case} {AUTO}"] = Case(replace(config, convolutions="auto"), 4)
        if "published" in names:
            config = tiny64(background, "reference")
            cases[f"{name}-tiny64 published"] = Case(config, 4, published=True)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="tiny,tiny64,published")
    options = parser.parse_args()
    cases = chosen_cases(options.cases.split(","))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(options.rounds):
            for name, case in cases.items():
                found[name].append(pool.apply(measured, (case, options.threads, options.steps)))
    speeds = [figures["gflops"] for rounds in found.values() for figures in rounds]
    report: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": options.threads,
        "steps": options.steps,
        "gflops": speeds,
    }
    report |= {name: summary(rounds, cases[name].batch) for name, rounds in found.items()}
    for name in ("eg3d", "ballgan"):
        restated = report.get(f"{name}-tiny64 published")
        if not isinstance(restated, dict):
            continue
        for rules in ("corrected", "reference", f"corrected {AUTO}", f"reference {AUTO}"):
            ours = report.get(f"{name}-tiny64 {rules}")
            if isinstance(ours, dict):
                ours["speedup"] = restated["ms_per_step"] / ours["ms_per_step"]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
