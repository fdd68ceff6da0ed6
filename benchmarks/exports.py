"""Measures exports: ``python -m benchmarks.exports [--load-config FILE] [--bundle NAME ...]``.

Prints JSON: for each bundled checkpoint, or one run, what `gan3d mesh`, `gan3d splats` and `gan3d
sample` make with their defaults, how alike it is to the Scene's own pictures, and what it costs.
Each export is measured in a process of its own. ``loaded_mb`` is the most memory that the process
had held (the resident set) before its first export, with libraries and model, ``peak_mb`` that
after it; ``seconds`` is the wall time and ``cpu_s`` the processor time of one export, the median
over the Scenes: on a busy machine the second tells more. Scene I has seed I, of models that take
label maps the kept map I besides, and of models of images it is kept image I.

``mesh`` has the field's colours and ``mesh_views`` those of pictures; their ``colour_error`` is
`metrics.exports.colour_error` from 6 held-out views. ``splats`` have their PSNR from 20 held-out
views before white, ``below`` names those under 28 dB. ``rgba`` is `metrics.exports.halo` over 3
views at the model's size and twice that. ``grid`` (16 samples) and ``turntable`` (24 frames) are
whole commands, without the import of the libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.mesh import held_mb
from nerfstudio_gan3d.api import Gan
from nerfstudio_gan3d.export.commands import sample
from nerfstudio_gan3d.export.inputs import takes_images
from nerfstudio_gan3d.export.level import NoSurfaceError
from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.export.number_lists import parse_seeds
from nerfstudio_gan3d.export.pictures import tiles
from nerfstudio_gan3d.export.sample_options import SampleOptions
from nerfstudio_gan3d.export.seen_colors import seen_colors
from nerfstudio_gan3d.export.splat_views import scene_views, splat_psnr, surroundings
from nerfstudio_gan3d.export.transparency import spread_colours
from nerfstudio_gan3d.latents import STORED_MAPS, SceneRequest
from nerfstudio_gan3d.metrics.exports import colour_error, halo, mesh_pictures
from nerfstudio_gan3d.models.outputs import Backdrop
from nerfstudio_gan3d.pretrained import bundled_names, unpack
from nerfstudio_gan3d.run import CONFIG_NAME, Run, load_run
from nerfstudio_gan3d.scene import Scene

SEEDS = {"mesh": "0-7", "mesh_views": "0-3", "splats": "0-3", "rgba": "0-3"}
"""Scenes where none are named."""
COLOUR_VIEWS, COLOUR_SIDE = 6, 96
HALO_VIEWS = 3
WANTED_PSNR = 28.0
GRID, FRAMES = 16, 24

T = TypeVar("T")
Figures = dict[str, Any]


@dataclass
class Meter:
    """What exports cost in this process."""

    loaded_mb: float = field(default_factory=held_mb)
    peak_mb: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def of(self, export: Callable[[], T]) -> T:
        """Runs an export. The first one's peak counts: what is measured afterwards is no part."""
        start, spent = time.perf_counter(), time.process_time()
        found = export()
        self.seconds.append(time.perf_counter() - start)
        self.cpu_s.append(time.process_time() - spent)
        self.peak_mb = self.peak_mb or held_mb()
        return found

    def figures(self) -> Figures:
        """Medians of the times, and the memory."""
        return {
            "seconds": round(statistics.median(self.seconds), 2),
            "cpu_s": round(statistics.median(self.cpu_s), 2),
            "loaded_mb": self.loaded_mb,
            "peak_mb": self.peak_mb,
        }


def scene_of(run: Run, index: int) -> Scene:
    """Scene I of a run: of a seed, of a label map and a seed, or of an image."""
    if takes_images(run):
        return run.scene(SceneRequest(image=index))
    label = 0 if run.generator.labels is None else index % STORED_MAPS
    return run.scene(SceneRequest(seed=index, label=label))


def meshes(run: Run, numbers: Sequence[int], from_views: bool) -> Figures:
    """Meshes of some Scenes: whole or not, and their colours."""
    cameras = surroundings(run.settings).held_out(COLOUR_VIEWS).to(run.device)
    meter, rows = Meter(), []
    for number in numbers:
        scene = scene_of(run, number)

        def export(scene: Scene = scene) -> Any:
            seen = seen_colors(run, scene) if from_views else None
            return extract_mesh(scene, device=run.device, seen=seen)

        try:
            mesh = meter.of(export)
        except NoSurfaceError as error:
            rows.append({"scene": number, "refused": str(error)})
            continue
        pictures = scene_views(scene, run.generator.settings, cameras, COLOUR_SIDE)
        error = colour_error(mesh_pictures(mesh, cameras, COLOUR_SIDE), pictures)
        rows.append(
            {
                "scene": number,
                "is_watertight": bool(mesh.is_watertight),
                "triangles": len(mesh.faces),
                "colour_error": round(error, 4),
            }
        )
    found = [row for row in rows if "refused" not in row]
    shown: Figures = {"watertight": sum(row["is_watertight"] for row in found) / len(rows)}
    if found:
        errors = [row["colour_error"] for row in found]
        shown["triangles"] = statistics.median(row["triangles"] for row in found)
        shown["colour_error"] = round(statistics.mean(errors), 4)
        shown["colour_error_worst"] = max(errors)
        shown |= meter.figures()
    return {**shown, "scenes": rows}


