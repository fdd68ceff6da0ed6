"""Checkpoint files: written atomically, read with checks, and compared with the model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SHOWN = 10
"""Names of each kind that an error lists."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: one sentence with the file and what differs."""


class Found(NamedTuple):
    """The newest whole checkpoint of a directory."""

    path: Path
    """Its file."""
    state: dict[str, Any]
    """Its content, on the CPU."""
    skipped: tuple[str, ...]
    """A sentence for each newer file that cannot be read."""


def checkpoint_path(directory: Path, step: int) -> Path:
    """The file of a step, named as nerfstudio's commands expect it."""
    return directory / f"step-{step:09d}.ckpt"


def save_atomic(payload: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint so that after a crash ``path`` holds the old content or the new, whole.

    The temporary file stands beside the checkpoints' directory, because nerfstudio's commands read
    every name inside it as that of a checkpoint. Raises OSError or RuntimeError when the disk is
    full, and leaves no temporary file then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Resolved, so that a directory that is a link to another disk is renamed within that disk.
    folder = path.parent.resolve()
    temporary = folder.parent / f".{folder.name}.ckpt.tmp"
    try:
        with open(temporary, "wb") as file:
            torch.save(dict(payload), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / path.name)
    except BaseException:
        # Interrupted or not, half a checkpoint does not stay behind.
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        # The new name itself is safe only after the directory has reached the disk.
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_others(path: Path) -> None:
    """Deletes every other checkpoint beside ``path``."""
    for other in checkpoints(path.parent):
        if other.name != path.name:
            other.unlink(missing_ok=True)


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a directory, oldest first; readable or not."""
    numbered = [
        (re.fullmatch(r"step-(\d+)\.ckpt", file.name), file) for file in directory.iterdir()
    ]
    return [file for _, file in sorted((int(match[1]), file) for match, file in numbered if match)]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing in it is executed (``weights_only``).

    Raises CheckpointError when there is no such file, when it is truncated or otherwise unreadable,
    and when it is not a checkpoint of nerfstudio's trainer.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load reports damage with many kinds of errors, from RuntimeError to KeyError.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise CheckpointError(f"{path}: truncated or unreadable ({reason})") from error
    if (
        not isinstance(state, dict)
        or not isinstance(state.get("step"), int)
        or not isinstance(state.get("pipeline"), dict)
    ):
        raise CheckpointError(f"{path}: not a training checkpoint; it has no step and pipeline")
    return state


def newest_whole(directory: Path) -> Found:
    """The newest checkpoint of a directory that can be read whole.

    ``directory`` is the one with ``step-*.ckpt``, or the run's directory above it. Raises
    CheckpointError when there is none; its sentence names what was found damaged.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: there is no such directory of checkpoints")
    inside = directory / "nerfstudio_models"
    if not checkpoints(directory) and inside.is_dir():
        directory = inside
    skipped: list[str] = []
    for path in reversed(checkpoints(directory)):
        try:
            return Found(path, read_checkpoint(path), tuple(skipped))
        except CheckpointError as error:
            skipped.append(str(error))
    if skipped:
        raise CheckpointError(f"{directory}: no checkpoint can be read; " + "; ".join(skipped))
    raise CheckpointError(f"{directory}: there is no step-*.ckpt; give the directory that has them")


def check_fits(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Raises CheckpointError, naming what differs, unless ``state`` is a state of ``module``."""
    own = module.state_dict()
    shapes = [
        f"{name} (checkpoint {_shape(state[name])}, model {_shape(own[name])})"
        for name in own
        if name in state and _shape(state[name]) != _shape(own[name])
    ]
    parts = (
        _list("missing", (name for name in own if name not in state)),
        _list("surplus", (name for name in state if name not in own)),
        _list("of another shape", shapes),
    )
    if any(parts):
        raise CheckpointError(
            "the checkpoint does not fit this model: "
            + "; ".join(part for part in parts if part)
            + "; start with the settings that it was trained with"
        )


def check_optimizers_fit(
    parameters: Mapping[str, Sequence[Tensor]], saved: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raises CheckpointError unless ``saved`` are states of optimizers over these parameters."""
    if set(parameters) != set(saved):
        raise CheckpointError(
            f"the checkpoint has optimizers {sorted(saved)}, this model has {sorted(parameters)}"
        )
    for name, own in parameters.items():
        count = sum(len(group["params"]) for group in saved[name]["param_groups"])
        differs = count != len(own) or any(
            _shape(value) != _shape(own[index])
            for index, moments in saved[name]["state"].items()
            for key, value in moments.items()
            if key.startswith("exp_avg")
        )
        if differs:
            raise CheckpointError(
                f"the checkpoint's optimizer {name!r} belongs to other parameters"
            )


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _list(what: str, names: Iterable[str]) -> str:
    found = list(names)
    if not found:
        return ""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{len(found)} {what}: {', '.join(found[:SHOWN])}{more}"
