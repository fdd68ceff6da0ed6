"""Camera labels of a data set: EG3D's ``dataset.json``, read and validated."""

from __future__ import annotations

import json
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import LABEL_SIZE
from nerfstudio_gan3d.data.errors import DataError

Row: TypeAlias = list[float | int]
"""A camera label as JSON has it: whole numbers come as int."""
ROTATION_TOLERANCE = 1e-3
"""Largest entry of ``R^T R - 1`` that still counts as a rotation."""


def parse_json(content: bytes, where: str) -> object:
    """The value of a JSON file; raises DataError with line and column when it is malformed."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: malformed JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{where}: malformed JSON ({error})") from error


def parse_labels(content: bytes, where: str) -> dict[str, Row] | None:
    """Rows of ``{"labels": [["name.png", [25 numbers]], ...]}`` by name.

    Returns:
        None when "labels" is null (EG3D's way to say that there are none).

    Raises:
        DataError: malformed JSON, another structure, a name twice, a row that is not 25 numbers.
    """
    content_value = parse_json(content, where)
    if not isinstance(content_value, dict) or "labels" not in content_value:
        raise DataError(f'{where}: has no "labels"; expected {{"labels": [["name.png", [...]]]}}')
    entries = content_value["labels"]
    if entries is None:
        return None
    if not isinstance(entries, list):
        raise DataError(f'{where}: "labels" is {type(entries).__name__}; expected a list or null')
    rows: dict[str, Row] = {}
    for number, entry in enumerate(entries):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise DataError(
                f"{where}: entry {number} of labels is {str(entry)[:60]!r}; "
                f'expected ["name.png", [{LABEL_SIZE} numbers]]'
            )
        name = entry[0].replace("\\", "/")
        if name in rows:
            raise DataError(f"{where}: two labels for the image {name!r}; keep one")
        rows[name] = _row(entry[1], name, where)
    return rows


def _row(row: object, name: str, where: str) -> Row:
    if not isinstance(row, list):
        raise DataError(
            f"{where}: the label of {name!r} is {str(row)[:40]}; expected {LABEL_SIZE} numbers"
        )
    if len(row) != LABEL_SIZE:
        raise DataError(
            f"{where}: the label of {name!r} has {len(row)} numbers; expected {LABEL_SIZE} "
            "(16 of the camera-to-world matrix, 9 of the intrinsics)"
        )
    for value in row:
        if type(value) is not float and type(value) is not int:
            raise DataError(
                f"{where}: the label of {name!r} contains {str(value)[:40]!r}; expected numbers"
            )
    return row


def validate_labels(rows: list[Row], names: list[str], where: str) -> Float[Tensor, "n 25"]:
    """Labels as a float32 tensor, after a check of every value in float64.

    Raises:
        DataError: names the first image whose label is not finite, whose pose is not a rigid
            camera-to-world matrix, or whose intrinsics are not those of a pinhole camera in units
            of the image size.
    """
    try:
        labels = np.asarray(rows, dtype=np.float64).reshape(len(rows), LABEL_SIZE)
    except OverflowError as error:
        raise DataError(f"{where}: a label holds a number too large for a float") from error

    def refuse(bad: np.ndarray, explain: str, values: np.ndarray) -> None:
        if bad.any():
            first = int(np.argmax(bad))
            found = np.array2string(values[first], precision=4, separator=", ").replace("\n", "")
            raise DataError(f"{where}: the label of {names[first]!r} {explain} (found {found})")

    finite = np.isfinite(labels)
    column = np.argmin(finite, axis=1)
    refuse(
        ~finite.all(axis=1),
        "contains a value that is not finite",
        labels[np.arange(len(labels)), column],
    )
    pose, intrinsics = labels[:, :16].reshape(-1, 4, 4), labels[:, 16:].reshape(-1, 3, 3)
    rotation = pose[:, :3, :3]
    gram = rotation.transpose(0, 2, 1) @ rotation
    error = np.abs(gram - np.eye(3)).max(axis=(1, 2))
    determinant = np.linalg.det(rotation)
    refuse(
        (error > ROTATION_TOLERANCE) | (determinant < 0),
        "has a rotation that is not one: its columns must be orthonormal and right-handed",
        rotation,
    )
    refuse(
        np.abs(pose[:, 3] - [0, 0, 0, 1]).max(axis=1) > 1e-6,
        "has a last matrix row other than 0, 0, 0, 1",
        pose[:, 3],
    )
    focal = intrinsics[:, [0, 1], [0, 1]]
    refuse((focal <= 0).any(axis=1), "has a focal length that is not positive", focal)
    refuse(
        np.abs(intrinsics[:, 2] - [0, 0, 1]).max(axis=1) > 1e-6,
        "has a last intrinsics row other than 0, 0, 1",
        intrinsics[:, 2],
    )
    refuse(
        np.abs(intrinsics[:, [0, 1], [1, 0]]).max(axis=1) > 1e-3,
        "has skewed intrinsics, which nerfstudio's cameras do not have",
        intrinsics,
    )
    centre = intrinsics[:, :2, 2]
    refuse(
        (np.abs(centre - 0.5) > 2).any(axis=1),
        "has a principal point far outside the image: divide the intrinsics by the image size",
        centre,
    )
    return torch.from_numpy(labels.astype(np.float32))
