"""What a command's samples are made from: label maps, or images with depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.data.datamanager import GanDataManagerConfig
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.depth import read_rgbd
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.label_maps import read_label_maps
from nerfstudio_gan3d.data.layout import DEPTH_ENDING
from nerfstudio_gan3d.data.palettes import class_colours, colorize
from nerfstudio_gan3d.data.prepare import centre_square
from nerfstudio_gan3d.data.resize import resize_image, resize_label_map
from nerfstudio_gan3d.data.sample_data import bundled_cars
from nerfstudio_gan3d.export.given import check_behind
from nerfstudio_gan3d.export.number_lists import parse_images, parse_inputs
from nerfstudio_gan3d.export.sample_options import SampleOptions
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.latents import LabelView, SceneRequest
from nerfstudio_gan3d.models.g3dr import G3drModelConfig
from nerfstudio_gan3d.models.reconstruction import with_wall
from nerfstudio_gan3d.run import Run
from nerfstudio_gan3d.viewer.image_files import make_view, read_depth, read_photo
from nerfstudio_gan3d.viewer.label_files import REST, saved_pose

SEED_OPTIONS = (
    "seed",
    "seeds",
    "truncation",
    "truncations",
    "to_seed",
    "appearance_seed",
    "appearance_seeds",
    "mix_seed",
    "grid",
    "interpolate",
)
"""Options that mean nothing to a model whose Scenes are made of images."""


@dataclass(frozen=True, eq=False)
class Input:
    """A label map, or an image with depth, and what files and records call it."""

    name: str
    source: str
    """Where it comes from, for people."""
    view: LabelView | ImageView
    pose: Float[Tensor, "1 25"]
    """Where it is seen from, camera label."""

    def asked(self, request: SceneRequest) -> SceneRequest:
        """The request for a Scene that is made of this, and is otherwise the given one."""
        if isinstance(self.view, ImageView):
            return dataclasses.replace(request, image=self.view)
        return dataclasses.replace(request, label=self.view)


def takes_images(run: Run) -> bool:
    """Whether the run's Scenes are made of images with depth."""
    return isinstance(run.settings, G3drModelConfig)


def image_settings(run: Run, asked: str = "") -> G3drModelConfig:
    """The settings of a run whose Scenes are made of images.

    Raises:
        ValueError: For another one; the sentence begins with what was ``asked`` for.
    """
    if not isinstance(run.settings, G3drModelConfig):
        before = f"{asked}: " if asked else ""
        raise ValueError(
            f"{before}{run.folder} is a run of {run.config.method_name}, whose Scenes are not made "
            "of photographs; open one of gan3d-g3dr or gan3d-g3dr-tiny"
        )
    return run.settings


def plane_behind(run: Run, behind: float, name: str) -> float:
    """Where, along z in object-world units, Scenes that are made of images are cut off.

    Args:
        run: Of the Scenes.
        behind: How far behind the origin, in half sides of the box.
        name: What the user knows it by.

    Raises:
        ValueError: If it lies outside of the box, or the Scenes are not made of images.
    """
    check_behind(name, behind)
    return -behind * image_settings(run, name).box[2] / 2


def check_seedless(run: Run, options: Any) -> None:
    """Raises ValueError if options name seeds, or what seeds decide, and the run has none."""
    if not takes_images(run):
        return
    for item in dataclasses.fields(options):
        if item.name in SEED_OPTIONS and getattr(options, item.name) != item.default:
            raise ValueError(
                f"--{item.name.replace('_', '-')}: {run.folder} is a run of "
                f"{run.config.method_name}, a method without seeds, whose Scenes are made of "
                "images; leave it out, and name an image with --input"
            )


