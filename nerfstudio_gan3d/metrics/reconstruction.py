"""How well one image becomes a Scene: colours, depths, flatness, and what cardboard would do.

Pure functions of tensors; everything that is summed is summed in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays, project


class DepthAccuracy(NamedTuple):
    """One number for each image."""

    error: Float[Tensor, "b"]
    """Mean |scale depth + shift - target| under the best scale and shift, units of the target."""
    correlation: Float[Tensor, "b"]
    """Pearson's, -1 to 1; 0 where one of the maps is flat."""


class InceptionScore(NamedTuple):
    """Over the parts that the images were divided into."""

    mean: float
    std: float


def psnr(
    image: Float[Tensor, "b c h w"],
    target: Float[Tensor, "b c h w"],
    mask: Bool[Tensor, "b 1 h w"] | None = None,
    *,
    span: float = 2.0,
) -> Float[Tensor, "b"]:
    """``10 log10(span^2 / mean (image - target)^2)`` of each image, in dB.

    Args:
        image: compared as it is, without clipping.
        target: of the same range.
        mask: the pixels that count; None for all. An image without any gets NaN.
        span: length of the values' range: 2 for [-1, 1], 1 for [0, 1].

    Equal images have infinitely many dB.
    """
    weight = _weights(image[:, :1], mask)
    squared = (image.double() - target.double()).square().mean(1, keepdim=True)
    error = _mean(squared, weight)
    return 10 * torch.log10(span**2 / error)


def depth_accuracy(
    depth: Float[Tensor, "b 1 h w"],
    target: Float[Tensor, "b 1 h w"],
    mask: Bool[Tensor, "b 1 h w"] | None = None,
) -> DepthAccuracy:
    """A depth map against another one whose scale and shift are unknown.

    Each map is brought to its target by the scale and shift of least squares, so the error does not
    see them. It does not see a relief turned inside out either: there the scale is negative, and so
    is the correlation, which therefore belongs beside the error.

    A depth map that is flat (standard deviation below 1e-6 of its size) gets the scale 0: its error
    is the target's mean distance from its own mean, which is what knowing nothing costs. With a
    flat target the error is 0, whatever the depth. Both have the correlation 0. An image without
    pixels in ``mask`` gets NaN twice.
    """
    weight = _weights(depth, mask)
    x, x_spread = _centred(depth.double(), weight)
    y, y_spread = _centred(target.double(), weight)
    together = _mean(x * y, weight)
    some = x_spread > 0
    scale = torch.where(some, together / torch.where(some, x_spread, 1), torch.zeros_like(together))
    error = _mean((_maps(scale) * x - y).abs(), weight)
    spread = (x_spread * y_spread).sqrt()
    correlation = torch.where(spread > 0, together / torch.where(spread > 0, spread, 1), spread)
    return DepthAccuracy(error, correlation.clamp(-1, 1))


def non_flatness(
    depth: Float[Tensor, "b 1 h w"], near: float, far: float, *, bins: int = 64
) -> Float[Tensor, "b"]:
    """``exp(-sum_k p_k log(p_k + 1e-12))`` over the histogram p of each map between near and far.

    3DGP's Non-Flatness Score (arXiv 2303.01416), whose published figure is the mean over 256
    maps from the frontal camera: 1 for a flat map, ``bins`` for depths spread evenly. It depends on
    near and far, to which depths are clamped, so they belong beside the figure. 3DGP renders these
    maps without the thinner half of the volume, see `transparent_below_quantile`.

    Raises:
        ValueError: depths that are not finite, or an interval without length.
    """
    if not near < far:
        raise ValueError(f"depths between near {near} and far {far}; far must be the larger")
    if not torch.isfinite(depth).all():
        raise ValueError("depth holds NaN or infinite values; give empty pixels the depth far")
    maps = depth.detach().double().clamp(near, far).flatten(1)
    counts = torch.stack([one.histc(bins, near, far) for one in maps])
    share = counts / counts.sum(1, keepdim=True)
    return torch.exp(-(share * torch.log(share + 1e-12)).sum(1))


