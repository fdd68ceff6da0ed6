"""What `nerfstudio_gan3d.load` opens, and what it says of anything else."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
import torch

import nerfstudio_gan3d
from nerfstudio_gan3d.training.checkpoints import checkpoint_path, read_checkpoint, save_atomic
from tests.cli.g3dr_run import untrained_g3dr
from tests.models.tiny_g3dr import kept_images


@pytest.fixture(scope="module")
def g3dr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an untrained micro G3DR with one checkpoint."""
    return untrained_g3dr(tmp_path_factory.mktemp("g3dr") / "run").parent


def test_what_can_be_loaded(
    g3dr_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(g3dr_folder, folder)
    (first,) = (folder / "nerfstudio_models").iterdir()
    state = read_checkpoint(first)
    for name, value in state["pipeline"].items():
        if name == "_model.image_store.images":
            state["pipeline"][name] = 255 - value
    second = checkpoint_path(first.parent, 5)
    save_atomic({**state, "step": 5}, second)
    monkeypatch.chdir(tmp_path)
    images = kept_images()[0]
    for source in ("moved", folder, "moved/config.yml"):
        gan = nerfstudio_gan3d.load(source, "cpu")
        assert (gan.run.step, gan.run.checkpoint) == (5, second)
        assert gan.run.folder == folder
    gan = nerfstudio_gan3d.load(Path("moved/nerfstudio_models") / first.name, "cpu")
    assert (gan.run.step, gan.run.checkpoint) == (0, first)
    assert torch.equal(gan.run.model.image_store.images, images)  # pyright: ignore
    gan = nerfstudio_gan3d.load(second, "cpu")
    assert gan.run.step == 5
    assert torch.equal(gan.run.model.image_store.images, 255 - images)  # pyright: ignore


def test_a_bundled_checkpoint_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    # A folder of this name does not matter: names are the same everywhere.
    Path("3dgen-cars64").mkdir()
    gan = nerfstudio_gan3d.load("3dgen-cars64", "cpu")
    folder = gan.run.folder
    assert folder.parent == tmp_path
    assert (folder / "config.yml").is_file()
    scene = gan.scene(0, appearance_seed=4)
    del gan
    gc.collect()
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["3dgen-cars64"]
    assert scene.volume == "occupancy"
    with pytest.raises(ValueError, match=r"3dgen-cars64/config\.yml: no such file"):
        nerfstudio_gan3d.load(Path("3dgen-cars64"))


def test_what_cannot_be_loaded_is_one_sentence(
    g3dr_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: str | Path, device: str | None = "cpu") -> str:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            nerfstudio_gan3d.load(source, device)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    told = refused("ballgan-cars")
    assert told.startswith(
        "ballgan-cars: there is no such file or folder; give the folder of a run"
    )
    assert "3dgen-cars64, ballgan-cars64, " in told
    assert "give the config.yml that training wrote" in refused(tmp_path)
    text = tmp_path / "config.yml"
    text.write_text("a: 1")
    assert "not the configuration of a gan3d method" in refused(tmp_path)
    lone = tmp_path / "a" / "b" / "step-000000003.ckpt"
    lone.parent.mkdir(parents=True)
    lone.write_bytes(b"none")
    assert "there is no config.yml in its folder or in the one above" in refused(lone)
    shutil.copy(g3dr_folder / "config.yml", lone.parent)
    assert "step-000000003.ckpt: truncated or unreadable" in refused(lone)
    assert "device = 'gpu': give cpu, cuda" in refused(g3dr_folder, "gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "device = 'cuda:2': torch finds 2 CUDA devices" in refused(g3dr_folder, "cuda:2")
