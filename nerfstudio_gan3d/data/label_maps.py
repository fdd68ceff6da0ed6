"""Label maps as a method reads them: from a data set, or from a file of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from nerfstudio_gan3d.data.dataset import ImageSet, check_class_ids
from nerfstudio_gan3d.data.decode import (
    decode_edge_map,
    decode_label_map,
    decode_rgb,
    image_mode,
    image_size,
)
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.meta import MAX_CLASSES, MapKind
from nerfstudio_gan3d.data.palettes import (
    Palette,
    default_palette,
    ids_from_colors,
    match_colors,
)
from nerfstudio_gan3d.data.resize import resize_image, resize_label_map

LabelKind = Literal["none", "seg", "edge"]
"""none: no label maps are read. seg: class ids. edge: drawings, 0 is a line and 255 is paper."""


def check_label_maps(image_set: ImageSet, kind: LabelKind, num_classes: int | None = None) -> None:
    """Whether a set can serve a method that reads label maps; no pixel is read.

    Args:
        image_set: the set.
        kind: what the method reads; with "none" nothing is checked.
        num_classes: of a method of kind "seg"; None allows any.

    Raises:
        DataError: there are no label maps, they are of the other kind, or of more classes.
        ValueError: a number of classes that is not 1 to 256.
    """
    if kind == "none":
        return
    if not image_set.has_label_maps:
        raise DataError(
            f"{image_set.path}: the set has no label/ beside its images, but the method learns "
            f"from {_name(kind)}; add one label file an image, of the same name"
        )
    if image_set.label_kind not in (None, kind):
        raise DataError(
            f'{image_set.path}: "kind" in labels.json is "{image_set.label_kind}", but the method '
            f"learns from {_name(kind)}; choose another method or another set"
        )
    if kind == "edge" or num_classes is None:
        return
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes = {num_classes}: give 1 to {MAX_CLASSES}")
    count = image_set.label_info.count
    if count is not None and count > num_classes:
        raise DataError(
            f"{image_set.path}: its meta.json or labels.json names {count} classes, but the "
            f"method has {num_classes}; give it {count} classes or another set"
        )
    highest = max((max(pair) for pair in image_set.mirror_classes), default=0)
    if highest >= num_classes:
        raise DataError(
            f'{image_set.path}: "mirror_classes" names class {highest}, but the method has '
            f"{num_classes} classes, 0 to {num_classes - 1}; correct one of them"
        )


def read_label_map(
    image_set: ImageSet, index: int, kind: MapKind, num_classes: int | None, resolution: int
) -> UInt8[np.ndarray, "{resolution} {resolution}"]:
    """One label map of a set at another resolution.

    Class ids are taken at the middle of each new pixel, so that no new class appears; drawings
    are resized with the antialiased filter of images.

    Args:
        image_set: the set.
        index: position in the set.
        kind: how to read the file.
        num_classes: class ids must be smaller; None takes the classes of the set.
        resolution: side in pixels.

    Raises:
        DataError: the file cannot be used.
    """
    if kind == "edge":
        return resize_image(image_set.edge_map(index)[..., None], resolution)[..., 0]
    return resize_label_map(image_set.label_map(index, num_classes), resolution)


def read_label_maps(
    image_set: ImageSet,
    indices: Sequence[int],
    kind: LabelKind,
    num_classes: int | None,
    resolution: int,
) -> UInt8[Tensor, "n 1 {resolution} {resolution}"]:
    """Several of them as one tensor; see `read_label_map`.

    Raises:
        DataError: there are no such label maps, or a file cannot be used.
        ValueError: the kind is "none".
    """
    if kind == "none":
        raise ValueError("label_kind is none: the method reads no label maps")
    check_label_maps(image_set, kind, num_classes)
    maps = np.zeros((len(indices), 1, resolution, resolution), np.uint8)
    for place, index in enumerate(indices):
        maps[place, 0] = read_label_map(image_set, index, kind, num_classes, resolution)
    return torch.from_numpy(maps)


def mirror_table(pairs: Sequence[tuple[int, int]]) -> UInt8[np.ndarray, "256"]:
    """The class id that each class id becomes in a mirrored image."""
    table = np.arange(MAX_CLASSES, dtype=np.uint8)
    for left, right in pairs:
        table[[left, right]] = right, left
    return table


def read_label_file(
    path: Path, kind: MapKind, classes: int, palette: Palette, size: int
) -> UInt8[np.ndarray, "{size} {size}"]:
    """A label map from a file of the user's own; see `decode_label_file`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    return decode_label_file(content, str(path), kind, classes, palette, size)


def decode_label_file(
    content: bytes, where: str, kind: MapKind, classes: int, palette: Palette, size: int
) -> UInt8[np.ndarray, "{size} {size}"]:
    """A label map from the bytes of an image file.

    kind "seg": a grey or palette image of class ids, or an RGB(A) image in the classes' colours.
    kind "edge": any grey image, dark lines on white. Transparency lies on white.

    Args:
        content: of the file.
        where: how messages call it.
        kind: what to read.
        classes: number of classes; class ids must be smaller. Not used for edge maps.
        palette: colours of the classes; when empty, those of `default_palette`.
        size: side of the label maps of the model in pixels.

    Raises:
        DataError: another size, a class id out of range, a colour of no class, a coloured edge
            map, or a palette image whose colours say something else than its indices.
        ValueError: ``palette`` has not one colour a class, or one twice.
    """
    width, height = image_size(content, where)
    if (width, height) != (size, size):
        raise DataError(
            f"{where}: {width} x {height} pixels; a label map of this model must be square, "
            f"{size} x {size}: draw it at that size or resize it"
            + (" without smoothing" if kind == "seg" else "")
        )
    if kind == "edge":
        return decode_edge_map(content, where)
    colours = palette or default_palette(classes)
    if len(colours) != classes:
        raise ValueError(
            f"a palette of {len(colours)} colours for {classes} classes: give one each"
        )
    mode = image_mode(content, where)
    if mode in ("RGB", "RGBA"):
        return ids_from_colors(decode_rgb(content, where), colours, where)
    ids = decode_label_map(content, where)
    if mode == "P":
        _check_unambiguous(ids, decode_rgb(content, where), colours, where)
    check_class_ids(ids, classes, where)
    return ids


def _check_unambiguous(
    ids: UInt8[np.ndarray, "h w"], pixels: UInt8[np.ndarray, "h w 3"], palette: Palette, where: str
) -> None:
    # Painting programs number the colours of a palette image in an order of their own.
    by_colour, known = match_colors(pixels, palette)
    if known.all() and (by_colour != ids).any():
        row, column = np.argwhere(by_colour != ids)[0]
        raise DataError(
            f"{where}: a palette image whose pixel at column {column}, row {row} has the index "
            f"{ids[row, column]} but the colour of class {by_colour[row, column]}; save it as RGB "
            "for its colours to count, or as grey for class ids"
        )


def _name(kind: LabelKind) -> str:
    return "edge maps" if kind == "edge" else "maps of class ids"
