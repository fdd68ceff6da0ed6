"""3D Gaussians, and how they look: a rasteriser in plain PyTorch that gsplat's pictures agree with.

Every pair of a splat and a pixel that it reaches is one row of a table; the rows are sorted by
pixel and depth and composited with cumulative sums. So there is no loop over splats or pixels, and
everything is differentiable; it serves where no GPU is at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_gan3d.cameras import split_labels

LOW_PASS = 0.3
"""Variance in pixels^2 that is added to every splat's in the image, as common viewers do: none is
smaller than a pixel."""
NEAR_PLANE = 0.01
"""Splats whose centre is nearer to the camera's plane, object-world units, are left out."""
FAINTEST = 1 / 255
"""Opacity in a pixel below which a splat is left out there."""
DENSEST = 0.999
"""Highest opacity of a splat in a pixel."""
HIDDEN = 1e-4
"""Share of a pixel's light that is still left, below which the splats behind are left out."""
_MARGIN = 0.3
"""Splats beyond the image's border by more than this share of half its side are projected as if
they stood there: the linear approximation of the perspective breaks down at the sides."""


@dataclass(frozen=True)
class Splats:
    """N Gaussians in the object world (y up), each of one colour from all sides."""

    means: Float[Tensor, "n 3"]
    """Centres, object-world units."""
    quaternions: Float[Tensor, "n 4"]
    """Rotations of the Gaussians' axes, (w, x, y, z) of any length but 0."""
    scales: Float[Tensor, "n 3"]
    """Standard deviations along these axes, object-world units, positive."""
    opacities: Float[Tensor, "n"]
    """Opacity in the centre, 0 to 1."""
    colours: Float[Tensor, "n 3"]
    """RGB as images have it (sRGB), 0 to 1."""

    def __len__(self) -> int:
        return len(self.means)

    def to(self, device: torch.device | str) -> Splats:
        """The same on another device."""
        return Splats(**{name: getattr(self, name).to(device) for name in _FIELDS})

    def rows(self, chosen: Tensor) -> Splats:
        """Some of them: indices, or a mask."""
        return Splats(**{name: getattr(self, name)[chosen] for name in _FIELDS})


_FIELDS = ("means", "quaternions", "scales", "opacities", "colours")


class Footprints(NamedTuple):
    """N splats as a camera sees them, in pixels from the upper left corner of the image."""

    centres: Float[Tensor, "n 2"]
    """x to the right, y down; the first pixel's centre is (0.5, 0.5)."""
    covariances: Float[Tensor, "n 3"]
    """Variance along x, covariance, variance along y, the low-pass included."""
    depths: Float[Tensor, "n"]
    """Along the optical axis, object-world units."""


def rotations(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z), whose columns are the rotated axes."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def project_splats(
    splats: Splats,
    label: Float[Tensor, "1 25"],
    height: int,
    width: int,
    low_pass: float = LOW_PASS,
) -> Footprints:
    """Footprints of Gaussians in an image (EWA splatting, Zwicker et al. 2001).

    The perspective is linear about each centre: ``S' = J R^-1 S R J^T + low_pass I`` with
    ``J = d(pixel) / d(camera point)``.
    """
    cam2world, intrinsics = split_labels(label)
    turn, focal = cam2world[0, :3, :3], intrinsics[0, :2]
    focal = focal * focal.new_tensor([[width], [height]])  # [2, 3]: normalised to pixels
    local = (splats.means - cam2world[0, :3, 3]) @ turn
    # What stands behind the camera is left out later, but must not make infinite gradients.
    depth = local[:, 2].clamp(min=NEAR_PLANE)
    slope = local[:, :2] / depth[:, None]
    centres = slope @ focal[:, :2].T + focal[:, 2]
    # Slopes at the image's borders, about those of its centre; skew moves them little.
    sizes, scale = slope.new_tensor([width, height]), focal.diagonal()
    extra = _MARGIN * sizes / 2 / scale
    low, high = -focal[:, 2] / scale - extra, (sizes - focal[:, 2]) / scale + extra
    slope = torch.minimum(torch.maximum(slope, low), high)
    # d(x / z, y / z) / d(x, y, z) = (1, 0, -x / z) / z and (0, 1, -y / z) / z.
    identity = torch.eye(2, dtype=slope.dtype, device=slope.device).expand(len(slope), 2, 2)
    jacobian = torch.cat([identity, -slope[..., None]], -1) / depth[:, None, None]
    axes = rotations(splats.quaternions) * splats.scales[:, None]  # [N, 3, 3]
    spread = (focal[:, :2] @ jacobian) @ (turn.T @ axes)  # [N, 2, 3]
    xx, yy = (spread * spread).sum(-1).add(low_pass).unbind(-1)
    xy = (spread[:, 0] * spread[:, 1]).sum(-1)
    return Footprints(centres, torch.stack([xx, xy, yy], -1), local[:, 2])


