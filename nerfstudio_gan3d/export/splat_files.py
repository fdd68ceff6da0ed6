"""Files of 3D Gaussians that common splat viewers load: PLY, and .splat of 32 bytes a splat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.rendering.splatting import Splats, rotations

Up = Literal["y", "z", "y-down"]
"""What is up in a file: y as in the object world, z as in nerfstudio's and Blender's, or minus y as
in COLMAP's, which most splat viewers take for granted."""

HARMONIC = 0.28209479177387814
"""The spherical harmonic of degree 0: ``colour = 0.5 + HARMONIC * f_dc``."""
PROPERTIES = (
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
    "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip
_CLEAREST, _DENSEST = 1e-4, 1 - 1e-4
"""Opacities are stored as logits, which 0 and 1 have none of."""
_TURNS: dict[Up, tuple[float, float, float, float]] = {
    "y": (1.0, 0.0, 0.0, 0.0),
    "z": (0.5**0.5, 0.5**0.5, 0.0, 0.0),
    "y-down": (0.0, 1.0, 0.0, 0.0),
}
"""Quaternions of the turns about the x axis that take the object world to a file's axes."""
_SPLAT_ROW = np.dtype(
    [("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quaternion", "u1", 4)]
)


def write_splats(splats: Splats, path: Path, up: Up = "y", comments: Sequence[str] = ()) -> None:
    """Writes splats by the ending of ``path``, replacing a file as a whole.

    PLY (binary, little endian) holds for each splat its centre, a normal of zeros, the coefficient
    of colour ``(rgb - 0.5) / 0.2821``, the logit of the opacity, the logarithms of the scales and
    the unit quaternion (w, x, y, z), as the 3D Gaussian splatting paper's authors write it.
    ``.splat`` holds centre and scales as 32-bit floats, RGBA and quaternion as bytes, the most
    conspicuous splats first.

    Args:
        splats: In the object world.
        path: Ends in .ply or .splat.
        up: Axes of the file.
        comments: Lines for the header of a PLY file.

    Raises:
        ValueError: If the ending is another one, or ``path`` is a folder.
    """
    if path.suffix.lower() == ".splat":
        content = _splat_bytes(_turned(splats, up))
    elif path.suffix.lower() == ".ply":
        content = _ply_bytes(_turned(splats, up), [f"Vertical Axis: {up}", *comments])
    else:
        raise ValueError(f"{path}: a file of splats must end in .ply or .splat")
    with replaced(path) as temporary:
        temporary.write_bytes(content)


def read_splats(path: Path) -> Splats:
    """Splats of a PLY or .splat file, in the file's axes; colours that depend on the direction are
    left out.

    Raises:
        ValueError: If it is no such file, or one that ends too early.
    """
    content = path.read_bytes()
    if path.suffix.lower() == ".splat":
        if len(content) % _SPLAT_ROW.itemsize:
            raise ValueError(
                f"{path}: {len(content)} bytes; a .splat file has {_SPLAT_ROW.itemsize} a splat"
            )
        rows = np.frombuffer(content, _SPLAT_ROW)
        quaternions = rows["quaternion"].astype(np.float32) / 128 - 1
        rgba = rows["rgba"].astype(np.float32) / 255
        return _of_arrays(rows["mean"], quaternions, rows["scale"], rgba[:, 3], rgba[:, :3])
    table = _ply_table(content, path)
    columns = {
        name: np.stack([table[f"{name}_{index}"] for index in range(count)], -1)
        for name, count in (("rot", 4), ("scale", 3), ("f_dc", 3))
    }
    return _of_arrays(
        np.stack([table[axis] for axis in "xyz"], -1),
        columns["rot"],
        np.exp(columns["scale"]),
        1 / (1 + np.exp(-table["opacity"])),
        (0.5 + HARMONIC * columns["f_dc"]).clip(0, 1),
    )


def _of_arrays(*arrays: NDArray[np.floating]) -> Splats:
    means, quaternions, scales, opacities, colours = (
        torch.from_numpy(np.array(values, np.float32)) for values in arrays
    )
    return Splats(means, quaternions, scales, opacities, colours)


def _turned(splats: Splats, up: Up) -> Splats:
    """The splats in a file's axes, on the CPU, with unit quaternions."""
    splats = splats.to("cpu")
    turn = torch.tensor([_TURNS[up]], dtype=torch.float64)
    w, x = _TURNS[up][:2]
    a, b, c, d = splats.quaternions.double().unbind(-1)
    # The product (w, x, 0, 0) * (a, b, c, d).
    turned = torch.stack([w * a - x * b, w * b + x * a, w * c - x * d, w * d + x * c], -1)
    return replace(
        splats,
        means=(splats.means.double() @ rotations(turn)[0].T).float(),
        quaternions=torch.nn.functional.normalize(turned, dim=-1).float(),
    )


def _ply_bytes(splats: Splats, comments: Sequence[str]) -> bytes:
    opacity = torch.logit(splats.opacities.double().clamp(_CLEAREST, _DENSEST)).float()
    columns = [
        splats.means,
        torch.zeros_like(splats.means),
        ((splats.colours.double() - 0.5) / HARMONIC).float(),
        opacity[:, None],
        splats.scales.log(),
        splats.quaternions,
    ]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        # Some readers take the third line for the number of splats: comments stand behind it.
        f"element vertex {len(splats)}",
        *(f"comment {' '.join(line.split())}" for line in comments),
        *(f"property float {name}" for name in PROPERTIES),
        "end_header\n",
    ]
    table = torch.cat(columns, -1).detach().numpy().astype("<f4")
    return "\n".join(header).encode("ascii", "backslashreplace") + table.tobytes()


