"""Training goes on from an imported pix2pix3D snapshot, with label maps of a data set."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.method_configs.pix2pix3d import gan3d_pix2pix3d_128
from nerfstudio_gan3d.run import load_run
from nerfstudio_gan3d.training.checkpoints import read_checkpoint
from nerfstudio_gan3d.training.trainer import GanTrainerConfig
from tests.data.sets import files, write_folder
from tests.snapshots.networks import SIZE, generator, label_config, snapshot
from tests.training.micro import trainer


def configured(data: Path, output: Path, checkpoint: Path) -> GanTrainerConfig:
    """The published preset, without the perceptual distance, whose network has to be on the
    machine."""
    config = copy.deepcopy(gan3d_pix2pix3d_128.config)
    assert isinstance(config, GanTrainerConfig)
    config.machine.device_type = "cpu"
    config.vis = "tensorboard"
    config.progress = "none"
    config.output_dir, config.timestamp, config.experiment_name = output, "run", "fine"
    config.max_num_iterations = 3
    config.load_checkpoint = checkpoint
    config.pipeline.datamanager.data = data
    config.pipeline.datamanager.batch_size = 2  # pyright: ignore[reportAttributeAccessIssue]
    config.pipeline.model.label_losses.lpips = 0.0  # pyright: ignore[reportAttributeAccessIssue]
    return config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    file = snapshot(folder / "s.pkl", generator(labels=label_config(3)))
    assert main(["import", str(file), "--output", str(folder / "run"), "--kimg", "40"]) == 0
    return folder / "run" / "nerfstudio_models" / "step-000000000.ckpt"


def test_training_goes_on_from_the_snapshot(checkpoint: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "set", files(6, SIZE))
    config = configured(data, tmp_path / "out", checkpoint)
    made = trainer(config)
    model = made.pipeline.model
    given = read_checkpoint(checkpoint)["pipeline"]
    assert model.config.conventions == "reference"
    assert (model.config.labels.classes, model.config.labels.geometry_layers) == (3, 3)
    # What belongs to training is the preset's.
    assert model.config.label_losses.cross_view == 1e-6
    assert model.config.label_losses.adversarial == 0.1
    store = model.label_store
    assert store is not None
    for name, value in model.state_dict().items():
        if name.startswith("label_store."):
            # The snapshot has none, so these are the data set's.
            assert not torch.equal(value, given[f"_model.{name}"]), name
        else:
            assert torch.equal(value, given[f"_model.{name}"]), name
    maps = store.maps.clone()
    before = copy.deepcopy(model.state_dict())
    made.train()
    made.shutdown()
    after = model.state_dict()
    assert int(after["objective.images_seen"]) == 40_000 + 2 * 2
    for part in (
        "generator.field.decoder.label_out",
        "generator.mapping.embed_mask",
        "generator.superresolution_labels",
        "objective.discriminator.b128",
        "objective.label_discriminator.b128",
    ):
        moved = [
            float((after[name] - before[name]).abs().max())
            for name in before
            if name.startswith(part) and name.endswith("weight")
        ]
        assert moved
        # Adam moves every weight by about the learning rate a step, from where the snapshot was.
        assert 1e-4 < max(moved) < 0.02, part
    run = load_run(config.get_base_dir(), device="cpu")
    assert run.settings.labels.geometry_layers == 3
    assert run.images_seen == 40_004
    assert run.model.label_store is not None
    assert torch.equal(run.model.label_store.maps, maps)


@pytest.mark.parametrize(("setting", "value"), [("kind", "edge"), ("kind", "none")])
def test_networks_of_another_method_are_refused(
    setting: str,
    value: str,
    checkpoint: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = write_folder(tmp_path / "set", files(4, SIZE))
    config = configured(data, tmp_path / "out", checkpoint)
    setattr(config.pipeline.model.labels, setting, value)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SystemExit) as stopped:
        trainer(config)
    assert stopped.value.code == 2
    assert "start ns-train gan3d-pix2pix3d" in " ".join("".join(capfd.readouterr()).split())


def test_a_data_set_of_other_classes_is_refused(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = files(4, SIZE)
    content["meta.json"] = content["meta.json"].replace(b'"wheel"]', b'"wheel", "window"]')
    content["meta.json"] = content["meta.json"].replace(b"[0, 0, 255]]", b"[0, 0, 255], [9, 9, 9]]")
    data = write_folder(tmp_path / "set", content)
    config = configured(data, tmp_path / "out", checkpoint)
    with pytest.raises(SystemExit) as stopped:
        trainer(config)
    assert stopped.value.code == 2
    told = " ".join("".join(capfd.readouterr()).split())
    assert "4 classes" in told
    assert "3" in told
