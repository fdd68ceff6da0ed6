"""Data parser ``gan3d-rgbd``: images with relative depth in G3DR's layout, all from one camera."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import (
    DataParser,
    DataParserConfig,
    DataparserOutputs,
)
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from torch import Tensor

from nerfstudio_gan3d.cameras import PosePrior, focal_from_fov, orbit_labels
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.input_dataset import set_outputs
from nerfstudio_gan3d.data.paths import AbsoluteData
from nerfstudio_gan3d.data_parsers.images import split_images

BOX_HALF_SIDE = 1.0
"""Objects of G3DR fill [-1, 1]^3, the depth range of its images."""


@dataclass
class Gan3dRgbdDataParserConfig(AbsoluteData, DataParserConfig):
    """A folder or zip of square images NAME.jpg, each with its depth NAME_depth.png (G3DR)."""

    _target: type = field(default_factory=lambda: Gan3dRgbd)
    data: Path | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Folder or zip; `gan3d prepare` writes one from photographs."""
    radius: float = 5.0
    """Distance of the one camera from the origin, object-world units. It stands in front (+z)."""
    fov_deg: float = 18.0
    """Field of view of the images in degrees."""
    eval_fraction: float = 0.0
    """Share of the images held out for evaluation: the last ones by name. When nothing is held out,
    eight training images are evaluated."""

    @property
    def prior(self) -> PosePrior:
        """The one camera as a distribution, for a checkpoint whose data set is missing."""
        return PosePrior(
            azimuth_deg=(0.0, 0.0),
            elevation_deg=(0.0, 0.0),
            radius=self.radius,
            fov_deg=self.fov_deg,
        )


@dataclass
class Gan3dRgbd(DataParser):
    """Parses G3DR's layout as `nerfstudio_gan3d.data.dataset.ImageSet` opens it.

    Nobody knows the cameras of such photographs. The method takes each of them to be seen from
    the front (`canonical_label`), and so do the cameras and the labels of the batches here. The
    metadata are those of ``gan3d-images``.

    Raises:
        DataError: there is no set, or it is not of this layout.
        ValueError: a camera that is none, or nothing would be left to train with.
    """

    config: Gan3dRgbdDataParserConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @cached_property
    def image_set(self) -> ImageSet:
        """The opened set; its labels are the canonical camera."""
        data = self.config.data
        if data is None:
            raise DataError(
                "no data set is given: gan3d-rgbd needs --data, a folder or zip of images NAME.jpg "
                "with depth NAME_depth.png; `gan3d prepare` writes one from photographs"
            )
        images = ImageSet(data, canonical_label(self.config.radius, self.config.fov_deg))
        if images.depth_kind != "relative":
            raise DataError(
                f"{images.path}: no image has a file NAME_depth.png beside it, or the set has "
                "dataset.json or trees of its own; write a set with `gan3d prepare`, or choose "
                "gan3d-images"
            )
        return images

    def _generate_dataparser_outputs(
        self, split: str = "train", **kwargs: Any
    ) -> DataparserOutputs:
        images = self.image_set
        train, evaluation = split_images(len(images), None, 0, self.config.eval_fraction)
        assert images.labels is not None
        indices = train if split == "train" else evaluation
        return set_outputs(images, images.labels, indices, BOX_HALF_SIDE)


def canonical_label(radius: float, fov_deg: float) -> Float[Tensor, "1 25"]:
    """The camera in front: azimuth 0, elevation 0, looking at the origin.

    Args:
        radius: distance from the origin, object-world units.
        fov_deg: field of view in degrees.
    """
    if not 0 < radius < float("inf"):
        raise ValueError(f"radius = {radius}: give a positive distance")
    zero = torch.zeros(1)
    return orbit_labels(zero, zero, radius, focal=focal_from_fov(fov_deg))


Gan3dRgbdDataParser = DataParserSpecification(
    config=Gan3dRgbdDataParserConfig(),
    description="Folder or zip of images with relative depth (G3DR layout), one camera for all",
)
