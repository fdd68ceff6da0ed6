"""Photographs to a training set with depth: squares NAME.jpg with NAME_depth.png (G3DR)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image
from rich.console import Console
from rich.progress import track

from nerfstudio_gan3d.data.decode import decode_photo, image_size
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.layout import DEPTH_ENDING
from nerfstudio_gan3d.data.prepare_options import BackgroundColor, Crop, PrepareOptions
from nerfstudio_gan3d.data.resize import resize_coverage

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
JPEG_QUALITY = 95
FARTHEST = 65535
"""Largest value of a depth file."""
SUBJECT_MARGIN = 0.1
"""Room on each side of the subject, as a share of its longer side."""
COLORS: dict[BackgroundColor, int] = {"white": 255, "black": 0, "grey": 128}

DepthFunction = Callable[[np.ndarray], np.ndarray]
"""Distance on any scale for an RGB image, as `DepthEstimator`."""
ForegroundFunction = Callable[[np.ndarray], np.ndarray]
"""Coverage 0 to 1 for an RGB image, as `ForegroundEstimator`."""


@dataclass(frozen=True)
class Square:
    """A square part of a photograph in pixels; it may stick out of it."""

    left: int
    top: int
    side: int

    def clipped(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the part that lies in a photograph of this size."""
        return (
            slice(max(self.top, 0), min(self.top + self.side, height)),
            slice(max(self.left, 0), min(self.left + self.side, width)),
        )

    def cut(self, pixels: np.ndarray, fill: float | int) -> np.ndarray:
        """This part of an array ``[h, w, ...]``; what sticks out is ``fill``."""
        height, width = pixels.shape[:2]
        part = np.full((self.side, self.side, *pixels.shape[2:]), fill, pixels.dtype)
        rows, columns = self.clipped(height, width)
        part[
            rows.start - self.top : rows.stop - self.top,
            columns.start - self.left : columns.stop - self.left,
        ] = pixels[rows, columns]
        return part


def prepare(options: PrepareOptions) -> str:
    """Run `gan3d prepare`; returns the text to print.

    Raises:
        DataError: no photographs, one that cannot be used, a name that would be overwritten, or a
            network that is not on this machine; what was written before stays, whole.
        OSError: the folder cannot be written.
    """
    options.validate()
    tasks = plan(options.photos, options.output, options.overwrite)
    # Only this command needs these packages, which take a while to import.
    from nerfstudio_gan3d.data.estimators import DepthEstimator, ForegroundEstimator

    foreground = None
    if options.remove_background:
        foreground = ForegroundEstimator(options.background_model)
    depth = DepthEstimator(options.depth_model, options.depth_kind)
    for photo, target in _shown(tasks):
        image, values = prepare_photo(
            decode_photo(_read(photo), str(photo)),
            options.size,
            depth,
            foreground,
            options.crop,
            options.background,
            str(photo),
        )
        write_pair(target, image, values)
    return (
        f"{options.output}: {len(tasks)} photographs of {options.size} x {options.size} pixels "
        "with depth, ready for the data parser gan3d-rgbd"
    )


def prepare_photo(
    image: UInt8[np.ndarray, "h w 3"],
    size: int,
    depth: DepthFunction,
    foreground: ForegroundFunction | None = None,
    crop: Crop = "centre",
    background: BackgroundColor = "white",
    where: str = "the photograph",
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], UInt16[np.ndarray, "{size} {size}"]]:
    """One photograph as a square image with relative depth.

    Depth is estimated before the background is removed, on the part that is kept. The scale is
    the image's own: ``65535 * (d - min) / (max - min)`` over the foreground, or over all pixels
    when no background is removed. With disparity, ``d = -disparity``, so that is
    ``65535 * (1 - minmax(disparity))``: order is kept, but not the ratio of two distances, which
    nobody knows without the disparity's offset. Removed background is the farthest value.

    Args:
        image: RGB, upright.
        size: side of the result in pixels.
        depth: distance on any scale for an RGB image.
        foreground: coverage for an RGB image; None keeps the background.
        crop: "centre", or "subject", which needs ``foreground``.
        background: colour in the place of a removed background.
        where: how messages call the photograph.

    Raises:
        DataError: no foreground was found, or the depth is the same everywhere.
    """
    height, width = image.shape[:2]
    coverage = np.ones((height, width), np.float32) if foreground is None else foreground(image)
    if not (coverage >= 0.5).any():
        raise DataError(
            f"{where}: no foreground was found; remove the photograph, or leave out "
            "--remove-background"
        )
    square = subject_square(coverage) if crop == "subject" else centre_square(height, width)
    rows, columns = square.clipped(height, width)
    distance = np.zeros((height, width), np.float32)
    distance[rows, columns] = depth(image[rows, columns])
    # Beside the photograph there is background, at any distance: it is replaced below.
    values = _resized(square.cut(distance, float(distance[rows, columns].max())), size)
    kept = resize_coverage(square.cut(coverage, 0.0), size)
    fill = COLORS[background]
    blended = image * coverage[..., None] + fill * (1 - coverage[..., None])
    pixels = square.cut(np.rint(blended).astype(np.uint8), fill)
    resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)
    return np.array(resized), scale_depth(values, kept >= 0.5, where)


