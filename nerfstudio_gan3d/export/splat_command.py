"""The command `gan3d splats`: a checkpoint to a file of 3D Gaussians."""

from __future__ import annotations

import json
import time
from typing import Any

import torch

from nerfstudio_gan3d.export.commands import class_palette
from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.inputs import check_seedless, one_input, plane_behind
from nerfstudio_gan3d.export.record import command_line, described
from nerfstudio_gan3d.export.sheets import check_codes
from nerfstudio_gan3d.export.splat_files import write_splats
from nerfstudio_gan3d.export.splat_options import SplatOptions
from nerfstudio_gan3d.export.splat_refine import chosen_rasterizer
from nerfstudio_gan3d.export.splat_views import VIEW_SIDE, scene_views, splat_psnr, surroundings
from nerfstudio_gan3d.export.splats import TRAINING_VIEWS, make_splats
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.run import load_run


def splats(options: SplatOptions) -> str:
    """Writes one sample as splats; returns a sentence about them, and how alike they look.

    Raises:
        ValueError: If the run cannot be loaded, has no surface or not what options ask for, there
            is no GPU and gsplat is asked for, or a file cannot be read or written.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rasterizer = chosen_rasterizer(options.rasterizer, device)
    run = load_run(options.load_config, device)
    if options.appearance_seed is not None:
        check_codes(run, "--appearance-seed")
    palette = class_palette(run) if options.color == "labels" else ()
    check_seedless(run, options)
    behind = None if options.behind is None else plane_behind(run, options.behind, "--behind")
    request = SceneRequest(
        seed=options.seed,
        truncation=options.truncation,
        appearance_seed=options.appearance_seed,
    )
    beside = options.depth, options.input_azimuth, options.input_elevation
    given = one_input(run, options.given, *beside)
    if given is not None:
        request = given.asked(request)
    # The sentence about runs that do not say where their cameras stand is there.
    run.orbit([0.0])
    around = surroundings(run.settings)
    scene, settings = run.scene(request).with_background(None), run.generator.settings
    start = time.perf_counter()
    found = make_splats(
        scene,
        settings,
        around.training(TRAINING_VIEWS),
        options.count,
        options.size,
        steps=options.refine_steps,
        resolution=options.resolution,
        level=options.level,
        palette=palette,
        behind=behind,
        device=device,
        rasterizer=rasterizer,
        one_sided=around.one_sided,
    )
    seconds = time.perf_counter() - start
    cameras = around.held_out().to(device)
    pictures = scene_views(scene, settings, cameras, palette=palette, behind=behind)
    alike = splat_psnr(found, cameras, pictures).clamp(max=100).tolist()
    mean, worst = sum(alike) / len(alike), min(alike)
    command = command_line("splats", options)
    comments = [f"made by {command}", f"run of {run.config.method_name}, step {run.step}"]
    write_splats(found, options.output, options.up, comments)
    told = (
        f"{options.output}: {len(found)} splats in {seconds:.1f} s; PSNR {mean:.1f} dB "
        f"(least {worst:.1f}) from {len(alike)} held-out views of {VIEW_SIDE} pixels"
    )
    if options.report is None:
        return told
    content: dict[str, Any] = {
        "command": command,
        "run": str(run.folder),
        "checkpoint": run.checkpoint.name,
        "method": run.config.method_name,
        "images_seen": run.images_seen,
        "splats": len(found),
        "seconds": round(seconds, 3),
        "rasterizer": rasterizer if options.refine_steps else None,
        "psnr": round(mean, 3),
        "psnr_least": round(worst, 3),
        "view_size": VIEW_SIDE,
        "views": [
            {**view, "psnr": round(value, 3)}
            for view, value in zip(described(run, cameras), alike, strict=True)
        ],
    }
    with replaced(options.report) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return f"{told}; described in {options.report}"
