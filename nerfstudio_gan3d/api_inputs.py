"""What Python code hands in: cameras, label maps, images and depth; files, arrays or pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from PIL import Image
from torch import Tensor

from nerfstudio_gan3d.cameras import LABEL_SIZE, cameras_to_labels
from nerfstudio_gan3d.data.decode import RELATIVE_SCALE
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.label_maps import decode_label_file
from nerfstudio_gan3d.data.labels import validate_labels
from nerfstudio_gan3d.data.layout import DEPTH_ENDING
from nerfstudio_gan3d.export.inputs import (
    content_of,
    depth_beside,
    image_settings,
    takes_images,
)
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.latents import LabelView, SceneRequest
from nerfstudio_gan3d.run import Run
from nerfstudio_gan3d.seeds import check_seed
from nerfstudio_gan3d.viewer.image_files import DepthMap, Photo, make_view, read_depth, read_photo

CameraInput: TypeAlias = Cameras | Tensor | np.ndarray | Sequence[Any]
"""Cameras, in one of three ways: rows of (azimuth, elevation) in degrees ``[V, 2]``, camera labels
``[V, 25]``, or nerfstudio's."""
PictureInput: TypeAlias = str | Path | np.ndarray | Tensor | Image.Image
"""A picture: the path of a file, an array, or an image of Pillow."""
CAMERAS_ALLOWED = (
    "give rows of (azimuth, elevation) in degrees [V, 2], camera labels [V, 25], or nerfstudio "
    "Cameras, at least one"
)


def camera_labels(run: Run, cameras: CameraInput, name: str = "cameras") -> Float[Tensor, "v 25"]:
    """Camera labels on the run's device.

    Args:
        run: Says how far from the object cameras stand of which only the angles are given.
        cameras: See `CameraInput`; azimuth 0 looks at the front (+z) and 90 stands at +x, elevation
            is above the horizon.
        name: How messages call them.

    Raises:
        ValueError: Another shape, numbers that are no camera's, or none.
    """
    if isinstance(cameras, Cameras):
        return cameras_to_labels(_flat(cameras, name)).to(run.device)
    try:
        rows = _array(cameras).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: these are no numbers ({error}); {CAMERAS_ALLOWED}") from error
    if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] not in (2, LABEL_SIZE):
        raise ValueError(f"{name} has the shape {list(rows.shape)}; {CAMERAS_ALLOWED}")
    if rows.shape[1] == LABEL_SIZE:
        names = [f"camera {index}" for index in range(len(rows))]
        return validate_labels(rows.tolist(), names, name).to(run.device)
    azimuth, elevation = rows.T
    for index in np.flatnonzero(~(np.isfinite(azimuth) & (np.abs(elevation) <= 90))):
        raise ValueError(
            f"{name}: camera {index} has azimuth {azimuth[index]:g} and elevation "
            f"{elevation[index]:g}; give degrees, the elevation between -90 and 90"
        )
    return run.orbit(azimuth.tolist(), elevation.tolist())


def one_camera(run: Run, camera: CameraInput, name: str) -> Float[Tensor, "1 25"]:
    """The label of one camera, for which one row is enough; raises ValueError for several."""
    if not isinstance(camera, Cameras) and _array(camera).ndim == 1:
        camera = [camera]
    found = camera_labels(run, camera, name)
    if len(found) != 1:
        raise ValueError(f"{name}: {len(found)} cameras; give one")
    return found


def sized_cameras(cameras: Cameras, name: str = "cameras") -> Cameras:
    """nerfstudio's cameras in a flat batch; raises ValueError if there are none, or their pictures
    differ in size."""
    flat = _flat(cameras, name)
    sizes = torch.cat([flat.height, flat.width], dim=-1).unique(dim=0)
    if len(sizes) > 1:
        shown = ", ".join(f"{width} x {height}" for height, width in sizes.tolist()[:4])
        raise ValueError(f"{name}: pictures of {shown} pixels; give cameras of one size")
    return flat


def _flat(cameras: Cameras, name: str) -> Cameras:
    if cameras.size == 0:
        raise ValueError(f"{name}: none is given; {CAMERAS_ALLOWED}")
    return cameras.reshape((cameras.size,))


def label_view(
    run: Run,
    source: int | PictureInput | LabelView,
    camera: CameraInput | None = None,
    name: str = "label_map",
) -> LabelView:
    """A label map that a Scene can be made from, and where it is seen from.

    Args:
        run: Of a model with labels.
        source: Number of one that the checkpoint keeps, a file, class ids ``[R, R]``, the classes'
            colours ``[R, R, 3]`` (0 to 255), or, for models of edge maps, grey values ``[R, R]``.
        camera: Where it is seen from; None is a kept map's own camera, for a file the pose that the
            viewer saved beside it, and else the front.
        name: How messages call it.

    Raises:
        ValueError: The model has no labels, or none of this size or with these classes.
    """
    labels = run.labels(name)
    if isinstance(source, int | LabelView):
        if camera is not None:
            raise ValueError(
                f"{name}: a kept map, or a LabelView, is seen from its own camera; give no camera"
            )
        return source if isinstance(source, LabelView) else run.label_view(source)
    pose = None if camera is None else one_camera(run, camera, f"{name}'s camera")
    if isinstance(source, str | Path):
        if pose is None:
            return run.label_view(source)
        return LabelView(run.label_view(source, 0.0, 0.0).map, pose)
    assert labels.kind != "none"
    found = decode_label_file(
        _png(source, name),
        name,
        labels.kind,
        labels.channels,
        labels.palette,
        run.settings.image_resolution,
    )
    shown = torch.from_numpy(found)[None, None].to(run.device)
    return LabelView(shown, run.orbit([0.0], 0.0) if pose is None else pose)


