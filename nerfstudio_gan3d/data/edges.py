"""Edge maps drawn from the photographs of a data set, and the new set that holds both."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.feature import canny

from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.layout import INFO_FILE, LABEL_FILE, META_FILE, open_layout
from nerfstudio_gan3d.data.meta import META_KEYS, parse_object

LINE, PAPER = 0, 255
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""


MARGIN = 2
"""How far outside of its mask a thing's outline may be found, in pixels."""


@dataclass(frozen=True)
class EdgeSummary:
    """What `write_edge_set` wrote."""

    path: Path
    count: int
    size: int
    line_share: float
    """Share of the pixels that are lines."""
    blank: int
    """Edge maps without any line."""

    def text(self) -> str:
        """One sentence, and a second one when there are maps without lines."""
        text = (
            f"{self.path}: {self.count} images of {self.size} x {self.size} pixels with their "
            f"edge maps; {100 * self.line_share:.1f} % of the pixels are lines"
        )
        if self.blank:
            text += f"\n{self.blank} of the edge maps have no line at all; try a lower --high"
        return text


def edge_drawing(
    image: UInt8[np.ndarray, "h w 3"], sigma: float = 1.0, low: float = 0.1, high: float = 0.2
) -> UInt8[np.ndarray, "h w"]:
    """A drawing of an image: lines (0) of one pixel on paper (255), by Canny's detector.

    Args:
        image: RGB.
        sigma: of the Gaussian that smooths the brightness first, in pixels.
        low: gradient at which a line that has begun goes on, as scikit-image counts it for
            brightness 0 to 1: a sharp step of height h has about 2.6 h at sigma 1.
        high: gradient at which a line begins.
    """
    brightness = (image.astype(np.float64) @ np.array(LUMA)) / 255
    # Other rules for the border than "nearest" see a step from the image to what lies outside.
    lines = canny(brightness, sigma, low, high, mode="nearest")
    return np.where(lines, LINE, PAPER).astype(np.uint8)


def without_background(
    drawing: UInt8[np.ndarray, "h w"], mask: Float32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w"]:
    """A drawing without the lines that are farther than `MARGIN` from the foreground.

    Args:
        drawing: lines (0) on paper (255).
        mask: coverage of the foreground, 0 to 1; pixels that are covered by half belong to it.
    """
    behind = mask < 0.5
    # There is no distance to a foreground that is nowhere.
    if behind.all():
        return np.full_like(drawing, PAPER)
    distance = np.asarray(distance_transform_edt(behind))
    return np.where(distance <= MARGIN, drawing, PAPER).astype(np.uint8)


def write_edge_set(
    source: Path,
    output: Path,
    sigma: float = 1.0,
    low: float = 0.1,
    high: float = 0.2,
    foreground_only: bool = False,
    workers: int = 2,
) -> EdgeSummary:
    """Writes a set of the same images with an edge map for each.

    Images, masks, depth, camera labels and objects are copied as they are. Label maps of the
    source give way to the edge maps, and so does what its meta.json says about classes.

    Args:
        source: folder or zip of images.
        output: folder to write, empty or not there yet; it appears when everything is written.
        sigma: of `edge_drawing`, as are ``low`` and ``high``.
        low: see there.
        high: see there.
        foreground_only: leave out the edges of the background; see `without_background`.
        workers: threads that read and draw.

    Raises:
        DataError: the source cannot be used or lacks masks that are asked for, or ``output`` is
            not empty or lies inside it.
        OSError: the folder cannot be written.
    """
    images = ImageSet(source)
    output = output.expanduser().resolve()
    if output.is_relative_to(images.path.resolve()):
        raise DataError(f"{output}: lies in the set that is read; give a folder outside of it")
    if foreground_only and not images.has_masks:
        raise DataError(
            f"{source}: has no masks, so that nobody knows which edges are the foreground's; "
            "add mask/ beside the images, or leave out --foreground-only"
        )
    copied = ["mask"] * images.has_masks + ["depth"] * images.has_depth
    with _new_folder(output) as folder:
        _copy_json(source, folder)

        def draw(index: int) -> float:
            name = PurePosixPath(images.names[index])
            drawing = edge_drawing(images.image(index), sigma, low, high)
            if foreground_only:
                drawing = without_background(drawing, images.mask(index))
            buffer = BytesIO()
            Image.fromarray(drawing).save(buffer, "PNG")
            _write(folder / "label" / name.with_suffix(".png"), buffer.getvalue())
            _write(folder / "images" / name, images.content(index))
            for kind in copied:
                suffix = PurePosixPath(images.file(index, kind)).suffix
                _write(folder / kind / name.with_suffix(suffix), images.content(index, kind))
            return float((drawing == LINE).mean())

        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(draw, index) for index in range(len(images))]
            try:
                shares = [future.result() for future in futures]
            except BaseException:
                # Also when interrupted: images that wait are not drawn.
                pool.shutdown(cancel_futures=True)
                raise
        size = images.size
        images.close()
    return EdgeSummary(output, len(shares), size, float(np.mean(shares)), shares.count(0.0))


def _copy_json(source: Path, folder: Path) -> None:
    tree, layout = open_layout(source)
    if layout.label_file is not None:
        _write(folder / "images" / LABEL_FILE, tree.read(layout.label_file))
    if layout.meta_file is not None:
        meta = parse_object(tree.read(layout.meta_file), tree.describe(layout.meta_file))
        kept = {key: value for key, value in meta.items() if key not in META_KEYS}
        _write(folder / META_FILE, json.dumps(kept).encode())
    _write(folder / INFO_FILE, json.dumps({"kind": "edge"}).encode())
    tree.close()


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` when the block ends without an error."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path}: exists and is not an empty folder; give another one")
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
            # That folder is for its owner alone; the one inside follows the user's umask.
            folder = Path(scratch) / path.name
            folder.mkdir()
            yield folder
            folder.replace(path)
    except BaseException:
        # Interrupted or not, no empty folders stay behind.
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise
