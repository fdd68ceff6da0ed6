"""Small data sets for tests, written as folders or zips."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nerfstudio_gan3d.cameras import orbit_labels


def encode(pixels: np.ndarray, file_type: str = "PNG") -> bytes:
    """An image file of these pixels."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, file_type)
    return buffer.getvalue()


def labels(count: int) -> list[list[float]]:
    """Cameras that differ, on a sphere of radius 2."""
    azimuth = torch.linspace(-3, 3, count, dtype=torch.float64)
    elevation = torch.linspace(0.1, 0.7, count, dtype=torch.float64)
    return orbit_labels(azimuth, elevation, 2.0).tolist()


def image(index: int, size: int = 8) -> np.ndarray:
    """Image ``index``: its red channel is the index, so that a test knows it again."""
    random = np.random.default_rng(index)
    pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    pixels[..., 0] = index
    return pixels


def files(count: int = 6, size: int = 8, root: str = "images/") -> dict[str, bytes]:
    """A whole set in memory: images, dataset.json, mask/, depth/, label/, meta.json (3 objects)."""
    content: dict[str, bytes] = {}
    names = [f"00000/img{i:08d}.png" for i in range(count)]
    for index, name in enumerate(names):
        content[root + name] = encode(image(index, size))
        ramp = np.arange(size * size).reshape(size, size)
        content["mask/" + name] = encode(((ramp + index) % 256).astype(np.uint8))
        content["depth/" + name] = encode((10000 + 100 * ramp + index).astype(np.uint16))
        content["label/" + name] = encode(((ramp + index) % 3).astype(np.uint8))
    entries = [[name, label] for name, label in zip(names, labels(count), strict=True)]
    content[root + "dataset.json"] = json.dumps({"labels": entries}).encode()
    meta = {
        "classes": ["background", "body", "wheel"],
        "palette": [[0, 0, 0], [255, 0, 0], [0, 0, 255]],
        "images": [{"file": name, "object": i % 3} for i, name in enumerate(names)],
    }
    content["meta.json"] = json.dumps(meta).encode()
    return content


def write_folder(path: Path, content: dict[str, bytes]) -> Path:
    """The files below a folder."""
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_zip(path: Path, content: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    """The files in a zip."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def relative(index: int, size: int = 8) -> np.ndarray:
    """Relative depth of image ``index`` as its file holds it: 0, 512, 1024, ... row by row, and
    the index more."""
    return (np.arange(size * size).reshape(size, size) * 512 + index).astype(np.uint16)


def rgbd_files(count: int = 4, size: int = 8, root: str = "") -> dict[str, bytes]:
    """A set in G3DR's layout: two classes, ``NAME.jpg`` and ``NAME_depth.png``."""
    content: dict[str, bytes] = {}
    for index in range(count):
        name = f"{root}{1 + index // 2}/{1551 + index}"
        flat = np.full((size, size, 3), 40 * index % 256, np.uint8)
        content[name + ".jpg"] = encode(flat, "JPEG")
        content[name + "_depth.png"] = encode(relative(index, size))
    return content
