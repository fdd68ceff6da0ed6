"""Patches: whole images at reduced size, or crops at full size, and the cameras that see just
them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class PatchPlan:
    """Which images of a batch are cropped, and where."""

    cropped: Bool[Tensor, "b"]
    """True: a crop at full resolution; False: the whole image at reduced size."""
    offset: Int[Tensor, "b 2"]
    """Left and top corner of the crop in full-resolution pixels."""
    image_size: int
    """Side of the full image."""
    patch_size: int
    """Side of a patch."""

    @staticmethod
    def draw(
        batch: int, share: float, image_size: int, patch_size: int, device: torch.device
    ) -> PatchPlan:
        """The first ``share`` of the batch is cropped at uniform places, the rest is whole.

        Crops come first in a batch on purpose: minibatch statistics compare images i, i + B/G, ...,
        so that with a share of 1/2 every group sees both kinds in the same proportion, for reals
        and for fakes.
        """
        cropped = torch.arange(batch, device=device) < round(share * batch)
        offset = torch.randint(0, image_size - patch_size + 1, (batch, 2), device=device)
        return PatchPlan(cropped, offset, image_size, patch_size)

    def labels(self, labels: Float[Tensor, "b 25"]) -> Float[Tensor, "b 25"]:
        """Cameras that see the patches: same pose; focal length and principal point of the crop.

        With scale s = image / patch size, ``f' = s f`` and ``c' = (c image - offset) / patch``.
        """
        if self.image_size == self.patch_size:
            return labels
        scale = self.image_size / self.patch_size
        crop = labels.clone()
        crop[:, 16] *= scale
        crop[:, 17] *= scale
        crop[:, 20] *= scale
        crop[:, 18] = (labels[:, 18] * self.image_size - self.offset[:, 0]) / self.patch_size
        crop[:, 21] = (labels[:, 21] * self.image_size - self.offset[:, 1]) / self.patch_size
        return torch.where(self.cropped[:, None], crop, labels)

    def images(self, images: Float[Tensor, "b c h h"]) -> Float[Tensor, "b c p p"]:
        """The patches of full images; whole ones are reduced by the mean over pixels."""
        if self.image_size == self.patch_size:
            return images
        whole = torch.nn.functional.adaptive_avg_pool2d(images, self.patch_size)
        return torch.where(self.cropped[:, None, None, None], self._crops(images), whole)

    def maps(self, maps: Shaped[Tensor, "b c h h"]) -> Shaped[Tensor, "b c p p"]:
        """The patches of class ids; whole maps are reduced to nearest neighbours."""
        if self.image_size == self.patch_size:
            return maps
        whole = torch.nn.functional.interpolate(maps.float(), self.patch_size, mode="nearest")
        whole = whole.to(maps.dtype)
        return torch.where(self.cropped[:, None, None, None], self._crops(maps), whole)

    def _crops(self, images: Tensor) -> Tensor:
        steps = torch.arange(self.patch_size, device=images.device)
        columns = self.offset[:, 0, None] + steps  # [B, P]
        rows = self.offset[:, 1, None] + steps
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
