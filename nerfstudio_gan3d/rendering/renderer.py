"""Rays of a Scene to colour features, opacity and distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
    "Rendering",
    "finish_march",
    "render",
]


@dataclass(frozen=True)
class Rendering:
    """What B Scenes show along R rays each. Colour features are in [0, 1]; the first three are
    RGB."""

    features: Float[Tensor, "b r f"]
    """Foreground over background."""
    foreground: Float[Tensor, "b r f"]
    """Foreground alone, premultiplied by its opacity."""
    background: Float[Tensor, "b r f"] | None
    """Background alone, unattenuated; None for a Scene without one."""
    transmittance: Float[Tensor, "b r 1"]
    """Light left behind the foreground, T_bg."""
    distance: Float[Tensor, "b r 1"]
    """Expected distance along the ray, the background included where there is one."""
    foreground_distance: Float[Tensor, "b r 1"]
    """Expected distance of the foreground alone; the Scene's far bound where there is none. With
    reference conventions it is limited to the batch's sample distances, as in the published
    code."""
    weights: Float[Tensor, "b r s"]
    """Rendering weights of the sorted intervals."""
    edges: Float[Tensor, "b r s+1"]
    """Distances at which the sorted intervals start and end."""
    labels: Float[Tensor, "b r c"] | None = None
    """Label features, foreground over what lies behind; None for Scenes without labels."""
    surface: Float[Tensor, "b r 1"] | None = None
    """Distance of the first surface, infinite where there is none; None for Scenes that are not
    made of surfaces. Not differentiable."""

    @property
    def accumulation(self) -> Float[Tensor, "b r 1"]:
        """Opacity of the foreground, the alpha matte."""
        return 1 - self.transmittance


class _March(NamedTuple):
    """What the foreground alone gives along rays; features are those of colour and labels."""

    features: Float[Tensor, "b r f"]
    transmittance: Float[Tensor, "b r 1"]
    opacity: Float[Tensor, "b r 1"]
    moment: Float[Tensor, "b r 1"]
    weights: Float[Tensor, "b r s"]
    edges: Float[Tensor, "b r s+1"]
    surface: Float[Tensor, "b r 1"] | None = None


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
        return _finish(scene, origins, directions, march, settings)
    near, far = samplers.box_interval(origins, directions, bounds.box, bounds.near, bounds.far)
    if clip is not None:
        near = torch.maximum(near, clip[0])
        far = torch.maximum(torch.minimum(far, clip[1]), near)
    hit = (far > near).squeeze(-1)
    most = int(hit.sum(1).max()) if origins.device.type == "cpu" else hit.shape[1]
    if most == hit.shape[1] or isinstance(jitter, Jitter):
        march = _march(scene, origins, directions, near, far, settings, jitter, guide)
        return _finish(scene, origins, directions, march, settings)
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

    march = _March(
        put(inside.features, 0.0),
        put(inside.transmittance, 1.0),
        put(inside.opacity, 0.0),
        put(inside.moment, 0.0),
        put(inside.weights, 0.0),
        put(inside.edges, bounds.near),
        None if inside.surface is None else put(inside.surface, torch.inf),
    )
    return _finish(scene, origins, directions, march, settings)


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
) -> _March:
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
    return _March(
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
) -> _March:
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
    return _March(
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


def finish_march(
    scene: Scene,
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    features: Float[Tensor, "b r f"],
    transmittance: Float[Tensor, "b r 1"],
    weights: Float[Tensor, "b r s"],
    places: Float[Tensor, "b r s"],
    edges: Float[Tensor, "b r s+1"],
    settings: RenderSettings,
) -> Rendering:
    """Everything along rays from what the foreground alone gives.

    Args:
        scene, origins, directions, settings: As `render` takes them.
        features: Foreground, premultiplied: colour, then labels where the Scene has them.
        transmittance: Light left behind it.
        weights, places, edges: Of the sorted intervals: weight, the distance that stands for it,
            and where it starts and ends.
    """
    opacity = weights.sum(-1, keepdim=True)
    moment = (weights * places).sum(-1, keepdim=True)
    march = _March(features, transmittance, opacity, moment, weights, edges)
    return _finish(scene, origins, directions, march, settings)


def _finish(
    scene: Scene, origins: Tensor, directions: Tensor, march: _March, settings: RenderSettings
) -> Rendering:
    opacity, transmittance = march.opacity, march.transmittance
    reference = settings.conventions == "reference"
    if reference:
        alone = _clamp_to_batch(_ratio(march.moment, opacity), march.edges)
    else:
        # Without any weight the foreground has no distance; a far one keeps depth maps finite.
        alone = march.moment / opacity.clamp(min=1e-6)
        alone = torch.where(opacity < 1e-6, scene.bounds.far, alone)
    foreground, labels = _split(scene, march.features)
    background, features, distance = None, foreground, alone
    # The published code takes the weights' sum, the corrected rules the light that is left.
    left = 1 - opacity if reference else transmittance
    if scene.nothing and scene.background is None:
        features = foreground + scene.nothing * left
    if labels is not None:
        labels = labels + left * labels.new_tensor(scene.behind_labels)
    if scene.background is not None:
        background = scene.background.query(origins, directions)
        features = foreground + transmittance * background
        behind = scene.background.distance(origins, directions)
        distance = (march.moment + transmittance * behind) / (opacity + transmittance)
        if reference:
            middle = (march.edges[..., 1:] + march.edges[..., :-1]) / 2
            distance = _clamp_to_batch(distance, torch.cat([middle, behind], dim=-1))
    return Rendering(
        features,
        foreground,
        background,
        transmittance,
        distance,
        alone,
        march.weights,
        march.edges,
        labels,
        march.surface,
    )


def _split(scene: Scene, features: Tensor) -> tuple[Tensor, Tensor | None]:
    """Colour and label features of what was composited."""
    count = len(scene.behind_labels)
    if count == 0:
        return features, None
    return features[..., :-count], features[..., -count:]


def _ratio(moment: Tensor, opacity: Tensor) -> Tensor:
    """moment / opacity, infinite where there is no opacity at all."""
    tiny = torch.finfo(opacity.dtype).tiny
    return torch.where(opacity > 0, moment / opacity.clamp(min=tiny), torch.inf)


def _clamp_to_batch(distance: Tensor, distances: Tensor) -> Tensor:
    """Official code limits depth maps to the range of all distances of the batch."""
    low, high = distances.detach().aminmax()
    return distance.clamp(low, high)