def splats(run: Run, numbers: Sequence[int]) -> Figures:
    """Splats of some Scenes, and how alike they look."""
    gan, settings = Gan(run), run.generator.settings
    cameras = surroundings(run.settings).held_out().to(run.device)
    meter, rows = Meter(), []
    for number in numbers:
        scene = scene_of(run, number)
        try:
            found = meter.of(lambda scene=scene: gan.splats(scene))
        except NoSurfaceError as error:
            rows.append({"scene": number, "refused": str(error)})
            continue
        alike = splat_psnr(found, cameras, scene_views(scene, settings, cameras))
        views = alike.clamp(max=100).tolist()
        rows.append(
            {
                "scene": number,
                "splats": len(found),
                "psnr": round(statistics.mean(views), 2),
                "psnr_least": round(min(views), 2),
            }
        )
    found = [row for row in rows if "refused" not in row]
    below = [row["scene"] for row in rows if row.get("psnr", 0.0) < WANTED_PSNR]
    shown: Figures = {"below": below}
    if found:
        shown["psnr"] = round(statistics.mean(row["psnr"] for row in found), 2)
        shown["psnr_worst"] = min(row["psnr"] for row in found)
        shown["psnr_least_view"] = min(row["psnr_least"] for row in found)
        shown["splats"] = statistics.median(row["splats"] for row in found)
        shown |= meter.figures()
    return {**shown, "scenes": rows}


def layers(run: Run, numbers: Sequence[int]) -> Figures:
    """Transparent pictures of some Scenes before black and white, at two sizes."""
    cameras = surroundings(run.settings).held_out(HALO_VIEWS).to(run.device)
    shown: Figures = {}
    for factor in (1, 2):
        size = factor * run.settings.image_resolution
        found = []
        for number in numbers:
            scene = scene_of(run, number)
            stored = tiles(run, scene, cameras, ["rgba"], size)["rgba"]
            black, white = (
                run.render(scene, cameras, ("foreground",), size, Backdrop("colour", colour))
                for colour in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
            )
            direct = (one["foreground"].cpu().numpy() for one in (black, white))
            found.append(halo(np.stack([spread_colours(one) for one in stored]), *direct))
        shown[str(size)] = {
            "largest": max(one.largest for one in found),
            "above_one": round(statistics.mean(one.above_one for one in found), 6),
        }
    return shown


def samples(run: Run, config: Path, folder: Path, turntable: bool) -> Figures:
    """One grid, or one video, as the command writes it."""
    # A grid shows seeds 0 to 15, of one label map where there are some, or images 0 to 15.
    numbers = "0" if turntable else f"0-{GRID - 1}"
    options = SampleOptions(
        config,
        folder / ("turn.mp4" if turntable else "grid.png"),
        seeds=None if takes_images(run) else numbers,
        inputs=numbers if takes_images(run) else None,
        views=FRAMES if turntable else None,
        turntable=turntable,
    )
    options.validate()
    meter = Meter()
    meter.of(lambda: sample(options))
    return meter.figures()


def measure(task: str, config: Path, numbers: Sequence[int], folder: Path) -> Figures:
    """Figures of one export, in this process."""
    run = load_run(config)
    if task in ("mesh", "mesh_views"):
        return meshes(run, numbers, task == "mesh_views")
    if task == "splats":
        return splats(run, numbers)
    if task == "rgba":
        return layers(run, numbers)
    return samples(run, config, folder, task == "turntable")


def described(rows: dict[str, Figures]) -> str:
    """All figures and the machine, JSON."""
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    return json.dumps({**machine, "cpus": os.cpu_count(), "checkpoints": rows}, indent=2)


def main() -> None:
    """Measures all exports, or one of them, and prints the figures."""
    tasks = (*SEEDS, "grid", "turntable")
    parser = argparse.ArgumentParser(description="Measures what leaves a GAN")
    parser.add_argument("--load-config", type=Path, help="config.yml of a training run")
    parser.add_argument("--bundle", nargs="+", choices=bundled_names(), help="default: all of them")
    parser.add_argument("--seeds", help="numbers of the Scenes, such as 0-7 (of rgba, too)")
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks, help="which exports")
    parser.add_argument("--output", type=Path, help="JSON file that is written besides")
    parser.add_argument("--here", choices=tasks, help="this one alone, in this process")
    arguments = parser.parse_args()
    if arguments.load_config is not None and arguments.bundle is not None:
        parser.error("--load-config and --bundle: give one of them")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.here is not None and arguments.load_config is not None:
            numbers = parse_seeds(arguments.seeds or SEEDS.get(arguments.here, "0"))
            print(json.dumps(measure(arguments.here, arguments.load_config, numbers, folder)))
            return
        configs = {}
        if arguments.load_config is not None:
            configs[arguments.load_config.absolute().parent.name] = arguments.load_config
        else:
            for bundle in arguments.bundle or bundled_names():
                unpack(bundle, folder / bundle)
                configs[bundle] = folder / bundle / CONFIG_NAME
        rows: dict[str, Figures] = {}
        for bundle, config in configs.items():
            rows[bundle] = {}
            for task in arguments.tasks:
                words = ["--load-config", str(config), "--here", task]
                words += ["--seeds", arguments.seeds] if arguments.seeds else []
                command = [sys.executable, "-m", "benchmarks.exports", *words]
                told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                rows[bundle][task] = json.loads(told.stdout.splitlines()[-1])
                # All of them take an hour: what is known stays if the rest is interrupted.
                if arguments.output is not None:
                    arguments.output.write_text(described(rows) + "\n", encoding="utf-8")
    print(described(rows))


if __name__ == "__main__":
    main()
