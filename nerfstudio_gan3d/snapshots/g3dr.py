"""Official checkpoints of G3DR (`checkpoint_generic.pt`): weights read as data, made into a run.

The file is torch's own format, a dictionary with the networks' tensors under ``model``; torch reads
it without running any code of it (``weights_only``).
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.data.datamanager import STORED_CAMERAS
from nerfstudio_gan3d.models.g3dr import G3drModel, G3drModelConfig, g3dr, make_image_generator
from nerfstudio_gan3d.models.settings import plain_settings
from nerfstudio_gan3d.pretrained import DATA, check_empty, fresh_model, unpacked_config, write_run
from nerfstudio_gan3d.run import CONFIG_NAME, MODEL_PREFIX
from nerfstudio_gan3d.snapshots.reader import SnapshotError
from nerfstudio_gan3d.training.checkpoints import check_fits

METHOD = "gan3d-g3dr"
WRAPPER = "module."
"""What DistributedDataParallel puts before every name."""
DECODER = {"decoder.net.0.": "field.decoder.hidden.", "decoder.net.2.": "field.decoder.out."}
"""Official prefixes of the decoder, and ours; all other tensors are the U-Net's."""
NETWORKS = (
    "conventions",
    "sampling",
    "ray_bounds",
    "image_resolution",
    "samples",
    "importance_samples",
    "unet",
    "planes",
    "box_side",
    "view_radius",
    "view_focal",
)
"""Settings that belong to the networks; fine-tuning takes them from the checkpoint."""


def is_torch_file(path: Path) -> bool:
    """Whether a file is in the format of ``torch.save`` and not a network pickle."""
    from nerfstudio_gan3d.snapshots.calls import LEGACY, ZIP

    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(len(LEGACY))
    return start.startswith((ZIP, LEGACY))


def read_official(path: Path) -> dict[str, Tensor]:
    """The networks' tensors of an official checkpoint under their official names.

    A wrapper's ``module.`` is taken away where every name has it.

    Raises:
        SnapshotError: If the file cannot be read as data, or holds no such networks.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:
        # torch.load reports damage and refused content with many kinds of errors.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise SnapshotError(
            f"{path}: damaged, or holds more than tensors and plain values ({reason}); give a "
            "checkpoint as G3DR's training writes it, or its entry `model` saved alone"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise SnapshotError(f"{path}: holds no dictionary `model` of tensors")
    if state and all(name.startswith(WRAPPER) for name in state):
        state = {name.removeprefix(WRAPPER): value for name, value in state.items()}
    if "init_conv.weight" not in state or "decoder.net.0.weight" not in state:
        raise SnapshotError(
            f"{path}: not the networks of G3DR, whose tensors include init_conv.weight and "
            "decoder.net.0.weight; official EG3D, BallGAN and pix2pix3D files end in .pkl"
        )
    return state


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors under the names of an `ImageGenerator`."""
    found = {}
    for name, value in state.items():
        prefix = next((one for one in DECODER if name.startswith(one)), None)
        if prefix is None:
            found[f"unet.{name}"] = value
        else:
            found[DECODER[prefix] + name.removeprefix(prefix)] = value
    return found


def official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an `ImageGenerator` under their official names; the inverse of `own_state`."""
    found = {}
    for name, value in state.items():
        for official, own in DECODER.items():
            name = official + name.removeprefix(own) if name.startswith(own) else name
        found[name.removeprefix("unet.")] = value
    return found


def describe(state: Mapping[str, Tensor]) -> G3drModelConfig:
    """The settings of networks with these tensors.

    Raises:
        ValueError: If a tensor that says them is missing or has another number of dimensions.
    """
    config = g3dr()
    config.conventions, config.ray_bounds = "reference", "box"
    width, entering = _shape(state, "init_conv.weight", 4)[:2]
    _, places, side, _ = _shape(state, "pos_embed", 4)
    levels = 1 + sum(f"downs.{level}.3.1.weight" in state for level in range(16))
    widths = [_shape(state, f"downs.{level}.3.1.weight", 4)[0] for level in range(levels - 1)]
    widths.append(_shape(state, f"downs.{levels - 1}.3.weight", 4)[0])
    if entering != places + 4 or width < 1 or any(found % width for found in widths):
        raise ValueError("the U-Net's layers do not fit each other")
    config.image_resolution = side
    config.unet.width, config.unet.position_channels = width, places
    config.unet.multipliers = tuple(found // width for found in widths)
    config.planes.hidden_dim, config.planes.channels = _shape(state, "decoder.net.0.weight", 2)
    return config


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    value = state.get(name)
    if value is None or value.ndim != dimensions:
        raise ValueError(f"{name} is missing or has not {dimensions} dimensions")
    return tuple(value.shape)


def import_checkpoint(
    source: Path, output: Path, sampling: Literal["corrected", "reference"], kimg: float
) -> str:
    """Writes a run from an official checkpoint; returns what was done.

    Raises:
        SnapshotError: If the file cannot be read or is of another kind.
        ValueError: If the folder is not empty.
    """
    check_empty(output)
    state = read_official(source)
    folder = output.absolute()
    try:
        settings = describe(state)
        settings.sampling = sampling
        with torch.device("meta"):
            generator = make_image_generator(settings)
        weights = {name: value.float() for name, value in own_state(state).items()}
        check_fits(generator, weights)
    except ValueError as error:
        raise SnapshotError(f"{source}: {error}") from None
    values = plain_settings(settings)
    config = unpacked_config(source, METHOD, values, folder)
    # A place without images: cameras of the checkpoint stand in for those of a data set.
    config.pipeline.datamanager.data = folder / "images"
    model = fresh_model(config)
    assert isinstance(model, G3drModel)
    model.generator.load_state_dict(weights)
    model.generator_ema.load_state_dict(weights)
    model.objective.images_seen.fill_(round(kimg * 1000))
    write_run(config, _checkpoint(model))
    checkpoint = shlex.quote(str(output / "nerfstudio_models" / "step-000000000.ckpt"))
    shown = shlex.quote(str(output / CONFIG_NAME))
    return "\n".join(
        [
            f"{output}: {METHOD}, {settings.image_resolution} px, planes by the published axes, "
            f"{sampling} sampling.",
            "G3DR's repository has no licence file, so nobody but its authors may pass its weights "
            "on; importing does not change that.",
            "The file holds no images, and those that the run keeps are grey. Make a Scene of one "
            f"of your own with: gan3d reconstruct IMAGE --load-config {shown} --output DIR",
            f"Fine-tune it with: ns-train {METHOD} --load-checkpoint {checkpoint} --data DIR",
        ]
    )


def _checkpoint(model: G3drModel) -> dict[str, Any]:
    settings = model.config
    state = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    azimuth = torch.linspace(-1, 1, STORED_CAMERAS) * math.radians(settings.novel.azimuth_end_deg)
    labels = orbit_labels(
        azimuth, torch.zeros_like(azimuth), settings.view_radius, focal=settings.view_focal
    )
    state |= {
        f"{DATA}export_labels": labels,
        f"{DATA}export_size": torch.tensor(settings.image_resolution),
    }
    values = plain_settings(settings)
    networks = json.dumps({name: values[name] for name in NETWORKS})
    return {"step": 0, "pipeline": state, "networks": networks}
