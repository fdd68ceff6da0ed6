"""The label maps that a command's samples are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from nerfstudio_gan3d.data.datamanager import GanDataManagerConfig
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.label_maps import read_label_maps
from nerfstudio_gan3d.data.palettes import class_colours, colorize
from nerfstudio_gan3d.data.resize import resize_image, resize_label_map
from nerfstudio_gan3d.data.sample_data import bundled_cars
from nerfstudio_gan3d.export.options import SampleOptions, parse_images, parse_inputs
from nerfstudio_gan3d.latents import LabelView
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.run import Run
from nerfstudio_gan3d.viewer.label_files import REST, saved_pose


@dataclass(frozen=True, eq=False)
class Input:
    """A label map, and what files and records call it."""

    name: str
    source: str
    """Where it comes from, for people."""
    view: LabelView


def chosen_inputs(run: Run, options: SampleOptions) -> list[Input]:
    """The label maps that options name, or the first kept one; none for a model without labels.

    Raises:
        ValueError: If the model has no labels and options name a map, or a map cannot be had.
    """
    for name in ("inputs", "images", "input"):
        if getattr(options, name) is not None:
            run.labels(f"--{name}")
    if run.generator.labels is None:
        return []
    named = options.images is not None or options.input is not None
    numbers = options.inputs or ("" if named else "0")
    found = [
        Input(f"input{number:04d}", f"kept label map {number}", run.label_view(number))
        for number in (parse_inputs(numbers) if numbers else ())
    ]
    if options.images is not None:
        found += image_inputs(run, parse_images(options.images))
    if options.input is not None:
        angles = options.input_azimuth, options.input_elevation
        view, source = run.label_view(options.input, *angles), str(options.input)
        if angles == (None, None) and saved_pose(options.input) is not None:
            source += f", seen from where {REST} beside it says"
        found.append(Input("own", source, view))
    return found


def data_set(run: Run) -> ImageSet:
    """The data set that the run learned from; raises DataError if it is not there any more."""
    data = run.config.pipeline.datamanager
    assert isinstance(data, GanDataManagerConfig)
    path = data.data or data.dataparser.data
    return ImageSet(bundled_cars() if path is None else path)


def image_inputs(run: Run, positions: Sequence[int]) -> list[Input]:
    """Label maps of images of the run's data set, seen from the images' cameras.

    Raises:
        DataError: If the data set is gone, has no such image, or no cameras or label maps.
    """
    labels = run.labels("--images")
    images = data_set(run)
    for position in positions:
        if position >= len(images):
            raise DataError(
                f"--images has {position}; {images.path} has {len(images)} images, 0 to "
                f"{len(images) - 1}"
            )
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
        )
        for row, position in enumerate(positions)
    ]


def input_picture(
    view: LabelView, labels: LabelConfig, size: int
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """A label map in the colours of its classes, without new ones between them; edges are grey."""
    values = view.map[0, 0].cpu().numpy()
    if labels.kind == "edge":
        return np.repeat(resize_image(values[..., None], size), 3, axis=-1)
    return colorize(resize_label_map(values, size), class_colours(labels))
