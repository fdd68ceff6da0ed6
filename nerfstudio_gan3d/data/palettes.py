"""Colours and names of classes, and the way from class ids to colours and back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Bool, Integer, UInt8
from torch import Tensor

from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.meta import MAX_CLASSES
from nerfstudio_gan3d.models.config import LabelConfig

Colour: TypeAlias = tuple[int, int, int]
Palette: TypeAlias = Sequence[Sequence[int]]
"""An RGB colour, 0 to 255, for each class."""

SEG2CAT_CLASSES = ("background", "face", "ear", "mouth", "eyes", "whiskers")
"""Classes of the cats of pix2pix3D."""
SEG2FACE_CLASSES = (
    "background", "skin", "nose", "eyeglass", "left eye", "right eye", "left brow", "right brow",
    "left ear", "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring",
    "necklace", "neck", "cloth",
)  # fmt: skip
"""Classes of the faces of pix2pix3D, which are those of CelebAMask-HQ."""
SEG2FACE_MIRROR = ((4, 5), (6, 7), (8, 9))
"""Classes of faces that change places in a mirrored image."""
OFFICIAL_COLOURS: tuple[Colour, ...] = (
    (255, 255, 255), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204),
    (0, 255, 255), (255, 204, 204), (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0),
    (0, 0, 153), (0, 0, 204), (255, 51, 153), (0, 204, 204), (0, 51, 0), (255, 153, 51),
    (0, 204, 0),
)  # fmt: skip
"""Colours of the classes of pix2pix3D, the same for cats and faces."""


def default_palette(count: int) -> tuple[Colour, ...]:
    """Distinct colours for ``count`` classes; fewer classes get the first of the same colours.

    The first 19 are `OFFICIAL_COLOURS`. Each further one is that of a regular grid of colours
    which lies farthest from all before it.

    Raises:
        ValueError: the count is not 1 to 256.
    """
    if not 1 <= count <= MAX_CLASSES:
        raise ValueError(f"a palette of {count} colours: give 1 to {MAX_CLASSES} classes")
    return _every_colour()[:count]


def class_colours(labels: LabelConfig) -> tuple[Colour, ...]:
    """The colour of each class; those of the default palette where the model names none."""
    return labels.palette or default_palette(labels.classes)


@lru_cache(maxsize=1)
def _every_colour() -> tuple[Colour, ...]:
    levels = np.append(np.arange(0, 256, 32), 255)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    # Whole numbers make the choice the same on every machine. The eye tells greens apart best.
    weights = np.array([2, 4, 3])
    colours = list(OFFICIAL_COLOURS)
    steps = grid[:, None] - np.array(colours)
    nearest = (steps * steps * weights).sum(-1).min(-1)  # [729]
    while len(colours) < MAX_CLASSES:
        chosen = grid[nearest.argmax()]
        colours.append((int(chosen[0]), int(chosen[1]), int(chosen[2])))
        nearest = np.minimum(nearest, ((grid - chosen) ** 2 * weights).sum(-1))
    return tuple(colours)


@overload
def colorize(ids: Integer[Tensor, "*n h w"], palette: Palette) -> UInt8[Tensor, "*n h w 3"]: ...
@overload
def colorize(
    ids: Integer[np.ndarray, "*n h w"], palette: Palette
) -> UInt8[np.ndarray, "*n h w 3"]: ...
def colorize(
    ids: Integer[Tensor, "*n h w"] | Integer[np.ndarray, "*n h w"], palette: Palette
) -> UInt8[Tensor, "*n h w 3"] | UInt8[np.ndarray, "*n h w 3"]:
    """The colour of the class of each pixel, as an array or a tensor like the given one.

    Raises:
        ValueError: a class id that has no colour.
    """
    table = np.array(palette, np.uint8).reshape(-1, 3)
    low, high = (int(ids.min()), int(ids.max())) if len(ids.reshape(-1)) else (0, 0)
    if low < 0 or high >= len(table):
        raise ValueError(
            f"class id {low if low < 0 else high} has no colour; "
            f"the palette has {len(table)} colours, for ids 0 to {len(table) - 1}"
        )
    if isinstance(ids, Tensor):
        return torch.from_numpy(table).to(ids.device)[ids.long()]
    return table[ids]


def ids_from_colors(
    pixels: UInt8[np.ndarray, "h w 3"], palette: Palette, where: str
) -> UInt8[np.ndarray, "h w"]:
    """The class of each pixel by its exact colour: the inverse of `colorize`.

    Args:
        pixels: RGB.
        palette: colours of the classes, all different.
        where: how messages call the picture.

    Raises:
        DataError: names the first colour, row by row, that is not in the palette, and its pixel.
        ValueError: two classes have one colour.
    """
    ids, known = match_colors(pixels, palette)
    if known.all():
        return ids
    row, column = np.argwhere(~known)[0]
    colour = pixels[row, column].astype(int)
    near = int(((np.array(palette) - colour) ** 2).sum(-1).argmin())
    raise DataError(
        f"{where}: the colour {_text(colour)} (column {column}, row {row}) is none of the "
        f"{len(palette)} class colours, the nearest being {_text(palette[near])} of class {near}; "
        "paint with the class colours alone, without soft edges, and save as PNG"
    )


def match_colors(
    pixels: UInt8[np.ndarray, "h w 3"], palette: Palette
) -> tuple[UInt8[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Classes by exact colour, and which pixels have the colour of a class.

    Raises:
        ValueError: two classes have one colour.
    """
    codes = _codes(np.array(palette, np.uint8).reshape(-1, 3))
    order = np.argsort(codes, kind="stable")
    for first, second in itertools.pairwise(order):
        if codes[first] == codes[second]:
            raise ValueError(
                f"classes {first} and {second} both have the colour {_text(palette[first])}; "
                "give every class a colour of its own"
            )
    found = _codes(pixels)  # [H, W]
    ids = order[np.searchsorted(codes[order], found).clip(max=len(codes) - 1)]
    return ids.astype(np.uint8), codes[ids] == found


def _codes(pixels: UInt8[np.ndarray, "*n 3"]) -> Integer[np.ndarray, "*n"]:
    wide = pixels.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _text(colour: Sequence[int] | np.ndarray) -> str:
    return ", ".join(str(int(channel)) for channel in colour)
