"""What ns-eval measures of models that make Scenes of images: their own view and others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.cameras import make_labels, orbit_labels, split_labels
from nerfstudio_gan3d.data.datamanager import GanDataManager
from nerfstudio_gan3d.image_views import as_condition
from nerfstudio_gan3d.metrics.evaluate import GeneratedBatch
from nerfstudio_gan3d.metrics.reconstruction import (
    depth_accuracy,
    non_flatness,
    plane_warp,
    psnr,
    transparent_below_quantile,
)
from nerfstudio_gan3d.models.image_generator import ImageGenerator, expected_distance, opacity
from nerfstudio_gan3d.models.reconstruction import with_wall
from nerfstudio_gan3d.models.reconstruction_config import NovelViewConfig
from nerfstudio_gan3d.rendering.compositing import composite_weights
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.scene import Scene, activate_density

EMPTY = 1e-3
"""Opacity up to which a ray shows nothing."""
MOST_DB = 100.0
"""What equal images count, whose PSNR is infinite, and the most that any image does."""
NOVEL_ANGLES_DEG = (10.0, 30.0)
"""Angles between the optical axes of two photographs of one object that are compared."""


class RgbdBatch(NamedTuple):
    """Images with their depth and cameras."""

    images: UInt8[Tensor, "b 3 r r"]
    distances: Float[Tensor, "b 1 r r"]
    """Along the pixels' rays; 0 where only background is."""
    labels: Float[Tensor, "b 25"]


class View(NamedTuple):
    """What Scenes look like from one camera each."""

    image: Float[Tensor, "b 3 h w"]
    """In [-1, 1]."""
    distance: Float[Tensor, "b 1 h w"]
    """Along the pixels' rays."""
    opacity: Float[Tensor, "b 1 h w"]
    rendering: Rendering
    """Everything else along these rays, row by row."""


@dataclass
class Means:
    """Means of figures over images."""

    totals: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, values: Float[Tensor, "n"]) -> None:
        """Adds one value an image; NaN, what an image without an object has for an error on it, is
        left out."""
        known = values[~values.isnan()].double()
        self.totals[name] = self.totals.get(name, 0.0) + float(known.sum())
        self.counts[name] = self.counts.get(name, 0) + len(known)

    def figures(self) -> dict[str, float]:
        """The means of what was added."""
        return {
            name: total / self.counts[name]
            for name, total in self.totals.items()
            if self.counts[name]
        }


def seen(generator: ImageGenerator, scene: Scene, labels: Float[Tensor, "b 25"]) -> View:
    """Views of Scenes by the generator's own rules, deterministic."""
    made = generator.render(scene, labels)
    height, width = made.raw.shape[2:]
    maps = (expected_distance(made.rendering), opacity(made.rendering))
    distance, covered = (values.mT.unflatten(2, (height, width)) for values in maps)
    return View(made.image.clamp(-1, 1), distance, covered, made.rendering)


def thicker_half(
    scene: Scene,
    rays: tuple[Float[Tensor, "b r 3"], Float[Tensor, "b r 3"]],
    rendering: Rendering,
    *,
    at_once: int = 32,
) -> Rendering:
    """The rendering's weights without the thinner half of the density: 3DGP's preparation of the
    Non-Flatness Score, for which fog before a flat wall is a relief.

    The density in the middle of each interval is taken for all of it. The half is one of the
    intervals of all rays of all Scenes together. Colours stay as they were.

    Args:
        scene: a volume without labels.
        rays: origins and directions of the rendering's rays.
        rendering: of the Scene; its intervals are taken over.
        at_once: intervals of a ray whose density is asked for at a time, for memory's sake.
    """
    lengths = rendering.edges.diff(dim=-1)
    middle = rendering.edges[..., :-1] + lengths / 2
    origins, directions = (part.unsqueeze(2) for part in rays)
    parts = []
    for places in middle.split(at_once, dim=-1):
        positions = origins + directions * places.unsqueeze(-1)
        parts.append(scene.raw_density(positions.flatten(1, 2)).view(places.shape))
    density = activate_density(torch.cat(parts, dim=-1), scene.density_scale)
    # Rays that miss the box have intervals of no length, which are nobody's half.
    real = lengths > 0
    kept = torch.zeros_like(density)
    if real.any():
        kept[real] = transparent_below_quantile(density[real])
    composed = composite_weights(kept, lengths)
    return replace(rendering, weights=composed.weights, transmittance=composed.transmittance)


