"""Training from label maps: what a run holds, resumes and measures, and that it learns."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.method_configs.pix2pix3d import (
    gan3d_pix2pix3d_edge_tiny,
    gan3d_pix2pix3d_tiny,
)
from nerfstudio_gan3d.metrics.config import EvaluationConfig
from nerfstudio_gan3d.training.evaluation import LabelInputs, turned
from nerfstudio_gan3d.training.trainer import GanTrainerConfig
from tests.data.sets import encode
from tests.training.micro import data_set, micro_config, trainer

MICRO = {
    "pipeline.model.labels.geometry_layers": 2,
    "pipeline.model.labels.encoder_base": 64,
    "pipeline.model.labels.encoder_max": 8,
    "pipeline.datamanager.dataparser.eval_fraction": 0.3,
    "pipeline.evaluation.num_samples": 4,
}


@pytest.mark.parametrize("kind", ["seg", "edge"])
def test_a_run_knows_its_classes_and_keeps_some_maps(tmp_path: Path, kind: str) -> None:
    method = gan3d_pix2pix3d_tiny if kind == "seg" else gan3d_pix2pix3d_edge_tiny
    data = data_set(tmp_path / "data")
    made = trainer(micro_config(data, tmp_path / "out", method, max_num_iterations=4, **MICRO))
    made.train()
    model, manager = made.pipeline.model, made.pipeline.datamanager
    assert model.config.labels.channels == (3 if kind == "seg" else 1)
    assert model.label_store is not None
    places = manager.split_indices("test")
    assert torch.equal(model.label_store.maps[:1], manager.label_maps(places[:1]))
    state = torch.load(next(made.checkpoint_dir.glob("*.ckpt")), weights_only=True)
    assert torch.equal(state["pipeline"]["_model.label_store.maps"], model.label_store.maps)
    figures = made.pipeline.evaluate().figures
    assert 0 <= figures["label_view_agreement"] <= 1
    names = {"label_rendered_miou", "edge_ap"} & set(figures)
    assert names == ({"label_rendered_miou"} if kind == "seg" else {"edge_ap"})


def test_a_stopped_run_of_labels_resumes_to_the_same_bits(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")

    def run(steps: int, name: str, **options: object) -> dict[str, torch.Tensor]:
        config = micro_config(
            data,
            tmp_path / name,
            gan3d_pix2pix3d_tiny,
            max_num_iterations=steps,
            lr_decay_start=1.0,
            **{**MICRO, **options},
        )
        made = trainer(config)
        made.train()
        return made.pipeline.state_dict()

    whole = run(8, "whole")
    run(5, "half")
    resumed = run(8, "rest", load_dir=next((tmp_path / "half").glob("**/nerfstudio_models")))
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_a_set_without_label_maps_is_refused_before_training(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")
    for file in (data / "label").glob("**/*.png"):
        file.unlink()
    config = micro_config(data, tmp_path / "out", gan3d_pix2pix3d_tiny, **MICRO)
    with pytest.raises(SystemExit) as stop:
        trainer(config)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("kind", "pixels", "sentence"),
    [
        ("seg", np.full((16, 16), 3, np.uint8), "class id 3"),
        ("seg", np.zeros((8, 8), np.uint8), "8 x 8 pixels"),
        ("edge", np.tile(np.array([0, 128, 255], np.uint8), (16, 16, 1)), "one grey channel"),
    ],
)
def test_a_bad_label_map_ends_training_in_a_sentence(
    tmp_path: Path,
    kind: str,
    pixels: np.ndarray,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = data_set(tmp_path / "data")
    for file in sorted((data / "label").glob("**/*.png")):
        file.write_bytes(encode(pixels))
    method = gan3d_pix2pix3d_tiny if kind == "seg" else gan3d_pix2pix3d_edge_tiny
    with pytest.raises(SystemExit) as stop:
        trainer(micro_config(data, tmp_path / "out", method, max_num_iterations=2, **MICRO)).train()
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert sentence in " ".join((said.err + said.out).split())


def test_the_published_weights_of_lpips_are_asked_for_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nowhere"))
    data = data_set(tmp_path / "data")
    config = micro_config(
        data,
        tmp_path / "out",
        gan3d_pix2pix3d_tiny,
        **{**MICRO, "pipeline.model.label_losses.lpips": 1.0},
    )
    with pytest.raises(SystemExit) as stop:
        trainer(config)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "vgg16-397923af.pth" in said.err + said.out


def test_cameras_turn_about_the_worlds_vertical_axis() -> None:
    angle, elevation = torch.tensor([0.4, -1.0]), torch.tensor([0.3, 0.1])
    start = orbit_labels(angle, elevation, 1.9, (0.0, 0.0, 0.0), 1.5)
    expected = orbit_labels(angle + 0.5, elevation, 1.9, (0.0, 0.0, 0.0), 1.5)
    torch.testing.assert_close(turned(start, 0.5), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(turned(start, 2 * math.pi), start, atol=1e-6, rtol=1e-5)


def test_inputs_begin_again_after_the_last_one() -> None:
    maps = torch.arange(3, dtype=torch.uint8)[:, None, None, None]
    inputs = LabelInputs(maps, torch.arange(3.0)[:, None].expand(-1, 25))
    found = inputs.rows(2, 4)
    assert found.maps.flatten().tolist() == [2, 0, 1, 2]
    assert found.poses[:, 0].tolist() == [2, 0, 1, 2]


def test_the_preset_learns_the_labels_of_the_bundled_cars(tmp_path: Path) -> None:
    """A hundred steps of the tiny preset, with half of its batch."""
    config = copy.deepcopy(gan3d_pix2pix3d_tiny.config)
    assert isinstance(config, GanTrainerConfig)
    config = replace(
        config,
        output_dir=tmp_path,
        experiment_name="cars",
        timestamp="run",
        vis="tensorboard",
        progress="none",
        max_num_iterations=100,
        steps_per_eval_image=0,
    )
    pipeline: Any = config.pipeline
    pipeline.datamanager.batch_size = 4
    pipeline.model.schedule.scenes_per_batch = 2
    made = trainer(config)
    untrained = label_scores(made)
    made.train()
    trained = label_scores(made)
    assert untrained["label_rendered_miou"] < 0.3
    assert trained["label_rendered_miou"] > untrained["label_rendered_miou"] + 0.05
    # All background would have no foreground right at all.
    assert trained["label_rendered_foreground_pixel_accuracy"] > 0.3


def label_scores(made) -> dict[str, float]:
    """Figures of twenty held-out label maps."""
    from nerfstudio_gan3d.training.evaluation import label_figures, label_inputs

    pipeline = made.pipeline
    inputs = label_inputs(pipeline.datamanager, pipeline.model.label_store, 0)
    assert inputs is not None
    few = LabelInputs(inputs.maps[:20], inputs.poses[:20])
    return label_figures(pipeline.model.generator, few, None, EvaluationConfig())
