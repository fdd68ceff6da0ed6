"""`ns-train` and torchrun as a user starts them: stopped, resumed, refused, on two processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nerfstudio_gan3d.training import distributed
from nerfstudio_gan3d.training.checkpoints import checkpoints, read_checkpoint
from tests.training.micro import arguments, data_set
from tests.training.test_trainer import differences

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, "-m", "nerfstudio.scripts.train"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("data") / "set")


def start(command: list[str], **variables: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        # Importing nerfstudio starts a pool of compilers, which nothing here uses.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def run_directory(output: Path) -> Path:
    return output / "set" / "gan3d-ballgan-tiny" / "run"


@pytest.mark.slow
def test_a_killed_run_is_saved_and_resumes_to_the_same_total(data: Path, tmp_path: Path) -> None:
    # With the viewer, whose server has to go as well.
    options: dict[str, Any] = {"vis": "viewer", "viewer__websocket_port": 7459}
    first = start(TRAIN + arguments(data, tmp_path / "a", max_num_iterations=10**6, **options))
    assert first.stdout is not None
    told = []
    for line in first.stdout:
        told.append(line)
        if line.startswith("iter "):
            first.send_signal(signal.SIGTERM)
            break
    rest, _ = first.communicate(timeout=300)
    assert first.returncode == 143, "".join(told) + rest
    assert "Traceback" not in rest
    models = run_directory(tmp_path / "a") / "nerfstudio_models"
    (path,) = models.iterdir()
    done = read_checkpoint(path)["step"]
    assert path.name == f"step-{done:09d}.ckpt"
    assert sorted(p.name for p in models.parent.glob(".*")) == []

    total = done + 3
    again = arguments(data, tmp_path / "b", max_num_iterations=total, load_dir=models)
    second = start(TRAIN + again)
    out, _ = second.communicate(timeout=300)
    assert second.returncode == 0, out
    assert f"iter {total}/{total}" in out
    (path,) = checkpoints(run_directory(tmp_path / "b") / "nerfstudio_models")
    state = read_checkpoint(path)
    assert state["step"] == total - 1
    assert state["pipeline"]["_model.objective.images_seen"] == 4 * total


@pytest.mark.slow
def test_impossible_settings_end_in_one_sentence(data: Path, tmp_path: Path) -> None:
    options = {"pipeline__model__patch_resolution": 5}
    process = start(TRAIN + arguments(data, tmp_path, **options))
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "Traceback" not in out
    (sentence,) = [line for line in out.splitlines() if line.startswith("gan3d: ")]
    assert "patch_resolution = 5" in sentence


@pytest.mark.slow
def test_two_processes_end_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = str(ROOT / "tests" / "training" / "two_ranks.py")
    options: dict[str, Any] = {
        "max_num_iterations": 6,
        "vis": "viewer",
        "viewer__websocket_port": 7458,
    }
    command = [*torchrun, "--nproc-per-node", "2", script, *arguments(data, tmp_path, **options)]
    process = start(command, RECORDS=str(tmp_path))
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert (first.pop("viewer"), second.pop("viewer")) == (True, False)
    # Ten images, two processes with four a step: each sees its own.
    assert not set(first.pop("order")) & set(second.pop("order"))
    assert differences(first, second) == []
    (path,) = checkpoints(run_directory(tmp_path) / "nerfstudio_models")
    state = read_checkpoint(path)
    assert state["pipeline"]["_model.objective.images_seen"] == 2 * 4 * 6
    assert differences(state["pipeline"], first["pipeline"]) == []
    assert differences(*state["random"]) != []
    assert (run_directory(tmp_path) / "config.yml").is_file()


def test_without_torchrun_the_entry_point_says_how_to_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as caught:
        distributed.main(["gan3d-ballgan-tiny"])
    assert caught.value.code == 2
    assert "gan3d: RANK is not set; start this module with torchrun" in capsys.readouterr().err
