"""Bytes of image files to arrays. Every failure is a DataError that names the file."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from nerfstudio_gan3d.data.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_SIDE = 8192
DEPTH_SCALE = 10000.0
"""Depth files hold 16-bit integers: z-depth in scene units times this; 0 is background."""
RELATIVE_SCALE = 65536.0
"""Files of relative depth hold 16-bit integers: 0 is near, and this would be far."""


def image_size(content: bytes, where: str) -> tuple[int, int]:
    """Width and height from the header, no pixel decoded."""
    return _open(content, where).size


def decode_rgb(content: bytes, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of an 8-bit image. Grey and palette images are expanded, transparency lies on white."""
    return _rgb(_load(content, where), where)


def decode_photo(content: bytes, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of a photograph, turned upright as its EXIF orientation says."""
    image = _load(content, where)
    try:
        image = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, struct.error) as error:
        raise DataError(f"{where}: damaged EXIF data ({error})") from error
    return _rgb(image, where)


def _rgb(image: Image.Image, where: str) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode.startswith("I") or image.mode == "F":
        raise DataError(f"{where}: an image of mode {image.mode}; save it with 8 bits a channel")
    if image.mode == "P" and image.palette is None:
        raise DataError(f"{where}: damaged image (its palette is missing)")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def decode_mask(content: bytes, where: str) -> Float32[np.ndarray, "h w"]:
    """Coverage 0..1 of an 8-bit grey image."""
    image = _load(content, where)
    if image.mode not in ("L", "1", "P", "RGB"):
        raise DataError(f"{where}: a mask of mode {image.mode}; expected 8-bit grey (mode L)")
    if image.mode == "RGB":
        channels = np.array(image)
        if (channels != channels[..., :1]).any():
            raise DataError(f"{where}: a coloured mask; expected 8-bit grey (mode L)")
    return np.array(image.convert("L"), dtype=np.float32) / 255


def decode_depth(content: bytes, where: str) -> Float32[np.ndarray, "h w"]:
    """z-depth in scene units of a 16-bit grey image; 0 is background."""
    image = _load(content, where)
    if not image.mode.startswith("I"):
        raise DataError(
            f"{where}: a depth map of mode {image.mode}; expected 16-bit grey, depth times 10000"
        )
    return np.array(image).astype(np.float32) / np.float32(DEPTH_SCALE)


def decode_relative_depth(content: bytes, where: str) -> Float32[np.ndarray, "h w"]:
    """Relative depth of a 16-bit grey image: value / 65536, so 0 (near) to below 1 (far).

    Old Pillow opens such a file with 32 bits a pixel and new Pillow with 16, and the two filter
    integers differently; whoever resizes has to do it on these floats.
    """
    image = _load(content, where)
    if not image.mode.startswith("I"):
        raise DataError(
            f"{where}: a depth map of mode {image.mode}; expected 16-bit grey, small is near"
        )
    return np.array(image).astype(np.float32) / np.float32(RELATIVE_SCALE)


def decode_label_map(content: bytes, where: str) -> UInt8[np.ndarray, "h w"]:
    """Class ids of an 8-bit grey or palette image; of a palette image the indices count."""
    image = _load(content, where)
    if image.format == "JPEG":
        raise DataError(f"{where}: a label map as JPEG, which changes class ids; save it as PNG")
    if image.mode not in ("L", "P", "1"):
        raise DataError(
            f"{where}: a label map of mode {image.mode}; expected one 8-bit class id a pixel "
            '(grey or palette PNG), or "kind": "edge" in labels.json if it is an edge map'
        )
    return np.array(image).astype(np.uint8)


def decode_edge_map(content: bytes, where: str) -> UInt8[np.ndarray, "h w"]:
    """Grey value of a drawing, 0 (line) to 255 (paper); transparency lies on white paper."""
    pixels = decode_rgb(content, where)
    coloured = (pixels != pixels[..., :1]).any(-1)
    if coloured.any():
        row, column = np.argwhere(coloured)[0]
        red, green, blue = pixels[row, column]
        raise DataError(
            f"{where}: an edge map with the colour {red}, {green}, {blue} (column {column}, row "
            f"{row}); an edge map is one grey channel, dark lines on white: save it as grey"
        )
    return pixels[..., 0].copy()


def image_mode(content: bytes, where: str) -> str:
    """Pillow's mode of an image, such as L, P, RGB or RGBA, from the header."""
    return _open(content, where).mode


def _open(content: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{where}: not a readable image; expected {', '.join(FORMATS)}") from error
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable image ({error})") from error
    if max(image.size) > MAX_SIDE:
        raise DataError(
            f"{where}: {image.width} x {image.height} pixels; at most {MAX_SIDE} a side is accepted"
        )
    return image


def _load(content: bytes, where: str) -> Image.Image:
    image = _open(content, where)
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"{where}: truncated or damaged image ({error})") from error
    return image
