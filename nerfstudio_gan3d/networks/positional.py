"""Sines and cosines of positions and directions (NeRF)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def positional_size(octaves: int) -> int:
    """Numbers that `positional_encoding` makes of three."""
    return 3 + 6 * octaves


def positional_encoding(x: Float[Tensor, "*n 3"], octaves: int) -> Float[Tensor, "*n c"]:
    """``(x, sin x, cos x, sin 2x, cos 2x, ..., cos 2^(octaves - 1) x)``, c = 3 + 6 octaves.

    As in UNISURF and GRAF: the position itself comes first, and there is no factor of pi.
    """
    parts = [x]
    for octave in range(octaves):
        scaled = x * 2.0**octave
        parts += [scaled.sin(), scaled.cos()]
    return torch.cat(parts, dim=-1)
