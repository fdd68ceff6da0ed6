"""Training from images alone: cameras come from a pose prior, and nothing asks for a real one's."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.plugins.types import MethodSpecification
from torch import Tensor

from nerfstudio_gan3d.cameras import PosePrior, camera_angles
from nerfstudio_gan3d.method_configs.ballgan import gan3d_ballgan_tiny
from nerfstudio_gan3d.method_configs.eg3d import gan3d_eg3d_tiny
from nerfstudio_gan3d.method_configs.threedgen import gan3d_graf_tiny
from nerfstudio_gan3d.training.checkpoints import read_checkpoint
from nerfstudio_gan3d.training.opening import open_pipeline
from nerfstudio_gan3d.training.pipeline import GanPipeline
from tests.data.sets import encode, image, write_folder
from tests.training.micro import micro_config, trainer

STEPS, BATCH = 3, 4
RADIUS, FOV = 2.2, 30.0
FOCAL = 0.5 / math.tan(math.radians(FOV / 2))
PRIOR = PosePrior(
    kind="gaussian",
    azimuth_deg=(-40.0, 40.0),
    elevation_deg=(0.0, 20.0),
    radius=RADIUS,
    fov_deg=FOV,
)
WITHOUT_CAMERAS: dict[str, Any] = {
    "pipeline.model.discriminator.camera_conditioning": False,
    "pipeline.model.losses.camera": 0.0,
    "pipeline.model.losses.wrong_camera": 0.0,
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten photographs of 16 pixels and nothing else."""
    content = {f"{index}.png": encode(image(index, 16)) for index in range(10)}
    return write_folder(tmp_path / "images", content)


def check_cameras(labels: Tensor) -> None:
    """Each stands on the prior's sphere, with its field of view, and looks at the origin."""
    _, elevation, radius = camera_angles(labels.double())
    torch.testing.assert_close(radius, torch.full_like(radius, RADIUS), rtol=1e-5, atol=0)
    torch.testing.assert_close(labels[:, 16], torch.full_like(labels[:, 16], FOCAL))
    towards = -labels[:, [3, 7, 11]] / RADIUS
    torch.testing.assert_close(labels[:, [2, 6, 10]], towards, rtol=0, atol=1e-5)
    # Ten degrees, with a deviation of five: six of them away is out of the question.
    assert (elevation - math.radians(10)).abs().max() < math.radians(30)


@pytest.mark.parametrize(
    "method",
    [gan3d_ballgan_tiny, gan3d_eg3d_tiny, gan3d_graf_tiny],
    ids=lambda m: m.config.method_name,
)
def test_three_steps_of_training(
    images: Path, tmp_path: Path, method: MethodSpecification, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = micro_config(
        images,
        tmp_path / "out",
        method,
        max_num_iterations=STEPS,
        **WITHOUT_CAMERAS,
        pipeline__datamanager__dataparser__prior=PRIOR,
        pipeline__evaluation__num_samples=8,
    )
    made = trainer(config)
    model = made.pipeline.model
    # The box's circumscribed sphere seen from the prior's cameras, and the viewer among them.
    half = math.dist(model.config.field.box, (0, 0, 0)) / 2
    assert model.config.field.near == pytest.approx(RADIUS - half, rel=1e-5)
    assert model.config.field.far == pytest.approx(RADIUS + half, rel=1e-5)
    assert model.config.view_radius == pytest.approx(RADIUS, rel=1e-5)
    assert model.config.view_focal == pytest.approx(FOCAL, rel=1e-5)
    assert made.pipeline.datamanager.next_images(0)["label"] is None

    rendered: list[Tensor] = []
    losses = model.training_losses

    def watched(reals: Tensor, labels: Tensor, fakes: Tensor, *rest: Any) -> Any:
        rendered.append(fakes)
        return losses(reals, labels, fakes, *rest)

    monkeypatch.setattr(model, "training_losses", watched)
    before = {name: value.clone() for name, value in model.named_parameters()}
    made.train()
    after = dict(model.named_parameters())
    assert [len(labels) for labels in rendered] == [BATCH] * STEPS
    labels = torch.cat(rendered)
    check_cameras(labels)
    assert len(labels.unique(dim=0)) == BATCH * STEPS
    for player in ("generator.", "discriminator."):
        moved = [name for name in before if player in name and "ema" not in name]
        assert any(not torch.equal(before[name], after[name]) for name in moved)
    assert all(bool(value.isfinite().all()) for value in after.values())

    (path,) = made.checkpoint_dir.iterdir()
    state = read_checkpoint(path)
    assert state["step"] == STEPS - 1
    assert state["pipeline"]["_model.objective.images_seen"] == BATCH * STEPS

    # Commands open it, and without the images the checkpoint's cameras are the prior's.
    shutil.rmtree(images)
    _, pipeline, _ = open_pipeline(config.get_base_dir() / "config.yml")
    assert isinstance(pipeline, GanPipeline)
    check_cameras(pipeline.datamanager.sample_labels(50, 0))
    results = pipeline.get_average_eval_image_metrics()
    assert results["num_samples"] == 8
    assert not [name for name in results if name.startswith(("real_azimuth", "truth_"))]


def test_cameras_are_spread_as_the_prior_says(images: Path, tmp_path: Path) -> None:
    made = trainer(
        micro_config(
            images,
            tmp_path / "out",
            **WITHOUT_CAMERAS,
            pipeline__datamanager__dataparser__prior=PRIOR,
        )
    )
    labels = made.pipeline.datamanager.sample_labels(20_000, 5)
    azimuth, elevation, _ = camera_angles(labels.double())
    # The half width is two deviations. A mean of 20000 is off by less than 0.03 deviations.
    for angle, middle, deviation in ((azimuth, 0.0, 20.0), (elevation, 10.0, 5.0)):
        degrees = angle.rad2deg()
        assert float(degrees.mean()) == pytest.approx(middle, abs=0.03 * deviation)
        assert float(degrees.std()) == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize("left", list(WITHOUT_CAMERAS))
def test_what_needs_real_cameras_is_refused_before_training(
    images: Path, tmp_path: Path, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of the settings that use a real image's camera, alone at its preset."""
    options = {name: value for name, value in WITHOUT_CAMERAS.items() if name != left}
    with pytest.raises(SystemExit) as stop:
        trainer(micro_config(images, tmp_path / "out", **options))
    assert stop.value.code == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("gan3d: the data set has no camera labels: set --")
    named = [name for name in WITHOUT_CAMERAS if name.replace("_", "-") in sentence]
    assert named == [left]
