"""Checkpoint files: atomic, whole, and compared with the model by name."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nerfstudio_gan3d.training.checkpoints import (
    CheckpointError,
    check_fits,
    check_optimizers_fit,
    checkpoint_path,
    newest_whole,
    read_checkpoint,
    remove_others,
    save_atomic,
)


def content(step: int) -> dict[str, Any]:
    return {"step": step, "pipeline": {"weight": torch.full((1000,), float(step))}}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class FullDisk:
    """Stops a checkpoint in the middle of being written, and notes what is on the disk by then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[str] = []

    def __reduce__(self) -> Any:
        self.seen = sorted(os.listdir(self.folder))
        raise OSError(28, "No space left on device")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "nerfstudio_models"


def test_what_is_saved_comes_back(folder: Path) -> None:
    path = checkpoint_path(folder, 7)
    save_atomic(content(7), path)
    assert path.name == "step-000000007.ckpt"
    assert read_checkpoint(path)["pipeline"]["weight"].tolist() == [7.0] * 1000
    assert os.listdir(folder.parent) == ["nerfstudio_models"]


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(folder: Path) -> None:
    path = checkpoint_path(folder, 7)
    save_atomic(content(7), path)
    before = path.read_bytes()
    full = FullDisk(folder)
    with pytest.raises(OSError, match="No space"):
        save_atomic({"step": 7, "pipeline": {"full": full}}, path)
    # nerfstudio's commands take every name in this directory for a checkpoint.
    assert full.seen == ["step-000000007.ckpt"]
    assert path.read_bytes() == before
    assert os.listdir(folder) == ["step-000000007.ckpt"]
    assert os.listdir(folder.parent) == ["nerfstudio_models"]


def test_older_checkpoints_are_removed_and_other_files_are_not(folder: Path) -> None:
    for step in (1, 2, 30):
        save_atomic(content(step), checkpoint_path(folder, step))
    (folder / "notes.txt").write_text("mine")
    remove_others(checkpoint_path(folder, 30))
    assert sorted(os.listdir(folder)) == ["notes.txt", "step-000000030.ckpt"]


def test_the_newest_whole_one_is_found_past_damaged_ones(folder: Path) -> None:
    for step in (9, 10, 200, 1000):
        save_atomic(content(step), checkpoint_path(folder, step))
    truncate(checkpoint_path(folder, 1000))
    checkpoint_path(folder, 200).write_bytes(b"")
    for place in (folder, folder.parent):
        found = newest_whole(place)
        assert found.path.name == "step-000000010.ckpt"
        assert found.state["step"] == 10
        skipped = [sentence.split(":")[0].split("/")[-1] for sentence in found.skipped]
        assert skipped == ["step-000001000.ckpt", "step-000000200.ckpt"]


def test_directories_without_a_readable_checkpoint_say_so(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        newest_whole(folder)
    folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"there is no step-\*.ckpt"):
        newest_whole(folder)
    save_atomic(content(3), checkpoint_path(folder, 3))
    truncate(checkpoint_path(folder, 3))
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read.*step-000000003\.ckpt"):
        newest_whole(folder)


def test_code_in_a_checkpoint_is_not_run(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"

    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(trace),)

    path = checkpoint_path(folder, 1)
    save_atomic({"step": 1, "pipeline": {"weight": Code()}}, path)
    with pytest.raises(CheckpointError, match="unreadable"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("wrong", [{}, {"step": 1}, {"step": "1", "pipeline": {}}, [1, 2]])
def test_other_torch_files_are_refused(wrong: Any, tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(wrong, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        read_checkpoint(path)


def test_a_state_that_differs_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    check_fits(module, module.state_dict())
    state = {
        "0.weight": torch.zeros(2, 4),
        "0.bias": torch.zeros(2),
        "1.weight": torch.zeros(2, 2),
        "2.bias": torch.zeros(2),
    }
    with pytest.raises(CheckpointError) as caught:
        check_fits(module, state)
    assert str(caught.value) == (
        "the checkpoint does not fit this model: 1 missing: 1.bias; 1 surplus: 2.bias; "
        "1 of another shape: 0.weight (checkpoint (2, 4), model (2, 3)); "
        "start with the settings that it was trained with"
    )


def test_long_lists_of_names_are_cut() -> None:
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(8)))
    with pytest.raises(CheckpointError, match=r"16 missing: 0.weight, .*, 4.bias and 6 more;"):
        check_fits(module, {})


def test_moments_of_another_model_are_refused() -> None:
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.Adam(weights)
    optimizer.step()
    saved = {"generator": optimizer.state_dict()}
    check_optimizers_fit({"generator": weights}, saved)
    with pytest.raises(CheckpointError, match="optimizers"):
        check_optimizers_fit({"generator": weights, "discriminator": weights}, saved)
    for others in (weights[:1], weights[::-1]):
        with pytest.raises(CheckpointError, match="'generator' belongs to other parameters"):
            check_optimizers_fit({"generator": others}, saved)
