"""Patches: whole images at reduced size, or crops at full size, and the cameras that see just
them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class ScaledPatches:
    """Patches of any scale at any place, a grid of P x P points each (GRAF, section 3.2).

    In coordinates in which the centres of the image's outer pixels lie at -1 and 1, a patch's
    points reach from ``shift - scale`` to ``shift + scale``.
    """

    scale: Float[Tensor, "b"]
    """Side of the patch in sides of the image, 0..1."""
    shift: Float[Tensor, "b 2"]
    """Middle of the patch along width and height."""
    image_size: int
    """Side of the full image, pixels."""
    patch_size: int
    """Points along a side of the patch."""

    @staticmethod
    def draw(
        batch: int, smallest: float, image_size: int, patch_size: int, device: torch.device
    ) -> ScaledPatches:
        """Scales uniform in ``smallest``..1, places uniform within the image."""
        scale = smallest + (1 - smallest) * torch.rand(batch, device=device)
        shift = (torch.rand(batch, 2, device=device) * 2 - 1) * (1 - scale[:, None])
        return ScaledPatches(scale, shift, image_size, patch_size)

    def labels(self, labels: Float[Tensor, "b 25"]) -> Float[Tensor, "b 25"]:
        """Cameras whose P x P pixels have their centres at the points of the grids.

        The place p in the patch (0..1) is ``a p + b`` in the image (0..1), so ``f' = f / a`` and
        ``c' = (c - b) / a``.
        """
        size, points = self.image_size, self.patch_size
        inner = (size - 1) / size
        step = self.scale * inner / (points - 1)
        a = step * points
        first = 0.5 + (self.shift - self.scale[:, None]) / 2 * inner  # [B, 2]
        b = first - step[:, None] / 2
        patch = labels.clone()
        patch[:, 16] /= a
        patch[:, 17] /= a
        patch[:, 20] /= a
        patch[:, 18] = (labels[:, 18] - b[:, 0]) / a
        patch[:, 21] = (labels[:, 21] - b[:, 1]) / a
        return patch

    def images(self, images: Float[Tensor, "b c h h"]) -> Float[Tensor, "b c p p"]:
        """Images looked up bilinearly at the points."""
        line = torch.linspace(-1, 1, self.patch_size, device=images.device, dtype=images.dtype)
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)  # [P, P, 2]
        places = grid * self.scale[:, None, None, None] + self.shift[:, None, None]
        return torch.nn.functional.grid_sample(
            images, places.to(images.dtype), mode="bilinear", align_corners=True
        )


def smallest_scale(kimg: float, start: float, end: float, decay_kimg: float) -> float:
    """GRAF's schedule: ``min(start, max(end, exp(-kimg / decay_kimg)))``; ``decay_kimg`` 0: end."""
    falling = math.exp(-kimg / decay_kimg) if decay_kimg > 0 else 0.0
    return min(start, max(end, falling))


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
