"""nerfstudio's view of an `ImageSet`: datasets, and stand-in cameras when the images are gone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import (
    DataParser,
    DataParserConfig,
    DataparserOutputs,
)
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from nerfstudio_gan3d.cameras import cameras_to_labels, labels_to_cameras
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.resize import resize_image

KEY = "gan3d"
"""Entry of the data parser's metadata with what this package adds, in plain types."""


def make_outputs(
    labels: Tensor,
    size: int,
    filenames: list[Path],
    metadata: dict[str, Any],
    half_side: float = 0.5,
) -> DataparserOutputs:
    """Data parser outputs of square images.

    Args:
        labels: camera labels ``[N, 25]``.
        size: side of the images in pixels.
        filenames: of the images; a zip's member follows the zip's path, and nerfstudio must not
            open it.
        metadata: plain values, found under `KEY` afterwards.
        half_side: of the box in which objects lie, about the origin. By convention of camera labels
            they fill [-0.5, 0.5]^3.
    """
    # Only `ns-export tsdf` without its own box reads this; the box that is rendered belongs to the
    # model.
    box = half_side * torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    return DataparserOutputs(
        image_filenames=filenames,
        cameras=labels_to_cameras(labels, size, size),
        scene_box=SceneBox(aabb=box),
        metadata={KEY: metadata},
    )


def set_outputs(
    images: ImageSet, labels: Tensor, indices: list[int], half_side: float = 0.5
) -> DataparserOutputs:
    """Data parser outputs of some images of a set.

    Args:
        images: the set.
        labels: a camera label for each image of the set ``[N, 25]``.
        indices: positions of the images in the set.
        half_side: of the box in which objects lie.
    """
    paths = images.image_paths()
    metadata = {
        "path": str(images.path),
        "indices": indices,
        "size": images.size,
        "has_labels": images.labels is not None,
        "classes": images.classes,
        "palette": images.palette,
    }
    filenames = [paths[i] for i in indices]
    return make_outputs(labels[indices], images.size, filenames, metadata, half_side)


def resized_outputs(outputs: DataparserOutputs, size: int) -> DataparserOutputs:
    """The same cameras for images of ``size`` pixels."""
    cameras = labels_to_cameras(cameras_to_labels(outputs.cameras), size, size)
    return dataclasses.replace(outputs, cameras=cameras)


def thinned_outputs(outputs: DataparserOutputs, count: int) -> DataparserOutputs:
    """At most ``count`` of the images, evenly spread; 0 keeps all."""
    total = len(outputs.image_filenames)
    if count == 0 or total <= count:
        return outputs
    kept = torch.arange(count) * total // count
    added = dict(outputs.metadata[KEY])
    if added["indices"] is not None:
        added["indices"] = [added["indices"][i] for i in kept]
    return dataclasses.replace(
        outputs,
        image_filenames=[outputs.image_filenames[i] for i in kept],
        cameras=outputs.cameras[kept],
        metadata={**outputs.metadata, KEY: added},
    )


class GanInputDataset(InputDataset):
    """Images of an `ImageSet` at the size of their cameras, decoded when asked for.

    When the metadata has no indices the images are gone, and each of them is a grey one.

    Args:
        dataparser_outputs: with metadata as `make_outputs` writes it.
        scale_factor: of nerfstudio; scales images and cameras.
        image_set: the opened set; None opens it at the first image.
    """

    def __init__(
        self,
        dataparser_outputs: DataparserOutputs,
        scale_factor: float = 1.0,
        image_set: ImageSet | None = None,
    ) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        self.indices: list[int] | None = self.metadata[KEY]["indices"]
        if image_set is not None:
            self.image_set = image_set

    @cached_property
    def image_set(self) -> ImageSet:
        """The set behind the indices."""
        return ImageSet(self.metadata[KEY]["path"])

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """uint8 ``[H, W, 3]``."""
        size = int(self.cameras.width[image_idx])
        if self.indices is None:
            return np.full((size, size, 3), 128, np.uint8)
        return resize_image(self.image_set.image(self.indices[image_idx]), size)


@dataclass
class StandInConfig(DataParserConfig):
    """Cameras without images, for a checkpoint whose data set is not on this machine."""

    _target: type = field(default_factory=lambda: StandIn)
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, 25))
    """Camera labels ``[N, 25]``."""
    size: int = 0
    """Side of the images in pixels."""
    eval_count: int = 8
    """Cameras in the evaluation split, evenly spread."""


@dataclass
class StandIn(DataParser):
    """Data parser of `StandInConfig`."""

    config: StandInConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def _generate_dataparser_outputs(
        self, split: str = "train", **kwargs: Any
    ) -> DataparserOutputs:
        labels, size = self.config.labels, self.config.size
        folder = Path(self.config.data)
        names = [folder / f"camera_{i:04d}.png" for i in range(len(labels))]
        added = {"path": str(folder), "indices": None, "size": size, "has_labels": True}
        outputs = make_outputs(labels, size, names, {**added, "classes": None, "palette": None})
        return outputs if split == "train" else thinned_outputs(outputs, self.config.eval_count)
