"""Where rays meet a surface first, and where they are sampled about it (UNISURF)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.rendering.samplers import stratified
from nerfstudio_gan3d.rendering.settings import Conventions

POINTS_PER_QUERY = 2**19
"""Positions that are asked for at a time; bounds the memory of the march."""


@torch.no_grad()
def find_surface(
    raw: Callable[[Float[Tensor, "b n 3"]], Float[Tensor, "b n 1"]],
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    near: Float[Tensor, "b r 1"],
    far: Float[Tensor, "b r 1"],
    steps: int,
    secant_steps: int,
    conventions: Conventions = "corrected",
) -> Float[Tensor, "b r 1"]:
    """Distance at which each ray first gets from free to occupied space; infinite where it does
    not.

    ``steps`` places are looked up, ends included; the first one that is occupied and the free one
    before it enclose the surface, which ``secant_steps`` steps of the Illinois method (a secant
    that cannot get stuck at one end) make precise. Parts thinner than a step can be missed.

    Args:
        raw: The field's logit of occupancy; positive inside.
        origins, directions: Rays of B Scenes, R each; directions of unit length.
        near, far: Between which distances the surface is looked for.
        steps: Places along a ray, at least 2.
        secant_steps: Refinements.
        conventions: corrected: a ray that starts inside has its surface at ``near``, as where a box
            cuts an object. reference, as UNISURF has it: such a ray has none, and the secant is a
            plain one.
    """
    place = torch.linspace(0, 1, steps, device=near.device, dtype=near.dtype)
    distances = near + (far - near) * place  # [B, R, S]
    occupied = _look_up(raw, origins, directions, distances) > 0
    # The first occupied place; where none is, argmax is 0.
    first = occupied.to(torch.uint8).argmax(-1, keepdim=True)
    starts_inside, found = occupied[..., :1], occupied.any(-1, keepdim=True)
    high = torch.gather(distances, -1, first)
    low = torch.gather(distances, -1, (first - 1).clamp(min=0))
    reference = conventions == "reference"
    surface = _refine(raw, origins, directions, low, high, secant_steps, plain=reference)
    surface = torch.where(starts_inside, torch.inf if reference else near, surface)
    # Rays of length zero have missed the bounds.
    return torch.where(found & (far > near), surface, torch.inf)


def _refine(
    raw: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    low: Tensor,
    high: Tensor,
    steps: int,
    plain: bool,
) -> Float[Tensor, "b r 1"]:
    """Illinois method (Dowell and Jarratt 1971), or a plain secant, between a free and an occupied
    place."""
    values = _look_up(raw, origins, directions, torch.cat([low, high], dim=-1))
    below, above = values[..., :1], values[..., 1:]

    def secant() -> Tensor:
        return low - below * (high - low) / (above - below).clamp(min=1e-12)

    side = torch.zeros_like(low)
    for _ in range(steps):
        middle = secant()
        value = _look_up(raw, origins, directions, middle)
        inside = value > 0
        # An end that stays twice in a row counts half: a plain secant creeps towards curved roots
        # from one side.
        below = torch.where(inside, torch.where(side > 0, below / 2, below), value)
        above = torch.where(inside, value, torch.where(side < 0, above / 2, above))
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
        if not plain:
            side = inside.to(low.dtype) * 2 - 1
    return secant()


def _look_up(
    raw: Callable[[Tensor], Tensor], origins: Tensor, directions: Tensor, distances: Tensor
) -> Float[Tensor, "b r s"]:
    batch, _, count = distances.shape
    rays = max(POINTS_PER_QUERY // max(batch * count, 1), 1)
    parts = []
    for o, d, t in zip(
        origins.split(rays, 1), directions.split(rays, 1), distances.split(rays, 1), strict=True
    ):
        positions = o.unsqueeze(2) + d.unsqueeze(2) * t.unsqueeze(-1)
        parts.append(raw(positions.flatten(1, 2)).view(t.shape))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def first_crossing(
    distances: Float[Tensor, "b r s"], raw: Float[Tensor, "b r s"]
) -> Float[Tensor, "b r 1"]:
    """The same from samples that are known already: between the first occupied one and the free one
    before it, in proportion to their logits; the first one's distance where that is occupied."""
    occupied = raw > 0
    first = occupied.to(torch.uint8).argmax(-1, keepdim=True)
    before = (first - 1).clamp(min=0)
    low, high = torch.gather(distances, -1, before), torch.gather(distances, -1, first)
    below, above = torch.gather(raw, -1, before), torch.gather(raw, -1, first)
    place = low - below * (high - low) / (above - below).clamp(min=1e-12)
    place = torch.where(first == 0, low, place)
    return torch.where(occupied.any(-1, keepdim=True), place, torch.inf)


def shell_samples(
    near: Float[Tensor, "b r 1"],
    far: Float[Tensor, "b r 1"],
    surface: Float[Tensor, "b r 1"],
    half_width: float | Float[Tensor, ""],
    inside: int,
    outside: int,
    jitter: Float[Tensor, "b r s"] | None = None,
) -> Float[Tensor, "b r s"]:
    """Sorted distances of samples: ``outside`` ones before the shell about the surface, then
    ``inside`` ones in it.

    The shell reaches ``half_width`` to both sides of the surface, within [near, far]. Where no ray
    lies before it, and where there is no surface, all samples share what there is.

    Args:
        near, far: Ends of the rays.
        surface: Distance of the surface; infinite where there is none.
        half_width: UNISURF's delta, object-world units.
        inside, outside: Number of samples; s is their sum.
        jitter: Places inside the strata, 0..1; None is the middle.
    """
    hit = surface.isfinite()
    start = torch.where(hit, torch.maximum(surface - half_width, near), near)
    end = torch.where(hit, torch.minimum(surface + half_width, far), far)
    everything = stratified(near, end, inside + outside, jitter)
    if not outside:
        return torch.where(start > near, stratified(start, end, inside, jitter), everything)
    parts = (None, None) if jitter is None else jitter.split([outside, inside], dim=-1)
    before = stratified(near, start, outside, parts[0])
    shell = stratified(start, end, inside, parts[1])
    return torch.where(start > near, torch.cat([before, shell], dim=-1), everything)


def reference_shell_samples(
    far: Float[Tensor, "b r 1"],
    surface: Float[Tensor, "b r 1"],
    half_width: float,
    inside: int,
    outside: int,
) -> Float[Tensor, "b r s"]:
    """UNISURF's own samples without jitter: both ends of each stretch belong to it, rays start at
    the camera, and the samples before the shell are left out if any shell reaches the camera (then
    s is ``inside``).

    It is what expected outputs of the official implementation are compared with; `render` takes
    `shell_samples`."""

    def spread(start: Tensor, end: Tensor, count: int) -> Tensor:
        place = torch.linspace(0, 1, count, device=start.device, dtype=start.dtype)
        return start + (end - start) * place

    hit = surface.isfinite()
    start = torch.where(hit, (surface - half_width).clamp(min=0), 0)
    end = torch.where(hit, torch.minimum(surface + half_width, far), far)
    if bool((hit & (start == 0)).any()):
        outside = 0
    shell = spread(start, end, inside)
    if outside:
        shell = torch.cat([spread(torch.zeros_like(start), start, outside), shell], dim=-1)
    return torch.where(hit, shell, spread(torch.zeros_like(far), far, inside + outside))


def shell_width(iteration: float, start: float, end: float, decay: float) -> float:
    """UNISURF's schedule of the shell's half width: ``max(start exp(-decay iteration), end)``."""
    return max(start * math.exp(-decay * iteration), end)
