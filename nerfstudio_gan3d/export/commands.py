"""The commands `gan3d mesh` and `gan3d sample`: a checkpoint to files."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nerfstudio_gan3d.cli_options import (
    MeshOptions,
    PictureOutput,
    SampleOptions,
    parse_outputs,
    parse_seeds,
)
from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.mesh import extract_mesh, write_mesh
from nerfstudio_gan3d.export.pictures import (
    DEPTH_COLORS,
    ELEVATION_DEG,
    azimuths,
    block,
    depth_range,
    grid,
    tiles,
    turntable,
    write_png,
    write_video,
)
from nerfstudio_gan3d.latents import SceneRequest, request_latents
from nerfstudio_gan3d.run import Run, load_run

TURNTABLE_FRAMES = 90


def mesh(options: MeshOptions) -> str:
    """Writes one sample as a mesh; returns a sentence about it.

    Raises:
        ValueError: If the run cannot be loaded, has no surface, or the file cannot be written.
    """
    run = load_run(options.load_config)
    found = extract_mesh(
        run.scene(SceneRequest(seed=options.seed, truncation=options.truncation)),
        options.resolution,
        options.level,
        options.color,
        options.largest_component,
        run.device,
    )
    write_mesh(found, options.output)
    return (
        f"{options.output}: {len(found.vertices)} vertices, {len(found.faces)} triangles, "
        f"surface at density {found.metadata['density_level']:.4g}"
    )


def sample(options: SampleOptions) -> str:
    """Renders samples to a grid, a turntable, or one file per seed; returns a sentence about them.

    Beside a file ``NAME.png`` or ``NAME.mp4`` stands ``NAME.json``, in a folder ``samples.json``:
    run and checkpoint, seeds, truncation, cameras, and the command that writes the same again. The
    latents w lie in a file with the ending ``.npz`` beside it.

    Raises:
        ValueError: If options contradict each other, the run cannot be loaded, or a file cannot be
            written.
    """
    one_file = _is_one_file(options)
    run = load_run(options.load_config)
    seeds, outputs = parse_seeds(options.seeds), parse_outputs(options.outputs)
    requests = [SceneRequest(seed=seed, truncation=options.truncation) for seed in seeds]
    views = options.views or (TURNTABLE_FRAMES if options.turntable else 1)
    suffix = ".mp4" if options.turntable else ".png"
    if one_file:
        files, groups = [options.output], [requests]
    else:
        files = [options.output / f"seed{seed:04d}{suffix}" for seed in seeds]
        groups = [[request] for request in requests]
    for file, group in zip(files, groups, strict=True):
        _write(run, group, outputs, views, options, file)
    record = options.output.with_suffix(".json") if one_file else options.output / "samples.json"
    _write_record(run, options, requests, outputs, views, files, record)
    what = f"{len(seeds)} seed{'s' * (len(seeds) > 1)} from {views} view{'s' * (views > 1)}"
    return f"{options.output}: {what}; described in {record}"


def _is_one_file(options: SampleOptions) -> bool:
    """Whether the output is one file (else a folder); raises ValueError if its ending does not
    fit."""
    wanted = ".mp4" if options.turntable else ".png"
    suffix = options.output.suffix.lower()
    if suffix not in ("", wanted):
        other = "without" if options.turntable else "with"
        hint = f" (.{'png' if options.turntable else 'mp4'} goes {other} --turntable)"
        raise ValueError(
            f"--output is {options.output}; give a file that ends in {wanted}{hint}, or a folder "
            "for one file per seed"
        )
    return bool(suffix)


def _write(
    run: Run,
    requests: Sequence[SceneRequest],
    outputs: Sequence[PictureOutput],
    views: int,
    options: SampleOptions,
    file: Path,
) -> None:
    if options.turntable:
        turns = [turntable(run, run.scene(one), views, outputs, options.size) for one in requests]
        write_video((grid(frames) for frames in zip(*turns, strict=True)), file)
        return
    labels = run.orbit(azimuths(views), ELEVATION_DEG)
    blocks = [block(tiles(run, run.scene(one), labels, outputs, options.size)) for one in requests]
    write_png(grid(blocks), file)


def _write_record(
    run: Run,
    options: SampleOptions,
    requests: Sequence[SceneRequest],
    outputs: Sequence[PictureOutput],
    views: int,
    files: Sequence[Path],
    record: Path,
) -> None:
    """What was rendered, for people (JSON), and the latents w (npz)."""
    labels = run.orbit(azimuths(views), ELEVATION_DEG)
    content: dict[str, Any] = {
        "command": command_line("sample", options),
        "run": str(run.folder),
        "checkpoint": run.checkpoint.name,
        "method": run.config.method_name,
        "images_seen": run.images_seen,
        "weights": "moving average of the generator",
        "seeds": [one.seed for one in requests],
        "truncation": options.truncation,
        "outputs": list(outputs),
        "size": options.size or run.settings.image_resolution,
        "views": [
            {"azimuth_deg": azimuth, "elevation_deg": ELEVATION_DEG, "label": label}
            for azimuth, label in zip(azimuths(views), labels.tolist(), strict=True)
        ],
        "files": [file.name for file in files],
        "latents": record.with_suffix(".npz").name,
    }
    if "depth" in outputs:
        near, far = depth_range(run)
        content["depth_colors"] = {"map": DEPTH_COLORS, "bright_at": near, "dark_at": far}
    with replaced(record) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with torch.no_grad():
        latents = [request_latents(run.generator, one) for one in requests]
    arrays = {"foreground": torch.cat([found.foreground for found in latents])}
    behind = [found.background for found in latents if found.background is not None]
    if behind:
        arrays["background"] = torch.cat(behind)
    with replaced(record.with_suffix(".npz")) as temporary:
        np.savez(temporary, **{name: value.cpu().numpy() for name, value in arrays.items()})


def command_line(name: str, options: Any) -> str:
    """The `gan3d` command with these options, those that have their default values left out."""
    words = ["gan3d", name]
    for item in dataclasses.fields(options):
        value = getattr(options, item.name)
        if value == item.default:
            continue
        flag = f"--{item.name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        else:
            words += [flag, str(value)]
    return shlex.join(words)
