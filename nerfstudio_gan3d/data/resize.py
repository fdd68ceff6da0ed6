"""Antialiased changes of resolution for pixels, coverage, depth and class ids."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

FARTHEST = np.float32(65535 / 65536)
"""Largest relative depth that a file can hold."""


def resize_image(
    image: UInt8[np.ndarray, "h w c"], resolution: int
) -> UInt8[np.ndarray, "{resolution} {resolution} c"]:
    """A square image at another resolution.

    An integer reduction is the exact mean of each cell, rounded half up. Every other change is
    Pillow's Lanczos filter, whose support grows with the reduction, so that it antialiases.
    """
    size = image.shape[0]
    if size == resolution:
        return image
    if size % resolution == 0:
        factor = size // resolution
        cells = image.reshape(resolution, factor, resolution, factor, -1)
        area = factor * factor
        return ((cells.sum(axis=(1, 3), dtype=np.uint32) + area // 2) // area).astype(np.uint8)
    resized = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).resize(
        (resolution, resolution), Image.Resampling.LANCZOS
    )
    return np.asarray(resized).reshape(resolution, resolution, -1)


def resize_coverage(
    mask: Float32[np.ndarray, "h w"], resolution: int
) -> Float32[np.ndarray, "{resolution} {resolution}"]:
    """Coverage (0..1) at another resolution; the mean is kept (box filter)."""
    resized = Image.fromarray(mask).resize((resolution, resolution), Image.Resampling.BOX)
    return np.asarray(resized).clip(0, 1)


def reduce_depth(depth: Float32[np.ndarray, "h w"], factor: int) -> Float32[np.ndarray, "h2 w2"]:
    """Mean depth of the foreground (> 0) of each cell; 0 where less than half is foreground."""
    cells = _cells(depth, factor)
    foreground = cells > 0
    count = foreground.sum(-1)
    mean = cells.sum(-1) / np.maximum(count, 1)
    return np.where(2 * count >= factor * factor, mean, 0).astype(np.float32)


def resize_depth(
    depth: Float32[np.ndarray, "h w"], resolution: int
) -> Float32[np.ndarray, "{resolution} {resolution}"]:
    """Square z-depth (0 is background) at another resolution; object and background never mix.

    A new pixel is the mean of the object's depth over the area that it covers, when at least half
    of that area is object, and 0 otherwise. For an integer reduction that is `reduce_depth`.
    """
    size = depth.shape[0]
    if size == resolution:
        return depth
    # Share of each old pixel in each new one along an axis: the overlap of two intervals.
    edges = np.arange(resolution + 1) * (size / resolution)
    low = np.maximum(edges[:-1, None], np.arange(size))
    high = np.minimum(edges[1:, None], np.arange(size) + 1)
    share = np.maximum(high - low, 0) * (resolution / size)  # [resolution, size]
    covered = share @ (depth > 0).astype(np.float64) @ share.T
    mean = share @ depth.astype(np.float64) @ share.T / np.maximum(covered, 1e-9)
    # Sums of shares carry rounding errors, and half a pixel of object is object.
    return np.where(covered >= 0.5 - 1e-9, mean, 0).astype(np.float32)


def resize_relative_depth(
    depth: Float32[np.ndarray, "h w"], resolution: int
) -> Float32[np.ndarray, "{resolution} {resolution}"]:
    """Square relative depth (0 to below 1) at another resolution, antialiased as images are.

    An integer reduction is the mean of each cell, every other change Pillow's Lanczos filter.
    That overshoots beside steps; what leaves the range is put back to its border.
    """
    size = depth.shape[0]
    if size == resolution:
        return depth
    if size % resolution == 0:
        return _cells(depth, size // resolution).mean(-1, dtype=np.float64).astype(np.float32)
    resized = Image.fromarray(depth).resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(resized).clip(0, FARTHEST)


def reduce_label_map(
    label_map: UInt8[np.ndarray, "h w"], factor: int
) -> UInt8[np.ndarray, "h2 w2"]:
    """Most frequent class of each cell.

    Background (0) wins only where it covers more than half of the cell, so that label > 0 goes
    with depth > 0 of `reduce_depth`; among equally frequent classes the smallest id wins.
    """
    cells = _cells(label_map, factor)
    classes = np.arange(1, max(int(label_map.max()), 1) + 1)
    counts = (cells[..., None] == classes).sum(-2)
    foreground = 2 * counts.sum(-1) >= factor * factor
    return np.where(foreground, classes[counts.argmax(-1)], 0).astype(np.uint8)


def resize_label_map(
    label_map: UInt8[np.ndarray, "h w"], resolution: int
) -> UInt8[np.ndarray, "{resolution} {resolution}"]:
    """A square label map at another resolution: the class at the middle of each new pixel.

    Unlike an average this makes no class that was not there. An even reduction has its middle
    between pixels and takes the one below and to the right of it, as Pillow does.
    """
    size = label_map.shape[0]
    middles = (2 * np.arange(resolution) + 1) * size // (2 * resolution)
    return label_map[middles[:, None], middles]


def _cells(pixels: np.ndarray, factor: int) -> np.ndarray:
    height, width = pixels.shape
    if height % factor or width % factor:
        raise ValueError(f"{width} x {height} pixels cannot be reduced {factor} times")
    cells = pixels.reshape(height // factor, factor, width // factor, factor)
    return cells.swapaxes(1, 2).reshape(height // factor, width // factor, factor * factor)
