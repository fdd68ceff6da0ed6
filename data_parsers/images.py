"""Data parser ``gan3d-images``: a folder or zip of images in EG3D's layout, or of images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import (
    DataParser,
    DataParserConfig,
    DataparserOutputs,
)
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from nerfstudio_gan3d.cameras import PosePrior
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.input_dataset import set_outputs
from nerfstudio_gan3d.data.paths import AbsoluteData
from nerfstudio_gan3d.data.sample_data import bundled_cars

DEFAULT_PRIOR = PosePrior()
SHARED_EVAL_IMAGES = 8
"""Training images that stand in for the evaluation split when nothing is held out."""


@dataclass
class Gan3dImagesDataParserConfig(AbsoluteData, DataParserConfig):
    """A folder or zip of square images, with EG3D's dataset.json or with a pose prior."""

    _target: type = field(default_factory=lambda: Gan3dImages)
    data: Path | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Folder or zip. None takes the bundled cars."""
    eval_objects: int = 0
    """Objects (meta.json) held out for evaluation: the last ones."""
    eval_fraction: float = 0.0
    """Share of the objects, or of the images when there is no meta.json, held out for evaluation.
    When nothing is held out, eight training images are evaluated."""
    prior: PosePrior = DEFAULT_PRIOR
    """Cameras of a set without camera labels."""


@dataclass
class Gan3dImages(DataParser):
    """Parses what `nerfstudio_gan3d.data.dataset.ImageSet` opens; no pixel is decoded.

    ``metadata["gan3d"]`` holds the path, the positions of the split's images in the set, their
    size, whether there are camera labels, and classes and palette of the label maps. Without
    labels each image gets a camera of the prior, the same in every run; it says nothing about
    the image.

    Raises:
        DataError: the set cannot be used.
        ValueError: nothing would be left to train with, or both ways of holding out are asked for.
    """

    config: Gan3dImagesDataParserConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @cached_property
    def image_set(self) -> ImageSet:
        """The opened set."""
        return ImageSet(bundled_cars() if self.config.data is None else self.config.data)

    def _generate_dataparser_outputs(
        self, split: str = "train", **kwargs: Any
    ) -> DataparserOutputs:
        images = self.image_set
        train, evaluation = split_images(
            len(images), images.objects, self.config.eval_objects, self.config.eval_fraction
        )
        indices = train if split == "train" else evaluation
        labels = images.labels
        if labels is None:
            generator = torch.Generator().manual_seed(0)
            labels = self.config.prior.sample(len(images), generator)
        return set_outputs(images, labels, indices)


def split_images(
    count: int, objects: list[int] | None, eval_objects: int, eval_fraction: float
) -> tuple[list[int], list[int]]:
    """Positions of the training and of the evaluation images.

    Whole objects are held out where objects are known. Otherwise the last images by name are:
    neighbours often show one object, and a random choice would put them on both sides.

    Args:
        count: images in the set.
        objects: number of the object of each image, or None.
        eval_objects: objects to hold out.
        eval_fraction: share to hold out, rounded up.

    Raises:
        ValueError: values that exclude each other or leave nothing for training.
    """
    if eval_objects and eval_fraction:
        raise ValueError(
            f"eval_objects = {eval_objects} and eval_fraction = {eval_fraction}: set one of them"
        )
    if not 0 <= eval_fraction < 1:
        raise ValueError(f"eval_fraction = {eval_fraction}: give at least 0 and less than 1")
    if eval_objects and objects is None:
        raise ValueError(
            f"eval_objects = {eval_objects}: the set's meta.json names no objects; "
            "use eval_fraction"
        )
    groups = sorted(set(objects)) if objects is not None else list(range(count))
    held = eval_objects or math.ceil(eval_fraction * len(groups))
    if not 0 <= held < len(groups):
        raise ValueError(
            f"{held} of {len(groups)} objects or images held out: at least one must be left"
        )
    everything = list(range(count))
    if held == 0:
        shown = min(count, SHARED_EVAL_IMAGES)
        return everything, [i * count // shown for i in range(shown)]
    out = set(groups[-held:])
    key = objects if objects is not None else everything
    return (
        [i for i in everything if key[i] not in out],
        [i for i in everything if key[i] in out],
    )


Gan3dImagesDataParser = DataParserSpecification(
    config=Gan3dImagesDataParserConfig(),
    description="Folder or zip of images for 3D-aware GANs (EG3D layout, or images alone)",
)
