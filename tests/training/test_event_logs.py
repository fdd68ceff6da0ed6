"""What TensorBoard and wandb get of a training: scalars of every step, and grids of pictures."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import wandb
from nerfstudio.utils import profiler, writer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nerfstudio_gan3d.method_configs.pix2pix3d import gan3d_pix2pix3d_tiny
from nerfstudio_gan3d.training.opening import open_pipeline
from nerfstudio_gan3d.training.pipeline import GanPipeline
from nerfstudio_gan3d.training.trainer import GanTrainerConfig
from tests.training.micro import data_set, micro_config, trainer

STEPS = 3
SIDE = 4 * 16 + 5 * 2
"""Four images of 16 pixels and the lines between and around them."""
OPTIONS: dict[str, Any] = {
    "max_num_iterations": STEPS,
    "logging.steps_per_log": 1,
    "lr_decay_start": 0.0,
    # Pictures and figures after the last step, whose weights the checkpoint keeps.
    "steps_per_eval_image": STEPS - 1,
    "steps_per_eval_all_images": STEPS - 1,
    "pipeline.evaluation.num_samples": 4,
}
LABEL_OPTIONS = {
    "pipeline.model.labels.geometry_layers": 2,
    "pipeline.model.labels.encoder_base": 64,
    "pipeline.model.labels.encoder_max": 8,
}


class Logged(NamedTuple):
    """What arrived: scalars by name and step, pictures of the last step by name."""

    scalars: dict[str, dict[int, float]]
    pictures: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("data") / "set")


def train(config: GanTrainerConfig) -> None:
    """Trains with writers of its own; nerfstudio keeps them in lists of the process."""
    kept = (writer.EVENT_WRITERS, writer.EVENT_STORAGE, profiler.PROFILER)
    for former in kept:
        former.clear()
    trainer(config).train()
    for made in writer.EVENT_WRITERS:
        if isinstance(made, writer.TensorboardWriter):
            made.tb_writer.close()
    for made in kept:
        made.clear()


def tensorboard_of(folder: Path) -> Logged:
    """What is in the one event file below a folder."""
    (file,) = folder.glob("**/events.out.tfevents*")
    events = EventAccumulator(str(file), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in tags["scalars"]
    }
    pictures = {}
    for name in tags["images"]:
        (event,) = events.Images(name)
        assert event.step == STEPS - 1
        picture = np.array(Image.open(io.BytesIO(event.encoded_image_string)))
        assert (event.height, event.width, 3) == picture.shape
        pictures[name] = picture
    return Logged(scalars, pictures)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> GanTrainerConfig:
    """The configuration of a run with TensorBoard."""
    config = micro_config(data, tmp_path_factory.mktemp("run"), vis="tensorboard", **OPTIONS)
    train(config)
    return config


@pytest.fixture(scope="module")
def logged(run: GanTrainerConfig) -> Logged:
    return tensorboard_of(run.get_base_dir())


def test_scalars_of_every_step(logged: Logged) -> None:
    scalars = logged.scalars
    every = {step: 4 * (step + 1) / 1000 for step in range(STEPS)}
    assert scalars["Train Metrics Dict/kimg"] == pytest.approx(every)
    # Half a cosine from 1 down to 0.1, at 0, 1/3 and 2/3 of its way: 0.1 + 0.9 * (1, 0.75, 0.25).
    rates = {0: 0.003, 1: 0.003 * 0.775, 2: 0.003 * 0.325}
    for player in ("generator", "discriminator"):
        assert scalars[f"learning_rate/{player}"] == pytest.approx(rates)
        norms = scalars[f"Train Metrics Dict/gradient_norm/{player}"]
        assert set(norms) == set(range(STEPS))
        assert all(np.isfinite(norm) and norm > 0 for norm in norms.values())
        assert set(scalars[f"Train Loss Dict/{player}"]) == set(range(STEPS))
    for name in ("logit_real", "logit_fake"):
        assert set(scalars[f"Train Metrics Dict/{name}"]) == set(range(STEPS))
    # Two steps between changes, from the initial probability on.
    assert scalars["Train Metrics Dict/augment_p"][0] == pytest.approx(0.3)
    assert set(scalars["Train Metrics Dict/repaired_gradients"].values()) == {0.0}
    # R1 is due at every second step.
    assert set(scalars["Train Loss Dict/r1"]) == {0, 2}
    losses = [values for name, values in scalars.items() if name.startswith("Train Loss Dict/")]
    for step in range(STEPS):
        total = sum(values.get(step, 0.0) for values in losses)
        assert scalars["Train Loss"][step] == pytest.approx(total, rel=1e-5)


def test_pictures_are_those_that_the_checkpoint_makes(
    run: GanTrainerConfig, logged: Logged
) -> None:
    assert set(logged.pictures) == {f"Eval Images/{n}" for n in ("samples", "alpha", "depth")}
    _, pipeline, _ = open_pipeline(run.get_base_dir() / "config.yml")
    assert isinstance(pipeline, GanPipeline)
    _, grids = pipeline.get_eval_image_metrics_and_images(0)
    for name, picture in logged.pictures.items():
        assert picture.shape == (SIDE, SIDE, 3)
        expected = grids[name.removeprefix("Eval Images/")].clamp(0, 1).numpy() * 255
        assert np.abs(picture - expected).max() <= 1
        # Lines of black around every image, and something in each.
        cells = [
            picture[r : r + 18, c : c + 18] for r in range(0, 72, 18) for c in range(0, 72, 18)
        ]
        for cell in cells:
            assert not cell[:2].any()
            assert not cell[:, :2].any()
            assert cell[2:, 2:].std() > 0
    for name in ("alpha", "depth"):
        grey = logged.pictures[f"Eval Images/{name}"]
        assert (grey == grey[..., :1]).all()
    # Depth is shown of the foreground alone.
    alpha, depth = (logged.pictures[f"Eval Images/{n}"] for n in ("alpha", "depth"))
    assert (depth <= alpha).all()


def test_figures_of_an_evaluation_are_scalars(logged: Logged) -> None:
    place = "Eval Images Metrics Dict (all images)"
    coverage = logged.scalars[f"{place}/coverage_mean"]
    assert set(coverage) == {STEPS - 1}
    assert 0 < coverage[STEPS - 1] < 1
    # The 256 pixels of each of the set's masks hold 0 to 255, once each.
    assert logged.scalars[f"{place}/truth_coverage_mean"][STEPS - 1] == pytest.approx(0.5)


def test_a_method_of_label_maps_shows_them_beside_its_labels(data: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, **LABEL_OPTIONS, "steps_per_eval_all_images": 0}
    train(micro_config(data, tmp_path, gan3d_pix2pix3d_tiny, vis="tensorboard", **options))
    found = tensorboard_of(tmp_path)
    names = ("samples", "alpha", "depth", "labels", "label_maps")
    assert set(found.pictures) == {f"Eval Images/{name}" for name in names}
    assert {picture.shape for picture in found.pictures.values()} == {(SIDE, SIDE, 3)}
    # The set's colours of its three classes, beside the black lines.
    colors = {tuple(c) for c in found.pictures["Eval Images/label_maps"].reshape(-1, 3).tolist()}
    assert colors == {(0, 0, 0), (255, 0, 0), (0, 0, 255)}


class FakeWandb:
    """Stands in for the service: keeps what is logged."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.scalars: dict[str, dict[int, float]] = defaultdict(dict)
        self.pictures: dict[str, np.ndarray] = {}
        self.config: dict[str, Any] = {}

    def init(self, **options: Any) -> None:
        self.started.append(options)

    def log(self, values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.ndim == 3:
                assert step == STEPS - 1
                self.pictures[name] = value.permute(1, 2, 0).numpy()
            else:
                self.scalars[name][step] = float(value)

    def update(self, values: dict[str, Any], allow_val_change: bool) -> None:
        self.config |= values


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    service = FakeWandb()
    monkeypatch.setattr(wandb, "init", service.init)
    monkeypatch.setattr(wandb, "log", service.log)
    monkeypatch.setattr(wandb, "config", SimpleNamespace(update=service.update))
    monkeypatch.setattr(wandb, "Image", lambda image: image)
    return service


def test_wandb_gets_the_same(data: Path, tmp_path: Path, logged: Logged, fake: FakeWandb) -> None:
    config = micro_config(data, tmp_path, vis="wandb", **OPTIONS)
    train(config)
    (started,) = fake.started
    assert started["name"] == "micro"
    assert Path(started["dir"]).is_relative_to(config.get_base_dir())
    assert fake.config["method_name"] == "gan3d-ballgan-tiny"
    assert not list(tmp_path.glob("**/events.out.tfevents*"))

    assert set(fake.scalars) == set(logged.scalars)
    for name, values in logged.scalars.items():
        assert set(fake.scalars[name]) == set(values), name
        if name.startswith(("Train Loss", "Train Metrics", "learning_rate", "Eval Images Metrics")):
            assert fake.scalars[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    assert set(fake.pictures) == set(logged.pictures)
    for name, picture in logged.pictures.items():
        assert np.abs(fake.pictures[name].clip(0, 1) * 255 - picture).max() <= 1, name
