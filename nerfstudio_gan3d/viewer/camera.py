"""The viewer's first camera: it frames the object as the data set's cameras do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import object_to_nerfstudio, orbit_labels

# nerfstudio's viewer shows its world ten times larger (`VISER_NERFSTUDIO_SCALE_RATIO`; importing it
# would import the whole viewer into every command).
VIEWER_SCALE = 10.0

AZIMUTH_DEG = 30.0
ELEVATION_DEG = 15.0


@dataclass(frozen=True)
class ViewerCamera:
    """A camera of the browser's viewer: its world is nerfstudio's (z up) times `VIEWER_SCALE`."""

    position: tuple[float, float, float]
    """Where the camera stands."""
    look_at: tuple[float, float, float]
    """What it looks at, and what the mouse orbits about."""
    fov: float
    """Vertical field of view in radians."""


def first_camera(
    radius: float, pivot: tuple[float, float, float], focal: float, aspect: float
) -> ViewerCamera:
    """A three-quarter view of the pivot, framed like the training images.

    Args:
        radius: distance from the pivot, object-world units. pivot: point looked at, object-world
        units. focal: focal length in image sides. aspect: width of the browser's canvas divided by
        its height. The shorter side of the canvas shows
            what a training image shows.

    Raises:
        ValueError: If radius, focal or aspect is not positive.
    """
    for name, value in (("radius", radius), ("focal", focal), ("aspect", aspect)):
        if value <= 0:
            raise ValueError(f"viewer camera: {name} = {value}, but it must be positive")
    angles = torch.deg2rad(torch.tensor([[AZIMUTH_DEG], [ELEVATION_DEG]], dtype=torch.float64))
    return camera_at(orbit_labels(angles[0], angles[1], radius, pivot, focal), pivot, aspect)


def camera_at(
    pose: Float[Tensor, "1 25"], pivot: tuple[float, float, float], aspect: float
) -> ViewerCamera:
    """The viewer's camera that stands where a camera label's does and looks at the pivot.

    Args:
        pose: its focal length is that of the shorter side of the canvas.
        pivot: point looked at, object-world units.
        aspect: width of the browser's canvas divided by its height.
    """
    rotation = object_to_nerfstudio().double() * VIEWER_SCALE
    position = rotation @ pose[0, [3, 7, 11]].double()
    target = rotation @ torch.tensor(pivot, dtype=torch.float64)
    fov = 2 * math.atan(0.5 / (float(pose[0, 16]) * min(aspect, 1.0)))
    return ViewerCamera(_triple(position), _triple(target), fov)


def _triple(vector: torch.Tensor) -> tuple[float, float, float]:
    x, y, z = vector.tolist()
    return x, y, z
