"""Makes ``assets/cars64.zip``, the bundled data set, from the cars rendered at 128 px.

``python -m nerfstudio_gan3d.data.bundle SOURCE TARGET.zip``, where SOURCE is the folder or tar of
the 128 px set (``images/``, ``mask/``, ``depth/``, ``label/``, ``meta.json``).

Each file is reduced twofold: images and masks by the mean of 2 x 2 pixels, depth by the mean of a
cell's foreground, label maps by majority. Three choices keep the zip below 10 MB:

* images are lossless WebP of values rounded to multiples of 3, so that no value is more than 1.5
  of 255 from the exact mean. In the features of a network trained on these cars the Fréchet
  distance to the exact set is 0.00004; that of 1000 of its images to all 2000 is 0.11;
* depth is rounded to multiples of 0.0128 (objects are 1 long), an error of at most 0.0064;
* names are short, because a zip stores each of 8000 names twice.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.decode import DEPTH_SCALE
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.resize import reduce_depth, reduce_label_map

FACTOR = 2
COLOUR_STEP = 3
DEPTH_STEP = 128
SIZE_LIMIT = 10_000_000
PALETTE = [[0, 0, 0], [204, 61, 61], [102, 178, 230], [64, 64, 64], [230, 191, 77], [255, 255, 230]]

PROVENANCE = """\
cars64: 2000 rendered images of 500 cars, 64 x 64 pixels, with camera, mask, depth and part labels

Licence: CC0 1.0 Universal (public domain dedication), see
https://creativecommons.org/publicdomain/zero/1.0/
No permission and no credit is required; naming the authors below is a kindness.

Source models, all released under CC0 1.0:
  Car Kit 3.0                Kenney (www.kenney.nl)
  City Builder Bits 1.0      KayKit, Kay Lousberg (www.kaylousberg.com)
  Starter Kit Racing         Kenney (www.kenney.nl); its 3D models are CC0, its code (not used) MIT

The 26 meshes were varied in shape and paint, placed with the front towards +z in a box whose
longest side is 1, and rendered at 128 px over made-up skies, hills, cities and grounds; this set
is the twofold reduction. Nothing else went into it.

Values: images are rounded to multiples of 3; depth is z-depth times 10000, rounded to multiples of
128; mask is coverage 0..255; label is 0 background, 1 body, 2 glass, 3 wheel, 4 trim, 5 light.
Files of one image have one name up to the suffix. dataset.json has EG3D's camera labels.
"""


def reduce_set(source: ImageSet, meta: dict, target: Path) -> Path:
    """Write the reduced set as a zip.

    Args:
        source: the set at full size, with masks, depth, label maps and camera labels.
        meta: its meta.json; the azimuth, elevation, object and base of its images are kept.
        target: zip to write.

    Returns:
        ``target``.

    Raises:
        DataError: a part is missing, or the zip exceeds `SIZE_LIMIT`.
    """
    if source.labels is None:
        raise DataError(f"{source.path}: has no camera labels")
    by_file = {entry["file"]: entry for entry in meta["images"]}
    names, entries = [], []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for index, full_name in enumerate(source.names):
            name = f"{index:04d}"
            _store(archive, f"images/{name}.webp", _encode_image(source.image(index)))
            _store(archive, f"mask/{name}.png", _encode_mask(source.mask(index)))
            _store(archive, f"depth/{name}.png", _encode_depth(source.depth(index)))
            _store(archive, f"label/{name}.png", _encode_label_map(source.label_map(index)))
            entry = by_file[full_name]
            names.append(f"{name}.webp")
            entries.append(
                {
                    "file": f"{name}.webp",
                    "az": round(entry["az"], 4),
                    "el": round(entry["el"], 4),
                    "object": entry["object"],
                    "base": entry["base"],
                }
            )
        labels = [[round(v, 8) for v in row] for row in source.labels.tolist()]
        _store_json(
            archive, "images/dataset.json", {"labels": list(zip(names, labels, strict=True))}
        )
        description = {
            "resolution": source.size // FACTOR,
            "classes": meta["classes"],
            "palette": PALETTE,
            "depth": "16-bit PNG, z-depth along the optical axis times 10000; 0 is background",
            "mask": "8-bit PNG, pixel coverage",
            "camera": meta["camera"],
            "box": meta["box"],
            "images": entries,
        }
        _store_json(archive, "meta.json", description)
        _store(archive, "PROVENANCE.txt", PROVENANCE.encode(), compress=True)
    if target.stat().st_size > SIZE_LIMIT:
        raise DataError(f"{target}: {target.stat().st_size} bytes, more than {SIZE_LIMIT}")
    return target


def _encode_image(image: np.ndarray) -> bytes:
    half = image.shape[0] // FACTOR
    mean = image.astype(np.float64).reshape(half, FACTOR, half, FACTOR, 3).mean(axis=(1, 3))
    rounded = (np.floor(mean / COLOUR_STEP + 0.5) * COLOUR_STEP).astype(np.uint8)
    return _save(rounded, "WEBP", lossless=True, quality=100, method=6, exact=True)


def _encode_mask(mask: np.ndarray) -> bytes:
    half = mask.shape[0] // FACTOR
    mean = (255.0 * mask).reshape(half, FACTOR, half, FACTOR).mean(axis=(1, 3))
    return _smallest_png(np.floor(mean + 0.5).astype(np.uint8))


def _encode_depth(depth: np.ndarray) -> bytes:
    reduced = reduce_depth(depth, FACTOR).astype(np.float64) * DEPTH_SCALE
    return _smallest_png((np.floor(reduced / DEPTH_STEP + 0.5) * DEPTH_STEP).astype(np.uint16))


def _encode_label_map(label_map: np.ndarray) -> bytes:
    return _smallest_png(reduce_label_map(label_map, FACTOR))


def _smallest_png(pixels: np.ndarray) -> bytes:
    # zlib's strategies differ by up to 20 % on files this small, and none wins always.
    return min(
        (_save(pixels, "PNG", compress_level=9, compress_type=kind) for kind in range(4)), key=len
    )


def _save(pixels: np.ndarray, file_type: str, **options: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, file_type, **options)
    return buffer.getvalue()


def _store_json(archive: zipfile.ZipFile, name: str, value: dict) -> None:
    _store(archive, name, json.dumps(value, separators=(",", ":")).encode(), compress=True)


def _store(archive: zipfile.ZipFile, name: str, content: bytes, compress: bool = False) -> None:
    # A fixed date makes the zip a function of its content.
    info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    info.external_attr = 0o644 << 16
    archive.writestr(info, content, compresslevel=9)


def bundle(source: Path, target: Path) -> Path:
    """Reduce the 128 px cars (a folder, or a tar of one) to the bundled zip; returns ``target``."""
    if source.is_dir():
        return reduce_set(ImageSet(source), json.loads((source / "meta.json").read_text()), target)
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(source) as archive:
        archive.extractall(scratch, filter="data")
        folders = [path.parent for path in Path(scratch).glob("**/meta.json")]
        if len(folders) != 1:
            raise DataError(f"{source}: {len(folders)} sets with a meta.json; expected one")
        return bundle(folders[0], target)


if __name__ == "__main__":
    sys.stdout.write(f"{tyro.cli(bundle, config=(tyro.conf.PositionalRequiredArgs,))}\n")
