"""Where along a ray a Scene is looked at.

nerfstudio's samplers re-evaluate the coarse samples after importance sampling; a GAN trains through
all of them, so here coarse samples are evaluated once and merged with the fine ones.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def box_interval(
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    box: tuple[float, float, float],
    near: float,
    far: float,
) -> tuple[Float[Tensor, "b r 1"], Float[Tensor, "b r 1"]]:
    """Entry and exit distance of rays and the box about the origin, within [near, far].

    Slab test (Kay and Kajiya 1986). A ray that misses gets an interval of length zero at ``near``.
    """
    # A direction component of zero would give 0 * inf = NaN where the origin lies on a slab.
    safe = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    half = origins.new_tensor(box) / 2
    first = (-half - origins) / safe
    second = (half - origins) / safe
    entry = torch.minimum(first, second).amax(-1, keepdim=True).clamp(near, far)
    leave = torch.maximum(first, second).amin(-1, keepdim=True).clamp(near, far)
    missed = leave <= entry
    return (
        torch.where(missed, near, entry),
        torch.where(missed, near, leave),
    )


def stratified(
    near: Float[Tensor, "b r 1"],
    far: Float[Tensor, "b r 1"],
    count: int,
    jitter: Float[Tensor, "b r s"] | None = None,
) -> Float[Tensor, "b r s"]:
    """One distance in each of ``count`` equal bins: at ``jitter`` (0..1) of the bin, or in its
    middle."""
    position = torch.arange(count, device=near.device, dtype=near.dtype)
    position = position + (0.5 if jitter is None else jitter)
    return near + (far - near) * position / count


def interval_edges(
    distances: Float[Tensor, "b r s"],
    near: Float[Tensor, "b r 1"],
    far: Float[Tensor, "b r 1"],
) -> Float[Tensor, "b r s+1"]:
    """Edges of the intervals that sorted samples stand for: midpoints, and the ends of the ray."""
    middle = (distances[..., 1:] + distances[..., :-1]) / 2
    return torch.cat([near, middle, far], dim=-1)


def importance(
    edges: Float[Tensor, "b r s"],
    weights: Float[Tensor, "b r s-1"],
    count: int,
    jitter: Float[Tensor, "b r n"] | None = None,
) -> Float[Tensor, "b r n"]:
    """Sorted distances distributed as ``weights`` over the intervals (inverse-transform sampling).

    The weights are widened (maximum, then mean of two neighbours) and 0.01 is added, as in
    mip-NeRF, so that a surface next to an interval's edge is not missed. ``jitter`` (0..1) places
    the draw inside its stratum; None takes the middles, which is deterministic. Gradients do not
    pass.
    """
    weights = weights.detach()
    padded = torch.nn.functional.pad(weights, (1, 1))
    widest = torch.maximum(padded[..., 1:], padded[..., :-1])
    weights = (widest[..., 1:] + widest[..., :-1]) / 2 + 0.01
    cdf = torch.cumsum(weights, dim=-1)
    cdf = torch.nn.functional.pad(cdf / cdf[..., -1:], (1, 0))
    u = torch.arange(count, device=edges.device, dtype=edges.dtype)
    u = (u + (0.5 if jitter is None else jitter)) / count
    u = u.expand(*edges.shape[:-1], count).contiguous()
    above = torch.searchsorted(cdf, u, right=True).clamp(1, edges.shape[-1] - 1)
    low, high = torch.gather(cdf, -1, above - 1), torch.gather(cdf, -1, above)
    start, end = torch.gather(edges, -1, above - 1), torch.gather(edges, -1, above)
    return start + (end - start) * ((u - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)


def around(centre: Float[Tensor, "b r 1"], half_width: float, count: int) -> Float[Tensor, "b r n"]:
    """Distances spread evenly over ``centre -+ half_width``, both ends included (G3DR)."""
    offsets = torch.linspace(
        -half_width, half_width, count, device=centre.device, dtype=centre.dtype
    )
    return centre + offsets


def reference_box_interval(
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    box: tuple[float, float, float],
    near: float,
    far: float,
) -> tuple[Float[Tensor, "b r 1"], Float[Tensor, "b r 1"]]:
    """EG3D's limits for ``ray_start = auto``: entry and exit distance of rays and box.

    A ray that misses starts at the nearest and ends at the farthest *entry* of all rays of the
    batch, as published (the farthest exit was probably meant). Where all rays miss they lie between
    ``near`` and ``far``.
    """
    infinite = torch.inf
    entry, leave = box_interval(origins, directions, box, -infinite, infinite)
    hit = entry > -infinite
    first = torch.where(hit, entry, infinite).amin()
    last = torch.where(hit, entry, -infinite).amax()
    first = torch.where(first.isfinite(), first, near)
    last = torch.where(last.isfinite(), last, far)
    return torch.where(hit, entry, first), torch.where(hit, leave, last)


def reference_stratified(
    near: Float[Tensor, "b r 1"], far: Float[Tensor, "b r 1"], jitter: Float[Tensor, "b r s"]
) -> Float[Tensor, "b r s"]:
    """EG3D's coarse distances: ``lerp(near, far, i / (s - 1)) + jitter (far - near) / (s - 1)``.

    The last one can lie behind ``far``.
    """
    count = jitter.shape[-1]
    place = torch.linspace(0, 1, count, device=jitter.device, dtype=jitter.dtype)
    return torch.lerp(near, far, place) + jitter * ((far - near) / (count - 1))


def reference_importance(
    distances: Float[Tensor, "b r s"],
    weights: Float[Tensor, "b r s-1"],
    draws: Float[Tensor, "b r n"],
) -> Float[Tensor, "b r n"]:
    """EG3D's fine distances, in drawing order; the last one and a half coarse intervals are never
    drawn.

    The weights are max-pooled and average-pooled in pairs, 0.01 is added, the first and the last
    are dropped, and the bins are the coarse midpoints. Official weights were trained with this.
    """
    weights = weights.detach()
    lowest = torch.finfo(weights.dtype).min
    padded = torch.nn.functional.pad(weights, (1, 1), value=lowest)
    widest = torch.maximum(padded[..., 1:], padded[..., :-1])
    smooth = (widest[..., 1:] + widest[..., :-1]) / 2 + 0.01
    bins = (distances[..., 1:] + distances[..., :-1]) / 2
    pdf = smooth[..., 1:-1] + 1e-5
    cdf = torch.cumsum(pdf / pdf.sum(-1, keepdim=True), dim=-1)
    cdf = torch.nn.functional.pad(cdf, (1, 0))
    above = torch.searchsorted(cdf, draws.contiguous(), right=True)
    low = (above - 1).clamp(min=0)
    high = above.clamp(max=cdf.shape[-1] - 1)
    cdf_low, cdf_high = torch.gather(cdf, -1, low), torch.gather(cdf, -1, high)
    start, end = torch.gather(bins, -1, low), torch.gather(bins, -1, high)
    width = cdf_high - cdf_low
    width = torch.where(width < 1e-5, torch.ones_like(width), width)
    return start + (draws - cdf_low) / width * (end - start)
