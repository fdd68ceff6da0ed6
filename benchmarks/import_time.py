"""Seconds that the plugin's entry points add to nerfstudio's own start, as JSON.

`ns-train --help` imports every installed plugin. Each run is a fresh process that imports
nerfstudio's methods with plugin discovery switched off, and then the targets of our entry points.
The budget is 0.3 s.
"""

import argparse
import importlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[1]
BUDGET_SECONDS = 0.3


def entry_points() -> dict[str, str]:
    """Names and targets (`module:attribute`) of both groups that nerfstudio reads."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    return {name: target for group in groups.values() for name, target in group.items()}


def measure_once() -> dict[str, object]:
    """Imports nerfstudio, then the entry points; what the second step took and added."""
    discover = importlib.metadata.entry_points

    def without_plugins(**selection: Any) -> Any:
        if selection.get("group", "").startswith("nerfstudio."):
            return importlib.metadata.EntryPoints()
        return discover(**selection)

    importlib.metadata.entry_points = without_plugins
    importlib.import_module("nerfstudio.configs.method_configs")
    before = set(sys.modules)
    start, start_cpu = time.perf_counter(), time.process_time()
    for target in entry_points().values():
        module, _, attribute = target.partition(":")
        getattr(importlib.import_module(module), attribute)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    added = set(sys.modules) - before
    known = {name.partition(".")[0] for name in before} | sys.stdlib_module_names
    packages = {name.partition(".")[0] for name in added} - known - {"nerfstudio_gan3d"}
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "new_modules": len(added),
        "new_packages": sorted(packages),
    }


def main() -> None:
    """Prints the smallest of several runs and what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--in-this-process", action="store_true", help="one run, for internal use")
    options = parser.parse_args()
    if options.in_this_process:
        print(json.dumps(measure_once()))
        return
    runs = []
    for _ in range(options.runs):
        command = [sys.executable, __file__, "--in-this-process"]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        runs.append(json.loads(output.splitlines()[-1]))
    best = min(runs, key=lambda run: run["seconds"])
    result = {
        "entry_points": sorted(entry_points()),
        "budget_seconds": BUDGET_SECONDS,
        "seconds": round(best["seconds"], 4),
        "all_seconds": [round(run["seconds"], 4) for run in runs],
        # Processor time does not grow while other programs use the machine.
        "cpu_seconds": round(min(run["cpu_seconds"] for run in runs), 4),
        "new_modules": best["new_modules"],
        "new_packages": best["new_packages"],
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
