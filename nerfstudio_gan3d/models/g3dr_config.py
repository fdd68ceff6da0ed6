"""Sizes of G3DR's networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class UNetConfig:
    """Sizes of the network that makes the planes."""

    width: int = 128
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    """Channels of each level, in widths; each level halves the size of the one before."""
    blocks: int = 2
    """Residual blocks of a level, on the way down and on the way up."""
    attention: bool = True
    """Linear attention at every level and full attention in the middle."""
    position_channels: int = 256
    """Learned features of each pixel beside the image."""


@dataclass
class MultiPlaneConfig:
    """Sizes of the planes and their decoder."""

    channels: int = 64
    """Features of a plane; planes are as large as the images."""
    resolutions: int = 3
    """Sizes at which each plane is sampled: its own, a half, a quarter. 1 samples its own alone."""
    axes: Literal["auto", "xy_xz_zy", "xy_xz_zx"] = "auto"
    """Axes of the planes in the published world. auto: xy_xz_zy, or with reference conventions
    xy_xz_zx, whose third plane repeats the second one."""
    frame: Literal["box", "frustum"] = "box"
    """What planes span: the box, as published; or what the canonical camera sees, so that the
    plane parallel to the image has the image's pixels as its texels. Reference conventions need
    box."""
    hidden_dim: int = 64
    """Width of the decoder."""
    density_scale: float = 1.0
    """Factor of the density's activation, scale * softplus(raw - 1)."""


@dataclass
class DetailConfig:
    """Sizes of a hash grid beside the planes."""

    levels: int = 0
    """Resolutions of the grid; 0, as published: there is none."""
    base_resolution: int = 16
    """Cells along a side at the coarsest level."""
    max_resolution: int = 256
    """Cells along a side at the finest level."""
    log2_table_size: int = 15
    """Logarithm of the entries a level may have at most; finer levels are hashed."""
    features_per_level: int = 2
    """Features of a level that the decoder sees."""
    bases: int = 8
    """Basis features per level, which the network's description of an image mixes."""
    implementation: Literal["auto", "torch", "tcnn"] = "auto"
    """Evaluator: tiny-cuda-nn where there is one (auto), or one of the two by name."""