@torch.no_grad()
def splat_pixels(
    footprints: Footprints, opacities: Float[Tensor, "n"], height: int, width: int
) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
    """All pairs of a splat and a pixel in which its opacity is at least `FAINTEST`.

    Returns:
        Index of the splat and of the pixel (row by row), sorted by pixel and then by depth.
    """
    centres, covariances, depths = footprints
    # o exp(-q / 2) >= 1/255 is an ellipse q <= reach about the centre.
    reach = 2 * (opacities / FAINTEST).clamp(min=1e-12).log()
    rows = ((reach > 0) & (depths > NEAR_PLANE)).nonzero()[:, 0]
    rows = rows[depths[rows].argsort(stable=True)]
    x, y = (centres[rows] - 0.5).unbind(-1)
    reach, (xx, xy, yy) = reach[rows], covariances[rows].unbind(-1)
    # It meets the lines of pixels within sqrt(reach var_y) of its centre.
    half = (reach * yy).sqrt()
    top = (y - half).ceil().clamp(min=0, max=height)
    lines = ((y + half).floor().clamp(min=-1, max=height - 1) - top + 1).clamp(min=0)
    owner, line = _ranges(top, lines)
    # On the line at distance v the ellipse reaches, with D the determinant,
    # x = v cov / var_y +- sqrt(D / var_y (reach - v^2 / var_y)).
    away = line - y[owner]
    middle = x[owner] + away * (xy / yy)[owner]
    half = ((xx - xy * xy / yy)[owner] * (reach[owner] - away * away / yy[owner])).clamp(min=0)
    half = half.sqrt()
    left = (middle - half).ceil().clamp(min=0, max=width)
    counts = ((middle + half).floor().clamp(min=-1, max=width - 1) - left + 1).clamp(min=0)
    strip, pixel = _ranges(left + line * width, counts)
    # Splats come from near to far; a stable order keeps that within each pixel.
    order = _stable_order(pixel, height * width)
    return rows[owner[strip[order]]], pixel[order]


def _stable_order(keys: Int[Tensor, "k"], count: int) -> Int[Tensor, "k"]:
    """The stable order of whole numbers below ``count``."""
    if keys.device.type != "cpu":
        return keys.sort(stable=True).indices
    # NumPy sorts numbers of 16 bits by radix, a tenth of the time that torch takes.
    numbers = keys.numpy()
    order = np.argsort((numbers & 0xFFFF).astype(np.uint16), kind="stable")
    if count > 2**16:
        order = order[np.argsort((numbers[order] >> 16).astype(np.uint16), kind="stable")]
    return torch.from_numpy(order)


def _ranges(
    first: Float[Tensor, "m"], counts: Float[Tensor, "m"]
) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
    """All whole numbers from first[i] on, counts[i] of them, and the index i of each."""
    sizes = counts.long()
    owner = torch.repeat_interleave(sizes)
    start = first.long() - (sizes.cumsum(0) - sizes)
    return owner, torch.arange(len(owner), device=owner.device) + start[owner]


