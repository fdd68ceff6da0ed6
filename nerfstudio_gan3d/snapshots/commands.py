"""The command `gan3d import`: an official snapshot becomes a run, or a file of plain tensors."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.cli_options import ImportOptions
from nerfstudio_gan3d.data.datamanager import STORED_CAMERAS
from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.models.gan import (
    GanModel,
    GanModelConfig,
    make_generator,
    make_objective,
)
from nerfstudio_gan3d.models.settings import plain_settings
from nerfstudio_gan3d.networks.convolution import fir_filter
from nerfstudio_gan3d.pretrained import (
    DATA,
    UnpackedRunConfig,
    check_empty,
    fresh_model,
    unpacked_config,
    write_run,
)
from nerfstudio_gan3d.run import CONFIG_NAME, MODEL_PREFIX, load_run
from nerfstudio_gan3d.snapshots.describe import Description, describe
from nerfstudio_gan3d.snapshots.official_names import generator_state, official_state
from nerfstudio_gan3d.snapshots.reader import (
    Snapshot,
    SnapshotError,
    SnapshotModule,
    read_snapshot,
)
from nerfstudio_gan3d.training.checkpoints import check_fits

SAFETENSORS = ".safetensors"
HEADER = "gan3d-official"
"""Key of the JSON text in the header of a file of plain tensors."""
PUBLISHED_KIMG = 25_000.0
"""Thousands of images that the published models were trained with."""
LICENCE = (
    "Official weights of EG3D and BallGAN may be used for non-commercial purposes only; importing "
    "does not change their licence."
)
NETWORKS = (
    "representation",
    "conventions",
    "sampling",
    "ray_bounds",
    "image_resolution",
    "neural_resolution",
    "patch_resolution",
    "samples",
    "importance_samples",
    "background",
    "latent",
    "field",
    "sphere",
    "super_resolution",
    "discriminator",
    "view_radius",
    "view_pivot",
    "view_focal",
)
"""Settings that belong to the networks; fine-tuning takes them from the checkpoint."""


def import_snapshot(options: ImportOptions) -> str:
    """Writes a run from a snapshot, or its generator's tensors to a file; returns what was done.

    Raises:
        ValueError: If the snapshot cannot be read or is of another kind, or the target is taken.
    """
    source, output = options.snapshot.expanduser(), options.output.expanduser()
    kimg = _kimg(source) if options.kimg is None else options.kimg
    if output.suffix.lower() == SAFETENSORS:
        for name in ("focal", "kimg"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is for a run; {output} will hold tensors alone")
        if options.sampling != "corrected":
            raise ValueError(f"--sampling is for a run; {output} will hold tensors alone")
        return _write_tensors(source, output)
    check_empty(output)
    snapshot = read_snapshot(source)
    try:
        description, model, config = _build(snapshot, source, output.absolute(), options)
        _fill(model, snapshot)
    except ValueError as error:
        raise SnapshotError(f"{source}: {error}") from None
    model.objective.images_seen.fill_(round(kimg * 1000))
    write_run(config, _checkpoint(model, "D" in snapshot.networks))
    return _report(output, description, "D" in snapshot.networks, kimg)


def _build(
    snapshot: Snapshot, source: Path, folder: Path, options: ImportOptions
) -> tuple[Description, GanModel, UnpackedRunConfig]:
    networks = snapshot.networks
    generator = networks.get("G_ema") or networks["G"]
    description = describe(generator, networks.get("D"), options.focal)
    description.settings.sampling = options.sampling
    _check(snapshot, description.settings)
    values = plain_settings(description.settings)
    config = unpacked_config(source, description.method, values, folder)
    # A place without images: cameras of the checkpoint stand in for those of a data set.
    config.pipeline.datamanager.data = folder / "images"
    return description, fresh_model(config), config


def _own_state(network: SnapshotModule) -> dict[str, Tensor]:
    """A generator's tensors under our names, with the filter that 512 px models lack."""
    state = generator_state(network.state_dict())
    state.setdefault("superresolution.resample_filter", fir_filter())
    return state


def _check(snapshot: Snapshot, settings: GanModelConfig) -> None:
    """Raises ValueError unless the tensors are those of networks with these settings.

    The networks are made without memory, since a damaged file may describe any size.
    """
    networks = snapshot.networks
    with torch.device("meta"):
        generator = make_generator(settings)
        discriminator = make_objective(settings).discriminator if "D" in networks else None
    for name in ("G_ema", "G"):
        if name in networks:
            check_fits(generator, _own_state(networks[name]))
    if discriminator is not None:
        check_fits(discriminator, networks["D"].state_dict())


