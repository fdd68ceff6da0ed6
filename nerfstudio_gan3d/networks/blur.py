"""Gaussian blur of what the discriminator sees at the start of training."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian_blur(image: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b c h w"]:
    """Separable blur with the kernel ``2^-(t / sigma)^2``, |t| <= floor(3 sigma), zeros outside the
    image.

    EG3D's kernel (``sigma`` in pixels is sqrt(2 ln 2) times a standard deviation). Kernels wider
    than the image are cut at its size, which changes nothing: beyond it there are zeros.
    """
    radius = min(int(3 * sigma), max(image.shape[2:]))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    # Normalised before it is cut, so that the cut leaves the remaining weights as they are.
    full = torch.arange(-int(3 * sigma), int(3 * sigma) + 1, device=image.device).to(image)
    kernel = torch.exp2(-((offsets / sigma) ** 2)) / torch.exp2(-((full / sigma) ** 2)).sum()
    channels = image.shape[1]
    kernel = kernel.expand(channels, 1, -1)
    image = torch.nn.functional.conv2d(
        image, kernel[:, :, None, :], padding=(0, radius), groups=channels
    )
    return torch.nn.functional.conv2d(
        image, kernel[:, :, :, None], padding=(radius, 0), groups=channels
    )
