"""Times meshes: ``python -m benchmarks.mesh [--resolution N ...] [--load-config FILE]``.

Prints JSON. A Scene's surface is extracted by refinement (multires) and from the whole grid
(dense), without colours and normals, each in a process of its own, so that the most memory that a
process has held (the resident set) is that of the variant. ``queries`` are the places at which the
field was looked up, ``seconds`` is the wall time and ``cpu_s`` the processor time of the
extraction; on a busy machine the second tells more. ``loaded_mb`` is what was held before it.
Without --load-config the bundled cars are taken.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.pretrained import unpack
from nerfstudio_gan3d.run import load_run
from nerfstudio_gan3d.scene import Field, FieldSamples

BUNDLE = "ballgan-cars64"
EXTRACTIONS = ("multires", "dense")


@dataclass
class Counting:
    """A field, and the number of places that it was asked about."""

    field: Field
    asked: int = 0

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        """The field's answer."""
        self.asked += positions.shape[1]
        return self.field.query(positions, directions)


def held_mb() -> float:
    """The most memory that this process has held (Linux counts it in kibibytes)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def measure(config: Path, seed: int, resolution: int, extraction: str) -> dict[str, object]:
    """Figures of one extraction, in this process."""
    assert extraction == "multires" or extraction == "dense"
    run = load_run(config)
    scene = run.scene(SceneRequest(seed=seed))
    counted = Counting(scene.field)
    # What the first use of the field and of the libraries takes is no part of either variant.
    extract_mesh(scene, 16, color="none", device=run.device)
    loaded, start, spent = held_mb(), time.perf_counter(), time.process_time()
    mesh = extract_mesh(
        replace(scene, field=counted),
        resolution,
        color="none",
        device=run.device,
        extraction=extraction,
        normals="faces",
    )
    return {
        "resolution": resolution,
        "extraction": extraction,
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_s": round(time.process_time() - spent, 2),
        "loaded_mb": loaded,
        "peak_mb": held_mb(),
        "queries": counted.asked,
        "triangles": len(mesh.faces),
        "is_watertight": bool(mesh.is_watertight),
    }


def main() -> None:
    """Measures all variants, or one of them, and prints the figures."""
    parser = argparse.ArgumentParser(description="Times meshes of a GAN's Scene")
    parser.add_argument("--load-config", type=Path, help="config.yml of a training run")
    parser.add_argument("--resolution", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--extraction", choices=EXTRACTIONS, help="this one alone, in this process")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = arguments.load_config
        if config is None:
            config = Path(folder) / "run" / "config.yml"
            unpack(BUNDLE, config.parent)
        if arguments.extraction is not None:
            found = measure(config, arguments.seed, arguments.resolution[0], arguments.extraction)
            print(json.dumps(found))
            return
        rows = []
        for resolution in arguments.resolution:
            for extraction in EXTRACTIONS:
                words = ["--load-config", config, "--seed", arguments.seed]
                words += ["--resolution", resolution, "--extraction", extraction]
                command = [sys.executable, "-m", "benchmarks.mesh", *map(str, words)]
                told = subprocess.run(command, check=True, capture_output=True, text=True)
                rows.append(json.loads(told.stdout.splitlines()[-1]))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
