"""Training of surfaces: the shell narrows with the share of training that is done, and a run that
goes on from a checkpoint is the same in every bit."""

from pathlib import Path

import pytest
import torch

from nerfstudio_gan3d.method_configs.threedgen import gan3d_3dgen_tiny, gan3d_graf_tiny
from tests.training.micro import data_set, micro_config, trainer

MICRO = {"pipeline.model.losses.normal_points": 8, "pipeline.model.field.surface.march_steps": 6}


def test_a_run_from_a_checkpoint_is_the_run_that_went_on(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")

    def run(name: str, **options: object) -> dict[str, torch.Tensor]:
        settings = {"save_only_latest_checkpoint": False, "steps_per_save": 5, **MICRO, **options}
        config = micro_config(
            data, tmp_path / name, gan3d_3dgen_tiny, max_num_iterations=8, **settings
        )
        made = trainer(config)
        made.train()
        return made.pipeline.state_dict()

    whole = run("whole")
    folder = next((tmp_path / "whole").glob("**/nerfstudio_models"))
    resumed = run("rest", load_dir=folder, load_step=5)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    # The last of eight steps began when seven eighths were done.
    assert float(whole["_model.generator.training_share"]) == pytest.approx(7 / 8)
    assert float(whole["_model.generator_ema.training_share"]) == pytest.approx(7 / 8)


def test_the_baseline_trains(tmp_path: Path) -> None:
    """GRAF's density in the surface's place, by the same code: weights move, and stay finite."""
    data = data_set(tmp_path / "data")
    config = micro_config(data, tmp_path / "out", gan3d_graf_tiny, max_num_iterations=3)
    made = trainer(config)
    before = {name: value.clone() for name, value in made.pipeline.model.named_parameters()}
    made.train()
    after = dict(made.pipeline.model.named_parameters())
    field = [name for name in before if name.startswith("generator.field.")]
    assert field
    assert all(not torch.equal(before[name], after[name]) for name in field)
    assert all(bool(value.isfinite().all()) for value in after.values())
