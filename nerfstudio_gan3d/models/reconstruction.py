"""G3DR's objective: the image's own view against the image, other views against what classifiers
say of it."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.cameras import axis_cosine, orbit_labels
from nerfstudio_gan3d.losses.clip import ClipDistance
from nerfstudio_gan3d.losses.geometry import depth_variation
from nerfstudio_gan3d.losses.perceptual import PerceptualDistance
from nerfstudio_gan3d.models.image_generator import (
    ImageGenerator,
    distance_spread,
    expected_distance,
    opacity,
)
from nerfstudio_gan3d.models.reconstruction_config import (
    NovelViewConfig,
    ReconstructionLossConfig,
)
from nerfstudio_gan3d.rendering.depth_warp import Warped, depth_warp
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import DepthGuide
from nerfstudio_gan3d.scene import ImageCondition, Scene

COARSE_STAGES = (0.0, 0.0, 0.0, 1.0, 1.0)
"""Weights of VGG-16's stages in LPIPS of views that nobody photographed: what is where, and not
which pixel has which colour."""
WARP_TOLERANCE = 0.06
"""By how much distances along one surface may differ from pixel to pixel, object-world units."""
WITHOUT_LPIPS = "--pipeline.model.losses.lpips 0"
WITHOUT_CLIP = "--pipeline.model.losses.clip 0"


class Turn(NamedTuple):
    """What a step does; the same in all processes."""

    novel: bool
    """Whether it looks at novel views."""
    guided: bool
    """Whether fine samples lie about the known depth."""


class ReconstructionObjective(nn.Module):
    """The losses of a training step. Holds no parameters.

    Args:
        losses: weights.
        novel: views from elsewhere.
        wall: where pixels without depth are taken to be, half sides of the box behind the origin.

    Attributes:
        share: how much of training is done, 0..1; set before each step.
    """

    images_seen: Tensor

    def __init__(
        self, losses: ReconstructionLossConfig, novel: NovelViewConfig, wall: float
    ) -> None:
        super().__init__()
        self.losses = losses
        self.novel = novel
        self.wall = wall
        self.share = 0.0
        self.perceptual: PerceptualDistance | None = None
        self.coarse: PerceptualDistance | None = None
        self.clip: ClipDistance | None = None
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    def prepare(self) -> None:
        """Loads what losses need; raises ValueError where it is not on this machine."""
        losses = self.losses
        if losses.lpips > 0:
            weights = losses.lpips_weights
            self.coarse = PerceptualDistance(weights, layers=COARSE_STAGES, without=WITHOUT_LPIPS)
            if losses.canonical_factor > 0:
                self.perceptual = PerceptualDistance(weights, without=WITHOUT_LPIPS)
        if losses.clip > 0:
            self.clip = ClipDistance(
                losses.clip_model,
                losses.clip_pretrained,
                losses.clip_weights,
                without=WITHOUT_CLIP,
            )

    def left_out(self) -> list[str]:
        """A sentence for each part of the published objective that is switched off."""
        switches = {
            "rgb": "colour",
            "depth": "depth",
            "opacity": "opacity",
            "depth_variation": "depth variation",
            "lpips": "LPIPS",
            "clip": "CLIP",
        }
        sentences = [
            f"model.losses.{name} = 0: this run trains without the {title} loss of G3DR."
            for name, title in switches.items()
            if getattr(self.losses, name) == 0
        ]
        if self.novel.share == 0:
            sentences.append(
                "model.novel.share = 0: this run trains without the views from elsewhere of G3DR, "
                "so that LPIPS, CLIP and depth variation judge nothing there."
            )
        return sentences

    def turn(self, step: int, seed: int) -> Turn:
        """What a step does: a pure function of seed, step and the share of training, so that all
        processes agree and a resumed run goes on alike."""
        draws = random.Random(f"{seed} {step}")
        novel = draws.random() < self.novel.probability(self.share)
        return Turn(novel, not novel and draws.random() < self.losses.guided)

    def condition(
        self, generator: ImageGenerator, images: Tensor, distances: Tensor
    ) -> ImageCondition:
        """Images with the wall where there is no depth."""
        return ImageCondition(images, with_wall(generator, distances, self.wall))

    def forward(
        self,
        generator: ImageGenerator,
        images: Float[Tensor, "b 3 r r"],
        distances: Float[Tensor, "b 1 r r"],
        step: int,
        seed: int,
        world_size: int = 1,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses whose sum is the objective, and figures to log.

        Args:
            images: in [-1, 1].
            distances: along the pixels' rays; 0 where nothing is known but the background.
            step, seed: decide what the step does.
            world_size: processes that take part, each with a batch of this size.
        """
        condition = self.condition(generator, images, distances)
        scene = generator.scene(condition)
        turn = self.turn(step, seed)
        if turn.novel:
            out = self._novel(generator, scene, condition)
        else:
            out = self._canonical(generator, scene, condition, turn.guided)
        self.images_seen += len(images) * world_size
        return out, {"novel": torch.tensor(float(turn.novel)), "share": torch.tensor(self.share)}

    def _canonical(
        self, generator: ImageGenerator, scene: Scene, condition: ImageCondition, guided: bool
    ) -> dict[str, Tensor]:
        """The image's own view: colours and distances are known."""
        losses = self.losses
        rays, grid = self._rays(generator, generator.canonical_labels(scene.batch_size))
        target, known = condition.image[grid], condition.distance[grid]
        width = losses.guide_half_width if guided else None
        guide = None
        if guided or losses.scale_gradients:
            guide = DepthGuide(known.flatten(2).mT, width, losses.scale_gradients)
        found = generator.march(scene, rays, jitter=True, guide=guide)
        seen = found.features.mT.unflatten(2, target.shape[2:]) * 2 - 1
        out = self._against(
            generator, found, seen, Warped(target, known, torch.ones_like(known).bool())
        )
        out |= self._opacity(opacity(found))
        if self.share > losses.canonical_share:
            factor = losses.canonical_factor
            if self.perceptual is not None:
                out["lpips"] = losses.lpips * factor * self.perceptual(seen, target).mean()
            if self.clip is not None and factor > 0:
                out["clip"] = losses.clip * factor * self.clip(seen, target).mean()
        return out

    def _novel(
        self, generator: ImageGenerator, scene: Scene, condition: ImageCondition
    ) -> dict[str, Tensor]:
        """A view from elsewhere: it must look like the image to classifiers."""
        losses, count = self.losses, scene.batch_size
        limits = self.novel.azimuth_range(self.share), math.radians(self.novel.elevation_deg)
        device = condition.image.device
        angles = [(torch.rand(count, device=device) * 2 - 1) * limit for limit in limits]
        focal = float(generator.canonical[0, 16])
        labels = orbit_labels(angles[0], angles[1], generator.radius, focal=focal)
        rays, grid = self._rays(generator, labels)
        target = condition.image[grid]
        guide, known = None, None
        if losses.warp > 0:
            reach = WARP_TOLERANCE
            own = generator.canonical_labels(count)
            carried = depth_warp(condition.image, condition.distance, own, labels, reach)
            known = Warped(*(part[grid] for part in carried))
            if losses.scale_gradients:
                # Where nothing is known, everything is as far from it as can be.
                distance = torch.where(known.known, known.distance, torch.inf)
                guide = DepthGuide(distance.flatten(2).mT, None, True)
        found = generator.march(scene, rays, jitter=True, guide=guide)
        shape = (target.shape[2], target.shape[3])
        seen = found.features.mT.unflatten(2, shape) * 2 - 1
        out = {}
        if known is not None:
            terms = self._against(generator, found, seen, known)
            out |= {f"novel_{name}": losses.warp * value for name, value in terms.items()}
        if losses.depth_variation > 0:
            distance = expected_distance(found).mT.unflatten(2, shape)
            out["depth_variation"] = losses.depth_variation * depth_variation(distance)
        out |= self._opacity(opacity(found))
        if self.coarse is not None:
            out["lpips"] = losses.lpips * self.coarse(seen, target).mean()
        if self.clip is not None:
            out["clip"] = losses.clip * self.clip(seen, target).mean()
        return out

    def _against(
        self,
        generator: ImageGenerator,
        found: Rendering,
        seen: Float[Tensor, "b 3 h w"],
        target: Warped,
    ) -> dict[str, Tensor]:
        """Colours and distances against known ones: means over the pixels that are known."""
        losses, known = self.losses, target.known
        half = generator.bounds.box[2] / 2
        count = known.sum().clamp(min=1)
        distance = target.distance.flatten(2).mT
        differences = {
            "rgb": lambda: (seen - target.image).abs().mean(1, keepdim=True),
            "depth": lambda: (expected_distance(found) - distance).abs().mT.view_as(known),
            "depth_spread": lambda: distance_spread(found, distance, half).mT.view_as(known),
        }
        return {
            name: getattr(losses, name) * torch.where(known, difference(), 0).sum() / count
            for name, difference in differences.items()
            if getattr(losses, name) > 0
        }

    def _opacity(self, covered: Float[Tensor, "b r 1"]) -> dict[str, Tensor]:
        losses = self.losses
        if losses.opacity == 0:
            return {}
        risen = 1.0 if self.share >= losses.opacity_share else self.share / losses.opacity_share
        return {"opacity": losses.opacity * risen * (1 - covered).mean()}

    def _rays(
        self, generator: ImageGenerator, labels: Float[Tensor, "b 25"]
    ) -> tuple[tuple[Tensor, Tensor], tuple[slice, slice, slice, slice]]:
        """Rays of every so many-th pixel, and where these pixels are in an image [B, C, R, R]."""
        side, stride = generator.image_resolution, self.losses.ray_stride
        first = torch.randint(stride, (2,)).tolist() if stride > 1 else (0, 0)
        rows, columns = (slice(start, None, stride) for start in first)
        everything = slice(None)
        rays = tuple(
            part.unflatten(1, (side, side))[:, rows, columns].flatten(1, 2)
            for part in generator.rays(labels, side, side)
        )
        return (rays[0], rays[1]), (everything, everything, rows, columns)


def with_wall(
    generator: ImageGenerator, distances: Float[Tensor, "b 1 r r"], wall: float
) -> Float[Tensor, "b 1 r r"]:
    """Distances with those of a plane parallel to the image where they are 0.

    Args:
        wall: how far the plane lies behind the origin, half sides of the box.
    """
    side = distances.shape[-1]
    labels = generator.canonical_labels(1).to(distances)
    cosine = axis_cosine(labels, generator.rays(labels, side, side)[1])  # [1, R, 1]
    depth = generator.radius + wall * generator.bounds.box[2] / 2
    behind = (depth / cosine).mT.unflatten(2, (side, side))
    return torch.where(distances > 0, distances, behind)
