"""Settings of G3DR's objective: losses, and views from elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nerfstudio_gan3d.models.settings import FillsDefaults


@dataclass
class ReconstructionLossConfig(FillsDefaults):
    """Weights of the losses; a weight of 0 leaves its term out, uncomputed."""

    rgb: float = 1.0
    """Weight of the mean absolute difference of colours in [-1, 1], seen from the image's view."""
    depth: float = 2.0
    """Weight of the mean absolute difference of distances, object-world units, from that view."""
    opacity: float = 1.0
    """Weight of ``mean(1 - W)``, which makes every ray end somewhere; it rises from 0."""
    opacity_share: float = 0.5
    """Share of training at which that weight has risen."""
    lpips: float = 2.0
    """Weight of LPIPS between novel views and the image, stages 4 and 5 of VGG-16 alone. Needs
    VGG-16's weights on this machine; 0 trains without."""
    clip: float = 0.35
    """Weight of the mean absolute difference of CLIP's embeddings of novel views and of the image.
    Needs CLIP's weights on this machine; 0 trains without."""
    canonical_factor: float = 0.5
    """LPIPS (all stages) and CLIP of the image's own view count this much of their weights ..."""
    canonical_share: float = 0.5
    """... from this share of training on, and nothing before."""
    depth_variation: float = 0.1
    """Weight of the variation of novel views' distances: mean squared difference of neighbours."""
    depth_spread: float = 0.0
    """Weight of ``mean(sum_i w_i |t_i - d| + (1 - W) m)`` wherever a ray's distance d is known, m
    half a side of the box: all of a ray's light comes from the surface, where ``depth`` asks no
    more than that it does so on average. Not in G3DR."""
    warp: float = 0.0
    """Novel views count this much where the image, carried along by its known depth, says what
    they show: ``rgb``, ``depth`` and ``depth_spread`` with their weights times this. Not in G3DR,
    which leaves novel views to LPIPS and CLIP."""
    scale_gradients: bool = True
    """Damp gradients of samples that are far from the known depth, of the image's own view."""
    guided: float = 0.4
    """Probability that the fine samples of a step lie about the known depth."""
    guide_half_width: float = 0.05
    """How far before and behind it, object-world units."""
    ray_stride: int = 1
    """Train with every so many-th row and column of rays, at an offset that changes: 1 is all."""
    lpips_weights: Path | None = None
    """File with VGG-16's weights as torchvision publishes them; None looks in the cache of
    torch.hub."""
    clip_model: str = "ViT-B-16"
    """Architecture by open_clip's name."""
    clip_pretrained: str = "openai"
    """Name of its weights in open_clip."""
    clip_weights: Path | None = None
    """File with these weights; None looks in the caches of open_clip and Hugging Face."""

    def validate(self) -> None:
        """Raises ValueError for values out of range."""
        for name in (
            "rgb",
            "depth",
            "opacity",
            "lpips",
            "clip",
            "depth_variation",
            "depth_spread",
            "warp",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"model.losses.{name} = {getattr(self, name)}: 0 or more")
        for name in ("opacity_share", "canonical_share", "guided"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"model.losses.{name} = {getattr(self, name)}: between 0 and 1")
        if self.canonical_factor < 0 or self.guide_half_width <= 0:
            raise ValueError(
                f"model.losses.canonical_factor = {self.canonical_factor} and guide_half_width = "
                f"{self.guide_half_width}: 0 or more, and more than 0"
            )
        if self.ray_stride < 1:
            raise ValueError(f"model.losses.ray_stride = {self.ray_stride}: at least 1")


@dataclass
class NovelViewConfig(FillsDefaults):
    """Views from elsewhere: how often, and from how far away."""

    share: float = 0.4
    """Share of steps that look at novel views, once it has risen from 0 ..."""
    share_reached: float = 0.2
    """... which it has at this share of training."""
    azimuth_start_deg: float = 7.5
    """Largest azimuth to either side, degrees, at first ..."""
    azimuth_end_deg: float = 30.0
    """... and at the end."""
    azimuth_reached: float = 1 / 3
    """Share of training at which the end is reached."""
    elevation_deg: float = 10.0
    """Largest elevation up or down, degrees."""

    def validate(self) -> None:
        """Raises ValueError for values out of range."""
        for name in ("share", "share_reached", "azimuth_reached"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"model.novel.{name} = {getattr(self, name)}: between 0 and 1")
        for name in ("azimuth_start_deg", "azimuth_end_deg", "elevation_deg"):
            if not 0 < getattr(self, name) < 90:
                raise ValueError(
                    f"model.novel.{name} = {getattr(self, name)}: more than 0 and below 90 degrees"
                )

    def probability(self, share: float) -> float:
        """How likely a step looks at novel views at this share of training."""
        return (
            self.share if share >= self.share_reached else self.share * share / self.share_reached
        )

    def azimuth_range(self, share: float) -> float:
        """Largest azimuth in radians. The published divisor D of ``pi / D`` falls evenly, so the
        range itself grows ever faster."""
        along = 1.0 if share >= self.azimuth_reached else share / self.azimuth_reached
        first, last = 180 / self.azimuth_start_deg, 180 / self.azimuth_end_deg
        return math.pi / (first + (last - first) * along)
