"""Training Scenes of images: both layouts, resuming to the same bits, kept images, schedules."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from nerfstudio.plugins.types import MethodSpecification
from nerfstudio.utils import profiler, writer

from nerfstudio_gan3d.image_views import STORED_IMAGES
from nerfstudio_gan3d.method_configs.g3dr import gan3d_g3dr, gan3d_g3dr_tiny
from nerfstudio_gan3d.models.g3dr import G3drModel
from nerfstudio_gan3d.training.checkpoints import read_checkpoint
from nerfstudio_gan3d.training.optimizers import LrSchedule
from nerfstudio_gan3d.training.trainer import GanTrainer, GanTrainerConfig, validate
from tests.data.sets import encode, files, rgbd_files, write_folder
from tests.training.micro import OPTIONS, configured, trainer

# What `micro` says of GANs' networks has no place here.
SHARED = {name: value for name, value in OPTIONS.items() if not name.startswith("pipeline")}
MICRO: dict[str, Any] = {
    "pipeline.model.losses.lpips": 0.0,
    "pipeline.model.losses.clip": 0.0,
    "pipeline.model.image_resolution": 16,
    "pipeline.model.samples": 4,
    "pipeline.model.importance_samples": 3,
    "pipeline.model.unet.width": 8,
    "pipeline.model.unet.multipliers": (1, 2),
    "pipeline.model.unet.position_channels": 2,
    "pipeline.model.planes.channels": 4,
    "pipeline.model.planes.hidden_dim": 8,
    "pipeline.model.novel.share_reached": 0.0,
    "pipeline.datamanager.batch_size": 2,
}


@pytest.fixture(autouse=True)
def fresh_writers() -> Iterator[None]:
    """nerfstudio keeps its writers in lists of the process."""
    yield
    for kept in (writer.EVENT_WRITERS, writer.EVENT_STORAGE, profiler.PROFILER):
        kept.clear()


def g3dr_config(
    data: Path, output: Path, method: MethodSpecification = gan3d_g3dr_tiny, **options: Any
) -> GanTrainerConfig:
    """Either method at a few pixels, without networks that judge images."""
    places = {"pipeline.datamanager.data": data, "output_dir": output}
    return configured(method, {**SHARED, **MICRO, **places, **options})


def depth_set(folder: Path) -> Path:
    """EG3D's layout, 2 away: a wall at a z-depth of 2 on the left, and nothing on the right."""
    content = files(6, 16)
    pixels = np.full((16, 16), 20000, np.uint16)
    pixels[:, 8:] = 0
    for name in content:
        if name.startswith("depth/"):
            content[name] = encode(pixels)
    return write_folder(folder, content)


def official_set(folder: Path) -> Path:
    """G3DR's layout."""
    return write_folder(folder, rgbd_files(4, 16))


def checkpoint(made: GanTrainer) -> dict[str, Any]:
    (path,) = made.checkpoint_dir.iterdir()
    return read_checkpoint(path)


