"""The state of a training run, from objects to a checkpoint's content and back."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.models.settings import apply_settings
from nerfstudio_gan3d.training.checkpoints import (
    CheckpointError,
    check_fits,
    check_optimizers_fit,
    checkpoint_path,
    newest_whole,
    read_checkpoint,
)

STORES = ("_model.label_store.", "_model.image_store.")
"""Prefix of the label maps that a checkpoint keeps."""


def training_state(
    step: int,
    pipeline: Pipeline,
    optimizers: Optimizers,
    random_states: Sequence[Any],
    elapsed: float,
    networks: str | None = None,
) -> dict[str, Any]:
    """What a checkpoint holds: all that decides how training goes on after ``step``.

    Tensors and plain values only, so that it loads with ``weights_only=True``. ``networks`` is what
    `adopt_networks` gave.
    """
    imported = {} if networks is None else {"networks": networks}
    return imported | {
        "step": step,
        "pipeline": pipeline.state_dict(),
        "optimizers": {k: v.state_dict() for k, v in optimizers.optimizers.items()},
        "schedulers": {k: v.state_dict() for k, v in optimizers.schedulers.items()},
        "scalers": {},
        "random": list(random_states),
        "elapsed": elapsed,
    }


def find_checkpoint(config: TrainerConfig) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that the configuration asks to continue from, with its content.

    Raises CheckpointError when it is asked for and cannot be read.
    """
    if config.load_checkpoint is not None:
        return config.load_checkpoint, read_checkpoint(config.load_checkpoint)
    if config.load_dir is None:
        return None
    if config.load_step is not None:
        path = checkpoint_path(config.load_dir, config.load_step)
        return path, read_checkpoint(path)
    newest = newest_whole(config.load_dir)
    for sentence in newest.skipped:
        CONSOLE.log(f"Skipped {sentence}")
    return newest.path, newest.state


def adopt_networks(config: TrainerConfig, found: tuple[Path, dict[str, Any]] | None) -> str | None:
    """Takes the networks' settings from an imported checkpoint that training starts from.

    A model that was trained from scratch has the settings of its method and of the command line. An
    imported one is of whatever size its authors chose, also after it was trained further; losses,
    schedules and everything else stay as they are configured.

    Args:
        config: Of the training; its model's settings are changed.
        found: What `find_checkpoint` gave.

    Returns:
        The settings as JSON, for the checkpoints to come; None if nothing was imported.

    Raises:
        CheckpointError: When the checkpoint belongs to another method.
    """
    networks = None if found is None else found[1].get("networks")
    if found is None or networks is None:
        return None
    values, model = json.loads(networks), config.pipeline.model
    if ("unet" in values) != (not isinstance(model, GanModelConfig)):
        method = (
            "gan3d-g3dr" if "unet" in values else "gan3d-eg3d, gan3d-ballgan or gan3d-pix2pix3d"
        )
        raise CheckpointError(f"{found[0]}: holds networks of {method}; start ns-train {method}")
    if not isinstance(model, GanModelConfig):
        return _adopted(model, values, networks, found[0])
    # Checkpoints of before there were labels do not name them.
    kind = values.get("labels", {}).get("kind", "none")
    if (values["background"], kind) != (model.background, model.labels.kind):
        method = {"seg": "gan3d-pix2pix3d", "edge": "gan3d-pix2pix3d-edge"}.get(kind, "gan3d-eg3d")
        method = "gan3d-ballgan" if values["background"] else method
        raise CheckpointError(f"{found[0]}: holds networks of {method}; start ns-train {method}")
    return _adopted(model, values, networks, found[0])


def _adopted(model: Any, values: Mapping[str, Any], networks: str, path: Path) -> str:
    for name in values:
        # A setting that came later has to be what it was without: its default, not the preset's.
        if dataclasses.is_dataclass(part := getattr(model, name, None)):
            setattr(model, name, type(part)())
    apply_settings(model, values)
    CONSOLE.print(
        f"Networks, box and sampling are those of {path}; options for them on the command line "
        "have no effect."
    )
    return networks


def restore(
    path: Path,
    state: Mapping[str, Any],
    pipeline: Pipeline,
    optimizers: Optimizers,
    load_scheduler: bool,
) -> None:
    """Loads a checkpoint's content whole, or raises CheckpointError before anything was changed.

    Moments come from the checkpoint; settings such as betas from the optimizers as they are.
    """
    if state.get("inference_only", False):
        raise CheckpointError(
            f"{path}: holds a generator for inference alone; training cannot continue without the "
            "discriminator and the optimizers, so give a checkpoint that training wrote"
        )
    if "optimizers" not in state and "networks" in state:
        # An import: networks without data set, augmentation and optimizers, which start afresh.
        # The label maps that are kept are the data set's, since a snapshot comes with none.
        given = {k: v for k, v in state["pipeline"].items() if not k.startswith(STORES)}
        content = {**pipeline.state_dict(), **given}
        try:
            check_fits(pipeline, content)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        pipeline.load_pipeline(content, state["step"])
        return
    try:
        # The pipeline compares once more when it loads, but nothing may be loaded before all fits.
        check_fits(pipeline, state["pipeline"])
        check_optimizers_fit(optimizers.parameters, state.get("optimizers", {}))
        pipeline.load_pipeline(dict(state["pipeline"]), state["step"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for name, optimizer in optimizers.optimizers.items():
        scheduled = name in optimizers.schedulers
        kept = [
            {k: v for k, v in group.items() if k != "params" and not (scheduled and "lr" in k)}
            for group in optimizer.param_groups
        ]
        optimizer.load_state_dict(state["optimizers"][name])
        for group, settings in zip(optimizer.param_groups, kept, strict=True):
            group.update(settings)
    if load_scheduler:
        for name, scheduler in optimizers.schedulers.items():
            if name in state.get("schedulers", {}):
                scheduler.load_state_dict(state["schedulers"][name])


def random_state(device: torch.device | str) -> dict[str, Any]:
    """States of this process's random number generators, as plain values and tensors."""
    # Other packages draw from numpy's global state, so that is what has to be kept.
    name, words, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(words).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.device(device).type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device | str) -> None:
    """Continues the random numbers of a `random_state`; a device it lacks keeps its own state."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    words = keys.numpy().astype(np.uint32)
    np.random.set_state((name, words, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.device(device).type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def own_random_state(
    state: Mapping[str, Any], rank: int, seed: int, device: torch.device | str
) -> Mapping[str, Any]:
    """The random state that a process continues from.

    A process that the checkpoint knows nothing of, because there are more of them now, gets a state
    that none has used so far.
    """
    states = state.get("random", [])
    if rank < len(states):
        return states[rank]
    torch.manual_seed(seed + rank + 1_000_003 * (state["step"] + 1))
    return random_state(device)
