"""What a command rendered: for people in JSON, the latents in npz."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import camera_angles
from nerfstudio_gan3d.data.decode import RELATIVE_SCALE
from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.inputs import Input, takes_images
from nerfstudio_gan3d.export.outputs import parse_outputs
from nerfstudio_gan3d.export.pictures import DEPTH_COLORS, depth_range
from nerfstudio_gan3d.export.sample_options import SampleOptions, parse_truncations
from nerfstudio_gan3d.export.sheets import Row
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.latents import LabelView, SceneRequest, request_latents
from nerfstudio_gan3d.run import Run


def write_record(
    run: Run,
    options: SampleOptions,
    inputs: Sequence[Input],
    rows: Sequence[Row],
    files: Sequence[Path],
    record: Path,
) -> None:
    """Writes the JSON file ``record``, and beside it the npz file.

    The latents w of the npz file have one row a sample in the order of ``rows``; ways from sample
    to sample have those of their stations. Label maps lie beside them. Models that take images have
    no latents: there it holds the images and their distances.
    """
    requests = [key for row in rows for cell in row.cells for key in cell.keys]
    outputs = parse_outputs(options.outputs)
    content: dict[str, Any] = {
        "command": command_line("sample", options),
        "run": str(run.folder),
        "checkpoint": run.checkpoint.name,
        "method": run.config.method_name,
        "images_seen": run.images_seen,
        "weights": "moving average of the generator",
    }
    if not takes_images(run):
        content["seeds"] = list(dict.fromkeys(one.seed for one in requests))
        content["truncation"] = options.truncation
        if options.truncations is not None:
            content["truncation"] = parse_truncations(options.truncations)
    content |= {
        "outputs": list(outputs),
        "size": options.size or run.settings.image_resolution,
        "views": described(run, rows[0].cells[0].cameras),
        "files": [file.name for file in files],
        "images" if takes_images(run) else "latents": record.with_suffix(".npz").name,
    }
    if inputs:
        content["inputs"] = [
            {"name": one.name, "source": one.source, **described(run, one.pose)[0]}
            for one in inputs
        ]
        if len({tuple(row.cells[0].cameras[0].tolist()) for row in rows}) > 1:
            content["views"] = "each row from the camera of its label map"
    if options.grid is not None:
        content["grid"] = options.grid
        content["appearance_seeds"] = [cell.keys[0].appearance_seed for cell in rows[0].cells]
    if options.interpolate is not None:
        content["interpolate"] = options.interpolate
    if options.mix_seed is not None:
        content["mix"] = {"seed": options.mix_seed, "levels": list(requests[0].mix_levels)}
    if "depth" in outputs:
        near, far = depth_range(run)
        content["depth_colors"] = {"map": DEPTH_COLORS, "bright_at": near, "dark_at": far}
    if "depth16" in outputs:
        near, far = depth_range(run)
        content["depth16"] = {"near": near, "far": far, "steps": RELATIVE_SCALE, "nothing": 0}
    if options.over is not None:
        content["over"] = str(options.over)
    with replaced(record) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with replaced(record.with_suffix(".npz")) as temporary:
        np.savez(temporary, **_arrays(run, inputs, requests))


def described(run: Run, cameras: Float[Tensor, "v 25"]) -> list[dict[str, Any]]:
    """Where cameras stand, and their labels."""
    azimuth, elevation, _ = camera_angles(cameras, run.settings.view_pivot)
    angles = torch.rad2deg(torch.stack([azimuth % (2 * torch.pi), elevation], -1)).tolist()
    return [
        {"azimuth_deg": round(at, 3), "elevation_deg": round(above, 3), "label": label}
        for (at, above), label in zip(angles, cameras.tolist(), strict=True)
    ]


@torch.no_grad()
def _arrays(
    run: Run, inputs: Sequence[Input], requests: Sequence[SceneRequest]
) -> dict[str, np.ndarray]:
    if takes_images(run):
        views = [one.view for one in inputs if isinstance(one.view, ImageView)]
        return {
            "images": torch.cat([view.image.cpu() for view in views]).numpy(),
            "distances": torch.cat([view.distance[:, 0].cpu() for view in views]).numpy(),
        }
    latents = [request_latents(run.generator, one, run.model.label_store) for one in requests]
    arrays = {"foreground": torch.cat([found.foreground for found in latents])}
    behind = [found.background for found in latents if found.background is not None]
    if behind:
        arrays["background"] = torch.cat(behind)
    maps = [one.view.map[0].cpu() for one in inputs if isinstance(one.view, LabelView)]
    if maps:
        arrays["label_maps"] = torch.cat(maps)
    return {name: value.cpu().numpy() for name, value in arrays.items()}


def command_line(name: str, options: Any) -> str:
    """The `gan3d` command with these options, those that have their default values left out."""
    words, positional = ["gan3d", name], []
    for item in dataclasses.fields(options):
        value = getattr(options, item.name)
        if value == item.default:
            continue
        flag = item.name.replace("_", "-")
        if str(item.type).startswith("Positional"):
            positional.append(str(value))
        elif isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(value)]
    # Before options: one with a variable number of values would take them, too.
    return shlex.join([*words[:2], *positional, *words[2:]])
