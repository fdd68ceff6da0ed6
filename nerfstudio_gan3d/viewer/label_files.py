"""Painted label maps as files that can be opened again, here and in other programs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from nerfstudio_gan3d.cameras import LABEL_SIZE
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.label_maps import read_label_file
from nerfstudio_gan3d.data.labels import validate_labels
from nerfstudio_gan3d.data.palettes import class_colours, colorize
from nerfstudio_gan3d.latents import Appearance, LabelView
from nerfstudio_gan3d.models.config import LabelConfig

MAP, COLOURS, REST = "labels.png", "colours.png", "edit.json"


def class_names(labels: LabelConfig) -> tuple[str, ...]:
    """The name of each class; its number where the model names none."""
    return labels.class_names or tuple(f"class {index}" for index in range(labels.classes))


def map_pixels(
    label_map: UInt8[torch.Tensor, "1 1 r r"], labels: LabelConfig
) -> UInt8[np.ndarray, "r r *c"]:
    """A label map as the picture that people look at: RGB, or for edge maps grey."""
    ids = label_map[0, 0].cpu().numpy()
    return ids if labels.kind == "edge" else colorize(ids, class_colours(labels))


def save_edit(parent: Path, view: LabelView, appearance: Appearance, labels: LabelConfig) -> Path:
    """Writes a label map, where it is seen from, and an appearance into a new folder.

    labels.png has class ids (or the grey values of an edge map) as a data set's label map has them;
    colours.png (not for edge maps) has the same in exactly the palette's colours; edit.json has
    ``pose`` (camera label, 25 numbers) and ``appearance`` (the latent w).

    Returns:
        the folder, ``parent/001`` or the next number that is free.

    Raises:
        OSError: nothing can be written there.
    """
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    folder = parent / f"{max(taken, default=0) + 1:03d}"
    folder.mkdir()
    Image.fromarray(view.map[0, 0].cpu().numpy()).save(folder / MAP)
    if labels.kind != "edge":
        Image.fromarray(map_pixels(view.map, labels)).save(folder / COLOURS)
    rest = {"pose": view.pose[0].tolist(), "appearance": appearance.w[0].tolist()}
    (folder / REST).write_text(json.dumps(rest) + "\n", encoding="utf-8")
    return folder


def load_edit(
    folder: Path, labels: LabelConfig, size: int, w_dim: int
) -> tuple[LabelView, Appearance]:
    """What `save_edit` wrote; ``size`` is the side of the model's label maps, ``w_dim`` the size of
    its latents.

    Raises:
        DataError: a file is missing, damaged, or of another model.
    """
    palette = () if labels.kind == "edge" else class_colours(labels)
    kind = "edge" if labels.kind == "edge" else "seg"
    ids = read_label_file(folder / MAP, kind, labels.classes, palette, size)
    where = folder / REST
    rest = _read(where)
    pose = _numbers(rest, "pose", LABEL_SIZE, where)
    appearance = _numbers(rest, "appearance", w_dim, where)
    shown = LabelView(torch.from_numpy(ids)[None, None], torch.tensor([pose]))
    return shown, Appearance(torch.tensor([appearance]))


def saved_pose(file: Path) -> Float[torch.Tensor, "1 25"] | None:
    """Where the label map in a file is seen from, as edit.json beside it says; None if there is no
    such file.

    Raises:
        DataError: edit.json is damaged, or its pose is no camera's.
    """
    where = file.parent / REST
    if not where.is_file():
        return None
    pose = _numbers(_read(where), "pose", LABEL_SIZE, where)
    return validate_labels([pose], ["pose"], str(where))


def saved_edits(parent: Path) -> list[str]:
    """Names of the folders that `save_edit` made here, oldest first."""
    if not parent.is_dir():
        return []
    return sorted(path.name for path in parent.iterdir() if (path / REST).is_file())


def _read(where: Path) -> dict[str, Any]:
    try:
        rest = json.loads(where.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read ({error})") from error
    if not isinstance(rest, dict):
        raise DataError(f'{where}: expected an object with "pose" and "appearance"')
    return rest


def _numbers(rest: dict[str, Any], name: str, count: int, where: Path) -> list[float]:
    found = rest.get(name)
    # bool is a number to Python, but not in this file.
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(type(value) in (int, float) and math.isfinite(value) for value in found)
    ):
        raise DataError(
            f'{where}: "{name}" must be a list of {count} finite numbers, as this model needs; '
            "save the edit again with this model"
        )
    return [float(value) for value in found]