def chosen_inputs(run: Run, options: SampleOptions) -> list[Input]:
    """The label maps or images that options name, or the first kept one; none for a model without.

    Raises:
        ValueError: If the model takes neither and options name one, or one cannot be had.
    """
    for name in ("inputs", "images", "input"):
        if getattr(options, name) is not None:
            check_takes_input(run, f"--{name}")
    if not takes_images(run) and run.generator.labels is None:
        check_beside(run, options.depth, options.input_azimuth, options.input_elevation)
        return []
    named = options.images is not None or options.input is not None
    numbers = options.inputs or ("" if named else "0")
    found = [kept_input(run, number) for number in (parse_inputs(numbers) if numbers else ())]
    if options.images is not None:
        found += image_inputs(run, parse_images(options.images))
    beside = options.depth, options.input_azimuth, options.input_elevation
    if options.input is not None:
        chosen = one_input(run, options.input, *beside)
        assert chosen is not None
        found.append(chosen)
    return found


def one_input(
    run: Run,
    given: int | Path | None,
    depth: Path | None = None,
    azimuth_deg: float | None = None,
    elevation_deg: float | None = None,
) -> Input | None:
    """The one label map or image that a sample is made from; None for a model that takes neither.

    Args:
        run: The run.
        given: Number of a kept one, or a file; None is the first kept one.
        depth: Of an image's file; None is NAME_depth.png beside it.
        azimuth_deg: Where a label map's file is seen from, as `Run.label_view` takes it.
        elevation_deg: The same.

    Raises:
        ValueError: If the model takes neither and one is given, it cannot be had, or what is said
            beside it does not go with the model.
    """
    check_beside(run, depth, azimuth_deg, elevation_deg)
    if given is not None:
        check_takes_input(run, "--input")
    elif not takes_images(run) and run.generator.labels is None:
        return None
    if given is None or isinstance(given, int):
        return kept_input(run, given or 0)
    if takes_images(run):
        return photo_input(run, given, depth)
    view, source = run.label_view(given, azimuth_deg, elevation_deg), str(given)
    if (azimuth_deg, elevation_deg) == (None, None) and saved_pose(given) is not None:
        source += f", seen from where {REST} beside it says"
    return Input("own", source, view, view.pose)


def check_takes_input(run: Run, asked: str) -> None:
    """Raises ValueError for a run that takes neither label maps nor images; the sentence begins
    with what was ``asked`` for."""
    if not takes_images(run):
        run.labels(asked)


def check_beside(
    run: Run, depth: Path | None, azimuth_deg: float | None, elevation_deg: float | None
) -> None:
    """Raises ValueError for what is said of a file and does not go with the run's method."""
    if depth is not None:
        image_settings(run, "--depth")
    for name, angle in (("azimuth", azimuth_deg), ("elevation", elevation_deg)):
        if angle is not None and takes_images(run):
            raise ValueError(
                f"--input-{name}: {run.folder} is a run of {run.config.method_name}, which takes "
                "every image to be seen from one camera; leave it out"
            )


def kept_input(run: Run, number: int) -> Input:
    """A label map or an image that the checkpoint keeps; raises ValueError for a number that it
    does not."""
    if takes_images(run):
        assert run.model.image_store is not None
        image = run.model.image_store.view(number)
        return Input(f"input{number:04d}", f"kept image {number}", image, canonical(run))
    view = run.label_view(number)
    return Input(f"input{number:04d}", f"kept label map {number}", view, view.pose)


def photo_input(run: Run, file: Path, depth: Path | None) -> Input:
    """An image of the user's own with its depth.

    Raises:
        DataError: If one of them is missing or cannot be used.
    """
    settings = image_settings(run)
    given = depth or depth_beside(file)
    if given is None:
        raise DataError(
            f"{file}: there is no {file.stem}{DEPTH_ENDING} beside it; name its depth with --depth "
            "(16-bit grey PNG, small is near), or let gan3d reconstruct estimate it"
        )
    view = photo_view(file, given, settings)
    return Input("own", f"{file}, depth {given}", view, canonical(run))


