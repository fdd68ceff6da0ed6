"""Training goes on from an imported snapshot: its networks, its discriminator, fresh optimizers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.method_configs.ballgan import gan3d_ballgan
from nerfstudio_gan3d.run import load_run
from nerfstudio_gan3d.training.checkpoints import checkpoint_path, read_checkpoint
from nerfstudio_gan3d.training.trainer import GanTrainerConfig
from tests.data.sets import files, write_folder
from tests.snapshots.networks import SIZE, generator, snapshot
from tests.training.micro import trainer


def configured(data: Path, output: Path, checkpoint: Path) -> GanTrainerConfig:
    """The published preset as `ns-train gan3d-ballgan --load-checkpoint` has it."""
    config = copy.deepcopy(gan3d_ballgan.config)
    assert isinstance(config, GanTrainerConfig)
    config.machine.device_type = "cpu"
    config.vis = "tensorboard"
    config.progress = "none"
    config.output_dir, config.timestamp, config.experiment_name = output, "run", "fine"
    config.max_num_iterations = 3
    config.load_checkpoint = checkpoint
    config.pipeline.datamanager.data = data
    config.pipeline.datamanager.batch_size = 2  # pyright: ignore[reportAttributeAccessIssue]
    return config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    file = snapshot(folder / "s.pkl", generator("ver1"))
    assert main(["import", str(file), "--output", str(folder / "run"), "--kimg", "700"]) == 0
    return folder / "run" / "nerfstudio_models" / "step-000000000.ckpt"


def test_training_goes_on_from_the_snapshot(checkpoint: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "set", files(6, SIZE))
    config = configured(data, tmp_path / "out", checkpoint)
    made = trainer(config)
    model = made.pipeline.model
    given = read_checkpoint(checkpoint)["pipeline"]
    assert model.config.image_resolution == SIZE
    assert model.config.conventions == "reference"
    # What belongs to training is the preset's.
    assert model.config.losses.r1_gamma == 5.0
    for name, value in model.state_dict().items():
        assert torch.equal(value, given[f"_model.{name}"]), name
    before = copy.deepcopy(model.state_dict())
    made.train()
    made.shutdown()
    after = model.state_dict()
    assert int(after["objective.images_seen"]) == 700_000 + 2 * 2
    for part in ("generator.field", "generator.superresolution", "objective.discriminator.b128"):
        moved = [
            float((after[name] - before[name]).abs().max())
            for name in before
            if name.startswith(part) and name.endswith("weight")
        ]
        assert moved
        # Adam moves every weight by about the learning rate a step, from where the snapshot was.
        assert 1e-4 < max(moved) < 0.02
    saved = checkpoint_path(config.get_checkpoint_dir(), 2)
    assert saved.is_file()
    run = load_run(config.get_base_dir(), device="cpu")
    assert run.settings.field.triplane.plane_size == 8
    assert run.images_seen == 700_004


def test_a_fine_tuned_run_resumes_with_its_networks_and_optimizers(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "set", files(6, SIZE))
    config = configured(data, tmp_path / "out", checkpoint)
    config.max_num_iterations = 2
    made = trainer(config)
    made.train()
    made.shutdown()
    saved = {name: value.clone() for name, value in made.pipeline.state_dict().items()}
    # As a user goes on: the method's own settings, and the folder of checkpoints.
    again = configured(data, tmp_path / "more", checkpoint)
    again.load_checkpoint, again.load_dir = None, config.get_checkpoint_dir()
    resumed = trainer(again)
    assert resumed._start_step == 2
    for name, value in resumed.pipeline.state_dict().items():
        assert torch.equal(value, saved[name]), name
    assert resumed.optimizers.optimizers["generator"].state, "moments come from the checkpoint"
    resumed.train()
    resumed.shutdown()
    assert int(resumed.pipeline.model.objective.images_seen) == 700_000 + 2 * 2


def test_networks_of_the_other_method_are_refused(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path / "set", files(4, SIZE))
    config = configured(data, tmp_path / "out", checkpoint)
    config.pipeline.model.background = False  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SystemExit) as stopped:
        trainer(config)
    assert stopped.value.code == 2
    assert "start ns-train gan3d-ballgan" in " ".join("".join(capfd.readouterr()).split())


def test_cameras_that_do_not_fit_the_snapshot_are_refused_in_a_sentence(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path / "set", files(4, SIZE))
    index = data / "images" / "dataset.json"
    entries = json.loads(index.read_text())["labels"]
    far = orbit_labels(torch.zeros(4), torch.full((4,), 0.3), 30.0).tolist()
    moved = [[name, label] for (name, _), label in zip(entries, far, strict=True)]
    index.write_text(json.dumps({"labels": moved}))
    config = configured(data, tmp_path / "out", checkpoint)
    with pytest.raises(SystemExit) as stopped:
        trainer(config)
    assert stopped.value.code == 2
    assert "radius" in "".join(capfd.readouterr())


def test_a_snapshot_without_discriminator_cannot_be_trained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = snapshot(tmp_path / "s.pkl", generator("ver1"), with_discriminator=False)
    assert main(["import", str(file), "--output", str(tmp_path / "run")]) == 0
    checkpoint = tmp_path / "run" / "nerfstudio_models" / "step-000000000.ckpt"
    data = write_folder(tmp_path / "set", files(4, SIZE))
    config = configured(data, tmp_path / "out", checkpoint)
    # The sizes of the preset would take a minute to build, and are not what is asked about.
    config.pipeline.model.discriminator.channel_max = 1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SystemExit) as stopped:
        trainer(config)
    assert stopped.value.code == 2
    assert "inference alone" in " ".join("".join(capfd.readouterr()).split())
