"""Whole training runs of the micro GAN in this process: resuming, refusing, budgets."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils import profiler, writer

from nerfstudio_gan3d.training.checkpoints import read_checkpoint
from nerfstudio_gan3d.training.trainer import GanTrainer, validate
from tests.training.micro import data_set, micro_config, trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(autouse=True)
def fresh_writers() -> Iterator[None]:
    """nerfstudio keeps its writers in lists of the process."""
    yield
    for kept in (writer.EVENT_WRITERS, writer.EVENT_STORAGE, profiler.PROFILER):
        kept.clear()


def after_step(made: GanTrainer, step: int, act: Any) -> None:
    """Calls ``act`` right after an iteration."""

    def call(step: int) -> None:
        if step == wanted:
            act()

    wanted = step
    made.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], call))


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two nested structures of tensors and plain values differ in any bit."""
    if isinstance(first, torch.Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [place]
    if isinstance(first, dict):
        keys = first.keys() | second.keys()
        pairs = [(key, first.get(key), second.get(key)) for key in sorted(keys, key=str)]
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), place
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(first, second, strict=True))]
    else:
        return [] if first == second else [place]
    return [found for key, a, b in pairs for found in differences(a, b, f"{place}/{key}")]


def saved(output: Path) -> list[Path]:
    return sorted((output / "micro/gan3d-ballgan-tiny/run/nerfstudio_models").iterdir())


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of eight iterations; the learning rate falls from the fifth."""
    output = tmp_path_factory.mktemp("whole")
    trainer(micro_config(data, output, max_num_iterations=8, lr_decay_start=0.5)).train()
    return output


def test_a_stopped_run_resumes_to_the_same_bits(
    data: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    settings = {"max_num_iterations": 8, "lr_decay_start": 0.5}
    stopped = trainer(micro_config(data, tmp_path / "a", **settings))
    after_step(stopped, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        stopped.train()
    assert caught.value.code == 143
    (path,) = saved(tmp_path / "a")
    assert path.name == "step-000000002.ckpt"

    torch.rand(3)
    config = micro_config(data, tmp_path / "b", load_dir=path.parent, **settings)
    config.machine.seed = 1
    trainer(config).train()
    (path,), (other,) = saved(tmp_path / "b"), saved(uninterrupted)
    assert path.name == other.name == "step-000000007.ckpt"
    resumed, whole = read_checkpoint(path), read_checkpoint(other)
    assert resumed.pop("elapsed") > 0
    assert whole.pop("elapsed") > 0
    assert whole["pipeline"]["_model.objective.images_seen"] == 32
    assert whole["pipeline"]["_model.objective.augment.p"] not in (0.0, 0.3)
    assert whole["optimizers"]["generator"]["param_groups"][0]["lr"] < 0.003
    for state in (resumed, whole):
        # The checks of types that these tests switch on draw from it.
        state["random"][0].pop("python")
    assert differences(resumed, whole) == []


def test_the_average_trails_the_generator(uninterrupted: Path) -> None:
    state = read_checkpoint(saved(uninterrupted)[0])["pipeline"]
    pairs = [
        (value, state[name.replace("generator", "generator_ema", 1)])
        for name, value in state.items()
        if name.startswith("_model.generator.")
    ]
    different = [not torch.equal(value, average) for value, average in pairs]
    assert sum(different) > len(pairs) / 2
    assert all((value - average).abs().max() < 1 for value, average in pairs)


def test_a_checkpoint_of_other_sizes_is_refused_before_anything_is_loaded(
    data: Path, tmp_path: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = micro_config(
        data,
        tmp_path,
        load_checkpoint=saved(uninterrupted)[0],
        pipeline__model__latent__w_dim=4,
        pipeline__model__background=False,
    )
    torch.manual_seed(0)
    made = config.setup(local_rank=0, world_size=1)
    with pytest.raises(SystemExit) as caught:
        made.setup()
    assert caught.value.code == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"gan3d: {saved(uninterrupted)[0]}: the checkpoint does not fit")
    assert "surplus: _model.generator.background." in sentence
    assert "_model.generator.mapping.w_avg (checkpoint (8,), model (4,))" in sentence
    torch.manual_seed(0)
    fresh = micro_config(
        data, tmp_path, pipeline__model__latent__w_dim=4, pipeline__model__background=False
    )
    untouched = fresh.setup(local_rank=0, world_size=1)
    untouched.setup()
    assert differences(made.pipeline.state_dict(), untouched.pipeline.state_dict()) == []


def test_a_truncated_checkpoint_is_passed_over(
    data: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    whole = saved(uninterrupted)[0].read_bytes()
    (tmp_path / "old").mkdir()
    (tmp_path / "old/step-000000007.ckpt").write_bytes(whole)
    (tmp_path / "old/step-000000011.ckpt").write_bytes(whole[:-5000])
    made = trainer(micro_config(data, tmp_path, load_dir=tmp_path / "old", max_num_iterations=8))
    made.train()
    # Nothing is left to train, and the new directory can be opened all the same.
    (path,) = saved(tmp_path)
    assert path.name == "step-000000007.ckpt"


def test_a_time_budget_ends_training_with_the_learning_rate_lowered(
    data: Path, tmp_path: Path
) -> None:
    config = micro_config(data, tmp_path, max_minutes=0.02, lr_decay_start=0.0, steps_per_save=0)
    made = trainer(config)
    start = time.monotonic()
    made.train()
    assert 1.2 < time.monotonic() - start < 30
    state = read_checkpoint(saved(tmp_path)[0])
    assert state["step"] < config.max_num_iterations - 1
    assert state["elapsed"] >= 1.2
    assert state["optimizers"]["generator"]["param_groups"][0]["lr"] < 0.0018


def test_a_pause_does_not_count(data: Path, tmp_path: Path) -> None:
    made = trainer(micro_config(data, tmp_path, max_num_iterations=3, start_paused=True))

    def resume() -> None:
        made.training_state = "training"

    timer = threading.Timer(1.0, resume)
    start = time.monotonic()
    timer.start()
    made.train()
    assert made.step == 2
    assert time.monotonic() - start - made._elapsed > 0.9


def test_gradients_that_are_not_finite_do_no_harm(data: Path, tmp_path: Path) -> None:
    made = trainer(micro_config(data, tmp_path, max_num_iterations=2))
    weight = made.optimizers.parameters["discriminator"][0]
    weight.register_hook(lambda gradient: gradient * torch.inf)
    made.train()
    assert made._repaired is not None
    assert made._repaired >= 1
    assert all(p.isfinite().all() for group in made.optimizers.parameters.values() for p in group)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("max_num_iterations", 0, "max_num_iterations = 0"),
        ("max_minutes", -1.0, "max_minutes = -1.0"),
        ("lr_decay_start", 1.5, "lr_decay_start = 1.5"),
        ("lr_final_factor", -0.1, "lr_final_factor = -0.1"),
        ("mixed_precision", True, "R1 needs full precision"),
    ],
)
def test_impossible_settings_are_named(
    option: str, value: Any, words: str, data: Path, tmp_path: Path
) -> None:
    config = micro_config(data, tmp_path, **{option: value})
    with pytest.raises(ValueError, match=words):
        validate(config)


def test_two_places_to_resume_from_are_refused(data: Path, tmp_path: Path) -> None:
    config = micro_config(data, tmp_path, load_dir=tmp_path, load_checkpoint=tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="load_dir and load_checkpoint"):
        validate(config)