def photo_view(file: Path, depth: Path, settings: G3drModelConfig) -> ImageView:
    """An image's file and its depth's as Scenes are made of them; raises DataError if one of them
    cannot be used."""
    photo = read_photo(content_of(file), str(file))
    values = read_depth(content_of(depth), str(depth))
    return make_view(photo, values, settings.image_resolution, settings.depth_range)


def photo_square(file: Path, side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """The largest square in the middle of a photograph, upright; raises DataError if it cannot be
    read."""
    pixels = read_photo(content_of(file), str(file)).pixels
    height, width = pixels.shape[:2]
    return resize_image(pixels[centre_square(height, width).clipped(height, width)], side)


def depth_beside(file: Path) -> Path | None:
    """The depth NAME_depth.png that lies beside an image, if it does."""
    beside = file.with_name(f"{file.stem}{DEPTH_ENDING}")
    return beside if beside.is_file() else None


def content_of(file: Path) -> bytes:
    """A file's bytes; raises DataError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error


def canonical(run: Run) -> Float[Tensor, "1 25"]:
    """The camera that all images are taken to be seen from."""
    return run.orbit([0.0], 0.0)


def data_set(run: Run) -> ImageSet:
    """The data set that the run learned from; raises DataError if it is not there any more."""
    data = run.config.pipeline.datamanager
    assert isinstance(data, GanDataManagerConfig)
    path = data.data or data.dataparser.data
    return ImageSet(bundled_cars() if path is None else path)


def image_inputs(run: Run, positions: Sequence[int]) -> list[Input]:
    """Images of the run's data set with their depth, or their label maps, seen from the images'
    cameras.

    Raises:
        DataError: If the data set is gone, has no such image, or no cameras, label maps or depth.
    """
    images = data_set(run)
    for position in positions:
        if position >= len(images):
            raise DataError(
                f"--images has {position}; {images.path} has {len(images)} images, 0 to "
                f"{len(images) - 1}"
            )
    if takes_images(run):
        return _images_with_depth(run, images, positions)
    labels = run.labels("--images")
    if images.labels is None:
        raise DataError(
            f"{images.path}: the set has no camera labels, so that nobody knows where its label "
            "maps are seen from; use --inputs, or --input with its angles"
        )
    side = run.settings.image_resolution
    maps = read_label_maps(images, positions, labels.kind, labels.channels, side).to(run.device)
    poses = torch.as_tensor(images.labels)[list(positions)].to(run.device)
    return [
        Input(
            f"image{position:04d}",
            images.file(position, "label"),
            LabelView(maps[row : row + 1], poses[row : row + 1]),
            poses[row : row + 1],
        )
        for row, position in enumerate(positions)
    ]


def _images_with_depth(run: Run, images: ImageSet, positions: Sequence[int]) -> list[Input]:
    settings, pose = image_settings(run), canonical(run)
    if images.depth_kind == "relative":
        # Files of relative depth come without cameras: every image has the same one.
        images = ImageSet(images.path, pose.cpu())
    pixels, distances, _ = read_rgbd(
        images, positions, settings.image_resolution, settings.depth_range
    )
    behind = with_wall(run.generator, distances.to(run.device), settings.wall).cpu()
    return [
        Input(
            f"image{position:04d}",
            images.file(position, "image"),
            ImageView(pixels[row : row + 1], behind[row : row + 1]),
            pose,
        )
        for row, position in enumerate(positions)
    ]


def input_picture(
    run: Run, view: LabelView | ImageView, size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """An image, or a label map in the colours of its classes, without new ones between them; edges
    are grey."""
    if isinstance(view, ImageView):
        return resize_image(view.image[0].permute(1, 2, 0).cpu().numpy(), size)
    labels = run.labels()
    values = view.map[0, 0].cpu().numpy()
    if labels.kind == "edge":
        return np.repeat(resize_image(values[..., None], size), 3, axis=-1)
    return colorize(resize_label_map(values, size), class_colours(labels))
