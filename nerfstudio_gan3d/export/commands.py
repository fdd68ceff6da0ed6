"""The commands `gan3d mesh` and `gan3d sample`: a checkpoint to files."""

from __future__ import annotations

from functools import partial

from nerfstudio_gan3d.data.palettes import Palette, class_colours
from nerfstudio_gan3d.export.cut import cut_off
from nerfstudio_gan3d.export.inputs import (
    check_seedless,
    chosen_inputs,
    one_input,
    photo_square,
    plane_behind,
    takes_images,
)
from nerfstudio_gan3d.export.mesh import describe, extract_mesh, write_mesh
from nerfstudio_gan3d.export.mesh_shape import placed
from nerfstudio_gan3d.export.metadata import picture_text
from nerfstudio_gan3d.export.number_lists import parse_seeds
from nerfstudio_gan3d.export.options import MeshOptions
from nerfstudio_gan3d.export.outputs import parse_outputs
from nerfstudio_gan3d.export.progress import views_bar
from nerfstudio_gan3d.export.record import write_record
from nerfstudio_gan3d.export.sample_options import SampleOptions
from nerfstudio_gan3d.export.seen_colors import seen_colors
from nerfstudio_gan3d.export.sheets import Studio, check_codes, plan
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.run import Run, load_run

SEEDS, LABELLED_SEEDS = "0-15", "0-3"
"""Seeds where nobody names any: for a grid; for the columns behind label maps, and for shapes."""


def mesh(options: MeshOptions) -> str:
    """Writes one sample as a mesh, or those on the way between two; returns a sentence about them.

    Raises:
        ValueError: If the run cannot be loaded, has no surface or not the labels or codes that are
            asked for, or a file cannot be read or written.
    """
    run = load_run(options.load_config)
    if options.appearance_seed is not None:
        check_codes(run, "--appearance-seed")
    palette = class_palette(run) if options.color == "labels" else ()
    check_seedless(run, options)
    beside = options.depth, options.input_azimuth, options.input_elevation
    given = one_input(run, options.given, *beside)
    plane = None if options.behind is None else plane_behind(run, options.behind, "--behind")
    files, told = options.files, []
    for index, file in enumerate(files):
        request = SceneRequest(
            seed=options.seed,
            truncation=options.truncation,
            other_seed=options.to_seed,
            interpolation=index / max(len(files) - 1, 1),
            appearance_seed=options.appearance_seed,
        )
        if given is not None:
            request = given.asked(request)
        scene = run.scene(request)
        found = extract_mesh(
            scene if plane is None else cut_off(scene, plane),
            options.resolution,
            options.level,
            options.color,
            options.largest_component,
            run.device,
            palette,
            extraction=options.extraction,
            normals=options.normals,
            texture=options.texture,
            triangles=options.triangles,
            seen=seen_colors(run, scene) if options.color_from == "views" else None,
        )
        if options.up != "y" or options.longest_side is not None:
            found = placed(found, options.up, options.longest_side)
        write_mesh(found, file)
        told.append(f"{file}: {describe(found)}")
    if options.to_seed is None:
        return told[0]
    return (
        f"{len(files)} meshes from seed {options.seed} to seed {options.to_seed}; the first is "
        f"{told[0]}; the last is {told[-1]}"
    )


def class_palette(run: Run) -> Palette:
    """The colours of a run's classes; ValueError for a run without classes."""
    labels = run.labels("--color labels")
    if labels.kind == "edge":
        raise ValueError(
            f"--color labels: {run.folder} is a run on edge maps, which have no classes; choose "
            "rgb or none"
        )
    return class_colours(labels)


def sample(options: SampleOptions) -> str:
    """Renders samples to a grid, a video, or one file per seed; returns a sentence about them.

    Beside a file ``NAME.png``, ``NAME.mp4`` or ``NAME.gif`` stands ``NAME.json``, in a folder
    ``samples.json``: run and checkpoint, seeds, truncation, label maps, cameras, and the command
    that writes the same again. The latents w, or the images, lie in a file with the ending
    ``.npz`` beside it.

    Raises:
        ValueError: If the run cannot be loaded or has not what options ask for, or a file cannot be
            read or written.
    """
    run = load_run(options.load_config)
    outputs = parse_outputs(options.outputs)
    check_seedless(run, options)
    inputs = chosen_inputs(run, options)
    few = inputs or options.grid is not None or options.truncations is not None
    seeds = parse_seeds(options.seeds or (LABELLED_SEEDS if few else SEEDS))
    rows = plan(run, options, inputs, seeds)
    side = options.size or run.settings.image_resolution
    over = None if options.over is None else photo_square(options.over, side)
    total = sum(len(cell.cameras) for row in rows for cell in row.cells)
    with views_bar(total) as seen:
        text = partial(picture_text, run, options)
        studio = Studio(run, outputs, options.size, over, text, seen)
        if options.one_file:
            files = studio.write(rows, options.output)
        else:
            files = studio.write_each(rows, options.output, ".mp4" if options.is_video else ".png")
    record = options.record
    write_record(run, options, inputs, rows, files, record)
    views = len(rows[0].cells[0].cameras)
    if takes_images(run):
        seen = f"{_many(len(inputs), 'image')} from {_many(views, 'view')}"
        return f"{options.output}: {seen}; described in {record}"
    made = [_many(len(inputs), "label map")] if inputs else []
    made.append(f"{_many(len(seeds), 'seed')} from {_many(views, 'view')}")
    if options.interpolate is not None:
        made[-1] = f"{_many(len(seeds), 'seed')}, {options.interpolate} over {views} frames"
    if options.truncations is not None:
        made[-1] += f" at {_many(len(rows[0].cells), 'truncation')}"
    if options.grid is not None:
        looks = _many(len(rows[0].cells), "appearance")
        made[-1] = f"{_many(len(rows), 'shape')} in {looks} from {_many(views, 'view')}"
    return f"{options.output}: {', '.join(made)}; described in {record}"


def _many(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count > 1)}"
