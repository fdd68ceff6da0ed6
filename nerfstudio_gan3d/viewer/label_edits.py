"""What painting on a label map is made of: cameras, strokes, and a history. Plain torch.

Points on a map are in pixels, (0, 0) is the outer corner of the first one; points in the world are
in object-world units.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.cameras import camera_angles, orbit_labels, project
from nerfstudio_gan3d.rendering.finishing import Rendering

T = TypeVar("T")

SOLID = 0.5
"""Opacity from which on a ray has met the thing, as in the output ``depth``."""


def edit_pose(
    camera: Float[Tensor, "1 25"], radius: float, pivot: tuple[float, float, float], focal: float
) -> Float[Tensor, "1 25"]:
    """The camera of a label map that is painted from where ``camera`` stands.

    The encoder knows label maps from the data set's cameras. So of the user's camera only the
    direction from the pivot is kept; distance and focal length are the data set's, the image is
    square, looks at the pivot and is upright.

    Raises:
        ValueError: The camera stands at the pivot itself.
    """
    azimuth, elevation, distance = camera_angles(camera, pivot)
    if float(distance) < 1e-6 * radius:
        raise ValueError(
            "the camera stands inside of the point that it turns about; move it back to paint"
        )
    return orbit_labels(azimuth, elevation, radius, pivot, focal)


def angle_between(
    first: Float[Tensor, "1 25"],
    second: Float[Tensor, "1 25"],
    pivot: tuple[float, float, float],
) -> float:
    """Angle in degrees between two cameras as the pivot sees them; 180 for one at the pivot."""
    a, b = (pose[0, [3, 7, 11]].double() - torch.tensor(pivot).double() for pose in (first, second))
    if min(float(a.norm()), float(b.norm())) < 1e-6:
        return 180.0
    # The sine and the cosine together keep small angles exact.
    sine, cosine = torch.linalg.cross(a, b).norm(), a @ b
    return math.degrees(math.atan2(float(sine), float(cosine)))


def surface_distance(
    found: Rendering,
    origins: Float[Tensor, "1 r 3"],
    directions: Float[Tensor, "1 r 3"],
    pivot: tuple[float, float, float],
) -> Float[Tensor, "r"]:
    """Distances at which rays of one Scene meet the thing; those that miss it meet the plane
    through the pivot that faces their origin. NaN for rays that lead away from both."""
    towards = origins.new_tensor(pivot) - origins[0]
    distance = towards.norm(dim=-1)
    cosine = (directions[0] * towards).sum(-1) / distance
    plane = torch.where(cosine > 1e-3, distance / cosine, torch.nan)
    solid = found.accumulation[0, :, 0] > SOLID
    return torch.where(solid, found.foreground_distance[0, :, 0], plane)


def inside_rectangle(
    points: Float[Tensor, "n 3"],
    camera: Float[Tensor, "1 25"],
    low: tuple[float, float],
    high: tuple[float, float],
) -> Bool[Tensor, "n"]:
    """Which points a camera sees between two corners of its image (0..1)."""
    places, depth = project(camera.to(points), points[None])
    corners = places.new_tensor([low, high])
    return (((places >= corners[0]) & (places <= corners[1])).all(-1) & (depth > 0))[0]


def line_mask(
    side: int, start: tuple[float, float], end: tuple[float, float], width: int
) -> Bool[Tensor, "side side"]:
    """Pixels that a round brush covers on its way from start to end, both (x, y) in pixels.

    A pixel is covered if its middle is within half a width of the way. The pixels that hold the two
    ends always are, and lines have no gaps however thin the brush is. What lies outside of the map
    is left out.
    """
    middle = torch.arange(side, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    a, b = (torch.tensor(point, dtype=torch.float64) for point in (start, end))
    way = b - a
    length = float(way @ way)
    share = torch.zeros_like(x)
    if length > 0:
        share = (((x - a[0]) * way[0] + (y - a[1]) * way[1]) / length).clamp(0, 1)
    squared = (x - a[0] - share * way[0]) ** 2 + (y - a[1] - share * way[1]) ** 2
    mask = squared <= max(width / 2, 0.5) ** 2
    for column, row in (start, end):
        if 0 <= column < side and 0 <= row < side:
            mask[int(row), int(column)] = True
    return mask


def paint(
    label_map: UInt8[Tensor, "1 1 r r"], mask: Bool[Tensor, "r r"], value: int
) -> UInt8[Tensor, "1 1 r r"]:
    """The map with a class id, or a grey value, where the mask is; the given map stays as it is."""
    return torch.where(mask, torch.tensor(value, dtype=torch.uint8), label_map)


def unblurred(seen: Float[Tensor, "1 1 r r"], steps: int = 60) -> UInt8[Tensor, "1 1 r r"]:
    """The drawing that looks like ``seen`` to the networks, which blur what they are given.

    Rendered edge maps look like blurred ones (values in [-1, 1]); taken as a drawing they would be
    blurred once more, and again after every stroke from another side. This is the drawing whose
    blur has the smallest squared difference, by projected gradient descent; the blur is its own
    adjoint but for the border.
    """
    target = seen.clamp(-1, 1)
    drawing = target
    for _ in range(steps):
        padded = torch.nn.functional.pad(drawing, (1, 1, 1, 1), mode="reflect")
        error = torch.nn.functional.avg_pool2d(padded, 3, stride=1) - target
        padded = torch.nn.functional.pad(error, (1, 1, 1, 1), mode="reflect")
        # Any factor below 2 converges: a blur makes nothing larger.
        step = 1.8 * torch.nn.functional.avg_pool2d(padded, 3, stride=1)
        drawing = (drawing - step).clamp(-1, 1)
    return ((drawing + 1) * 127.5).round().to(torch.uint8)


class History(Generic[T]):
    """States that can be undone and redone.

    Args:
        first: the state at the beginning.
        limit: states that are kept; older ones are forgotten.
    """

    def __init__(self, first: T, limit: int = 200) -> None:
        self._past: list[T] = []
        self._future: list[T] = []
        self._limit = limit
        self.now = first

    def push(self, state: T) -> None:
        """A new state; what had been undone is forgotten."""
        self._past = [*self._past, self.now][-self._limit :]
        self._future = []
        self.now = state

    def undo(self) -> bool:
        """Back by one state; False if there is none."""
        if not self._past:
            return False
        self._future.append(self.now)
        self.now = self._past.pop()
        return True

    def redo(self) -> bool:
        """Forward again by one state; False if nothing had been undone."""
        if not self._future:
            return False
        self._past.append(self.now)
        self.now = self._future.pop()
        return True