def thick_distance(
    generator: ImageGenerator, scene: Scene, labels: Float[Tensor, "b 25"], view: View
) -> Float[Tensor, "b 1 h w"]:
    """The view's distances without the thinner half of the density; the Scene's far bound where
    nothing is left."""
    height, width = view.distance.shape[2:]
    rays = generator.rays(labels, height, width)
    found = thicker_half(scene, rays, view.rendering, at_once=generator.settings.samples)
    left = torch.where(opacity(found) > EMPTY, expected_distance(found), scene.bounds.far)
    return left.mT.unflatten(2, (height, width))


def to_canonical(
    generator: ImageGenerator, own: Float[Tensor, "b 25"], other: Float[Tensor, "b 25"]
) -> Float[Tensor, "b 25"]:
    """Cameras ``other`` of the data set's world in that of Scenes whose images were taken from
    ``own``: ``C own^-1 other`` with the canonical camera C."""
    canonical = split_labels(generator.canonical_labels(len(own)))[0]
    moved = canonical @ torch.linalg.inv(split_labels(own)[0]) @ split_labels(other)[0]
    return make_labels(moved, split_labels(other)[1])


def to_world(
    generator: ImageGenerator, own: Float[Tensor, "b 25"], other: Float[Tensor, "b 25"]
) -> Float[Tensor, "b 25"]:
    """The inverse of `to_canonical`: cameras of Scenes in the data set's world."""
    canonical = split_labels(generator.canonical_labels(len(own)))[0]
    moved = split_labels(own)[0] @ torch.linalg.inv(canonical) @ split_labels(other)[0]
    return make_labels(moved, split_labels(other)[1])


def rgbd_batches(
    data: GanDataManager, places: Sequence[int], size: int, device: torch.device
) -> Iterator[RgbdBatch]:
    """Images of the data set with their depth, ``size`` at a time."""
    for start in range(0, len(places), size):
        found = data.rgbd(places[start : start + size])
        yield RgbdBatch(*(part.to(device) for part in found))


def scenes(generator: ImageGenerator, batch: RgbdBatch, wall: float) -> Scene:
    """The Scenes of a batch's images."""
    distances = with_wall(generator, batch.distances, wall)
    return generator.scene(as_condition(batch.images, distances))


@torch.no_grad()
def own_view_figures(
    generator: ImageGenerator, batches: Iterator[RgbdBatch], wall: float
) -> dict[str, float]:
    """Held-out images seen from their own view; see docs/evaluation.md.

    Those of ``non_flatness`` are over the depth range of the box.
    """
    means = Means()
    half = generator.bounds.box[2] / 2
    near, far = generator.radius - half, generator.radius + half
    for batch in batches:
        target = batch.images.float() / 127.5 - 1
        known = with_wall(generator, batch.distances, wall)
        scene = scenes(generator, batch, wall)
        labels = generator.canonical_labels(len(target))
        view = seen(generator, scene, labels)
        solid = batch.distances > 0
        means.add("canonical_psnr", psnr(view.image, target).clamp(max=MOST_DB))
        means.add("canonical_psnr_object", psnr(view.image, target, solid).clamp(max=MOST_DB))
        means.add("canonical_depth_error", (view.distance - known).abs().flatten(1).mean(1))
        aligned, correlation = depth_accuracy(view.distance, known)
        means.add("canonical_depth_aligned", aligned)
        means.add("canonical_depth_correlation", correlation)
        aligned, correlation = depth_accuracy(view.distance, known, solid)
        means.add("object_depth_aligned", aligned)
        means.add("object_depth_correlation", correlation)
        means.add("canonical_opacity", view.opacity.flatten(1).mean(1))
        means.add("non_flatness", non_flatness(view.distance, near, far))
        thick = thick_distance(generator, scene, labels, view)
        means.add("non_flatness_thicker_half", non_flatness(thick, near, far))
        means.add("truth_non_flatness", non_flatness(known, near, far))
    return means.figures()


def photographed_twice(
    labels: Float[Tensor, "n 25"], objects: Sequence[int]
) -> list[tuple[int, int]]:
    """Ordered pairs of images of one object whose optical axes differ by `NOVEL_ANGLES_DEG`."""
    axes = torch.nn.functional.normalize(labels[:, [2, 6, 10]], dim=1)
    angles = torch.rad2deg((axes @ axes.T).clamp(-1, 1).acos())
    numbers = torch.tensor(list(objects))
    low, high = NOVEL_ANGLES_DEG
    chosen = (numbers[:, None] == numbers) & (angles >= low) & (angles <= high)
    return [(int(own), int(other)) for own, other in chosen.nonzero()]


