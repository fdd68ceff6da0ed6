"""Renders of a run as pictures: tiles, grids of tiles, and depth in colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8, UInt16
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from nerfstudio_gan3d.data.decode import RELATIVE_SCALE
from nerfstudio_gan3d.export.files import replaced, unwritten
from nerfstudio_gan3d.export.outputs import PICTURE_OUTPUTS, PictureOutput, SampleOutput
from nerfstudio_gan3d.export.transparency import straight_colours, to_bytes
from nerfstudio_gan3d.models.g3dr import G3drModelConfig
from nerfstudio_gan3d.run import Run
from nerfstudio_gan3d.scene import Scene

Picture = UInt8[np.ndarray, "_h _w c"] | UInt16[np.ndarray, "_h _w c"]
"""RGB, RGBA with straight alpha, or grey of 8 or 16 bits (C = 1)."""
GAP = 2
"""Pixels between the tiles of a grid: white, or nothing (0) where a picture has a value for it."""
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


def relative_depth(
    depth: Float[Tensor, "v h w 1"],
    accumulation: Float[Tensor, "v h w 1"],
    limits: tuple[float, float],
) -> UInt16[np.ndarray, "v h w 1"]:
    """Depth of the foreground in 16 bits: ``(depth - near) / (far - near) * 65536`` within 1 to
    65535, so that small is near; 0 where the foreground covers less than half of a pixel."""
    near, far = limits
    share = ((depth.double() - near) / (far - near)).cpu().numpy()
    values = np.rint(share * RELATIVE_SCALE).clip(1, RELATIVE_SCALE - 1)
    return np.where(accumulation.cpu().numpy() > 0.5, values, 0).astype(np.uint16)


def tiles(
    run: Run,
    scene: Scene,
    labels: Float[Tensor, "v 25"],
    outputs: Sequence[SampleOutput],
    size: int | None = None,
    over: UInt8[np.ndarray, "side side 3"] | None = None,
) -> dict[SampleOutput, np.ndarray]:
    """Pictures of one Scene (B = 1) from V cameras: for each output ``[V, H, W, C]``.

    The foreground stands before white, depth is coloured (`color_depth`), accumulation is grey,
    labels have exactly the colours of their classes; all of these are RGB. rgba has the
    foreground's own colours and alpha, matte one channel, and depth16 `relative_depth`.

    Args:
        run: Of the Scene.
        scene: The Scene.
        labels: Cameras.
        outputs: What is shown.
        size: Side of the pictures in pixels; None is the size that the run was trained for.
        over: Stands behind the foreground in rgb in place of the Scene's own background.
    """
    wanted: list[PictureOutput] = [name for name in PICTURE_OUTPUTS if name in outputs]
    found = run.render(scene, labels, [*wanted, "foreground", "accumulation", "depth"], size)
    geometry = found["depth"], found["accumulation"], depth_range(run)
    alpha, foreground = (found[name].cpu().numpy() for name in ("accumulation", "foreground"))
    pictures: dict[SampleOutput, np.ndarray] = {}
    for name in outputs:
        if name == "depth":
            pictures[name] = color_depth(*geometry)
        elif name == "depth16":
            pictures[name] = relative_depth(*geometry)
        elif name == "matte":
            pictures[name] = to_bytes(alpha)
        elif name == "rgba":
            pictures[name] = to_bytes(straight_colours(foreground, alpha))
        elif name == "rgb" and over is not None:
            # The foreground was rendered before white, of which (1 - alpha) shines through.
            behind = over.astype(np.float32) / 255
            pictures[name] = to_bytes(foreground + (1 - alpha) * (behind - 1))
        else:
            values = to_bytes(found[name].cpu().numpy())
            pictures[name] = np.broadcast_to(values, (*values.shape[:-1], 3))
    return pictures


def block(pictures: Mapping[Any, np.ndarray]) -> Picture:
    """All pictures of one Scene: outputs side by side, or one output a row if there are several
    views."""
    rows = [list(views) for views in pictures.values()]
    if len(rows[0]) == 1:
        rows = [[row[0] for row in rows]]
    return _join([_join(row, axis=1) for row in rows], axis=0)


def grid(blocks: Sequence[Picture]) -> Picture:
    """Blocks of equal size, row by row, in the arrangement that comes closest to a square."""
    height, width = blocks[0].shape[:2]

    def shape_of(columns: int) -> float:
        rows = math.ceil(len(blocks) / columns)
        return abs(math.log(columns * width / (rows * height)))

    columns = min(range(1, len(blocks) + 1), key=shape_of)
    blank = np.full_like(blocks[0], _blank(blocks[0]))
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


def stack(rows: Sequence[Sequence[Picture]]) -> Picture:
    """Rows of blocks of equal size, below each other."""
    return _join([_join(row, axis=1) for row in rows], axis=0)


def write_png(
    picture: Picture,
    path: Path,
    text: Mapping[str, str] | None = None,
) -> None:
    """Writes a picture, replacing a file as a whole; raises ValueError if ``path`` is a folder.

    Args:
        picture: The picture.
        path: The file.
        text: What the file says of itself (tEXt, or iTXt beyond Latin letters), by keyword.
    """
    write_pngs({path: picture}, {path: text or {}})


def write_pngs(pictures: Mapping[Path, Picture], texts: Mapping[Path, Mapping[str, str]]) -> None:
    """The same for several pictures that belong together: none of the files changes before all are
    written."""
    with ExitStack() as stack:
        for path, picture in pictures.items():
            temporary = stack.enter_context(replaced(path))
            info = PngInfo()
            for keyword, value in texts[path].items():
                info.add_text(keyword, value)
            flat = picture[..., 0] if picture.shape[-1] == 1 else picture
            Image.fromarray(np.ascontiguousarray(flat)).save(temporary, format="PNG", pnginfo=info)


def write_video(
    frames: Iterator[UInt8[np.ndarray, "h w 3"]], path: Path, frames_per_second: int = 24
) -> None:
    """Writes frames as H.264 video (mp4), replacing a file as a whole.

    Raises:
        ValueError: If ffmpeg is missing, ``path`` is a folder, or writing fails.
    """
    import mediapy

    if not mediapy.video_is_available():
        raise ValueError(
            "writing a video needs the program ffmpeg, which is not on the PATH; install it "
            "(Debian: apt-get install ffmpeg), or write a GIF or pictures instead"
        )
    first = _even(next(frames))
    try:
        with (
            replaced(path) as temporary,
            mediapy.VideoWriter(
                temporary, shape=(first.shape[0], first.shape[1]), fps=frames_per_second, crf=16
            ) as writer,
        ):
            writer.add_image(first)
            for frame in frames:
                writer.add_image(_even(frame))
    except RuntimeError as error:
        # What mediapy makes of a full disk; errors of whoever renders are others.
        if "Error writing" not in str(error):
            raise
        raise ValueError(unwritten(path, error)) from error


def write_gif(
    frames: Iterator[UInt8[np.ndarray, "h w 3"]], path: Path, frames_per_second: int = 25
) -> None:
    """Writes frames as an animation (GIF) without end, replacing a file as a whole.

    Every frame has a palette of 256 colours of its own. GIF counts hundredths of a second, so that
    24 frames a second cannot be had; frames that do not change are shown once, for longer.

    Raises:
        ValueError: If ``path`` is a folder.
    """
    drawn = (Image.fromarray(frame).quantize(256) for frame in frames)
    # The first frame is made before a file is begun: whatever cannot be rendered leaves none.
    first = next(drawn)
    with replaced(path) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=drawn,
            duration=1000 // frames_per_second,
            loop=0,
        )


def _even(frame: np.ndarray) -> np.ndarray:
    """The frame with a white row or column where its sides are odd: the usual pixel format needs
    even ones."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)


def _join(pictures: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Pictures in a row (axis 1) or a column (axis 0) with gaps."""
    parts = []
    for picture in pictures:
        if parts:
            shape = list(picture.shape)
            shape[axis] = GAP
            parts.append(np.full(shape, _blank(picture), picture.dtype))
        parts.append(np.asarray(picture))
    return np.concatenate(parts, axis=axis)


def _blank(picture: np.ndarray) -> int:
    """What stands where no tile is: white in RGB, nothing in pictures that can say so."""
    return 255 if picture.shape[-1] == 3 else 0
