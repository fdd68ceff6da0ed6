"""Depth of real images as methods learn from it: distances along the rays of their cameras."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from nerfstudio_gan3d.cameras import axis_cosine, pixel_rays
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.resize import resize_depth, resize_image, resize_relative_depth

DEPTH_RANGE = (4.0, 6.0)
"""Distances at which G3DR puts the nearest and the farthest point of an image."""


def check_depth(image_set: ImageSet, depth_range: tuple[float, float] = DEPTH_RANGE) -> None:
    """Whether a set can serve a method that reads depth; no pixel is read.

    Args:
        image_set: the set.
        depth_range: see `read_distance`.

    Raises:
        DataError: the set has no depth, or depth without camera labels.
        ValueError: a range that is none.
    """
    near, far = depth_range
    if not 0 < near < far < math.inf:
        raise ValueError(
            f"depth_range = ({near:g}, {far:g}): give two positive distances, the nearer first"
        )
    if image_set.depth_kind == "none":
        raise DataError(
            f"{image_set.path}: the set has no depth, but the method learns from it; add depth/ "
            "beside the images (z-depth), or NAME_depth.png beside each image NAME.jpg: "
            "`gan3d prepare` writes such a set from photographs"
        )
    if image_set.labels is None:
        raise DataError(
            f"{image_set.path}: the set has depth but no camera labels; "
            + (
                "the data parser gan3d-rgbd gives each of its images the same camera: choose that"
                if image_set.depth_kind == "relative"
                else "they tell the distance along a ray: add dataset.json"
            )
        )


def read_distance(
    image_set: ImageSet, index: int, resolution: int, depth_range: tuple[float, float] = DEPTH_RANGE
) -> Float32[np.ndarray, "{resolution} {resolution}"]:
    """Distance from the camera's centre to what each pixel of an image shows, object-world units.

    z-depth: ``distance = z / cosine(ray, optical axis)``, with the image's own camera; background
    is 0. Relative depth: ``near + value * (far - near)``, and there is no background.

    Args:
        image_set: a set that `check_depth` accepts.
        index: position in the set.
        resolution: side in pixels.
        depth_range: near and far of relative depth.

    Raises:
        DataError: the file cannot be used.
    """
    if image_set.depth_kind == "relative":
        near, far = depth_range
        value = resize_relative_depth(image_set.relative_depth(index), resolution)
        return (near + value * (far - near)).astype(np.float32)
    depth = resize_depth(image_set.depth(index), resolution)
    assert image_set.labels is not None
    cosine = _cosines(image_set.labels[index, None].double(), resolution)
    return (depth / cosine.numpy()).astype(np.float32)


def read_rgbd(
    image_set: ImageSet,
    indices: Sequence[int],
    resolution: int,
    depth_range: tuple[float, float] = DEPTH_RANGE,
) -> tuple[
    UInt8[Tensor, "n 3 {resolution} {resolution}"],
    Float32[Tensor, "n 1 {resolution} {resolution}"],
    Float32[Tensor, "n 25"],
]:
    """RGB, distances (see `read_distance`) and camera labels of several images.

    Raises:
        DataError: the set has no depth or no camera labels, or a file cannot be used.
        ValueError: a range that is none.
    """
    check_depth(image_set, depth_range)
    assert image_set.labels is not None
    pixels = np.zeros((len(indices), resolution, resolution, 3), np.uint8)
    distances = np.zeros((len(indices), 1, resolution, resolution), np.float32)
    for place, index in enumerate(indices):
        pixels[place] = resize_image(image_set.image(index), resolution)
        distances[place, 0] = read_distance(image_set, index, resolution, depth_range)
    rgb = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return rgb, torch.from_numpy(distances), image_set.labels[list(indices)]


def _cosines(label: Float[Tensor, "1 25"], resolution: int) -> Float[Tensor, "r r"]:
    _, directions = pixel_rays(label, resolution, resolution)
    return axis_cosine(label, directions).reshape(resolution, resolution)