def scale_depth(
    distance: Float32[np.ndarray, "h w"], foreground: np.ndarray, where: str = "the photograph"
) -> UInt16[np.ndarray, "h w"]:
    """Values of a depth file: 0 at the nearest pixel of the foreground, 65535 at the farthest and
    in the background.

    Args:
        distance: on any scale.
        foreground: bool ``[h, w]``.
        where: how messages call the photograph.

    Raises:
        DataError: there is no foreground, or one distance alone.
    """
    inside = distance[foreground].astype(np.float64)
    if inside.size == 0 or inside.max() == inside.min():
        raise DataError(
            f"{where}: the depth model sees no shape in it (one distance everywhere); remove it"
        )
    share = (distance.astype(np.float64) - inside.min()) / (inside.max() - inside.min())
    values = np.rint(FARTHEST * share.clip(0, 1))
    return np.where(foreground, values, FARTHEST).astype(np.uint16)


def centre_square(height: int, width: int) -> Square:
    """The largest square in the middle of a photograph."""
    side = min(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def subject_square(coverage: Float32[np.ndarray, "h w"]) -> Square:
    """A square about the pixels that are covered by half or more, with `SUBJECT_MARGIN` around."""
    rows, columns = np.nonzero(coverage >= 0.5)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    side = round(max(bottom - top, right - left) * (1 + 2 * SUBJECT_MARGIN))
    return Square((left + right - side) // 2, (top + bottom - side) // 2, side)


def plan(photos: Path, output: Path, overwrite: bool = False) -> list[tuple[Path, Path]]:
    """The photographs, each with the path of its result without an ending.

    Folders below ``photos`` are kept: G3DR's classes. Every photograph's header is read.

    Raises:
        DataError: no photographs, one that is no image, two of one name, a name that ends as those
            of depth files do, a result that is there already, or one that would lie among the
            photographs.
    """
    photos, output = (path.expanduser().absolute() for path in (photos, output))
    found = _find_photos(photos)
    if photos.is_dir() and output.resolve().is_relative_to(photos.resolve()):
        raise DataError(f"{output}: lies among the photographs; give a folder outside of {photos}")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; give a folder to write to")
    root = photos if photos.is_dir() else photos.parent
    sources: dict[Path, Path] = {}
    for photo in found:
        target = output / photo.relative_to(root).with_suffix("")
        if (target.name + ".png").endswith(DEPTH_ENDING):
            raise DataError(f"{photo}: {DEPTH_ENDING} ends the names of depth files; rename it")
        if target in sources:
            raise DataError(f"{photo}: has the name of {sources[target].name}; rename one of them")
        for file in pair_files(target):
            # A photograph may lie in the output folder itself, and it is never replaced.
            if file.exists() and (not overwrite or file.samefile(photo)):
                hint = "give another folder" + ("" if overwrite else ", or --overwrite")
                raise DataError(f"{file}: is there already; {hint}")
        image_size(_read(photo), str(photo))
        sources[target] = photo
    return [(photo, target) for target, photo in sources.items()]


def pair_files(target: Path) -> tuple[Path, Path]:
    """The files of an image and of its depth."""
    return target.with_name(target.name + ".jpg"), target.with_name(target.name + DEPTH_ENDING)


def write_pair(
    target: Path, image: UInt8[np.ndarray, "s s 3"], depth: UInt16[np.ndarray, "s s"]
) -> None:
    """Write an image and its depth; neither is ever there in part, nor an image without depth."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prepare-", dir=target.parent) as scratch:
        picture, map_ = Path(scratch) / "image.jpg", Path(scratch) / "depth.png"
        Image.fromarray(image).save(picture, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        Image.fromarray(depth).save(map_, "PNG")
        image_file, depth_file = pair_files(target)
        map_.replace(depth_file)
        picture.replace(image_file)


def _find_photos(photos: Path) -> list[Path]:
    if not photos.exists():
        raise DataError(f"{photos}: no such file or folder; give a photograph or a folder of them")
    kinds = ", ".join(PHOTO_SUFFIXES)
    if not photos.is_dir():
        if photos.suffix.lower() not in PHOTO_SUFFIXES:
            raise DataError(f"{photos}: not a photograph; expected a file that ends in {kinds}")
        return [photos]
    found = [
        path
        for path in sorted(photos.rglob("*"))
        if path.suffix.lower() in PHOTO_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(photos).parts)
    ]
    if not found:
        raise DataError(f"{photos}: no photographs; expected files that end in {kinds}")
    return found


def _read(photo: Path) -> bytes:
    try:
        return photo.read_bytes()
    except OSError as error:
        raise DataError(f"{photo}: cannot be read ({error.strerror or error})") from error


def _resized(values: Float32[np.ndarray, "h w"], size: int) -> Float32[np.ndarray, "s s"]:
    resized = Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized)


def _shown(tasks: list[tuple[Path, Path]]) -> Iterable[tuple[Path, Path]]:
    """The tasks with a progress bar, where there is somebody to see it."""
    console = Console(stderr=True)
    return track(tasks, "photographs", console=console, disable=not console.is_terminal)
