"""Which density is the surface: the level at which a mesh lies where rays become half opaque."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_gan3d.scene import activate_density

_CANDIDATES = 48
_LONGEST_RAY = 128


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
    stride = -(-(max(raw.shape) - 1) // _LONGEST_RAY)
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
        raise ValueError(
            f"the Scene has no surface: no ray through it becomes half opaque (highest density "
            f"{highest:.3g} per unit); train longer, or choose a density level yourself"
        )
    lowest = min(math.log(2) / longest, highest / 2)
    levels = torch.logspace(
        math.log10(lowest), math.log10(highest * 0.999), _CANDIDATES, dtype=torch.float64
    ).tolist()
    costs = [
        sum(found.cost(level, density_scale, longest / 8) for found in rays) / opaque
        for level in levels
    ]
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
        self.half_depth = _first_crossing(optical, math.log(2)) * side

    @staticmethod
    def _along(values: Tensor, axis: int, flipped: int) -> Tensor:
        values = values.movedim(axis, -1)
        return (values.flip(-1) if flipped else values).contiguous()

    def cost(self, level: float, density_scale: float, most: float) -> float:
        """Sum over the rays of how far the level's surface is from the half-opaque depth."""
        hits = (self.density >= level).any(-1)
        depth = _first_crossing(self.raw, raw_of_density(level, density_scale)) * self.side
        both = hits & self.is_opaque
        apart = (depth - self.half_depth).abs().clamp(max=most)
        return float(apart[both].sum()) + most * float((hits ^ self.is_opaque).sum())


def _first_crossing(values: Float[Tensor, "a b n"], level: float) -> Float[Tensor, "a b"]:
    """Index, linearly interpolated, at which values first reach a level; 0 where they start above
    it.

    Meaningless for rows that never do.
    """
    index = (values >= level).to(torch.uint8).argmax(-1, keepdim=True)
    before = (index - 1).clamp(min=0)
    low, high = values.gather(-1, before), values.gather(-1, index)
    share = ((level - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    crossing = torch.where(index > 0, before + share, torch.zeros_like(share))
    return crossing[..., 0]
