"""Rendered labels as pictures, as class ids, and as label maps that a Scene can be made from."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.models.config import LabelConfig


def label_ids(labels: Float[Tensor, "b c h w"], config: LabelConfig) -> UInt8[Tensor, "b 1 h w"]:
    """What a label map's file would hold: the class with the highest score, or for edge maps the
    grey value."""
    if config.kind == "edge":
        return ((labels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return labels.argmax(1, keepdim=True).to(torch.uint8)


def as_label_map(labels: Float[Tensor, "b c r r"], config: LabelConfig) -> Float[Tensor, "b c r r"]:
    """Rendered labels as the network takes a label map: one class a pixel, or edges as they are."""
    if config.kind == "edge":
        return labels
    ids = labels.argmax(1)
    return torch.nn.functional.one_hot(ids, config.classes).permute(0, 3, 1, 2).to(labels.dtype)


def label_picture(
    labels: Float[Tensor, "b c h w"], config: LabelConfig
) -> Float[Tensor, "b 3 h w"]:
    """RGB in 0..1: each pixel in exactly the palette's colour of its class, or grey for edges."""
    if config.kind == "edge":
        return (labels.clamp(-1, 1) / 2 + 0.5).expand(-1, 3, -1, -1)
    palette = torch.tensor(config.palette, device=labels.device, dtype=torch.float32) / 255
    return palette[labels.argmax(1)].permute(0, 3, 1, 2)


def map_picture(maps: UInt8[Tensor, "b 1 h w"], config: LabelConfig) -> Float[Tensor, "b 3 h w"]:
    """A label map as `label_picture` shows one."""
    if config.kind == "edge":
        return (maps.float() / 255).expand(-1, 3, -1, -1)
    palette = torch.tensor(config.palette, device=maps.device, dtype=torch.float32) / 255
    return palette[maps[:, 0].long()].permute(0, 3, 1, 2)
