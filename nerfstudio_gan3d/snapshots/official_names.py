"""Tensor names of official EG3D, BallGAN and pix2pix3D generators, and their places in a
`Generator`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Place(NamedTuple):
    """Where an official tensor lies in a `Generator`'s state dict."""

    name: str
    """Name of our tensor."""
    rows: slice = slice(None)
    """The part of our tensor's first dimension that it is; ``slice(None)`` is all of it."""


# Longer prefixes stand before the prefixes that they begin with.
_PREFIXES = (
    ("backbone.synthesis.", "field.synthesis."),
    ("backbone.mapping.", "mapping."),
    ("superresolution.", "superresolution."),
    ("superresolution_semantic.", "superresolution_labels."),
    ("decoder.net.0.", "field.decoder.hidden."),
    ("decoder.net.2.", "field.decoder.out."),
    ("decoder.net_semantic.0.", "field.decoder.label_hidden."),
    ("decoder.net_semantic.2.", "field.decoder.label_out."),
    ("BG_mapping.", "background_mapping."),
    ("BG_Net.fc_in.", "background.layers.0."),
    ("BG_Net.feat_out.", "background.out."),
)
# Official buffers that no output depends on: the deviation of the training cameras, and how far the
# label encoder of another code base, which this one stems from, had grown.
UNUSED = ("dataset_label_std", "backbone.mapping.embed_mask.alpha")
# Stages of super-resolution, each with a top-level copy of the low-pass filter.
_STAGES = ("superresolution.", "superresolution_labels.")
_BACKGROUND_BLOCK = re.compile(r"BG_Net\.blocks\.(\d+)\.(.+)")
# BallGAN has two output layers where EG3D and this project have one, whose row 0 is the density.
_SPLIT_DECODER = {"decoder.sigma_out.": slice(0, 1), "decoder.rgb_out.": slice(1, None)}


def place(official: str) -> Place | None:
    """Where the official tensor of this name goes; None for tensors that no output depends on.

    Raises ValueError for a name that is not of an EG3D, BallGAN or pix2pix3D generator.
    """
    if official in UNUSED:
        return None
    if official.startswith("BG_Net.") and official.endswith("resample_filter"):
        # The background's 1x1 convolutions carry the filter of their class and never resample.
        return None
    for prefix, rows in _SPLIT_DECODER.items():
        if official.startswith(prefix):
            return Place("field.decoder.out." + official.removeprefix(prefix), rows)
    if block := _BACKGROUND_BLOCK.fullmatch(official):
        return Place(f"background.layers.{int(block[1]) + 1}.{block[2]}")
    for prefix, own in _PREFIXES:
        if official.startswith(prefix):
            return Place(own + official.removeprefix(prefix))
    raise ValueError(
        f"tensor {official}: not a name of an official EG3D, BallGAN or pix2pix3D generator; "
        "give the state of G or G_ema"
    )


def generator_state(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a `Generator` with these weights.

    The generator needs the representation triplane, conventions reference and pose conditioning.

    Args:
        official: all tensors of an official generator under their official names.

    Raises:
        ValueError: a name of another network.
    """
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for name, value in official.items():
        found = place(name)
        if found is None:
            continue
        if found.name.startswith("background.") and value.ndim == 4:
            value = value.flatten(1)
        parts.setdefault(found.name, []).append((found.rows.start or 0, value))
    state = {
        name: torch.cat([value for _, value in sorted(pieces, key=lambda piece: piece[0])])
        if len(pieces) > 1
        else pieces[0][1]
        for name, pieces in parts.items()
    }
    for stage in _STAGES:
        if f"{stage}block0.resample_filter" in state:
            # 512 px models lack the top-level copy of the filter, which is one constant everywhere.
            state.setdefault(f"{stage}resample_filter", state[f"{stage}block0.resample_filter"])
    return state


def official_state(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `generator_state`: a generator's tensors under their official names.

    Left out are tensors that no output depends on: `UNUSED`, the low-pass filters of BallGAN's
    background, and the top-level filters of super-resolution that 512 px models lack.

    Args:
        own: The state dict of a `Generator` with the representation triplane.
    """
    ball = any(name.startswith("background.") for name in own)
    state: dict[str, Tensor] = {}
    for name, value in own.items():
        if name.removesuffix("resample_filter") in _STAGES:
            continue
        if ball and name.startswith("field.decoder.out."):
            kind = name.rpartition(".")[2]
            for prefix, rows in _SPLIT_DECODER.items():
                state[prefix + kind] = value[rows].clone()
            continue
        if match := re.fullmatch(r"background\.layers\.(\d+)\.(.+)", name):
            number = int(match[1])
            official = f"BG_Net.blocks.{number - 1}." if number else "BG_Net.fc_in."
            official += match[2]
        else:
            official = _official_name(name)
        styled = name.removesuffix("weight") + "affine.weight" in own
        if official.startswith("BG_Net.") and styled:
            value = value[:, :, None, None]
        state[official] = value
    return state


def _official_name(own: str) -> str:
    for official, prefix in _PREFIXES:
        if own.startswith(prefix):
            return official + own.removeprefix(prefix)
    raise ValueError(f"{own} has no official name; the representation must be triplane")
