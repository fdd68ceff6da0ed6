"""`ImageSet`: a folder or zip of images with camera labels, masks, depth and label maps."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from nerfstudio_gan3d.data.archive import FileTree
from nerfstudio_gan3d.data.decode import (
    decode_depth,
    decode_edge_map,
    decode_label_map,
    decode_mask,
    decode_relative_depth,
    decode_rgb,
    image_size,
)
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.labels import parse_labels, validate_labels
from nerfstudio_gan3d.data.layout import DepthKind, Layout, open_layout
from nerfstudio_gan3d.data.meta import (
    MAX_CLASSES,
    META_KEYS,
    LabelInfo,
    MapKind,
    check_keys,
    label_info,
    object_numbers,
    parse_object,
)

__all__ = ["DataError", "ImageSet"]

_DEPTH_NAMES = {"z": "z-depth in scene units", "relative": "relative (files NAME_depth.png)"}


class ImageSet:
    """The images of a folder or zip, read one at a time.

    Opening reads names, camera labels, meta.json and labels.json, and checks them; a pixel is read
    when it is asked for, from any thread. The set can be pickled and used after a fork.

    Attributes:
        path: absolute path of the folder or zip.
        names: image names relative to the images' folder, sorted.
        labels: camera labels ``[N, 25]`` float32, or None when the set has none.
        label_info: what meta.json and labels.json say about the label maps.
        objects: number of the object that each image shows (from meta.json), or None.

    Args:
        path: of the folder or zip.
        camera: label of the camera that took every image, for a set that has no labels of its own.

    Raises:
        DataError: one sentence with file and value, for everything that a set can have wrong.
    """

    def __init__(self, path: Path | str, camera: Float[Tensor, "1 25"] | None = None) -> None:
        self._tree: FileTree
        self._layout: Layout
        self._tree, self._layout = open_layout(Path(path))
        self.path: Path = self._tree.path
        self.names: list[str] = list(self._layout.images)
        self.labels: Float[Tensor, "n 25"] | None = self._read_labels()
        if self.labels is None and camera is not None:
            self.labels = camera.expand(len(self.names), -1)
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
    def classes(self) -> list[str] | None:
        """Names of the classes of the label maps, or None."""
        return self.label_info.classes

    @property
    def palette(self) -> list[list[int]] | None:
        """An RGB colour (0..255) for each class, or None."""
        return self.label_info.palette

    @property
    def mirror_classes(self) -> list[tuple[int, int]]:
        """Pairs of classes that change places in a mirrored image."""
        return self.label_info.mirror_classes or []

    @property
    def label_kind(self) -> MapKind | None:
        """Whether the label maps are said to hold class ids or lines; None when no file says."""
        return self.label_info.kind

    @property
    def has_masks(self) -> bool:
        """Whether there is a mask for each image."""
        return "mask" in self._layout.siblings

    @property
    def has_depth(self) -> bool:
        """Whether there is a z-depth map (the tree depth/) for each image."""
        return self.depth_kind == "z"

    @property
    def depth_kind(self) -> DepthKind:
        """What is known about depth: "z" for `depth`, "relative" for `relative_depth`, "none"."""
        return self._layout.depth_kind

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
        self._check_kind("z")
        depth = decode_depth(self._read(index, "depth"), self.file(index, "depth"))
        self._check_shape(depth, index, "depth")
        return depth

    def relative_depth(self, index: int) -> Float32[np.ndarray, "h w"]:
        """Depth on a scale of this image's own: 0 is near, below 1 is far."""
        self._check_kind("relative")
        depth = decode_relative_depth(self._read(index, "depth"), self.file(index, "depth"))
        self._check_shape(depth, index, "depth")
        return depth

    def label_map(self, index: int, num_classes: int | None = None) -> UInt8[np.ndarray, "h w"]:
        """Class ids.

        Args:
            index: of the image.
            num_classes: ids must be smaller; None takes the number of classes in `label_info`.
        """
        where = self.file(index, "label")
        label_map = decode_label_map(self._read(index, "label"), where)
        self._check_shape(label_map, index, "label")
        check_class_ids(label_map, num_classes or self.label_info.count or MAX_CLASSES, where)
        return label_map

    def edge_map(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """A drawing: 0 is a line, 255 is paper. What is transparent shows paper."""
        edge_map = decode_edge_map(self._read(index, "label"), self.file(index, "label"))
        self._check_shape(edge_map, index, "label")
        return edge_map

    def content(self, index: int, kind: str = "image") -> bytes:
        """The undecoded file of an image, or of its "mask", "depth" or "label"."""
        return self._read(index, kind)

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

    def _check_kind(self, wanted: DepthKind) -> None:
        found = self.depth_kind
        if found not in (wanted, "none"):
            raise DataError(
                f"{self.path}: its depth is {_DEPTH_NAMES[found]}, but {_DEPTH_NAMES[wanted]} is "
                "asked for; give another set"
            )

    def _check_shape(self, pixels: np.ndarray, index: int, kind: str) -> None:
        height, width = pixels.shape
        if (height, width) != (self.size, self.size):
            raise DataError(
                f"{self.file(index, kind)}: {width} x {height} pixels, "
                f"but its image has {self.size} x {self.size}; save it at the size of its image"
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
        self.label_info: LabelInfo = LabelInfo()
        self.objects: list[int] | None = None
        sources = []
        if self._layout.meta_file is not None:
            where = self._tree.describe(self._layout.meta_file)
            meta = parse_object(self._tree.read(self._layout.meta_file), where)
            self.objects = object_numbers(meta.get("images"), self.names, where)
            sources.append((where, {key: meta.get(key) for key in META_KEYS}))
        if self._layout.info_file is not None:
            where = self._tree.describe(self._layout.info_file)
            info = parse_object(self._tree.read(self._layout.info_file), where)
            check_keys(info, where)
            sources.append((where, info))
        self.label_info = label_info(sources)


def check_class_ids(ids: UInt8[np.ndarray, "h w"], num_classes: int, where: str) -> None:
    """Raises DataError when a class id of a label map is not below ``num_classes``."""
    if ids.max() >= num_classes:
        row, column = np.argwhere(ids >= num_classes)[0]
        raise DataError(
            f"{where}: class id {ids[row, column]} is out of range; there are {num_classes} "
            f"classes, 0 to {num_classes - 1} (column {column}, row {row}): "
            "correct the file or the number of classes"
        )


def select_labels(labels: Float[Tensor, "n 25"], count: int) -> Float[Tensor, "m 25"]:
    """``count`` labels spread evenly over the set; some repeat when the set is smaller."""
    return labels[torch.arange(count) * len(labels) // count]