def _splat_bytes(splats: Splats) -> bytes:
    """Viewers that load a file bit by bit show something early if large and dense splats come
    first."""
    order = (splats.scales.prod(-1) * splats.opacities).argsort(descending=True, stable=True)
    splats = splats.rows(order)
    rows = np.zeros(len(splats), _SPLAT_ROW)
    rows["mean"], rows["scale"] = splats.means.numpy(), splats.scales.numpy()
    rgba = torch.cat([splats.colours, splats.opacities[:, None]], -1)
    rows["rgba"] = (rgba.clamp(0, 1) * 255).round().numpy()
    rows["quaternion"] = (splats.quaternions * 128 + 128).round().clamp(0, 255).numpy()
    return rows.tobytes()


def _ply_table(content: bytes, path: Path) -> dict[str, NDArray[np.floating]]:
    """The properties of the vertices of a binary PLY file of floats."""
    head, end, body = content.partition(b"end_header\n")
    lines = head.decode("utf-8", "replace").splitlines()
    if not end or lines[:2] != ["ply", "format binary_little_endian 1.0"]:
        raise ValueError(f"{path}: not a PLY file in the format binary_little_endian 1.0")
    counts = [re.fullmatch(r"element (\w+) (\d+)", line) for line in lines]
    counts = [found.groups() for found in counts if found]
    names = [line.split()[-1] for line in lines if line.startswith("property ")]
    missing = set(PROPERTIES) - {"nx", "ny", "nz"} - set(names)
    if [name for name, _ in counts] != ["vertex"] or missing:
        lacking = f"; it lacks {', '.join(sorted(missing))}" if missing else ""
        raise ValueError(f"{path}: not a PLY file of splats{lacking}")
    if any(not line.startswith("property float ") for line in lines if line.startswith("property")):
        raise ValueError(
            f"{path}: all properties of a PLY file of splats must be of the type float"
        )
    count, row = int(counts[0][1]), np.dtype([(name, "<f4") for name in names])
    if len(body) < count * row.itemsize:
        raise ValueError(f"{path}: {count} splats are announced, and the file ends before the last")
    table = np.frombuffer(body, row, count)
    return {name: table[name] for name in names}
