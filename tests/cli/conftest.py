"""A trained run that every command can open, and whose data set is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nerfstudio_gan3d.run import Run, load_run
from tests.training.micro import data_set, micro_config, trainer

STEPS = 20


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of a micro GAN after twenty steps; the data set was deleted since."""
    folder = tmp_path_factory.mktemp("trained")
    data = data_set(folder / "data" / "set")
    config = micro_config(
        data,
        folder / "outputs",
        max_num_iterations=STEPS,
        pipeline__evaluation__num_samples=8,
    )
    config.save_config()
    made = trainer(config)
    made.train()
    made.shutdown()
    shutil.rmtree(folder / "data")
    return config.get_base_dir() / "config.yml"


@pytest.fixture(scope="session")
def run(trained: Path) -> Run:
    """The same, loaded."""
    return load_run(trained)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command starts in an empty folder that has nothing to do with the run."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
