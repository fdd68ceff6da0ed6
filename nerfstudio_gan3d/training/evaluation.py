"""What ns-eval measures of a generator: its images beside real ones, its labels, its meshes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.data.datamanager import GanDataManager
from nerfstudio_gan3d.data.resize import resize_image
from nerfstudio_gan3d.latents import (
    STORED_MAPS,
    LabelStore,
    SceneRequest,
    request_latents,
    seed_latent,
)
from nerfstudio_gan3d.metrics.config import EvaluationConfig
from nerfstudio_gan3d.metrics.edges import EdgeAgreement, edge_strength
from nerfstudio_gan3d.metrics.evaluate import GeneratedBatch, RealBatch
from nerfstudio_gan3d.metrics.features import FeatureExtractor
from nerfstudio_gan3d.metrics.labels import LabelAgreement, ViewConsistency, diversity
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.label_images import label_ids
from nerfstudio_gan3d.models.scene_generator import Images, alpha_map, z_depth
from nerfstudio_gan3d.networks.label_encoder import encode_labels
from nerfstudio_gan3d.scene import Condition

TURN_DEG = 30.0
"""Angle between the two views of which labels are compared."""
LATENT_BLOCK = 16
"""Latents of samples that are drawn before as many of backgrounds."""
EDGE_TOLERANCE = 1.0
"""Distance in pixels of the rendered resolution within which an edge counts as found."""
EDGE_THRESHOLD = 0.5
"""Strength from which on a pixel of an edge map counts as an edge."""
DIVERSE_MAPS, DIVERSE_SEEDS = 16, 4
"""Label maps, and seeds for each, that diversity is measured on."""


class LabelInputs(NamedTuple):
    """Label maps to make Scenes from, with the poses that they are seen from."""

    maps: UInt8[Tensor, "n 1 r r"]
    poses: Float[Tensor, "n 25"]

    @property
    def blank(self) -> bool:
        """Whether the maps show nothing, as those of imported models do."""
        return bool((self.maps == self.maps[0, 0, 0, 0]).all())

    def rows(self, start: int, count: int) -> LabelInputs:
        """``count`` of them, from the beginning again after the last one."""
        chosen = (start + torch.arange(count)) % len(self.maps)
        return LabelInputs(self.maps[chosen], self.poses[chosen])


def label_inputs(data: GanDataManager, store: LabelStore | None, seed: int) -> LabelInputs | None:
    """All label maps of the evaluation split in random order; those that the checkpoint keeps where
    the data set is missing; None for models without labels."""
    if store is None:
        return None
    if data.images_missing:
        return LabelInputs(store.maps.cpu(), store.poses.cpu())
    places = data.split_indices("test")
    labels = data.image_set.labels
    assert labels is not None
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [places[row] for row in order]
    return LabelInputs(data.label_maps(chosen), torch.as_tensor(labels)[chosen])


def make_images(
    generator: Generator, condition: Condition, labels: Tensor, truncation: float
) -> Images:
    """Images of conditions, each from one camera."""
    return generator.render(generator.scene(generator.map(condition, truncation)), labels)


def judged(images: Images, labels: Tensor) -> GeneratedBatch:
    """Images with opacity and foreground z-depth, as `evaluate` takes them."""
    height, width = images.raw.shape[2:]
    return GeneratedBatch(
        images.image,
        labels,
        alpha_map(images.rendering, height, width),
        z_depth(images.rendering, labels, height, width),
    )


def generated_batches(
    generator: Generator,
    data: GanDataManager,
    config: EvaluationConfig,
    inputs: LabelInputs | None = None,
) -> Iterator[GeneratedBatch]:
    """``num_samples`` generated images from cameras of the data set, in random order.

    What is drawn does not depend on the size of the batches.
    """
    device = generator.device
    latents = _latents(config, generator.latent.z_dim)
    labels = data.sample_labels(config.num_samples, config.seed)
    poses = data.sample_labels(config.num_samples, config.seed + 1)
    for start in range(0, config.num_samples, config.batch_size):
        chosen = labels[start : start + config.batch_size].to(device)
        count = len(chosen)
        z, behind = (drawn[start : start + count].to(device) for drawn in latents)
        pose = poses[start : start + count].to(device)
        condition = Condition(z, behind if generator.background is not None else None, pose)
        if inputs is not None:
            condition = _conditioned(generator, condition, inputs.rows(start, count))
        yield judged(make_images(generator, condition, chosen, config.truncation), chosen)


def _latents(config: EvaluationConfig, size: int) -> tuple[Tensor, Tensor]:
    """Latents of all samples and of their backgrounds, [N, size] each, in blocks by turns."""
    source = torch.Generator().manual_seed(config.seed)
    pairs = []
    for start in range(0, config.num_samples, LATENT_BLOCK):
        count = min(LATENT_BLOCK, config.num_samples - start)
        pairs.append([torch.randn(count, size, generator=source) for _ in range(2)])
    z, behind = (torch.cat(blocks) for blocks in zip(*pairs, strict=True))
    return z, behind


def _conditioned(generator: Generator, condition: Condition, inputs: LabelInputs) -> Condition:
    """The same latents with label maps and their poses."""
    assert generator.labels is not None
    device = condition.z.device
    maps = encode_labels(inputs.maps, generator.labels.kind, generator.labels.classes)
    return Condition(condition.z, condition.z_background, inputs.poses.to(device), maps.to(device))


def real_batches(data: GanDataManager, batch_size: int = 50) -> Iterator[RealBatch]:
    """All training images at the size that is trained on, with masks and depth maps, at their own
    size, where the set has them."""
    images = data.image_set
    places = data.split_indices("train")
    for start in range(0, len(places), batch_size):
        rows = places[start : start + batch_size]

        def image(row: int) -> UInt8[np.ndarray, "r r 3"]:
            return resize_image(images.image(row), data.resolution)

        def stack(read: Callable[[int], Any], rows: list[int] = rows) -> Tensor:
            return torch.stack([torch.as_tensor(read(row)) for row in rows])

        yield RealBatch(
            stack(image).permute(0, 3, 1, 2),
            None if images.labels is None else torch.as_tensor(images.labels)[rows],
            stack(images.mask)[:, None] if images.has_masks else None,
            stack(images.depth)[:, None] if images.has_depth else None,
        )


@torch.no_grad()
def label_figures(
    generator: Generator,
    inputs: LabelInputs,
    extractor: FeatureExtractor | None,
    config: EvaluationConfig,
) -> dict[str, float]:
    """How well images and labels follow the label maps, from all sides; see docs/evaluation.md.

    Each map is used once, with a latent of its own, and looked at from its own pose and from
    `TURN_DEG` beside it.
    """
    labels = generator.labels
    assert labels is not None
    edges = EdgeAgreement(EDGE_TOLERANCE)
    # A line is a class of its own beside paper where views are compared.
    classes = 2 if labels.kind == "edge" else labels.classes
    names = () if labels.kind == "edge" else labels.class_names
    agreement, views = LabelAgreement(classes, names), ViewConsistency(classes, names)
    for start in range(0, len(inputs.maps), config.batch_size):
        part = LabelInputs(*(values[start : start + config.batch_size] for values in inputs))
        condition = _seeded(generator, part, range(start, start + len(part.maps)), config.seed)
        scene = generator.scene(generator.map(condition, config.truncation))
        pose = part.poses.to(condition.z.device)
        beside = turned(pose, math.radians(TURN_DEG))
        seen, other = generator.render(scene, pose), generator.render(scene, beside)
        found = [_view(generator, images, at) for images, at in ((seen, pose), (other, beside))]
        views.update(*found[0], pose, *found[1], beside)
        if labels.kind == "edge":
            assert seen.raw_labels is not None
            assert condition.label_map is not None
            strength = edge_strength(seen.raw_labels)
            size = (strength.shape[2], strength.shape[3])
            target = torch.nn.functional.interpolate(
                condition.label_map, size, mode="bilinear", antialias=True
            )
            edges.update(strength, edge_strength(target) > EDGE_THRESHOLD)
            continue
        parts = None
        if extractor is not None and "part_logits" in extractor.outputs:
            parts = extractor(seen.image).part_logits
            assert parts is not None
            parts = parts.cpu() if parts.shape[1] == classes else None
        assert seen.labels is not None
        agreement.update(parts, part.maps, label_ids(seen.labels, labels).cpu())
    figures = {**agreement.figures(), **views.figures(), **edges.figures()}
    if extractor is not None:
        figures |= _diversity(generator, inputs, extractor, config)
    return figures


def _seeded(
    generator: Generator, inputs: LabelInputs, seeds: range | list[int], offset: int
) -> Condition:
    """A condition for each of the maps with the latents of these seeds."""
    device, size = generator.device, generator.latent.z_dim
    z = torch.cat([seed_latent(offset + seed, size) for seed in seeds]).to(device)
    behind = torch.cat([seed_latent(offset + seed, size, stream=1) for seed in seeds]).to(device)
    condition = Condition(z, behind if generator.background is not None else None)
    return _conditioned(generator, condition, inputs)


def _view(generator: Generator, images: Images, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Label ids and foreground z-depth of a rendered view, at the rendered resolution."""
    assert generator.labels is not None
    assert images.raw_labels is not None
    height, width = images.raw.shape[2:]
    ids = label_ids(images.raw_labels, generator.labels)
    if generator.labels.kind == "edge":
        ids = (edge_strength(images.raw_labels) > EDGE_THRESHOLD).to(torch.uint8)
    depth = z_depth(images.rendering, pose, height, width)
    solid = alpha_map(images.rendering, height, width) > 0.5
    return ids, torch.where(solid, depth, 0.0)


