"""The command `gan3d reconstruct`: one photograph to views, a film, a mesh and a run.

`gan3d generate` goes on with `write_scene`, too.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.export.arcs import around
from nerfstudio_gan3d.export.cut import cut_off
from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.grid import cells_along_depth
from nerfstudio_gan3d.export.inputs import (
    content_of,
    depth_beside,
    image_settings,
    photo_view,
    plane_behind,
)
from nerfstudio_gan3d.export.level import NoSurfaceError
from nerfstudio_gan3d.export.mesh import describe, extract_mesh, write_mesh
from nerfstudio_gan3d.export.pictures import (
    block,
    color_depth,
    depth_range,
    table,
    tiles,
    write_png,
    write_video,
)
from nerfstudio_gan3d.export.reconstruct_options import ReconstructOptions, SceneOptions
from nerfstudio_gan3d.export.record import command_line, described
from nerfstudio_gan3d.export.splat_files import write_splats
from nerfstudio_gan3d.export.splat_views import scene_views, splat_psnr, surroundings
from nerfstudio_gan3d.export.splats import TRAINING_VIEWS, Splats, make_splats
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.g3dr import G3drModel, G3drModelConfig
from nerfstudio_gan3d.models.settings import plain_settings
from nerfstudio_gan3d.pretrained import DATA, check_empty, unpacked_config, write_run
from nerfstudio_gan3d.run import CONFIG_NAME, MODEL_PREFIX, Run, load_run
from nerfstudio_gan3d.scene import Scene
from nerfstudio_gan3d.training.checkpoints import read_checkpoint
from nerfstudio_gan3d.viewer.image_files import estimate_depth, make_view, read_photo

OUTPUTS = ("rgb", "depth")
FRAMES_PER_SECOND = 40


def reconstruct(options: ReconstructOptions) -> str:
    """Makes a Scene of a photograph and writes what options ask for; returns sentences about it.

    Raises:
        ValueError: If the run is not of a method that takes images, the photograph or its depth
            cannot be used, or a file cannot be written.
    """
    options.validate()
    run = load_run(options.load_config)
    settings = image_settings(run)
    if options.run:
        check_empty(options.output / "run")
    view, source = photograph(options, settings)
    made_of = {"command": command_line("reconstruct", options), "depth": source}
    return write_scene(run, options, view, made_of)


def write_scene(run: Run, options: SceneOptions, view: ImageView, made_of: dict[str, Any]) -> str:
    """Writes what options ask for of an image's Scene; returns sentences about it.

    Args:
        run: Of a method that takes images.
        options: What to write, and where.
        view: The image with its depth.
        made_of: Where both are from, for the record.

    Raises:
        ValueError: If there is no surface to make a mesh of, or a file cannot be written.
    """
    settings = image_settings(run)
    middle = settings.view_radius
    view = replace(view, distance=middle + (view.distance - middle) * options.relief)
    scene = run.scene(SceneRequest(image=view))
    # What there may be nothing to make of comes before the first file.
    mesh = splats = None
    if options.mesh != "none":
        mesh = scene_mesh(run, scene, options.resolution, options.behind)
    if options.splats != "none":
        splats = scene_splats(run, scene, options.behind)
    told = [_views(run, options, settings, scene, view)]
    if options.frames:
        file = options.output / "orbit.mp4"
        cameras = around(settings, options.frames)
        frames = (block(tiles(run, scene, one, OUTPUTS, options.size)) for one in cameras.split(1))
        write_video(frames, file, FRAMES_PER_SECOND)
        told.append(f"{file}: {options.frames} frames, rgb and depth")
    if mesh is not None:
        file = options.output / f"mesh.{options.mesh}"
        write_mesh(mesh, file)
        told.append(f"{file}: {describe(mesh)}")
    if splats is not None:
        file = options.output / f"splats.{options.splats}"
        gaussians, alike = splats
        write_splats(gaussians, file, comments=[f"made by {made_of['command']}"])
        told.append(f"{file}: {len(gaussians)} splats, PSNR {alike:.1f} dB from held-out views")
    if options.run:
        folder = options.output / "run"
        write_scene_run(run, view, folder)
        told.append(f"{folder}: look at it with ns-viewer --load-config {folder / CONFIG_NAME}")
    record = options.output / "reconstruction.json"
    views = described(run, _cameras(settings, options))
    content: dict[str, Any] = {
        **made_of,
        "run": str(run.folder),
        "checkpoint": run.checkpoint.name,
        "method": run.config.method_name,
        "images_seen": run.images_seen,
        "depth_range": list(settings.depth_range),
        "relief": options.relief,
        # Angles as they were asked for, and as the files are named.
        "views": [
            {**view, "azimuth_deg": angle}
            for view, angle in zip(views, options.angles(), strict=True)
        ],
    }
    with replaced(record) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return "\n".join(told)


def photograph(options: ReconstructOptions, settings: G3drModelConfig) -> tuple[ImageView, str]:
    """The photograph with its depth, and where the depth is from.

    Raises:
        DataError: If one of them cannot be used, or there is neither depth nor a network for it.
    """
    file = options.depth or depth_beside(options.image)
    if file is not None:
        return photo_view(options.image, file, settings), str(file)
    # Only this needs transformers, which takes a while to import.
    from nerfstudio_gan3d.data.estimators import DepthEstimator

    photo = read_photo(content_of(options.image), str(options.image))
    estimator = DepthEstimator(options.depth_model, options.depth_kind)
    photo, depth = estimate_depth(photo, estimator)
    view = make_view(photo, depth, settings.image_resolution, settings.depth_range)
    return view, f"estimated by {options.depth_model}"


def _cameras(settings: G3drModelConfig, options: SceneOptions) -> Float[Tensor, "v 25"]:
    azimuth = torch.deg2rad(torch.tensor(options.angles()))
    elevation = torch.full_like(azimuth, math.radians(options.elevation))
    return orbit_labels(azimuth, elevation, settings.view_radius, focal=settings.view_focal)


def _views(
    run: Run,
    options: SceneOptions,
    settings: G3drModelConfig,
    scene: Scene,
    view: ImageView,
) -> str:
    """Writes the input and all views side by side, and each view in a file of its own."""
    cameras = _cameras(settings, options).to(run.device)
    pictures = tiles(run, scene, cameras, OUTPUTS, options.size)
    for name, images in pictures.items():
        for angle, picture in zip(options.angles(), images, strict=True):
            write_png(picture, options.output / f"{name}_{angle:+.0f}.png")
    side = settings.image_resolution
    given = view.image[0].permute(1, 2, 0).cpu().numpy()
    depth = view.distance.permute(0, 2, 3, 1)
    depth = color_depth(depth, torch.ones_like(depth), depth_range(run))[0]
    write_png(block({"rgb": given[None], "depth": depth[None]}), options.output / "input.png")
    sheet = options.output / "views.png"
    rows = [[block({name: images})] for name, images in pictures.items()]
    if options.size in (None, side):
        write_png(table([given, depth], rows), sheet)
    else:
        write_png(block(pictures), sheet)
    return f"{sheet}: {len(cameras)} views"


def scene_splats(run: Run, scene: Scene, behind: float | None) -> tuple[Splats, float]:
    """The Scene as splats, without what lies farther ``behind`` the origin (half sides of the box)
    where that is given, and how alike both look from held-out views, dB.

    Raises:
        ValueError: If there is no surface, or none is left.
    """
    section, settings = surroundings(run.settings), run.generator.settings
    limit = None if behind is None else plane_behind(run, behind, "--behind")
    cameras = section.training(TRAINING_VIEWS)
    splats = make_splats(
        scene, settings, cameras, behind=limit, device=run.device, one_sided=section.one_sided
    )
    cameras = section.held_out().to(run.device)
    pictures = scene_views(scene, settings, cameras, behind=limit)
    return splats, float(splat_psnr(splats, cameras, pictures).mean())


def scene_mesh(run: Run, scene: Scene, resolution: int, behind: float | None) -> trimesh.Trimesh:
    """The Scene's surface, with ``resolution`` cells along the box's depth; of what lies no farther
    ``behind`` the origin (half sides of the box) its largest part, where that is given.

    Raises:
        ValueError: If there is no surface, or none is left.
    """
    cells = cells_along_depth(scene.bounds.box, resolution)
    if behind is None:
        return extract_mesh(scene, cells, device=run.device)
    front = cut_off(scene, plane_behind(run, behind, "--behind"))
    try:
        return extract_mesh(front, cells, largest_component=True, device=run.device)
    except NoSurfaceError as error:
        raise NoSurfaceError(f"--behind is {behind}; before it {error}") from error


def write_scene_run(run: Run, view: ImageView, folder: Path) -> None:
    """Writes a run whose kept images are all this one; for looking at, not for training.

    Raises:
        ValueError: If the folder is not empty.
    """
    check_empty(folder)
    target = folder.expanduser().absolute()
    settings = cast(G3drModelConfig, run.settings)
    method = run.config.method_name
    assert method is not None
    config = unpacked_config(run.folder, method, plain_settings(settings), target)
    # A place without images: cameras of the checkpoint stand in for those of a data set.
    config.pipeline.datamanager.data = target / "images"
    model = cast(G3drModel, run.model)
    state = {MODEL_PREFIX + name: value.cpu() for name, value in model.state_dict().items()}
    shown = copy.deepcopy(model.images)
    shown.fill(view.image.to(run.device), view.distance.to(run.device))
    for name, value in shown.state_dict().items():
        state[f"{MODEL_PREFIX}image_store.{name}"] = value.cpu()
    saved = read_checkpoint(run.checkpoint)["pipeline"]
    state |= {name: value for name, value in saved.items() if name.startswith(DATA)}
    write_run(config, {"step": run.step, "pipeline": state, "inference_only": True})
