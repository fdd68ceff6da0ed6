"""Renders of a run as pictures: tiles, grids of tiles, and depth in colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.options import PictureOutput
from nerfstudio_gan3d.models.g3dr import G3drModelConfig
from nerfstudio_gan3d.run import Run
from nerfstudio_gan3d.scene import Scene

GAP = 2
"""White pixels between the tiles of a grid."""
DEPTH_COLORS = "viridis"
"""Colour map of depth, perceptually uniform: near is bright, far is dark."""
FIRST_AZIMUTH_DEG = 30.0
ELEVATION_DEG = 15.0


def azimuths(views: int) -> list[float]:
    """Azimuths in degrees of cameras spread evenly over a full turn, from a three-quarter view."""
    return [FIRST_AZIMUTH_DEG + 360.0 * index / views for index in range(views)]


def depth_range(run: Run) -> tuple[float, float]:
    """Distances between which depth is coloured: those at which the box's corners can lie, or of
    Scenes made of images the box's front and back.

    The same for all pictures of a run, so that colours can be compared and videos do not flicker.
    """
    settings = run.settings
    if isinstance(settings, G3drModelConfig):
        return settings.depth_range
    half = math.dist(settings.box, (0, 0, 0)) / 2 + math.dist(settings.view_pivot, (0, 0, 0))
    return max(settings.view_radius - half, 0.0), settings.view_radius + half


def color_depth(
    depth: Float[Tensor, "v h w 1"],
    accumulation: Float[Tensor, "v h w 1"],
    limits: tuple[float, float],
) -> UInt8[np.ndarray, "v h w 3"]:
    """Depth of the foreground in `DEPTH_COLORS`; white where it covers less than half of a
    pixel."""
    near, far = limits
    nearness = ((far - depth[..., 0]) / (far - near)).clamp(0, 1).cpu().numpy()
    colored = np.round(matplotlib.colormaps[DEPTH_COLORS](nearness)[..., :3] * 255)
    return np.where(accumulation.cpu().numpy() > 0.5, colored, 255).astype(np.uint8)


def tiles(
    run: Run,
    scene: Scene,
    labels: Float[Tensor, "v 25"],
    outputs: Sequence[PictureOutput],
    size: int | None = None,
) -> dict[PictureOutput, UInt8[np.ndarray, "v h w 3"]]:
    """Pictures of one Scene (B = 1) from V cameras: for each output an RGB picture per camera.

    The foreground stands before white, depth is coloured (`color_depth`), accumulation is grey,
    labels have exactly the colours of their classes.
    """
    found = run.render(scene, labels, [*outputs, "accumulation", "depth"], size)
    pictures: dict[PictureOutput, np.ndarray] = {}
    for name in outputs:
        if name == "depth":
            colored = color_depth(found["depth"], found["accumulation"], depth_range(run))
        else:
            values = found[name].clamp(0, 1).mul(255).round().cpu().numpy().astype(np.uint8)
            colored = np.broadcast_to(values, (*values.shape[:-1], 3))
        pictures[name] = colored
    return pictures


def block(pictures: dict[PictureOutput, np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    """All pictures of one Scene: outputs side by side, or one output a row if there are several
    views."""
    rows = [list(views) for views in pictures.values()]
    if len(rows[0]) == 1:
        rows = [[row[0] for row in rows]]
    return _join([_join(row, axis=1) for row in rows], axis=0)


def grid(blocks: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "rows columns 3"]:
    """Blocks of equal size, row by row, in the arrangement that comes closest to a square."""
    height, width = blocks[0].shape[:2]

    def shape_of(columns: int) -> float:
        rows = math.ceil(len(blocks) / columns)
        return abs(math.log(columns * width / (rows * height)))

    columns = min(range(1, len(blocks) + 1), key=shape_of)
    blank = np.full_like(blocks[0], 255)
    missing = -len(blocks) % columns
    padded = [*blocks, *[blank] * missing]
    rows = [padded[start : start + columns] for start in range(0, len(padded), columns)]
    return _join([_join(row, axis=1) for row in rows], axis=0)


def table(
    heads: Sequence[UInt8[np.ndarray, "side side 3"]],
    rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]],
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Rows of blocks of equal size, each behind the picture that belongs to the whole row."""
    lines = []
    for head, blocks in zip(heads, rows, strict=True):
        missing = blocks[0].shape[0] - head.shape[0]
        first = np.pad(head, ((0, missing), (0, 0), (0, 0)), constant_values=255)
        lines.append(_join([first, *blocks], axis=1))
    return _join(lines, axis=0)


def write_png(picture: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    """Writes a picture, replacing a file as a whole; raises ValueError if ``path`` is a folder."""
    with replaced(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_video(
    frames: Iterator[UInt8[np.ndarray, "h w 3"]], path: Path, frames_per_second: int = 24
) -> None:
    """Writes frames as H.264 video (mp4), replacing a file as a whole.

    Raises:
        ValueError: If ffmpeg is missing, or ``path`` is a folder.
    """
    import mediapy

    if not mediapy.video_is_available():
        raise ValueError(
            "writing a video needs the program ffmpeg, which is not on the PATH; install it "
            "(Debian: apt-get install ffmpeg), or write pictures instead"
        )
    first = _even(next(frames))
    with (
        replaced(path) as temporary,
        mediapy.VideoWriter(
            temporary, shape=(first.shape[0], first.shape[1]), fps=frames_per_second, crf=16
        ) as writer,
    ):
        writer.add_image(first)
        for frame in frames:
            writer.add_image(_even(frame))


def _even(frame: np.ndarray) -> np.ndarray:
    """The frame with a white row or column where its sides are odd: the usual pixel format needs
    even ones."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)


def _join(pictures: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Pictures in a row (axis 1) or a column (axis 0) with white gaps."""
    parts = []
    for picture in pictures:
        if parts:
            shape = list(picture.shape)
            shape[axis] = GAP
            parts.append(np.full(shape, 255, np.uint8))
        parts.append(np.asarray(picture))
    return np.concatenate(parts, axis=axis)
