"""What an image with depth shows from elsewhere: its pixels carried along (depth-image-based
rendering)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays, project

FINENESS = 3
"""Points a pixel that are carried along each of the image's axes: more than one, so that what comes
nearer is not left with holes."""


class Warped(NamedTuple):
    """An image as another camera sees it, as far as the image shows that."""

    image: Float[Tensor, "b c h w"]
    """0 where nothing is known."""
    distance: Float[Tensor, "b 1 h w"]
    """Along the pixels' rays; 0 where nothing is known."""
    known: Bool[Tensor, "b 1 h w"]
    """Which pixels see what the image shows."""


def depth_warp(
    image: Float[Tensor, "b c h w"],
    distance: Float[Tensor, "b 1 h w"],
    source: Float[Tensor, "b 25"],
    target: Float[Tensor, "b 25"],
    tolerance: float,
) -> Warped:
    """The image, with its known distances, as the target camera sees it.

    The image's pixels become points (Fehn 2004, "depth-image-based rendering"), and each pixel of
    the target takes the nearest of those that fall into it. Its colour is then read where its
    centre is seen in the image, bilinearly. Unknown are pixels without a point, such whose point
    lies behind that of a neighbour (it may shine through between the points of something nearer),
    and such as the image does not confirm.

    Args:
        image: seen by ``source``; any channels.
        distance: along its pixels' rays, object-world units, over 0.
        source: camera labels (OpenCV camera-to-world, normalised intrinsics), one per image.
        target: camera labels of the new view.
        tolerance: by how much distances of one surface may differ between neighbours and between
            the views, object-world units.

    Raises:
        ValueError: distances that are not positive.
    """
    if not bool((distance > 0).all()):
        raise ValueError(
            f"a distance of {float(distance.min())}; what is warped needs one over 0 everywhere"
        )
    height, width = image.shape[2:]
    source, target = source.to(image), target.to(image)
    fine = height * FINENESS, width * FINENESS
    origins, directions = pixel_rays(source, *fine)
    points = origins + directions * _refined(distance, fine, tolerance).flatten(2).mT
    place, depth = project(target, points)
    inside = ((place >= 0) & (place < 1)).all(-1) & (depth > 0).flatten(1)
    column, row = (
        (place[..., axis] * size).long().clamp(0, size - 1)
        for axis, size in ((0, width), (1, height))
    )
    away = (points - target[:, None, [3, 7, 11]]).norm(dim=-1)
    away = torch.where(inside, away, torch.inf)
    nearest = torch.full_like(distance, torch.inf).flatten(1)
    nearest = nearest.scatter_reduce(1, row * width + column, away, "amin")
    nearest = nearest.unflatten(1, (1, height, width))
    around = -F.max_pool2d(-nearest, 3, 1, 1)
    known = nearest.isfinite() & (nearest <= around + tolerance)
    found = torch.where(known, nearest, 1.0)
    origins, directions = pixel_rays(target, height, width)
    points = origins + directions * found.flatten(2).mT
    place, _ = project(source, points)
    grid = (2 * place - 1).unflatten(1, (height, width))
    there = F.grid_sample(
        distance, grid, mode="nearest", padding_mode="border", align_corners=False
    )
    away = (points - source[:, None, [3, 7, 11]]).norm(dim=-1).unflatten(1, (1, height, width))
    seen = ((place >= 0) & (place <= 1)).all(-1).unflatten(1, (1, height, width))
    known = known & seen & ((there - away).abs() <= tolerance)
    colour = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return Warped(torch.where(known, colour, 0.0), torch.where(known, nearest, 0.0), known)


def _refined(
    distance: Float[Tensor, "b 1 h w"], size: tuple[int, int], tolerance: float
) -> Float[Tensor, "b 1 h2 w2"]:
    """Distances between pixels: bilinear on a surface, the nearest pixel's where it ends."""
    smooth = F.interpolate(distance, size, mode="bilinear", align_corners=False)
    plain = F.interpolate(distance, size, mode="nearest-exact")
    return torch.where((smooth - plain).abs() <= tolerance, smooth, plain)
