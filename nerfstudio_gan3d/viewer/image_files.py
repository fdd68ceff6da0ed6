"""A photograph and its depth map, in files of a user's own, to the view that a Scene is made of."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from nerfstudio_gan3d.data.decode import RELATIVE_SCALE, decode_photo, decode_relative_depth
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.prepare import DepthFunction, centre_square, scale_depth
from nerfstudio_gan3d.data.resize import resize_image, resize_relative_depth
from nerfstudio_gan3d.image_views import ImageView


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph, upright."""

    name: str
    """How messages call it."""
    pixels: UInt8[np.ndarray, "h w 3"]
    """RGB."""


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Relative depth of a photograph."""

    name: str
    """How messages call it."""
    values: Float32[np.ndarray, "h w"]
    """0 (near) to below 1 (far)."""


def read_photo(content: bytes, name: str) -> Photo:
    """A photograph from the bytes of an image file, turned upright as its EXIF orientation says.

    Raises:
        DataError: it is no image of 8 bits a channel.
    """
    return Photo(name, decode_photo(content, name))


def read_depth(content: bytes, name: str) -> DepthMap:
    """A depth map from the bytes of a 16-bit grey image, in which small is near.

    Raises:
        DataError: it is none.
    """
    return DepthMap(name, decode_relative_depth(content, name))


def estimate_depth(photo: Photo, estimate: DepthFunction) -> tuple[Photo, DepthMap]:
    """The middle square of a photograph with its depth, as `gan3d prepare` scales it.

    Args:
        photo: the photograph.
        estimate: distance on any scale for an RGB image.

    Raises:
        DataError: the estimate is the same everywhere.
    """
    pixels = _middle(photo.pixels)
    distance = estimate(pixels)
    values = scale_depth(distance, np.ones(distance.shape, bool), photo.name)
    relative = values.astype(np.float32) / np.float32(RELATIVE_SCALE)
    return Photo(photo.name, pixels), DepthMap(f"estimated depth of {photo.name}", relative)


def make_view(
    photo: Photo, depth: DepthMap, side: int, depth_range: tuple[float, float]
) -> ImageView:
    """The middle square of both, resized as a data set's images and relative depth are.

    Args:
        photo: the image.
        depth: of it; it may be larger or smaller.
        side: of the model's images in pixels.
        depth_range: near and far, object-world units: distance = near + value (far - near).

    Raises:
        DataError: the two have different shapes.
    """
    check_shapes(photo, depth)
    near, far = depth_range
    pixels = resize_image(_middle(photo.pixels), side)
    value = resize_relative_depth(_middle(depth.values), side)
    distance = (near + value * (far - near)).astype(np.float32)
    # A copy: arrays of Pillow cannot be written to, and torch's can.
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    return ImageView(image[None], torch.from_numpy(distance)[None, None])


def check_shapes(photo: Photo, depth: DepthMap) -> None:
    """Whether a depth map may be that of a photograph: their sides have one ratio.

    Raises:
        DataError: it differs by more than a pixel of the depth map.
    """
    height, width = photo.pixels.shape[:2]
    rows, columns = depth.values.shape
    if abs(columns - rows * width / height) > 1 and abs(rows - columns * height / width) > 1:
        raise DataError(
            f"{depth.name}: {columns} x {rows} pixels, but {photo.name} has {width} x {height} "
            "(upright); give the depth map of the same picture, uncropped and turned as it is"
        )


def view_picture(
    view: ImageView, depth_range: tuple[float, float]
) -> UInt8[np.ndarray, "r {2*view.image.shape[3]} 3"]:
    """Image and depth side by side for people to look at; near is white and far is black."""
    near, far = depth_range
    pixels = view.image[0].permute(1, 2, 0).cpu().numpy()
    share = ((far - view.distance[0, 0].cpu().numpy()) / (far - near)).clip(0, 1)
    shade = np.rint(255 * share).astype(np.uint8)
    return np.concatenate([pixels, np.repeat(shade[..., None], 3, axis=2)], axis=1)


class WaitingFiles:
    """A photograph and its depth map until both are there; either may come first.

    Any thread may call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._photo: Photo | None = None
        self._depth: DepthMap | None = None

    @property
    def photo(self) -> Photo | None:
        """The photograph that waits for its depth map."""
        return self._photo

    @property
    def depth(self) -> DepthMap | None:
        """The depth map that waits for its photograph."""
        return self._depth

    def add(self, file: Photo | DepthMap) -> tuple[Photo, DepthMap] | None:
        """One more file, which takes the place of a waiting one of its kind.

        Returns:
            Both, which wait no more; None while the other one is missing.

        Raises:
            DataError: they do not belong together; the first one goes on waiting.
        """
        with self._lock:
            photo, depth = self._photo, self._depth
            if isinstance(file, Photo):
                photo = file
            else:
                depth = file
            if photo is None or depth is None:
                self._photo, self._depth = photo, depth
                return None
            check_shapes(photo, depth)
            self._photo = self._depth = None
            return photo, depth

    def forget(self, photo: Photo) -> None:
        """Lets this photograph wait no more, if it still does."""
        with self._lock:
            if self._photo is photo:
                self._photo = None


def _middle(pixels: np.ndarray) -> np.ndarray:
    """The largest square in the middle of an array ``[h, w, ...]``."""
    height, width = pixels.shape[:2]
    return pixels[centre_square(height, width).clipped(height, width)]