def pair_opacity(
    footprints: Footprints,
    opacities: Float[Tensor, "n"],
    splat: Int[Tensor, "k"],
    pixel: Int[Tensor, "k"],
    width: int,
) -> Float[Tensor, "k"]:
    """Opacity of splats in pixels: ``o exp(-d^T S'^-1 d / 2)``, at most `DENSEST`."""
    xx, xy, yy = footprints.covariances.unbind(-1)
    inverse = 1 / (xx * yy - xy * xy)
    columns = [*footprints.centres.unbind(-1), xx * inverse, xy * inverse, yy * inverse, opacities]
    # One look-up for all columns; of long tables the look-ups are what costs.
    found = torch.stack(columns, -1).index_select(0, splat)
    at_x, at_y, xx, xy, yy, opacity = found.unbind(-1)
    line = torch.div(pixel, width, rounding_mode="floor")
    x = (pixel - line * width).to(at_x) + 0.5 - at_x
    y = line.to(at_y) + 0.5 - at_y
    power = yy * x * x - 2 * xy * x * y + xx * y * y
    return (opacity * (-power / 2).exp()).clamp(max=DENSEST)


def _light_before(
    alpha: Float[Tensor, "k"], pixel: Int[Tensor, "k"], pixels: int
) -> Float[Tensor, "k"]:
    """Logarithm of the light that reaches each pair, float64: the sum of ``log(1 - a_j)`` of those
    before it in its pixel."""
    # Sums over the whole table: in single precision those of one pixel would drown.
    light = torch.log1p(-alpha.double())
    before = light.cumsum(0) - light
    if not len(before):
        return before
    counts = torch.bincount(pixel, minlength=pixels)
    starts = (counts.cumsum(0) - counts).clamp(max=len(before) - 1)
    return before - before[starts][pixel]


@torch.no_grad()
def unhidden(
    alpha: Float[Tensor, "k"], pixel: Int[Tensor, "k"], pixels: int, least: float = HIDDEN
) -> Int[Tensor, "m"]:
    """Rows of the pairs behind which more than ``least`` of the light is left, as gsplat counts."""
    left = _light_before(alpha, pixel, pixels) + torch.log1p(-alpha.double())
    return (left > math.log(least)).nonzero()[:, 0]


def composite_splats(
    alpha: Float[Tensor, "k"],
    values: Float[Tensor, "n c"],
    splat: Int[Tensor, "k"],
    pixel: Int[Tensor, "k"],
    pixels: int,
) -> tuple[Float[Tensor, "p c"], Float[Tensor, "p"]]:
    """Values in front of each other, premultiplied, and the opacity of all together.

    ``sum_i v_i a_i prod_(j < i) (1 - a_j)`` in each pixel. Pairs are sorted as by `splat_pixels`.
    """
    weights = alpha * _light_before(alpha, pixel, pixels).exp().to(alpha)
    colour = values.new_zeros(pixels, values.shape[1])
    colour = colour.index_add(0, pixel, weights[:, None] * values.index_select(0, splat))
    return colour, weights.new_zeros(pixels).index_add(0, pixel, weights)


def rasterize(
    splats: Splats, label: Float[Tensor, "1 25"], height: int, width: int
) -> Float[Tensor, "h w 4"]:
    """What one camera sees: premultiplied RGB and opacity. Differentiable in the splats.

    A splat counts in a pixel with its opacity in the pixel's centre; splats whose centres are
    nearer stand before the others. The rules are gsplat's (`LOW_PASS`, `FAINTEST`, `DENSEST`,
    `HIDDEN`), so that common viewers show the same; only that gsplat also cuts splats off where
    they reach more than three standard deviations beyond one of its tiles.
    """
    footprints = project_splats(splats, label, height, width)
    splat, pixel = splat_pixels(footprints, splats.opacities, height, width)
    with torch.no_grad():
        alpha = pair_opacity(footprints, splats.opacities, splat, pixel, width)
        kept = unhidden(alpha, pixel, height * width)
    return composite(splats, footprints, splat[kept], pixel[kept], height, width)


def composite(
    splats: Splats,
    footprints: Footprints,
    splat: Int[Tensor, "k"],
    pixel: Int[Tensor, "k"],
    height: int,
    width: int,
) -> Float[Tensor, "h w 4"]:
    """`rasterize` with pairs that are known already."""
    alpha = pair_opacity(footprints, splats.opacities, splat, pixel, width)
    colour, total = composite_splats(alpha, splats.colours, splat, pixel, height * width)
    return torch.cat([colour, total[:, None]], -1).unflatten(0, (height, width))
