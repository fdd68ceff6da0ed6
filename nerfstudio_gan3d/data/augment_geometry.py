"""Geometric augmentation of image batches: exact pixel moves and band-limited affine warps.

`orient` flips and makes quarter turns. Everything else becomes one affine map per image, from
output to source positions, and one of three samplers applies it: `blit` (whole pixels, one gather),
`warp_separable` (no rotation, two small matrix products per image) or `warp` (anything). All
treat an image as mirrored endlessly about its border pixels. They use only operations that can be
differentiated any number of times with respect to the image, because R1 differentiates the
discriminator's gradient; torch's grid_sample has no second derivative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

_SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
SYM6_LOW_PASS = tuple(tap / sum(_SYM6) for tap in _SYM6)
"""Decomposition low-pass of Daubechies' least asymmetric wavelet with 6 vanishing moments
(PyWavelets `sym6.dec_lo`), scaled to sum 1."""

# The centre of mass of the filter. Because of the vanishing moments, a linear ramp comes out of
# the 2x upsampling as a linear ramp whose sample n lies at source position (n - centre) / 2.
_CENTRE = sum(index * tap for index, tap in enumerate(SYM6_LOW_PASS))
_TAPS = len(SYM6_LOW_PASS)


@dataclass
class GeometryDraws:
    """What was drawn for each of B images. None means that the transformation is switched off.

    The transformations act in the order of the fields, about the image centre. x points right and
    y down; rotations are counter-clockwise as seen.
    """

    flip: Bool[Tensor, "b"] | None = None
    """Mirror left and right."""
    quarter_turns: Int[Tensor, "b"] | None = None
    """Rotations by 90 degrees, 0..3."""
    shift: Float[Tensor, "b 2"] | None = None
    """Whole pixels (x, y)."""
    pre_rotation: Float[Tensor, "b"] | None = None
    """Radians, before the stretch."""
    stretch: Float[Tensor, "b 2"] | None = None
    """Magnification of (x, y); both scalings in one, since the isotropic one commutes."""
    post_rotation: Float[Tensor, "b"] | None = None
    """Radians, after the stretch."""
    offset: Float[Tensor, "b 2"] | None = None
    """Fractional translation in pixels (x, y)."""


def source_affine(
    draws: GeometryDraws, batch: int, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "b 2 2"], Float[Tensor, "b 2"]]:
    """The map from output to source positions, source = linear @ output + shift.

    Positions are (x, y) in pixels from the image centre. If the drawn steps after flip and quarter
    turns are G = G_n ... G_1, the result is G_1^-1 ... G_n^-1 (Karras et al. 2020, appendix B).
    """
    linear = torch.eye(2, device=device, dtype=dtype).expand(batch, 2, 2)
    shift = torch.zeros(batch, 2, device=device, dtype=dtype)
    if draws.shift is not None:
        shift = -draws.shift.to(dtype)
    if draws.pre_rotation is not None:
        linear = linear @ _rotation(draws.pre_rotation.to(dtype))
    if draws.stretch is not None:
        linear = linear / draws.stretch.to(dtype)[:, None, :]
    if draws.post_rotation is not None:
        linear = linear @ _rotation(draws.post_rotation.to(dtype))
    if draws.offset is not None:
        shift = shift - (linear @ draws.offset.to(dtype)[..., None])[..., 0]
    return linear, shift


def orient(
    image: Float[Tensor, "b c h w"],
    flip: Bool[Tensor, "b"] | None,
    quarter_turns: Int[Tensor, "b"] | None,
) -> Float[Tensor, "b c h w"]:
    """Flip, then turn counter-clockwise; a permutation of the pixels.

    Departure: the paper leaves these to the resampling. Its filter is not quite symmetric, so there
    a mirrored image is blurrier than the original. Mirroring without end commutes with both steps,
    so taking them out changes nothing else. Quarter turns need square images.
    """
    if flip is not None:
        image = torch.where(_per_image(flip), image.flip(3), image)
    if quarter_turns is not None:
        turns = _per_image(quarter_turns)
        image = torch.where(turns % 2 == 1, image.mT, image)
        image = torch.where((turns == 1) | (turns == 2), image.flip(2), image)
        image = torch.where((turns == 2) | (turns == 3), image.flip(3), image)
    return image


def blit(image: Float[Tensor, "b c h w"], shift: Float[Tensor, "b 2"]) -> Float[Tensor, "b c h w"]:
    """Look up pixels a whole number of pixels away: one gather, exact values."""
    batch, channels, height, width = image.shape
    offset = shift.round().long()
    x = torch.arange(width, device=image.device) + offset[:, :1]
    y = torch.arange(height, device=image.device) + offset[:, 1:]
    column, row = _reflect(x, width), _reflect(y, height)
    index = (row * width)[:, :, None] + column[:, None, :]  # [B, H, W]
    index = index.view(batch, 1, -1).expand(-1, channels, -1)
    return image.flatten(2).gather(2, index).view(image.shape)


def warp(
    image: Float[Tensor, "b c h w"],
    linear: Float[Tensor, "b 2 2"],
    shift: Float[Tensor, "b 2"],
    low_pass: Float[Tensor, "12"],
) -> Float[Tensor, "b c h w"]:
    """Resample an image through any affine map.

    2x upsampling with `low_pass`, bilinear lookup, 2x downsampling with the flipped filter (Karras
    et al. 2020, appendix B). The filter is orthonormal, so the identity map gives the image back.
    Departure: the paper pads by reflection as far as the batch needs, at most one image size, and
    has zeros beyond. Here the upsampled mirror image is computed over one whole period, so there
    is no beyond, and no transfer to the host to find out how much padding is needed.
    """
    channels, height, width = image.shape[1:]
    low_pass = low_pass.to(image)
    # As matrices the filters are dense where a convolution is not, and faster all the same up to
    # some 500 pixels: one pass over the memory, and backward passes that are matrix products too.
    period = _upsampling(height, low_pass) @ image @ _upsampling(width, low_pass).T
    along_x = linear[:, :, :1] * _centred_2x(width, linear) + shift[..., None]  # [B, 2, 2W+10]
    along_y = linear[:, :, 1:] * _centred_2x(height, linear)  # [B, 2, 2H+10]
    x, y = (along_x[:, :, None, :] + along_y[:, :, :, None]).to(image).unbind(1)
    left, right, across = _neighbours(x, width)
    upper, lower, down = _neighbours(y, height)
    flat, stride = period.flatten(2), period.shape[3]

    def pick(row: Tensor, column: Tensor) -> Tensor:
        index = (row * stride + column).flatten(1)[:, None]
        return flat.gather(2, index.expand(-1, channels, -1)).unflatten(2, x.shape[1:])

    across, down = across[:, None], down[:, None]
    top = torch.lerp(pick(upper, left), pick(upper, right), across)
    bottom = torch.lerp(pick(lower, left), pick(lower, right), across)
    grown = torch.lerp(top, bottom, down)  # [B, C, 2H+10, 2W+10]
    return _downsampling(height, low_pass) @ grown @ _downsampling(width, low_pass).T


def warp_separable(
    image: Float[Tensor, "b c h w"],
    linear: Float[Tensor, "b 2 2"],
    shift: Float[Tensor, "b 2"],
    low_pass: Float[Tensor, "12"],
) -> Float[Tensor, "b c h w"]:
    """`warp` for maps without rotation: the same result several times faster.

    Filters and lookup act on rows and columns apart, so each axis is one [size, size] matrix for
    each image. The off-diagonal of `linear` is taken to be zero.
    """
    low_pass = low_pass.to(image)
    height, width = image.shape[2:]
    rows = _axis_matrix(linear[:, 1, 1], shift[:, 1], height, low_pass)
    columns = _axis_matrix(linear[:, 0, 0], shift[:, 0], width, low_pass)
    return rows[:, None] @ image @ columns[:, None].mT


def _axis_matrix(
    scale: Float[Tensor, "b"], shift: Float[Tensor, "b"], size: int, low_pass: Float[Tensor, "12"]
) -> Float[Tensor, "b size size"]:
    """Upsampling, lookup at scale * position + shift, and downsampling as one matrix."""
    position = scale[:, None] * _centred_2x(size, low_pass) + shift[:, None]
    low, high, fraction = _neighbours(position, size)
    grow = _upsampling(size, low_pass)
    looked_up = torch.lerp(grow[low], grow[high], fraction[..., None])  # [B, 2 size + 10, size]
    return _downsampling(size, low_pass) @ looked_up


def _upsampling(size: int, low_pass: Float[Tensor, "12"]) -> Float[Tensor, "period size"]:
    """From an axis to one period, 4 (size - 1) samples, of its mirrored signal at twice the rate.

    Sample n is the sum over pixels k of 2 low_pass[n - 2k] signal[k]; the 2 makes up for the zeros
    that upsampling inserts.
    """
    sample = torch.arange(4 * (size - 1), device=low_pass.device)[:, None]
    step = torch.arange(_TAPS // 2, device=low_pass.device)
    pixel = _reflect(sample // 2 - step, size)
    weight = 2 * low_pass[sample % 2 + 2 * step]
    # Near the border two taps can meet the same pixel, hence the addition.
    return low_pass.new_zeros(len(sample), size).scatter_add_(1, pixel, weight)


def _downsampling(size: int, low_pass: Float[Tensor, "12"]) -> Float[Tensor, "size grown"]:
    """From 2 size + 10 samples back to an axis with the flipped filter, the adjoint of upsampling.

    Pixel m is the sum over samples n of low_pass[n - 2m] signal[n].
    """
    pixel = torch.arange(size, device=low_pass.device)[:, None]
    sample = 2 * pixel + torch.arange(_TAPS, device=low_pass.device)
    empty = low_pass.new_zeros(size, 2 * size + _TAPS - 2)
    return empty.scatter_(1, sample, low_pass.expand(size, _TAPS))


def _per_image(value: Shaped[Tensor, "b"]) -> Shaped[Tensor, "b 1 1 1"]:
    return value[:, None, None, None]


def _centred_2x(size: int, like: Tensor) -> Float[Tensor, "grown"]:
    """Positions of those samples at twice the rate that the downsampling reads, in pixels."""
    index = torch.arange(2 * size + _TAPS - 2, device=like.device, dtype=like.dtype)
    return (index - _CENTRE) / 2 - (size - 1) / 2


def _neighbours(
    position: Float[Tensor, "*n"], size: int
) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"], Float[Tensor, "*n"]]:
    """The two samples of an upsampled period around a position, and how far it is to the second."""
    sample = 2 * (position + (size - 1) / 2) + _CENTRE
    floor = sample.floor()
    period = 4 * (size - 1)
    low = torch.remainder(floor.long(), period)
    return low, torch.remainder(low + 1, period), sample - floor


def _reflect(index: Int[Tensor, "*n"], size: int) -> Int[Tensor, "*n"]:
    """Indices of the pixels that endless mirroring about the border pixels puts at `index`."""
    return (size - 1) - (size - 1 - torch.remainder(index, 2 * (size - 1))).abs()


def _rotation(angle: Float[Tensor, "b"]) -> Float[Tensor, "b 2 2"]:
    """From output to source positions when the content turns counter-clockwise as seen."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([cosine, -sine, sine, cosine], -1).view(-1, 2, 2)