def _diversity(
    generator: Generator,
    inputs: LabelInputs,
    extractor: FeatureExtractor,
    config: EvaluationConfig,
) -> dict[str, float]:
    """Distances of images of one label map with several seeds, in the extractor's features."""
    count = min(DIVERSE_MAPS, len(inputs.maps))
    few = inputs.rows(0, count)
    pose = few.poses.to(generator.device)
    columns = []
    for number in range(DIVERSE_SEEDS):
        seeds = [number * count + row for row in range(count)]
        condition = _seeded(generator, few, seeds, config.seed)
        columns.append(extractor(make_images(generator, condition, pose, 1.0).image).features)
    found = diversity(torch.stack([column.cpu() for column in columns], dim=1), extractor.name)
    figures = {"diversity_within": found.within}
    if found.between is not None:
        figures["diversity_between"] = found.between
    return figures


@torch.no_grad()
def sampled_mesh_figures(
    generator: Generator,
    store: LabelStore | None,
    cameras: Float[Tensor, "v 25"],
    config: EvaluationConfig,
) -> dict[str, float]:
    """How whole the meshes of `mesh_samples` seeds are, and how near they lie to what images show.

    The Scenes are those that ``gan3d mesh`` makes of the seeds from `seed` on with the same
    truncation. With label maps each takes the next of those that the checkpoint keeps.

    Args:
        store: The label maps that the checkpoint keeps; None for models without labels.
        cameras: Where the depth maps are seen from that meshes are compared with.
    """
    # What extracts meshes takes a second to import, which commands without meshes can do without.
    from nerfstudio_gan3d.metrics.meshes import (
        MeshQuality,
        mesh_figures,
        mesh_quality,
        scene_mesh,
        seen_points,
    )

    device = generator.device
    cameras = cameras.to(device)
    qualities: list[MeshQuality | None] = []
    for row in range(config.mesh_samples):
        request = SceneRequest(
            seed=config.seed + row, truncation=config.truncation, label=row % STORED_MAPS
        )
        scene = generator.scene(request_latents(generator, request, store))
        mesh = scene_mesh(scene, config.mesh_resolution, device)
        if mesh is None:
            qualities.append(None)
            continue
        qualities.append(mesh_quality(mesh, seen_points(scene, cameras, generator.settings)))
    return mesh_figures(qualities)


def turned(labels: Float[Tensor, "b 25"], angle: float) -> Float[Tensor, "b 25"]:
    """The same cameras after a turn of ``angle`` radians about the object world's y axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = labels.new_tensor([[cos, 0, sin, 0], [0, 1, 0, 0], [-sin, 0, cos, 0], [0, 0, 0, 1]])
    poses = turn @ labels[:, :16].unflatten(1, (4, 4))
    return torch.cat([poses.flatten(1), labels[:, 16:]], dim=1)
