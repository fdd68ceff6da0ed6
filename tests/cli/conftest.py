"""Runs that every command can open: one whose data set is gone, one with labels, one of edges."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nerfstudio_gan3d.method_configs.pix2pix3d import (
    gan3d_pix2pix3d_edge_tiny,
    gan3d_pix2pix3d_tiny,
)
from nerfstudio_gan3d.pretrained import fresh_model
from nerfstudio_gan3d.run import MODEL_PREFIX, Run, load_run
from nerfstudio_gan3d.training.checkpoints import checkpoint_path, save_atomic
from tests.data.sets import encode, files, write_folder
from tests.training.micro import data_set, micro_config, trainer

STEPS = 20
LABELLED_STEPS = 4
LABELLED_OPTIONS = {
    "pipeline__model__labels__encoder_base": 128,
    "pipeline__model__labels__encoder_max": 8,
    "pipeline__model__labels__geometry_layers": 2,
    "pipeline__evaluation__num_samples": 8,
}


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


def things(index: int) -> np.ndarray:
    """A label map: a body of class 1 with a wheel of class 2, another one for each index."""
    ids = np.zeros((16, 16), np.uint8)
    ids[4 : 8 + index // 2, 2 : 14 - index % 4] = 1
    ids[9:12, 3 + index // 3 : 6 + index // 3] = 2
    return ids


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of a micro pix2pix3D of three classes; its data set is still there."""
    folder = tmp_path_factory.mktemp("labelled")
    content = files(10, 16)
    for index, name in enumerate(sorted(name for name in content if name.startswith("label/"))):
        content[name] = encode(things(index))
    config = micro_config(
        write_folder(folder / "data" / "set", content),
        folder / "outputs",
        gan3d_pix2pix3d_tiny,
        max_num_iterations=LABELLED_STEPS,
        **LABELLED_OPTIONS,
    )
    config.save_config()
    made = trainer(config)
    made.train()
    made.shutdown()
    return config.get_base_dir() / "config.yml"


@pytest.fixture(scope="session")
def labelled_run(labelled: Path) -> Run:
    """The same, loaded."""
    return load_run(labelled)


@pytest.fixture(scope="session")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of an untrained micro pix2pix3D of edge maps that keeps drawings of one line."""
    folder = tmp_path_factory.mktemp("edges")
    config = micro_config(
        folder,
        folder / "outputs",
        gan3d_pix2pix3d_edge_tiny,
        **LABELLED_OPTIONS,
        pipeline__model__view_radius=2.0,
        pipeline__model__view_focal=1.5,
        pipeline__model__field__near=1.0,
        pipeline__model__field__far=3.0,
    )
    model = fresh_model(config)
    store = model.label_store
    assert store is not None
    for row in range(len(store.maps)):
        store.maps[row, 0, row] = 0
    state = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    config.save_config()
    content = {"step": 0, "pipeline": state}
    save_atomic(content, checkpoint_path(config.get_checkpoint_dir(), 0))
    return config.get_base_dir() / "config.yml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command starts in an empty folder that has nothing to do with the run."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
