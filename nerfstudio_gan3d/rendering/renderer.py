"""Rays of a Scene to colour features, opacity and distance."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.rendering import samplers
from nerfstudio_gan3d.rendering.compositing import (
    Weights,
    composite_weights,
    midpoint_weights,
    occupancy_weights,
    weighted_sum,
)
from nerfstudio_gan3d.rendering.finishing import March, Rendering, finish
from nerfstudio_gan3d.rendering.proximity import proximity_scale, scale_gradient
from nerfstudio_gan3d.rendering.settings import (
    Conventions,
    DepthGuide,
    Jitter,
    RenderSettings,
)
from nerfstudio_gan3d.rendering.surface import find_surface, first_crossing, shell_samples
from nerfstudio_gan3d.scene import FieldSamples, Scene, activate_density

__all__ = [
    "Conventions",
    "DepthGuide",
    "Jitter",
    "RenderSettings",
    "render",
]


def render(
    scene: Scene,
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    settings: RenderSettings,
    jitter: Jitter | Literal["draw"] | None = None,
    clip: tuple[Float[Tensor, "b r 1"], Float[Tensor, "b r 1"]] | None = None,
    guide: DepthGuide | None = None,
) -> Rendering:
    """Renders rays of B Scenes; ``directions`` have unit length. Differentiable.

    ``phi(r) = sum_i w_i phi_i + T_bg phi_bg`` (BallGAN, eq. 4). Samples sit in the middle of their
    strata, or at ``jitter``; "draw" draws it from the global generator. ``clip`` holds nearest and
    farthest distances at which each ray may find foreground. ``guide`` says where rays are known to
    end; of Scenes that are volumes, and to be trained with.

    Rays that miss the box hold no foreground. On the CPU they are left out of the march (the others
    of each image are brought together, padded to the largest number in the batch); on other devices
    all rays march, since finding their number would make the host wait.
    """
    bounds = scene.bounds
    if settings.conventions == "reference":
        if settings.ray_bounds == "box":
            near, far = samplers.reference_box_interval(
                origins, directions, bounds.box, bounds.near, bounds.far
            )
        else:
            near = torch.full_like(origins[..., :1], bounds.near)
            far = torch.full_like(near, bounds.far)
        if clip is not None:
            near = torch.maximum(near, clip[0])
            far = torch.maximum(torch.minimum(far, clip[1]), near)
        march = _march(scene, origins, directions, near, far, settings, jitter, guide)
        return finish(scene, origins, directions, march, settings)
    near, far = samplers.box_interval(origins, directions, bounds.box, bounds.near, bounds.far)
    if clip is not None:
        near = torch.maximum(near, clip[0])
        far = torch.maximum(torch.minimum(far, clip[1]), near)
    hit = (far > near).squeeze(-1)
    most = int(hit.sum(1).max()) if origins.device.type == "cpu" else hit.shape[1]
    if most == hit.shape[1] or isinstance(jitter, Jitter):
        march = _march(scene, origins, directions, near, far, settings, jitter, guide)
        return finish(scene, origins, directions, march, settings)
    # Stable sorting keeps the hits in image order, which keeps neighbouring lookups close in
    # memory.
    chosen = hit.sort(dim=1, descending=True, stable=True).indices[:, : max(most, 1), None]

    def pick(values: Tensor) -> Tensor:
        return torch.gather(values, 1, chosen.expand(-1, -1, values.shape[-1]))

    picked = pick(origins), pick(directions), pick(near), pick(far)
    if guide is not None:
        guide = guide._replace(distance=pick(guide.distance))
    inside = _march(scene, *picked, settings, jitter, guide)

    def put(values: Tensor, elsewhere: float) -> Tensor:
        full = values.new_full((*hit.shape, values.shape[-1]), elsewhere)
        return full.scatter(1, chosen.expand(-1, -1, values.shape[-1]), values)

    march = March(
        put(inside.features, 0.0),
        put(inside.transmittance, 1.0),
        put(inside.opacity, 0.0),
        put(inside.moment, 0.0),
        put(inside.weights, 0.0),
        put(inside.edges, bounds.near),
        None if inside.surface is None else put(inside.surface, torch.inf),
    )
    return finish(scene, origins, directions, march, settings)


def _query(scene: Scene, origins: Tensor, directions: Tensor, distances: Tensor) -> FieldSamples:
    directions = directions.unsqueeze(2)
    positions = origins.unsqueeze(2) + directions * distances.unsqueeze(-1)
    seen_along = directions.expand_as(positions).flatten(1, 2)
    return scene.field.query(positions.flatten(1, 2), seen_along)


def _march(
    scene: Scene,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    settings: RenderSettings,
    jitter: Jitter | Literal["draw"] | None,
    guide: DepthGuide | None = None,
) -> March:
    """Coarse and fine samples are merged by distance. Only densities and weights are brought into
    sorted order and back; features, the larger part, stay in place."""
    batch, rays = origins.shape[:2]
    if jitter == "draw":
        jitter = Jitter.draw(batch, rays, settings, origins.device)
    if scene.volume == "occupancy":
        return _march_surface(scene, origins, directions, near, far, settings, jitter)
    if settings.conventions == "reference":
        half = jitter.coarse if jitter else origins.new_full((batch, rays, settings.samples), 0.5)
        distances = samplers.reference_stratified(near, far, half)
    else:
        distances = samplers.stratified(near, far, settings.samples, jitter and jitter.coarse)
    found = _query(scene, origins, directions, distances)
    raw = found.raw_density.view(batch, rays, -1)
    parts = [found.channels.unflatten(1, (rays, -1))]
    order = None
    if settings.importance_samples:
        if guide is not None and guide.half_width is not None:
            fine = samplers.around(guide.distance, guide.half_width, settings.importance_samples)
            if settings.conventions != "reference":
                # Intervals end where the ray leaves the box.
                fine = torch.maximum(torch.minimum(fine, far), near)
        else:
            fine = _fine_distances(scene, settings, distances, raw, near, far, jitter)
        found = _query(scene, origins, directions, fine)
        parts.append(found.channels.unflatten(1, (rays, -1)))
        raw = torch.cat([raw, found.raw_density.view(batch, rays, -1)], dim=-1)
        distances, order = torch.cat([distances, fine], dim=-1).sort(dim=-1)
        raw = torch.gather(raw, -1, order)
    known = guide.distance if guide is not None and guide.scale else None
    composed, places, edges = _compose(scene, settings, raw, distances, near, far, known)
    weights, transmittance = composed
    share = _sample_share(weights, settings)
    factor = None
    if known is not None:
        # A sample's colour gets the gradients of all intervals that it has a share in.
        scaled = _sample_share(weights.detach() * proximity_scale(places, known), settings)
        factor = torch.where(share > 0, scaled / share.detach().clamp(min=1e-20), 1.0)
    if order is not None:
        share = torch.zeros_like(share).scatter(-1, order, share)
        if factor is not None:
            factor = torch.zeros_like(factor).scatter(-1, order, factor)
    sizes = [part.shape[2] for part in parts]
    pieces = share.split(sizes, dim=-1)
    if factor is not None:
        factors = factor.split(sizes, dim=-1)
        parts = [scale_gradient(*pair) for pair in zip(parts, factors, strict=True)]
    features = [weighted_sum(piece, part) for piece, part in zip(pieces, parts, strict=True)]
    return March(
        features[0] if len(features) == 1 else features[0] + features[1],
        transmittance,
        weights.sum(-1, keepdim=True),
        (weights * places).sum(-1, keepdim=True),
        weights,
        edges,
    )


def _sample_share(weights: Tensor, settings: RenderSettings) -> Tensor:
    """How much each sample weighs: its own interval, or by the reference rules, which give an
    interval the mean of its two samples, half of both neighbours."""
    if settings.conventions != "reference":
        return weights
    pad = torch.nn.functional.pad
    return (pad(weights, (0, 1)) + pad(weights, (1, 0))) / 2


def _march_surface(
    scene: Scene,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    settings: RenderSettings,
    jitter: Jitter | None,
) -> March:
    """UNISURF: samples lie in a shell about the first surface, which is found first; rays without
    one are sampled from end to end. Gradients reach the field through the samples alone."""
    inside, outside = settings.samples, settings.importance_samples
    places = None if jitter is None else torch.cat([jitter.fine, jitter.coarse], dim=-1)
    whole = isinstance(scene.shell, float) and scene.shell == math.inf
    if whole:
        surface = None
        distances = samplers.stratified(near, far, inside + outside, places)
    else:
        steps = settings.march_steps, settings.secant_steps
        surface = find_surface(scene.raw_density, origins, directions, near, far, *steps)
        distances = shell_samples(near, far, surface, scene.shell, inside, outside, places)
    found = _query(scene, origins, directions, distances)
    shape = distances.shape
    raw = found.raw_density.view(shape)
    if surface is None:
        surface = first_crossing(distances, raw)
    weights, transmittance = occupancy_weights(raw.sigmoid())
    return March(
        weighted_sum(weights, found.channels.unflatten(1, shape[1:])),
        transmittance,
        weights.sum(-1, keepdim=True),
        (weights * distances).sum(-1, keepdim=True),
        weights,
        samplers.interval_edges(distances, near, far),
        surface,
    )


def _fine_distances(
    scene: Scene,
    settings: RenderSettings,
    distances: Tensor,
    raw: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Jitter | None,
) -> Tensor:
    with torch.no_grad():
        count = settings.importance_samples
        if settings.conventions == "reference":
            weights = midpoint_weights(raw, distances, scene.density_scale).weights
            draws = (
                jitter.fine if jitter else (torch.arange(count, device=raw.device) + 0.5) / count
            )
            draws = draws.expand(*raw.shape[:2], count)
            return samplers.reference_importance(distances, weights, draws)
        edges = samplers.interval_edges(distances, near, far)
        lengths = edges.diff(dim=-1)
        density = activate_density(raw, scene.density_scale)
        weights = composite_weights(density, lengths).weights
        return samplers.importance(edges, weights, count, jitter and jitter.fine)


def _compose(
    scene: Scene,
    settings: RenderSettings,
    raw: Tensor,
    distances: Tensor,
    near: Tensor,
    far: Tensor,
    known: Tensor | None,
) -> tuple[Weights, Tensor, Tensor]:
    """Weights, the distance that stands for each interval, and the intervals' edges. Gradients fall
    with the distance from the ``known`` surface [B, R, 1]."""
    places = distances
    if settings.conventions == "reference":
        places = (distances[..., 1:] + distances[..., :-1]) / 2
    scale = None if known is None else proximity_scale(places, known)
    if settings.conventions == "reference":
        composed = midpoint_weights(raw, distances, scene.density_scale, scale)
        return composed, places, distances
    edges = samplers.interval_edges(distances, near, far)
    density = activate_density(raw, scene.density_scale)
    return composite_weights(density, edges.diff(dim=-1), scale), places, edges
