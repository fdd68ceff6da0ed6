"""`ImageSet`: a folder or zip of images with camera labels, masks, depth and label maps."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from nerfstudio_gan3d.data.archive import FileTree
from nerfstudio_gan3d.data.decode import (
    decode_depth,
    decode_label_map,
    decode_mask,
    decode_rgb,
    image_size,
)
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.labels import parse_json, parse_labels, validate_labels
from nerfstudio_gan3d.data.layout import Layout, open_layout

__all__ = ["DataError", "ImageSet"]


class ImageSet:
    """The images of a folder or zip, read one at a time.

    Opening reads names, camera labels and meta.json, and checks them; a pixel is read when it is
    asked for, from any thread. The set can be pickled and used after a fork.

    Attributes:
        path: absolute path of the folder or zip.
        names: image names relative to the images' folder, sorted.
        labels: camera labels ``[N, 25]`` float32, or None when the set has none.
        classes: names of the classes of the label maps (from meta.json), or None.
        palette: an RGB colour (0..255) for each class (from meta.json), or None.
        objects: number of the object that each image shows (from meta.json), or None.

    Raises:
        DataError: one sentence with file and value, for everything that a set can have wrong.
    """

    def __init__(self, path: Path | str) -> None:
        self._tree: FileTree
        self._layout: Layout
        self._tree, self._layout = open_layout(Path(path))
        self.path: Path = self._tree.path
        self.names: list[str] = list(self._layout.images)
        self.labels: Float[Tensor, "n 25"] | None = self._read_labels()
        self._read_meta()

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def size(self) -> int:
        """Side of the (square) images in pixels, from the header of the first one."""
        file = self._layout.images[self.names[0]]
        width, height = image_size(self._tree.read(file), self.file(0))
        if width != height:
            raise DataError(f"{self.file(0)}: {width} x {height} pixels; images must be square")
        return width

    @property
    def has_masks(self) -> bool:
        """Whether there is a mask for each image."""
        return "mask" in self._layout.siblings

    @property
    def has_depth(self) -> bool:
        """Whether there is a depth map for each image."""
        return "depth" in self._layout.siblings

    @property
    def has_label_maps(self) -> bool:
        """Whether there is a label map for each image."""
        return "label" in self._layout.siblings

    def file(self, index: int, kind: str = "image") -> str:
        """How messages call the file of an image, or of its "mask", "depth" or "label"."""
        return self._tree.describe(self._file(index, kind))

    def image_paths(self) -> list[Path]:
        """A path for each image; those of a zip (zip path / member) cannot be opened as files."""
        return [self._tree.path / file for file in self._layout.images.values()]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB of one image."""
        pixels = decode_rgb(self._read(index, "image"), self.file(index))
        height, width = pixels.shape[:2]
        if width != height:
            raise DataError(f"{self.file(index)}: {width} x {height} pixels; images must be square")
        if width != self.size:
            raise DataError(
                f"{self.file(index)}: {width} pixels a side, but {self.file(0)} has {self.size}; "
                "all images of a set must have one size"
            )
        return pixels

    def mask(self, index: int) -> Float32[np.ndarray, "h w"]:
        """Coverage of the foreground, 0..1."""
        mask = decode_mask(self._read(index, "mask"), self.file(index, "mask"))
        self._check_shape(mask, index, "mask")
        return mask

    def depth(self, index: int) -> Float32[np.ndarray, "h w"]:
        """z-depth along the optical axis in scene units; 0 is background."""
        depth = decode_depth(self._read(index, "depth"), self.file(index, "depth"))
        self._check_shape(depth, index, "depth")
        return depth

    def label_map(self, index: int, num_classes: int | None = None) -> UInt8[np.ndarray, "h w"]:
        """Class ids.

        Args:
            index: of the image.
            num_classes: ids must be smaller; None takes the number of `classes`.
        """
        label_map = decode_label_map(self._read(index, "label"), self.file(index, "label"))
        self._check_shape(label_map, index, "label")
        limit = num_classes or (len(self.classes) if self.classes else 256)
        if label_map.max() >= limit:
            raise DataError(
                f"{self.file(index, 'label')}: class id {label_map.max()} is out of range; "
                f"there are {limit} classes, 0 to {limit - 1}"
            )
        return label_map

    def close(self) -> None:
        """Close the zip; reading opens it again."""
        self._tree.close()

    def _file(self, index: int, kind: str) -> str:
        name = self.names[index]
        return self._layout.images[name] if kind == "image" else self._layout.siblings[kind][name]

    def _read(self, index: int, kind: str) -> bytes:
        if kind != "image" and kind not in self._layout.siblings:
            raise DataError(f"{self.path}: the set has no {kind}/ beside its images")
        return self._tree.read(self._file(index, kind))

    def _check_shape(self, pixels: np.ndarray, index: int, kind: str) -> None:
        height, width = pixels.shape
        if (height, width) != (self.size, self.size):
            raise DataError(
                f"{self.file(index, kind)}: {width} x {height} pixels, "
                f"but its image has {self.size} x {self.size}"
            )

    def _read_labels(self) -> Float[Tensor, "n 25"] | None:
        file = self._layout.label_file
        if file is None:
            return None
        where = self._tree.describe(file)
        rows = parse_labels(self._tree.read(file), where)
        if rows is None:
            return None
        for name in self.names:
            if name not in rows:
                raise DataError(
                    f"{where}: no label for the image {name!r}; add one or remove the image"
                )
        for name in rows:
            if name not in self._layout.images:
                raise DataError(f"{where}: a label for {name!r}, but there is no such image")
        return validate_labels([rows[name] for name in self.names], self.names, where)

    def _read_meta(self) -> None:
        self.classes: list[str] | None = None
        self.palette: list[list[int]] | None = None
        self.objects: list[int] | None = None
        file = self._layout.meta_file
        if file is None:
            return
        where = self._tree.describe(file)
        meta = parse_json(self._tree.read(file), where)
        if not isinstance(meta, dict):
            raise DataError(f"{where}: {type(meta).__name__}; expected a JSON object")
        self.classes = _strings(meta.get("classes"), where)
        self.palette = _palette(meta.get("palette"), self.classes, where)
        self.objects = self._objects(meta.get("images"), where)

    def _objects(self, entries: Any, where: str) -> list[int] | None:
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and {"file", "object"} <= entry.keys() for entry in entries
        ):
            return None
        # The images may have been converted to another file type since meta.json was written.
        by_name = {re.sub(r"\.\w+$", "", entry["file"]): entry["object"] for entry in entries}
        objects = [by_name.get(re.sub(r"\.\w+$", "", name)) for name in self.names]
        for name, number in zip(self.names, objects, strict=True):
            if type(number) is not int:
                raise DataError(
                    f"{where}: the object of the image {name!r} is {number!r}; "
                    "give every image a number, or none"
                )
        return [number for number in objects if number is not None]


def _strings(value: Any, where: str) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value) or not value:
        raise DataError(f'{where}: "classes" is {str(value)[:60]}; expected a list of names')
    return value


def _palette(value: Any, classes: list[str] | None, where: str) -> list[list[int]] | None:
    if value is None:
        return None
    colours = np.asarray(value) if isinstance(value, list) else np.zeros(0)
    if colours.shape != (len(classes or []), 3) or colours.min() < 0 or colours.max() > 255:
        raise DataError(
            f'{where}: "palette" is {str(value)[:60]}; expected one [r, g, b] of 0 to 255 a class'
        )
    return [[int(c) for c in colour] for colour in colours]


def select_labels(labels: Float[Tensor, "n 25"], count: int) -> Float[Tensor, "m 25"]:
    """``count`` labels spread evenly over the set; some repeat when the set is smaller."""
    return labels[torch.arange(count) * len(labels) // count]
