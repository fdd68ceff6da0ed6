"""Images with depth that Scenes are made from, and those that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nerfstudio_gan3d.scene import ImageCondition

STORED_IMAGES = 16
"""Images that a model keeps, to be looked at without its data set."""


@dataclass(frozen=True, eq=False)
class ImageView:
    """One image with its depth. Two of them are equal only if they are the same."""

    image: UInt8[Tensor, "1 3 r r"]
    """RGB."""
    distance: Float[Tensor, "1 1 r r"]
    """Distance along each pixel's ray from the canonical camera, object-world units."""

    def condition(self, device: torch.device) -> ImageCondition:
        """What a generator takes."""
        return as_condition(self.image.to(device), self.distance.to(device))


def as_condition(
    images: UInt8[Tensor, "b 3 r r"], distance: Float[Tensor, "b 1 r r"]
) -> ImageCondition:
    """Pixels and distances as networks take them."""
    return ImageCondition(images.float() / 127.5 - 1, distance)


class ImageStore(nn.Module):
    """Some images of the data set with their depth; a checkpoint carries them.

    Args:
        resolution: their side in pixels.
        distance: what the depth of an untrained model's grey images is.
    """

    images: UInt8[Tensor, "n 3 r r"]
    distances: Float[Tensor, "n 1 r r"]

    def __init__(self, resolution: int, distance: float) -> None:
        super().__init__()
        shape = (STORED_IMAGES, 3, resolution, resolution)
        self.register_buffer("images", torch.full(shape, 128, dtype=torch.uint8))
        flat = torch.full((STORED_IMAGES, 1, resolution, resolution), float(distance))
        self.register_buffer("distances", flat)

    def fill(self, images: UInt8[Tensor, "n 3 r r"], distances: Float[Tensor, "n 1 r r"]) -> None:
        """Keeps these images, repeated where they are fewer than `STORED_IMAGES`."""
        rows = torch.arange(STORED_IMAGES) % len(images)
        self.images.copy_(images[rows])
        self.distances.copy_(distances[rows])

    def view(self, index: int) -> ImageView:
        """One of the images; raises ValueError for one that is not kept."""
        if not 0 <= index < STORED_IMAGES:
            raise ValueError(
                f"image {index}: a checkpoint keeps {STORED_IMAGES} of them, 0 to "
                f"{STORED_IMAGES - 1}"
            )
        return ImageView(self.images[index : index + 1], self.distances[index : index + 1])