@dataclass(frozen=True)
class NovelViews:
    """Scenes of one photograph each, from where a second one of the same object was taken.

    Images are in [-1, 1].
    """

    own: RgbdBatch
    """The photographs that the Scenes are made of."""
    other: RgbdBatch
    """The second ones."""
    given: Float[Tensor, "b 3 r r"]
    """The first ones, as they are."""
    target: Float[Tensor, "b 3 r r"]
    """The second ones."""
    solid: Tensor
    """Where these show the object, bool [B, 1, R, R]."""
    scene: Scene
    """The Scenes."""
    cameras: Float[Tensor, "b 25"]
    """Of the second ones, in the Scenes' world."""
    made: Float[Tensor, "b 3 r r"]
    """The Scenes from there."""
    plane: Float[Tensor, "b 3 r r"]
    """The first ones on a plane through the origin, parallel to the image, from there."""


@torch.no_grad()
def novel_views(
    generator: ImageGenerator, data: GanDataManager, places: Sequence[int], wall: float, size: int
) -> Iterator[NovelViews]:
    """All pairs of photographs of one object, ``size`` at a time; none for sets that do not say
    which object an image shows, and from where."""
    images = data.image_set
    if images.objects is None or not _tells_views(data):
        return
    labels = torch.as_tensor(images.labels)[list(places)]
    pairs = photographed_twice(labels, [images.objects[place] for place in places])
    for start in range(0, len(pairs), size):
        some = pairs[start : start + size]
        own, other = (
            RgbdBatch(
                *(
                    part.to(generator.device)
                    for part in data.rgbd([places[pair[side]] for pair in some])
                )
            )
            for side in (0, 1)
        )
        cameras = to_canonical(generator, own.labels, other.labels)
        given, target = (batch.images.float() / 127.5 - 1 for batch in (own, other))
        canonical = generator.canonical_labels(len(some))
        flat = torch.full((len(some),), generator.radius, device=generator.device)
        scene = scenes(generator, own, wall)
        yield NovelViews(
            own,
            other,
            given,
            target,
            other.distances > 0,
            scene,
            cameras,
            seen(generator, scene, cameras).image,
            plane_warp(given, canonical, cameras, flat)[0],
        )


@torch.no_grad()
def novel_view_figures(
    generator: ImageGenerator, data: GanDataManager, places: Sequence[int], wall: float, size: int
) -> dict[str, float]:
    """Other photographs of the same object against what the Scene of one of them shows there, on
    the pixels of the object.

    Beside it stand the input as it is (``unwarped``), and the input on a plane through the origin,
    parallel to the image (``plane``). Nothing for sets that `novel_views` has none of.
    """
    means = Means()
    for views in novel_views(generator, data, places, wall, size):
        candidates = {
            "novel_psnr": views.made,
            "novel_psnr_unwarped": views.given,
            "novel_psnr_plane": views.plane,
        }
        for name, image in candidates.items():
            relight = relit(image, views.target, views.solid)
            means.add(name, psnr(image, views.target, views.solid).clamp(max=MOST_DB))
            means.add(f"{name}_relit", psnr(relight, views.target, views.solid).clamp(max=MOST_DB))
    if not _tells_views(data):
        return {}
    # Photographs without the object have no figure.
    return {**means.figures(), "novel_pairs": float(means.counts.get("novel_psnr", 0))}


def _tells_views(data: GanDataManager) -> bool:
    """Whether a set says which object an image shows, from where, and how far away."""
    images = data.image_set
    return images.objects is not None and images.labels is not None and images.depth_kind == "z"


def relit(
    image: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], mask: Tensor
) -> Float[Tensor, "b 3 h w"]:
    """The image with the one factor a channel, of brightness from black, that brings it nearest to
    the target on the mask: photographs of one object differ in their light."""
    seen_there, wanted = ((values + 1) * mask for values in (image, target))
    top = (seen_there * wanted).sum((2, 3), keepdim=True)
    bottom = seen_there.square().sum((2, 3), keepdim=True)
    factor = torch.where(bottom > 0, top / bottom.clamp(min=1e-12), 1.0)
    return ((image + 1) * factor - 1).clamp(-1, 1)


@torch.no_grad()
def novel_batches(
    generator: ImageGenerator,
    batches: Iterator[RgbdBatch],
    novel: NovelViewConfig,
    wall: float,
    seed: int,
) -> Iterator[GeneratedBatch]:
    """Views from elsewhere as training draws them at its end, one an image, with the cameras in the
    data set's world."""
    source = torch.Generator().manual_seed(seed)
    limits = novel.azimuth_range(1.0), math.radians(novel.elevation_deg)
    for batch in batches:
        count = len(batch.images)
        angles = [(torch.rand(count, generator=source) * 2 - 1) * limit for limit in limits]
        focal = float(generator.canonical[0, 16])
        cameras = orbit_labels(angles[0], angles[1], generator.radius, focal=focal)
        cameras = cameras.to(generator.device)
        view = seen(generator, scenes(generator, batch, wall), cameras)
        yield GeneratedBatch(view.image, to_world(generator, batch.labels, cameras))