def _fill(model: GanModel, snapshot: Snapshot) -> None:
    """Puts the snapshot's weights into a model."""
    networks = snapshot.networks
    model.generator_ema.load_state_dict(_own_state(networks.get("G_ema") or networks["G"]))
    model.generator.load_state_dict(_own_state(networks.get("G") or networks["G_ema"]))
    if "D" in networks:
        model.objective.discriminator.load_state_dict(networks["D"].state_dict())


def _checkpoint(model: GanModel, trainable: bool) -> dict[str, Any]:
    settings = model.config
    state = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    labels = stand_in_cameras(settings)
    state |= {
        f"{DATA}export_labels": labels,
        f"{DATA}export_size": torch.tensor(settings.image_resolution),
    }
    checkpoint: dict[str, Any] = {"step": 0, "pipeline": state}
    if not trainable:
        return checkpoint | {"inference_only": True}
    values = plain_settings(settings)
    return checkpoint | {"networks": json.dumps({name: values[name] for name in NETWORKS})}


def stand_in_cameras(settings: GanModelConfig) -> Tensor:
    """Cameras [STORED_CAMERAS, 25] for commands that want those of a data set, at the view radius.

    Models of heads were trained from the front: 0.6 rad to both sides and 0.3 rad up and down. For
    a box above 1.2 units (cars) they go all around, between the horizon and 1 rad.
    """
    columns = 8
    rows = STORED_CAMERAS // columns
    if settings.field.box[0] > 1.2:
        azimuth = torch.arange(columns) * (2 * math.pi / columns)
        elevation = torch.linspace(0.0, 1.0, rows)
    else:
        azimuth = torch.linspace(-0.6, 0.6, columns)
        elevation = torch.linspace(-0.3, 0.3, rows)
    grid = torch.cartesian_prod(elevation, azimuth)
    return orbit_labels(
        grid[:, 1], grid[:, 0], settings.view_radius, settings.view_pivot, settings.view_focal
    )


def _kimg(source: Path) -> float:
    match = re.search(r"network-snapshot-(\d{1,9})(?!\d)", source.stem)
    return float(match[1]) if match else PUBLISHED_KIMG


def _report(output: Path, description: Description, trainable: bool, kimg: float) -> str:
    settings = description.settings
    config = shlex.quote(str(output / CONFIG_NAME))
    lines = [
        f"{output}: {description.method}, {settings.image_resolution} px from "
        f"{settings.neural_resolution} px rendered, {settings.sampling} sampling.",
        *(f"Note: {note}." for note in description.notes),
        LICENCE,
        f"Look at it with: ns-viewer --load-config {config}",
    ]
    if trainable:
        checkpoint = shlex.quote(str(output / "nerfstudio_models" / "step-000000000.ckpt"))
        lines.append(
            f"Fine-tune it (from {kimg:g} kimg) with: ns-train {description.method} "
            f"--load-checkpoint {checkpoint} --data DIR"
        )
    else:
        lines.append("The file has no discriminator, so the run cannot be trained further.")
    return "\n".join(lines)


def _write_tensors(source: Path, output: Path) -> str:
    """Official tensors of a snapshot's moving average, or of an imported run's."""
    if source.is_file() and source.suffix.lower() != ".yml":
        snapshot = read_snapshot(source)
        network = snapshot.networks.get("G_ema") or snapshot.networks["G"]
        try:
            settings = describe(network, None).settings
            _check(Snapshot({"G_ema": network}, {}), settings)
            state = official_state(generator_state(network.state_dict()))
        except ValueError as error:
            raise SnapshotError(f"{source}: {error}") from None
    else:
        run = load_run(source, device="cpu")
        settings = run.settings
        if settings.conventions != "reference":
            raise ValueError(
                f"{source}: this run was not imported (model.conventions = "
                f"{settings.conventions}); only networks by the published rules have official names"
            )
        state = official_state(run.generator.state_dict())
    values = plain_settings(settings)
    header = {name: values[name] for name in NETWORKS if name not in ("discriminator", "sampling")}
    content = {name: value.detach().contiguous().clone() for name, value in state.items()}
    with replaced(output) as temporary:
        safetensors.torch.save_file(content, temporary, {HEADER: json.dumps(header)})
    size = output.stat().st_size / 1e6
    return f"{output}: {len(content)} tensors, {size:.1f} MB. {LICENCE}"
