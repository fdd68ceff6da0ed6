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
from nerfstudio_gan3d.latents import STORED_MAPS
from nerfstudio_gan3d.models.gan import (
    GanModel,
    GanModelConfig,
    make_generator,
    make_objective,
)
from nerfstudio_gan3d.models.label_objective import LabelObjective
from nerfstudio_gan3d.models.objective import Objective
from nerfstudio_gan3d.models.settings import plain_settings
from nerfstudio_gan3d.networks.convolution import fir_filter
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from nerfstudio_gan3d.pretrained import (
    DATA,
    UnpackedRunConfig,
    check_empty,
    fresh_model,
    unpacked_config,
    write_run,
)
from nerfstudio_gan3d.run import CONFIG_NAME, MODEL_PREFIX, load_run
from nerfstudio_gan3d.snapshots.describe import Description, describe, frontal_pose
from nerfstudio_gan3d.snapshots.g3dr import import_checkpoint, is_torch_file
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
    "Official weights of EG3D, BallGAN and pix2pix3D, which starts from EG3D's, may be used for "
    "non-commercial purposes only; importing does not change their licence."
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
    "labels",
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
    if is_torch_file(source):
        if options.focal is not None:
            raise ValueError("--focal: G3DR's cameras have one focal length; leave it out")
        return import_checkpoint(source, output, options.sampling, kimg)
    check_empty(output)
    snapshot = read_snapshot(source)
    try:
        description, model, config = _build(snapshot, source, output.absolute(), options)
        _fill(model, snapshot)
    except ValueError as error:
        raise SnapshotError(f"{source}: {error}") from None
    model.objective.images_seen.fill_(round(kimg * 1000))
    lacking = _lacking(snapshot, description.settings)
    write_run(config, _checkpoint(model, lacking is None))
    return _report(output, description, lacking, kimg)


def _build(
    snapshot: Snapshot, source: Path, folder: Path, options: ImportOptions
) -> tuple[Description, GanModel, UnpackedRunConfig]:
    networks = snapshot.networks
    generator = networks.get("G_ema") or networks["G"]
    description = describe(generator, networks.get("D"), options.focal, networks.get("D_semantic"))
    description.settings.sampling = options.sampling
    _check(snapshot, description.settings)
    values = plain_settings(description.settings)
    config = unpacked_config(source, description.method, values, folder)
    # A place without images: cameras of the checkpoint stand in for those of a data set.
    config.pipeline.datamanager.data = folder / "images"
    model = fresh_model(config)
    assert isinstance(model, GanModel)
    return description, model, config


def _own_state(network: SnapshotModule) -> dict[str, Tensor]:
    """A generator's tensors under our names, with the filters that 512 px models lack."""
    state = generator_state(network.state_dict())
    for stage in ("superresolution", "superresolution_labels"):
        if f"{stage}.block0.conv1.weight" in state:
            state.setdefault(f"{stage}.resample_filter", fir_filter())
    return state


def _lacking(snapshot: Snapshot, settings: GanModelConfig) -> str | None:
    """What the file lacks to be trained further; None where it has all."""
    if "D" not in snapshot.networks:
        return "discriminator"
    if settings.labels.kind != "none" and "D_semantic" not in snapshot.networks:
        return "discriminator of labels (D_semantic)"
    return None


def _discriminators(
    objective: Objective, snapshot: Snapshot
) -> list[tuple[DualDiscriminator, dict[str, Tensor]]]:
    """Discriminators with the tensors that the file has for them."""
    networks = snapshot.networks
    assert isinstance(objective.discriminator, DualDiscriminator)
    found = [(objective.discriminator, networks["D"].state_dict())]
    if isinstance(objective, LabelObjective):
        assert objective.label_discriminator is not None
        found.append((objective.label_discriminator, networks["D_semantic"].state_dict()))
    return found


def _check(snapshot: Snapshot, settings: GanModelConfig) -> None:
    """Raises ValueError unless the tensors are those of networks with these settings.

    The networks are made without memory, since a damaged file may describe any size.
    """
    with torch.device("meta"):
        generator = make_generator(settings)
        objective = make_objective(settings)
    for name in ("G_ema", "G"):
        if name in snapshot.networks:
            check_fits(generator, _own_state(snapshot.networks[name]))
    if _lacking(snapshot, settings) is None:
        for discriminator, state in _discriminators(objective, snapshot):
            check_fits(discriminator, state)


def _fill(model: GanModel, snapshot: Snapshot) -> None:
    """Puts the snapshot's weights into a model."""
    networks = snapshot.networks
    model.generator_ema.load_state_dict(_own_state(networks.get("G_ema") or networks["G"]))
    model.generator.load_state_dict(_own_state(networks.get("G") or networks["G_ema"]))
    if _lacking(snapshot, model.config) is None:
        for discriminator, state in _discriminators(model.objective, snapshot):
            discriminator.load_state_dict(state)
    if model.label_store is not None:
        # The file holds no label maps; blank ones are looked at from the front.
        model.label_store.poses.copy_(frontal_pose(model.config).expand(STORED_MAPS, -1))


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


def _report(output: Path, description: Description, lacking: str | None, kimg: float) -> str:
    settings = description.settings
    config = shlex.quote(str(output / CONFIG_NAME))
    lines = [
        f"{output}: {description.method}, {settings.image_resolution} px from "
        f"{settings.neural_resolution} px rendered, {settings.sampling} sampling.",
        *(f"Note: {note}." for note in description.notes),
        LICENCE,
        f"Look at it with: ns-viewer --load-config {config}",
    ]
    if settings.labels.kind != "none":
        lines.insert(
            -1,
            "The file holds no label maps, and those that the run keeps are blank. Give gan3d "
            "sample and gan3d mesh one of your own with --input-file; a run that is fine-tuned "
            "keeps some of its data set (--data).",
        )
    if lacking is None:
        checkpoint = shlex.quote(str(output / "nerfstudio_models" / "step-000000000.ckpt"))
        lines.append(
            f"Fine-tune it (from {kimg:g} kimg) with: ns-train {description.method} "
            f"--load-checkpoint {checkpoint} --data DIR"
        )
    else:
        lines.append(f"The file has no {lacking}, so the run cannot be trained further.")
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
        if not isinstance(settings, GanModelConfig):
            raise ValueError(
                f"{source}: a run of {run.config.method_name}; plain tensors are written of EG3D, "
                "BallGAN and pix2pix3D"
            )
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