def test_bundled_layout_trains_keeps_images_and_is_measured(tmp_path: Path) -> None:
    data = depth_set(tmp_path / "set")
    options: dict[str, Any] = {"pipeline.model.box_side": 2.0, "pipeline.model.wall": 0.5}
    made = trainer(g3dr_config(data, tmp_path / "out", max_num_iterations=4, **options))
    model = cast(G3drModel, made.pipeline.model)
    before = {name: value.clone() for name, value in model.generator.named_parameters()}
    # The data set's cameras decide.
    assert (model.config.view_radius, model.config.view_focal) == pytest.approx((2.0, 1.5))
    made.train()
    assert int(model.images_seen) == 8
    changed = [n for n, p in model.generator.named_parameters() if not torch.equal(p, before[n])]
    assert len(changed) > 0.9 * len(before)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    state = checkpoint(made)["pipeline"]
    images, distances = (state[f"_model.image_store.{n}"] for n in ("images", "distances"))
    places = made.pipeline.datamanager.split_indices("test")
    given = made.pipeline.datamanager.rgbd([places[i * len(places) // 16] for i in range(16)])
    assert len(images) == STORED_IMAGES
    assert torch.equal(images, given[0])
    # The wall of the file is 2 away along the axis, and half a half side behind it the one of the
    # pixels without depth: 2.5.
    ratio = distances[0, 0] / distances[0, 0].flip(1)
    torch.testing.assert_close(ratio[:, :8], torch.full((16, 8), 2 / 2.5), atol=1e-4, rtol=0)
    middle = distances[0, 0, 8, 7].item()
    assert middle == pytest.approx(2 * np.sqrt(1 + 2 * (1 / 32 / 1.5) ** 2), rel=1e-4)
    found = made.pipeline.evaluate()
    assert found.provenance["images"] == len(places)
    assert found.provenance["depth_range"] == "1.0 to 3.0"
    assert {"canonical_psnr", "canonical_depth_error", "non_flatness"} <= set(found.figures)
    grids = made.pipeline.get_eval_image_metrics_and_images(0)[1]
    assert grids["input"].shape == grids["novel_depth"].shape
    shown = grids["input"][2:18, 2:18].permute(2, 0, 1)
    torch.testing.assert_close(shown, images[0] / 255, atol=1e-3, rtol=0)


def test_the_published_layout_trains_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    data = official_set(tmp_path / "set")

    def run(name: str, **options: Any) -> GanTrainer:
        config = g3dr_config(
            data,
            tmp_path / name,
            gan3d_g3dr,
            max_num_iterations=6,
            save_only_latest_checkpoint=False,
            steps_per_save=3,
            **options,
        )
        made = trainer(config)
        made.train()
        return made

    whole = run("whole")
    model = cast(G3drModel, whole.pipeline.model)
    # The first pixel of the first file is 0, which is where the box begins.
    assert model.images.distances[0, 0, 0, 0].item() == pytest.approx(4, abs=1e-3)
    assert model.images.distances.amax() <= 6
    rest = run("rest", load_dir=whole.checkpoint_dir, load_step=3)
    states = [made.pipeline.state_dict() for made in (whole, rest)]
    assert states[0].keys() == states[1].keys()
    assert [n for n, value in states[0].items() if not torch.equal(value, states[1][n])] == []
    adams = [made.optimizers.optimizers["generator"] for made in (whole, rest)]
    moments = [adam.state_dict()["state"] for adam in adams]
    for one, other in zip(moments[0].values(), moments[1].values(), strict=True):
        assert torch.equal(one["exp_avg"], other["exp_avg"])
    # The rate of the last step, and beta1, which goes the other way.
    schedule = LrSchedule(0.02, 2e-10 / 5e-5, 0.02, 2e-6 / 5e-5)
    (group,) = adams[1].param_groups
    assert group["lr"] == pytest.approx(5e-5 * schedule.factor(5 / 6))
    assert group["betas"][0] == pytest.approx(0.95 - 0.1 * schedule.height(5 / 6))
    assert group["betas"][1] == 0.99


def test_a_set_without_depth_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {k: v for k, v in files(6, 16).items() if not k.startswith("depth/")}
    data = write_folder(tmp_path / "set", content)
    with pytest.raises(SystemExit) as stop:
        trainer(g3dr_config(data, tmp_path / "out"))
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "the set has no depth" in " ".join((said.err + said.out).split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr_warmup": 1.5}, "lr_warmup = 1.5"),
        ({"lr_warmup_factor": -1.0}, "lr_warmup_factor = -1.0"),
        ({"lr_warmup": 0.6}, "lr_warmup = 0.6 and lr_decay_start = 0.5"),
        ({"beta1_cycle": (0.9, 1.0)}, r"beta1_cycle = \(0.9, 1.0\)"),
        ({"beta1_cycle": (0.9, 0.8), "lr_decay_start": 1.0}, "beta1_cycle .* constant"),
    ],
)
def test_impossible_schedules_are_named(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    config = g3dr_config(tmp_path, tmp_path, **options)
    with pytest.raises(ValueError, match=words):
        validate(config)


def test_the_published_schedule_is_one_cycle() -> None:
    """torch's OneCycleLR falls from where it has risen to; the sum of both shares is all."""
    config = copy.deepcopy(gan3d_g3dr.config)
    assert isinstance(config, GanTrainerConfig)
    config.machine.device_type = "cpu"
    validate(config)
    assert config.lr_warmup == config.lr_decay_start == 0.02
