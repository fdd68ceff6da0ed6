"""Samplers against hand-worked pixels, linear ramps and a plain twin made of torch's operators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nerfstudio_gan3d.data.augment_geometry import (
    SYM6_LOW_PASS,
    GeometryDraws,
    blit,
    orient,
    source_affine,
    warp,
    warp_separable,
)

LOW_PASS = torch.tensor(SYM6_LOW_PASS, dtype=torch.float64)


def _affine(draws: GeometryDraws, batch: int = 1) -> tuple[Tensor, Tensor]:
    return source_affine(draws, batch, torch.device("cpu"), torch.float64)


def _value(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _ramps(size: int) -> Tensor:
    """[1, 3, size, size]: the x position, the y position, and 2 x - y, from the image centre."""
    position = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    x, y = position.expand(size, size), position[:, None].expand(size, size)
    return torch.stack([x, y, 2 * x - y])[None]


def test_sym6_is_an_orthonormal_low_pass_with_six_vanishing_moments() -> None:
    assert LOW_PASS.sum() == pytest.approx(1, abs=1e-15)
    for shift in range(6):
        overlap = (LOW_PASS[2 * shift :] * LOW_PASS[: 12 - 2 * shift]).sum()
        # Orthonormal taps sum to sqrt(2), these to 1: half the inner products.
        assert overlap == pytest.approx(0.5 if shift == 0 else 0.0, abs=1e-11)
    index = torch.arange(12, dtype=torch.float64)
    high_pass = (-1) ** index * LOW_PASS
    for moment in range(6):
        # The moments grow like 11^k, and with them the rounding of the published digits.
        assert (high_pass * index**moment).sum() == pytest.approx(0, abs=1e-9 * 11**moment)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (1.0, [11, 10, 11, 12]),
        (-1.0, [11, 12, 13, 12]),
        (2.0, [12, 11, 10, 11]),
        (-3.0, [13, 12, 11, 10]),
        # A shift by the whole period of 2 (4 - 1) pixels of the mirrored row changes nothing.
        (6.0, [10, 11, 12, 13]),
    ],
)
def test_whole_pixel_shift_mirrors_about_the_border_pixel(
    shift: float, expected: list[float]
) -> None:
    row = _value(10, 11, 12, 13)
    along_x = row.expand(1, 3, 2, 4)
    moved = blit(along_x, _affine(GeometryDraws(shift=_value(shift, 0)[None]))[1])
    assert torch.equal(moved, _value(*expected).expand(1, 3, 2, 4))
    along_y = along_x.mT.contiguous()
    moved = blit(along_y, _affine(GeometryDraws(shift=_value(0, shift)[None]))[1])
    assert torch.equal(moved.mT, _value(*expected).expand(1, 3, 2, 4))


@pytest.mark.parametrize("resample", [warp, warp_separable])
def test_whole_pixel_shifts_survive_resampling(resample) -> None:
    torch.manual_seed(0)
    image = torch.randn(3, 3, 9, 14, dtype=torch.float64)
    shift = torch.tensor([[0.0, 0.0], [3.0, -4.0], [-40.0, 25.0]])
    linear, offset = _affine(GeometryDraws(shift=shift), 3)
    moved = resample(image, linear, offset, LOW_PASS)
    torch.testing.assert_close(moved[0], image[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(moved, blit(image, offset), atol=1e-10, rtol=0)


def test_orient_flips_first_and_turns_counter_clockwise() -> None:
    image = torch.arange(8 * 3 * 4 * 4.0).view(8, 3, 4, 4)
    flip, turns = torch.arange(8) >= 4, torch.arange(8) % 4
    out = orient(image, flip, turns)
    for row in range(8):
        start = image[row].flip(2) if row >= 4 else image[row]
        assert torch.equal(out[row], torch.rot90(start, row % 4, (1, 2)))
    # 0 1    1 3
    # 2 3 -> 0 2
    square = torch.arange(4.0).view(1, 1, 2, 2)
    turned = orient(square, None, torch.tensor([1]))
    assert torch.equal(turned, torch.tensor([[[[1.0, 3.0], [0.0, 2.0]]]]))


@pytest.mark.parametrize("resample", [warp, warp_separable])
def test_zoom_and_fractional_shift_of_linear_ramps(resample) -> None:
    ramps = _ramps(32)
    draws = GeometryDraws(stretch=_value(2, 2.5)[None], offset=_value(0.75, -0.3)[None])
    zoomed = resample(ramps, *_affine(draws), LOW_PASS)
    # Content at u goes to 2 u + 0.75 (2.5 u - 0.3), so position u shows (u - 0.75) / 2. Sources
    # stay 7 pixels off the borders, beyond the reach of the filter.
    x, y = (ramps[:, 0] - 0.75) / 2, (ramps[:, 1] + 0.3) / 2.5
    expected = torch.stack([x, y, 2 * x - y], 1)
    torch.testing.assert_close(zoomed, expected, atol=1e-9, rtol=0)


def test_rotation_of_linear_ramps_around_an_anisotropic_stretch() -> None:
    ramps = _ramps(32)
    angle, turn = 0.4, -0.9
    draws = GeometryDraws(
        pre_rotation=_value(angle), stretch=_value(2.0, 3.0)[None], post_rotation=_value(turn)
    )
    turned = warp(ramps, *_affine(draws), LOW_PASS)
    # Undo the steps from the last to the first. y points down, so a content that turns
    # counter-clockwise by a goes from (1, 0) to (cos a, -sin a).
    x, y = ramps[:, 0], ramps[:, 1]
    x, y = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    x, y = x / 2.0, y / 3.0
    x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    expected = torch.stack([x, y, 2 * x - y], 1)
    torch.testing.assert_close(turned, expected, atol=1e-9, rtol=0)


def _plain_warp(image: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """The same steps as the paper writes them: pad, insert zeros, filter, grid_sample, filter."""
    batch, channels, height, width = image.shape
    pad = min(height, width) - 1
    padded = functional.pad(image, (pad, pad, pad, pad), mode="reflect").flatten(0, 1)[:, None]
    tall, wide = padded.shape[2:]
    zeros = padded.new_zeros(len(padded), 1, 2 * tall, 2 * wide)
    zeros[:, :, ::2, ::2] = padded
    kernel = torch.outer(LOW_PASS, LOW_PASS)[None, None]
    # Convolution is correlation with the flipped kernel; 11 more samples in front keep it causal.
    causal = functional.pad(zeros, (11, 0, 11, 0))
    upsampled = functional.conv2d(causal, 4 * kernel.flip(2, 3))
    upsampled = upsampled.view(batch, channels, 2 * tall, 2 * wide)
    centre = (torch.arange(12) * LOW_PASS).sum()
    size = _value(width, height)

    def position(length: int) -> Tensor:
        return (torch.arange(2 * length + 10) - centre) / 2 - (length - 1) / 2

    y, x = torch.meshgrid(position(height), position(width), indexing="ij")
    source = torch.stack([x, y], -1) @ linear.mT[:, None] + shift[:, None, None]
    sample = 2 * (source + (size - 1) / 2 + pad) + centre
    grid = (2 * sample + 1) / _value(2 * wide, 2 * tall) - 1
    grown = functional.grid_sample(upsampled, grid, align_corners=False).flatten(0, 1)[:, None]
    return functional.conv2d(grown, kernel, stride=2).view(image.shape)


def test_warp_equals_its_plain_twin_in_values_and_gradients() -> None:
    torch.manual_seed(1)
    image = torch.randn(3, 2, 14, 16, dtype=torch.float64, requires_grad=True)
    draws = GeometryDraws(
        shift=torch.tensor([[1.0, -2.0], [0.0, 1.0], [2.0, 2.0]]),
        pre_rotation=_value(0.3, -0.2, 2.0),
        stretch=_value(1.2, 0.9, 1.1, 1.5, 1.4, 1.3).view(3, 2),
        offset=_value(0.3, 0.2, -0.7, 0.1, 0.0, -1.2).view(3, 2),
    )
    affine = _affine(draws, 3)
    cotangent = torch.randn_like(image)
    plain, ours = _plain_warp(image, *affine), warp(image, *affine, LOW_PASS)
    torch.testing.assert_close(ours, plain, atol=1e-10, rtol=0)
    (expected,) = torch.autograd.grad(plain, image, cotangent)
    (gradient,) = torch.autograd.grad(ours, image, cotangent)
    torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=0)


def test_separable_warp_equals_warp_far_outside_the_image() -> None:
    torch.manual_seed(2)
    image = torch.randn(4, 3, 7, 5, dtype=torch.float64, requires_grad=True)
    linear = torch.diag_embed(torch.randn(4, 2, dtype=torch.float64) * 3)
    shift = torch.randn(4, 2, dtype=torch.float64) * 20
    cotangent = torch.randn_like(image)
    general, fast = (f(image, linear, shift, LOW_PASS) for f in (warp, warp_separable))
    torch.testing.assert_close(fast, general, atol=1e-10, rtol=0)
    (expected,) = torch.autograd.grad(general, image, cotangent)
    (gradient,) = torch.autograd.grad(fast, image, cotangent)
    torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=0)


def test_constant_images_stay_constant() -> None:
    image = torch.full((5, 3, 6, 6), 0.7)
    linear, shift = torch.randn(5, 2, 2) * 2, torch.randn(5, 2) * 30
    warped = warp(image, linear, shift, LOW_PASS.float())
    torch.testing.assert_close(warped, image, atol=1e-5, rtol=0)