def image_view(
    run: Run, image: int | PictureInput | ImageView, depth: PictureInput | None = None
) -> int | ImageView:
    """An image with depth that a Scene can be made of.

    Args:
        run: Of a model that takes images.
        image: Number of one that the checkpoint keeps; a file; or RGB ``[H, W, 3]``, integers of 0
            to 255 or floats of 0 to 1.
        depth: Of the image: a 16-bit grey file; integers of 0 to 65535 ``[H, W]``, as such a file
            holds; or floats of 0 (near) to 1 (far). None is NAME_depth.png beside the image's file.

    Raises:
        ValueError: The model takes no images, depth is missing, or one of them cannot be used.
    """
    settings = image_settings(run, "image")
    if isinstance(image, int | ImageView):
        if depth is not None:
            raise ValueError("depth: a kept image, or an ImageView, has its own; leave it out")
        return image
    if depth is None:
        depth = depth_beside(Path(image)) if isinstance(image, str | Path) else None
    if depth is None:
        beside = ""
        if isinstance(image, str | Path):
            beside = f", or lay {Path(image).stem}{DEPTH_ENDING} beside it"
        raise DataError(f"image: it has no depth; give depth, small is near{beside}")
    return make_view(_photo(image), _depth(depth), settings.image_resolution, settings.depth_range)


def check_used(run: Run, request: SceneRequest) -> None:
    """Raises ValueError for parts of a request that would change nothing, and for seeds that
    nothing can be drawn with."""
    for name in (item.name for item in dataclasses.fields(request) if item.name.endswith("seed")):
        check_seed(name, getattr(request, name))
    plain, of = SceneRequest(), f"{run.folder} is a run of {run.config.method_name}"
    if takes_images(run):
        for name in (item.name for item in dataclasses.fields(plain) if item.name != "image"):
            if getattr(request, name) != getattr(plain, name):
                raise ValueError(
                    f"{name} = {getattr(request, name)}: {of}, a method without seeds, whose "
                    "Scenes are made of images; leave it out, and give image"
                )
        return
    if request.background_seed is not None and run.generator.background is None:
        raise ValueError(
            f"background_seed = {request.background_seed}: {of}, a method without a background of "
            "its own; leave it out"
        )
    if (request.mix_seed is None) != (not request.mix_levels):
        raise ValueError(
            f"mix_seed = {request.mix_seed} and mix_levels = {request.mix_levels}: mixing needs a "
            "seed and its levels; give both, or neither"
        )


def _photo(image: PictureInput) -> Photo:
    if isinstance(image, str | Path):
        return read_photo(content_of(Path(image)), str(image))
    if isinstance(image, Image.Image):
        return read_photo(_png(image, "image"), "image")
    pixels = _array(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(f"image has the shape {list(pixels.shape)}; give RGB, [H, W, 3]")
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = np.rint(_between(pixels, "image", 1) * 255)
    return Photo("image", _between(pixels, "image", 255).astype(np.uint8))


def _depth(depth: PictureInput) -> DepthMap:
    if isinstance(depth, str | Path):
        return read_depth(content_of(Path(depth)), str(depth))
    values = np.array(depth) if isinstance(depth, Image.Image) else _array(depth)
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(f"depth has the shape {list(values.shape)}; give [H, W]")
    if values.dtype in (np.uint8, np.bool_):
        raise DataError(
            f"depth: an array of {values.dtype}; give 16-bit integers, or floats of 0 (near) to 1 "
            "(far)"
        )
    if np.issubdtype(values.dtype, np.floating):
        return DepthMap("depth", _between(values, "depth", 1).astype(np.float32))
    values = _between(values, "depth", 65535).astype(np.float32)
    return DepthMap("depth", values / np.float32(RELATIVE_SCALE))


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def _between(values: np.ndarray, name: str, high: int) -> np.ndarray:
    """The values; raises DataError if one is no number of 0 to ``high``."""
    # Not a number is in no range.
    if not ((values >= 0) & (values <= high)).all():
        raise DataError(
            f"{name}: an array of {values.dtype} with {values.min():g} to {values.max():g}; it "
            f"must lie between 0 and {high}"
        )
    return values


def _png(picture: np.ndarray | Tensor | Image.Image, name: str) -> bytes:
    """A picture as the bytes of a file, so that it is read by the rules of files."""
    if not isinstance(picture, Image.Image):
        values = _array(picture)
        if not np.issubdtype(values.dtype, np.integer):
            raise DataError(
                f"{name}: an array of {values.dtype}; give integers, class ids [H, W] or colours "
                "[H, W, 3]"
            )
        if values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)) or 0 in values.shape:
            raise DataError(
                f"{name} has the shape {list(values.shape)}; give class ids [H, W] or colours "
                "[H, W, 3]"
            )
        picture = Image.fromarray(_between(values, name, 255).astype(np.uint8))
    file = BytesIO()
    try:
        picture.save(file, format="PNG")
    except OSError as error:
        raise DataError(f"{name}: a picture of mode {picture.mode}; convert it to RGB") from error
    return file.getvalue()
