"""The blur against an explicit double loop over its kernel."""

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.networks.blur import gaussian_blur


def explicit(image: Tensor, sigma: float) -> Tensor:
    """Sum over the whole two-dimensional kernel, zeros outside of the image."""
    radius = int(3 * sigma)
    taps = [2.0 ** -((t / sigma) ** 2) for t in range(-radius, radius + 1)]
    padded = torch.nn.functional.pad(image, (radius,) * 4)
    height, width = image.shape[2:]
    out = torch.zeros_like(image)
    for i, a in enumerate(taps):
        for j, b in enumerate(taps):
            out = out + a * b * padded[:, :, i : i + height, j : j + width]
    return out / sum(taps) ** 2


# The last two are wider than the image.
@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.3, 4.0, 9.0])
def test_blur_equals_the_explicit_kernel(sigma: float) -> None:
    image = torch.randn(2, 3, 6, 9, dtype=torch.float64, requires_grad=True)
    found, twin = gaussian_blur(image, sigma), explicit(image, sigma)
    torch.testing.assert_close(found, twin)
    cotangent = torch.randn_like(twin)
    torch.testing.assert_close(
        torch.autograd.grad(found, image, cotangent), torch.autograd.grad(twin, image, cotangent)
    )


def test_constant_image_keeps_its_value_away_from_the_border() -> None:
    found = gaussian_blur(torch.ones(1, 3, 32, 32), 2.0)
    torch.testing.assert_close(found[:, :, 6:-6, 6:-6], torch.ones(1, 3, 20, 20))
    assert found[0, 0, 0, 0] < 0.5
