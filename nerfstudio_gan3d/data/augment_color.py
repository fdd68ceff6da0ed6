"""Colour augmentation: all colour changes of an image as one affine map of RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass
class ColorDraws:
    """What was drawn for each of B images. None means that the transformation is switched off.

    The transformations act in the order of the fields. Luma is the mean of R, G and B; chroma is
    what is left without it.
    """

    brightness: Float[Tensor, "b"] | None = None
    """Added to every channel; images span [-1, 1]."""
    contrast: Float[Tensor, "b"] | None = None
    """Factor on every channel."""
    luma_flip: Bool[Tensor, "b"] | None = None
    """Change the sign of the luma, keep the chroma."""
    hue: Float[Tensor, "b"] | None = None
    """Rotation about the grey axis in radians; a third of the circle turns red into green."""
    saturation: Float[Tensor, "b"] | None = None
    """Factor on the chroma, luma kept."""


def color_map(
    draws: ColorDraws, batch: int, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b"]]:
    """The map of all steps together, new = matrix @ rgb + offset on each channel.

    With v the grey axis (1, 1, 1) / sqrt(3), Karras et al. 2020 (appendix B) multiply 4x4 matrices:
    brightness moves along v, contrast scales, a luma flip is I - 2 v v^T, hue rotates about v, and
    saturation s is v v^T + s (I - v v^T). All of them keep v and the plane across it apart, so they
    commute but for the brightness, and the product has a closed form: a gain along v, and a gain
    with a rotation in the plane. That makes each matrix circulant.
    """
    luma = torch.ones(batch, device=device, dtype=dtype)
    offset = torch.zeros_like(luma) if draws.brightness is None else draws.brightness.to(dtype)
    if draws.contrast is not None:
        luma = draws.contrast.to(dtype)
    chroma = luma
    if draws.luma_flip is not None:
        luma = torch.where(draws.luma_flip, -luma, luma)
    if draws.saturation is not None:
        chroma = chroma * draws.saturation.to(dtype)
    turned = torch.zeros_like(luma)
    if draws.hue is not None:
        angle = draws.hue.to(dtype)
        turned = chroma * angle.sin() / math.sqrt(3)
        chroma = chroma * angle.cos()
    mixed = (luma - chroma) / 3
    own, following, preceding = chroma + mixed, mixed - turned, mixed + turned
    rows = [own, following, preceding, preceding, own, following, following, preceding, own]
    return torch.stack(rows, -1).view(-1, 3, 3), luma * offset


def apply_color(
    image: Float[Tensor, "b c h w"], matrix: Float[Tensor, "b 3 3"], offset: Float[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Apply one map for each image to each of its RGB triples (c is a multiple of 3)."""
    triples = image.unflatten(1, (-1, 3)).flatten(3)  # [B, C/3, 3, HW]
    mapped = matrix[:, None] @ triples + offset[:, None, None, None]
    return mapped.view(image.shape)