def transparent_below_quantile(
    density: Float[Tensor, "..."], quantile: float = 0.5, *, empty: float = 0.0
) -> Tensor:
    """``density`` with ``empty`` in place of everything below this quantile of all of it.

    3DGP's preparation of the Non-Flatness Score: fog hides a flat surface's flatness. The quantile
    is taken over everything that is passed, all rays of all images of a batch, and interpolates
    linearly between two values. Values equal to it stay.

    Args:
        density: after activation, 0 or more; any shape.
        quantile: share that is emptied, 0 to 1.
        empty: what is transparent. For densities before activation pass a large negative number.

    Raises:
        ValueError: a quantile outside of 0..1, or no density at all.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile is {quantile}; it is a share between 0 and 1")
    if density.numel() == 0:
        raise ValueError("a quantile of no densities; pass those of at least one ray")
    # torch.quantile refuses more than 16 million values, which a few images have.
    flat = density.detach().flatten()
    place = quantile * (len(flat) - 1)
    low = math.floor(place)
    below = flat.kthvalue(low + 1).values
    above = flat.kthvalue(min(low + 2, len(flat))).values
    return torch.where(density < below.lerp(above, place - low), empty, density)


def plane_warp(
    image: Float[Tensor, "b 3 h w"],
    source: Float[Tensor, "b 25"],
    target: Float[Tensor, "b 25"],
    distance: Float[Tensor, "b"],
) -> tuple[Float[Tensor, "b 3 h w"], Bool[Tensor, "b 1 h w"]]:
    """The image as the target camera sees it if everything in it lies in one plane.

    The plane is parallel to the source's image plane. It is the least that a Scene made of one
    photo has to beat in a new view. Sampled bilinearly; pixels are squares of the size h x w in
    both cameras.

    Args:
        image: seen by ``source``.
        source: camera labels (OpenCV camera-to-world, normalised intrinsics), one per image.
        target: camera labels of the new view.
        distance: of the plane along the source's optical axis, object-world units, over 0.

    Returns:
        The warped image, and which of its pixels the image reaches. The others are 0: they look
        past the image, away from the plane, or at the plane's back.

    Raises:
        ValueError: a plane that is not in front of its camera.
    """
    if not bool((distance > 0).all()):
        raise ValueError(
            f"a plane at the distance {float(distance.min())}; it must lie in front of the camera"
        )
    height, width = image.shape[2:]
    source, target = source.to(image), target.to(image)
    origins, directions = pixel_rays(target, height, width)  # [B, R, 3]
    normal = source[:, [2, 6, 10], None]  # the optical axis, [B, 3, 1]
    before = source[:, None, [3, 7, 11]] - origins
    towards = directions @ normal  # [B, R, 1]
    along = before @ normal + distance.to(image)[:, None, None]
    reached = (towards > 1e-9) & (along > 0)
    points = origins + directions * along / torch.where(reached, towards, 1)
    place, _ = project(source, points)
    reached = reached[..., 0] & ((place >= 0) & (place <= 1)).all(-1)
    grid = torch.where(reached[..., None], 2 * place - 1, torch.zeros_like(place))
    # Between the outermost pixel centres and the image's edge the outermost pixel continues.
    warped = F.grid_sample(
        image, grid.unflatten(1, (height, width)), padding_mode="border", align_corners=False
    )
    valid = reached.unflatten(1, (1, height, width))
    return torch.where(valid, warped, torch.zeros_like(warped)), valid


def inception_score(probabilities: Float[Tensor, "n c"], splits: int = 10) -> InceptionScore:
    """``exp(mean_n KL(p(c | n) || mean_n p(c)))`` of each of ``splits`` parts of the images.

    Salimans et al. 2016. 1 if every image looks the same to the classifier, c if it is sure of each
    and all classes are equally many. Images come in random order; the first N / splits are the
    first part. The deviation is between the parts. Published figures are of 50,000 images in 10
    parts, by the Inception network of 2015.

    Args:
        probabilities: of the classes for each image: the softmax of `Extraction.class_logits`.
        splits: how many parts.

    Raises:
        ValueError: fewer images than parts, or rows that are no probabilities.
    """
    count = len(probabilities)
    if not 1 <= splits <= count:
        raise ValueError(
            f"inception score of {count} images in {splits} parts; each part needs an image"
        )
    p = probabilities.detach().double()
    if not (bool((p >= 0).all()) and bool(((p.sum(1) - 1).abs() < 1e-3).all())):
        raise ValueError(
            "inception score: the rows are no probabilities (0 or more, of the sum 1); pass the "
            "softmax of the logits"
        )
    scores = []
    for part in range(splits):
        rows = p[part * count // splits : (part + 1) * count // splits]
        mean = rows.mean(0)
        # entr(p) = -p log p is 0 at 0.
        divergence = torch.special.entr(mean).sum() - torch.special.entr(rows).sum(1).mean()
        scores.append(divergence.exp())
    stacked = torch.stack(scores)
    return InceptionScore(float(stacked.mean()), float(stacked.std(correction=0)))


def _weights(like: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(like).double() if mask is None else mask.double()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    # Not values * weight: what is masked out may be infinite.
    kept = torch.where(weight > 0, values, torch.zeros_like(values))
    return kept.flatten(1).sum(1) / weight.flatten(1).sum(1)


def _maps(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _centred(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values less their mean, and their variance; 0 for what differs by rounding only."""
    centred = values - _maps(_mean(values, weight))
    variance = _mean(centred.square(), weight)
    flat = variance <= 1e-12 * _mean(values.square(), weight)
    centred = torch.where(_maps(flat), torch.zeros_like(centred), centred)
    return centred, torch.where(flat, torch.zeros_like(variance), variance)
