"""Where the surface is: which density, such that rays become half opaque there, or occupancy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_gan3d.export.grid import DensityGrid
from nerfstudio_gan3d.scene import activate_density

_CANDIDATES = 48
LONGEST_RAY = 128
"""Cells of the longest rays that levels are compared on."""


class NoSurfaceError(ValueError):
    """A Scene has no surface at the level that was asked for, or at any."""


@dataclass(frozen=True)
class Level:
    """Which surface of a Scene a mesh is."""

    volume: Literal["density", "occupancy"]
    """What is equal on the surface."""
    value: float
    """That density, per unit length, or occupancy."""
    raw: float
    """The raw density there."""


def surface_level(grid: DensityGrid, level: float | Literal["auto"]) -> Level:
    """The level of a surface; auto is `half_opaque_level` of densities, and 1/2 of occupancies.

    Raises:
        ValueError: If nothing in the grid reaches the level, no ray becomes half opaque, or the
            level is not an occupancy where it has to be one.
    """
    if grid.volume == "occupancy":
        value = 0.5 if level == "auto" else float(level)
        if not 0.0 < value < 1.0:
            raise ValueError(
                f"the level is {value:.4g}, and this Scene is made of a surface: its level is an "
                "occupancy between 0 and 1, of which 0.5 is the surface itself"
            )
        found = Level("occupancy", value, math.log(value / (1 - value)))
    else:
        if level == "auto":
            level = half_opaque_level(grid.even, grid.cell, grid.density_scale)
        found = Level("density", float(level), raw_of_density(level, grid.density_scale))
    highest = grid.raw.max()
    if float(highest) <= found.raw:
        if grid.volume == "occupancy":
            reached = float(highest.double().sigmoid())
            if level == "auto":
                raise NoSurfaceError(
                    f"the Scene has no surface: its occupancy is nowhere above {found.value:.4g} "
                    f"(the highest is {reached:.4g}); choose another seed or a level below that, "
                    "or train longer"
                )
        else:
            reached = float(activate_density(highest.double(), grid.density_scale))
        raise NoSurfaceError(
            f"no {found.volume} of the Scene reaches the level {found.value:.4g}; the highest is "
            f"{reached:.4g}, so choose a lower level"
        )
    return found


def raw_of_density(density: float, scale: float) -> float:
    """Inverse of `activate_density`: ``1 + log(exp(density / scale) - 1)``; density and scale
    positive."""
    ratio = density / scale
    # exp overflows for large ratios, where log(exp(x) - 1) and x are the same number.
    return 1.0 + (ratio if ratio > 30 else math.log(math.expm1(ratio)))


def half_opaque_level(
    raw: Float[Tensor, "x y z"], cell: tuple[float, float, float], density_scale: float
) -> float:
    """Density level whose surface lies closest to where rays from outside become half opaque.

    A density field has no surface of its own; what an image shows is the depth at which the
    transmittance ``T = exp(-integral of density)`` of its rays has fallen. Rays are sent through
    the grid along both directions of its three axes. On each the depth ``h`` with ``T(h) = 1/2`` is
    compared with the depth ``d`` at which the density first exceeds a candidate level, and the
    level with the smallest mean of ``min(|h - d|, m)`` is chosen; a ray that has one of the two and
    not the other counts ``m``, an eighth of the grid's longest side. So thin haze, through which
    rays pass, costs a low level as much as holes cost a high one. Steep surfaces have a range of
    levels that are equally good (to a tenth of a cell); its geometric mean is returned.

    Args:
        raw: Density before its activation at the corners of a grid.
        cell: Sides of the grid's cells.
        density_scale: Factor of the density's activation.

    Raises:
        ValueError: If no ray becomes half opaque.
    """
    # Every k-th corner is enough to compare levels, and long grids would take most of an export's
    # time.
    stride = -(-(max(raw.shape) - 1) // LONGEST_RAY)
    raw = raw[::stride, ::stride, ::stride]
    sides = [side * stride for side in cell]
    density = activate_density(raw, density_scale)
    longest = max(side * (count - 1) for side, count in zip(sides, raw.shape, strict=True))
    rays = [
        _Rays(raw, density, axis, flipped, sides[axis]) for axis in range(3) for flipped in (0, 1)
    ]
    opaque = sum(int(found.is_opaque.sum()) for found in rays)
    highest = float(density.max())
    if not opaque:
        raise NoSurfaceError(
            f"the Scene has no surface: no ray through it becomes half opaque (highest density "
            f"{highest:.3g} per unit); train longer, or choose a density level yourself"
        )
    lowest = min(math.log(2) / longest, highest / 2)
    levels = torch.logspace(
        math.log10(lowest), math.log10(highest * 0.999), _CANDIDATES, dtype=torch.float64
    ).tolist()
    costs = sum(found.costs(levels, density_scale, longest / 8) for found in rays)
    assert isinstance(costs, Tensor)
    costs = (costs / opaque).tolist()
    return _middle_of_best(levels, costs, 0.1 * min(sides))


def _middle_of_best(levels: list[float], costs: list[float], tolerance: float) -> float:
    """Geometric mean of the ends of the range of levels about the best one that are within
    tolerance."""
    best = min(range(len(costs)), key=costs.__getitem__)
    first = last = best
    while first > 0 and costs[first - 1] <= costs[best] + tolerance:
        first -= 1
    while last + 1 < len(costs) and costs[last + 1] <= costs[best] + tolerance:
        last += 1
    return math.sqrt(levels[first] * levels[last])


class _Rays:
    """Rays along one axis of a grid, from one side, one through each of its corners."""

    def __init__(self, raw: Tensor, density: Tensor, axis: int, flipped: int, side: float) -> None:
        # Rays run along the last axis.
        self.raw = self._along(raw, axis, flipped)  # [A, B, N]
        self.density = self._along(density, axis, flipped)
        self.side = side
        pieces = (self.density[..., 1:] + self.density[..., :-1]) / 2 * side
        optical = torch.nn.functional.pad(pieces.cumsum(-1), (1, 0))  # [A, B, N]
        self.is_opaque: Bool[Tensor, "a b"] = optical[..., -1] >= math.log(2)
        half = optical.new_tensor([math.log(2)])
        self.half_depth = _first_crossings(optical, half)[..., 0] * side

    @staticmethod
    def _along(values: Tensor, axis: int, flipped: int) -> Tensor:
        values = values.movedim(axis, -1)
        return (values.flip(-1) if flipped else values).contiguous()

    def costs(
        self, levels: list[float], density_scale: float, most: float
    ) -> Float[Tensor, "levels"]:
        """Sum over the rays of how far each level's surface is from the half-opaque depth."""
        highest = self.density.amax(-1, keepdim=True)
        hits = highest >= highest.new_tensor(levels)  # [A, B, L]
        raw = self.raw.new_tensor([raw_of_density(level, density_scale) for level in levels])
        depths = _first_crossings(self.raw, raw) * self.side
        is_opaque = self.is_opaque[..., None]
        apart = (depths - self.half_depth[..., None]).abs().clamp(max=most)
        both = (apart * (hits & is_opaque)).double().sum((0, 1))
        return both + most * (hits ^ is_opaque).sum((0, 1))


def _first_crossings(
    values: Float[Tensor, "a b n"], levels: Float[Tensor, "levels"]
) -> Float[Tensor, "a b levels"]:
    """Index, linearly interpolated, at which values first reach each level; 0 where they start
    above it.

    Meaningless for rows that never do.
    """
    # The highest value so far rises, and reaches a level where the values first do.
    so_far = values.cummax(-1).values
    wanted = levels.expand(*values.shape[:2], -1).contiguous()
    index = torch.searchsorted(so_far, wanted).clamp(max=values.shape[-1] - 1)
    before = (index - 1).clamp(min=0)
    low, high = values.gather(-1, before), values.gather(-1, index)
    share = ((levels - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return torch.where(index > 0, before + share, torch.zeros_like(share))
