"""`ns-eval` and `gan3d evaluate` with an evaluator: every kind of figure in their JSON."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from nerfstudio.scripts import eval as ns_eval
from nerfstudio.utils import profiler, writer

from nerfstudio_gan3d.training.evaluation import generated_batches
from nerfstudio_gan3d.training.opening import open_pipeline
from nerfstudio_gan3d.training.pipeline import GanPipeline
from tests.cli.test_commands import refuse, succeed
from tests.data.sets import encode, labels, write_folder
from tests.metrics.reader import Reader, save
from tests.training.micro import micro_config, trainer

SIDE = 16
IMAGES, HELD_OUT = 10, 2
STEPS = 2
SAMPLES, SEED, TRUNCATION = 20, 3, 0.7
DEPTH = 2.5
READ_DEPTH = 2.0
"""What `Reader` takes every depth for."""


def painted_set(folder: Path) -> Path:
    """Images from which `Reader` reads their cameras' azimuths and their masks, the left halves."""
    left = np.zeros((SIDE, SIDE), bool)
    left[:, : SIDE // 2] = True
    rows = labels(IMAGES)
    content: dict[str, bytes] = {}
    for index, row in enumerate(rows):
        name = f"{index}.png"
        azimuth = np.arctan2(row[3], row[11])
        color = np.empty((SIDE, SIDE, 3))
        color[..., 0], color[..., 1] = 0.9 * np.sin(azimuth), 0.9 * np.cos(azimuth)
        color[..., 2] = np.where(left, 0.5, -0.5)
        content[f"images/{name}"] = encode(np.round((color + 1) * 127.5).astype(np.uint8))
        content[f"mask/{name}"] = encode(np.where(left, 255, 0).astype(np.uint8))
        content[f"depth/{name}"] = encode(np.where(left, int(DEPTH * 10000), 0).astype(np.uint16))
    entries = [[f"{index}.png", row] for index, row in enumerate(rows)]
    content["images/dataset.json"] = json.dumps({"labels": entries}).encode()
    return write_folder(folder, content)


class Measured(NamedTuple):
    """A run that knows its evaluator, and what `ns-eval` said of it."""

    config: Path
    evaluator: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("measured")
    evaluator = save(Reader(), folder / "reader.pt", size=SIDE)
    config = micro_config(
        painted_set(folder / "set"),
        folder / "outputs",
        max_num_iterations=STEPS,
        pipeline__datamanager__dataparser__eval_fraction=HELD_OUT / IMAGES,
        pipeline__evaluation__features="torchscript",
        pipeline__evaluation__evaluator=evaluator,
        pipeline__evaluation__evaluator_size=SIDE,
        pipeline__evaluation__num_samples=SAMPLES,
        pipeline__evaluation__seed=SEED,
        pipeline__evaluation__truncation=TRUNCATION,
    )
    made = trainer(config)
    made.train()
    made.shutdown()
    path = config.get_base_dir() / "config.yml"
    yield Measured(path, evaluator, run_ns_eval(path, folder / "figures.json"))
    for kept in (writer.EVENT_WRITERS, writer.EVENT_STORAGE, profiler.PROFILER):
        kept.clear()


def run_ns_eval(config: Path, output: Path) -> dict[str, Any]:
    """`ns-eval` in this process; its JSON."""
    with pytest.MonkeyPatch.context() as patch:
        words = ["ns-eval", "--load-config", str(config), "--output-path", str(output)]
        patch.setattr(sys, "argv", words)
        ns_eval.entrypoint()
    return json.loads(output.read_text())


def test_what_was_measured_is_said(measured: Measured) -> None:
    report = measured.report
    assert report["method_name"] == "gan3d-ballgan-tiny"
    assert Path(report["checkpoint"]).name == f"step-{STEPS - 1:09d}.ckpt"
    digest = hashlib.sha256(measured.evaluator.read_bytes()).hexdigest()[:8]
    expected = {
        "feature_space": f"torchscript:reader.pt@sha256:{digest}",
        "num_samples": SAMPLES,
        # Those that were trained on.
        "num_reals": IMAGES - HELD_OUT,
        "seed": SEED,
        "truncation": TRUNCATION,
        "kernel_samples": SAMPLES,
        "kernel_reals": IMAGES - HELD_OUT,
        "resolution": SIDE,
        "real_resolution": SIDE,
        "alpha_resolution": SIDE,
        # Batches of four.
        "images_seen": 4 * STEPS,
        "samples_per_ray": 4,
    }
    assert {name: report["results"].get(name) for name in expected} == expected


def test_figures_of_the_real_images_are_those_painted(measured: Measured) -> None:
    results = measured.report["results"]
    # 8 bits hold an azimuth to a quarter of a degree. The cameras rise from 0.1 to 0.7 radians in
    # ten steps, and the evaluator says 0: of the first eight the median is the mean of two.
    assert results["real_azimuth_error_median_deg"] < 0.3
    elevation = np.degrees(np.linspace(0.1, 0.7, IMAGES)[[3, 4]].mean())
    assert results["real_elevation_error_median_deg"] == pytest.approx(elevation, rel=1e-4)
    assert results["real_mask_iou"] == 1
    assert results["real_depth_abs_rel"] == pytest.approx((DEPTH - READ_DEPTH) / DEPTH)
    assert results["truth_coverage_mean"] == 0.5
    assert results["truth_foreground_depth_mean"] == pytest.approx(DEPTH)


def test_figures_of_the_generated_images_agree_with_a_plain_twin(measured: Measured) -> None:
    results = measured.report["results"]
    _, pipeline, _ = open_pipeline(measured.config)
    assert isinstance(pipeline, GanPipeline)
    generator, data = pipeline.model.generator_ema, pipeline.datamanager
    with torch.no_grad():
        batches = list(generated_batches(generator, data, pipeline.config.evaluation))
    image, label, alpha, depth = (
        np.concatenate([column.numpy() for column in columns]).astype(np.float64)
        for columns in zip(*batches, strict=True)
    )
    assert len(image) == SAMPLES
    seen = np.round((image.clip(-1, 1) + 1) * 127.5) / 127.5 - 1
    colour = seen.mean((2, 3))
    real = np.stack([data.image_set.image(i).mean((0, 1)) for i in range(IMAGES - HELD_OUT)])
    real = real / 127.5 - 1

    # What is drawn does not depend on how many samples go through the generator together.
    by_seven = replace(pipeline.config.evaluation, batch_size=7)
    with torch.no_grad():
        others = list(generated_batches(generator, data, by_seven))
    assert [len(part.image) for part in others] == [7, 7, 6]
    torch.testing.assert_close(
        torch.cat([part.image for part in others]), torch.cat([part.image for part in batches])
    )

    assert results["frechet_distance"] == pytest.approx(frechet(colour, real), rel=1e-3)
    assert results["kernel_distance"] == pytest.approx(kernel(colour, real), rel=1e-3)

    azimuth = np.arctan2(label[:, 3], label[:, 11])
    elevation = np.arcsin(label[:, 7] / 2)  # The cameras' distance is 2.
    read = np.arctan2(colour[:, 0], colour[:, 1])
    error = np.degrees(np.abs(np.angle(np.exp(1j * (read - azimuth)))))
    median = pytest.approx(np.median(error), rel=1e-3)
    assert results["azimuth_error_median_deg"] == median
    median = pytest.approx(np.degrees(np.median(elevation)), rel=1e-4)
    assert results["elevation_error_median_deg"] == median

    said, solid = seen[:, 2:] > 0, alpha > 0.5
    union = (said | solid).sum((1, 2, 3))
    overlap = np.where(union > 0, (said & solid).sum((1, 2, 3)) / np.maximum(union, 1), 1)
    assert results["mask_iou"] == pytest.approx(overlap.mean(), rel=1e-4)
    common = said & solid & (depth > 0)
    relative = np.abs(READ_DEPTH - depth) / np.where(common, depth, 1)
    errors = [relative[i][common[i]].mean() for i in range(SAMPLES) if common[i].any()]
    assert results["depth_common_percent"] == pytest.approx(100 * len(errors) / SAMPLES)
    assert errors, "no sample where foreground is seen and rendered: the depth is not tested"
    assert results["depth_abs_rel"] == pytest.approx(np.mean(errors), rel=1e-4)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two sets of features; a root's trace is the sum of the roots of the
    eigenvalues, and these are real and not negative for a product of covariances."""
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    roots = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(0))
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(apart + np.trace(cov_a) + np.trace(cov_b) - 2 * roots.sum())


def kernel(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared discrepancy with the cubic kernel, pair by pair."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    def within(rows: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return float(np.mean([k(rows[i], rows[j]) for i, j in pairs]))

    return within(a) + within(b) - 2 * float(np.mean([k(x, y) for x in a for y in b]))


def test_the_same_call_gives_the_same_figures(measured: Measured, tmp_path: Path) -> None:
    again = run_ns_eval(measured.config, tmp_path / "again.json")
    assert again == measured.report


def test_gan3d_evaluate_gives_the_same_figures(
    measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--load-config", measured.config, "--output-path", "figures.json"]
    words += ["--evaluator", measured.evaluator, "--evaluator-size", SIDE]
    words += ["--num-samples", SAMPLES, "--truncation", TRUNCATION]
    succeed(capsys, *words, "--seed", SEED)
    assert json.loads(Path("figures.json").read_text()) == measured.report
    succeed(capsys, *words, "--seed", SEED + 1)
    other = json.loads(Path("figures.json").read_text())["results"]
    results = measured.report["results"]
    assert other["seed"] == SEED + 1
    assert other["frechet_distance"] != results["frechet_distance"]
    assert other["real_mask_iou"] == results["real_mask_iou"]


def test_an_evaluator_that_is_gone_is_one_sentence(
    measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = measured.evaluator.rename(measured.evaluator.with_name("moved.pt"))
    try:
        with pytest.raises(SystemExit) as caught:
            run_ns_eval(measured.config, tmp_path / "again.json")
    finally:
        moved.rename(measured.evaluator)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("gan3d: ")
    assert str(measured.evaluator) in told


def test_inception_weights_that_are_gone_are_named(
    measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--load-config", measured.config, "--num-samples", 2, "--inception"]
    told = refuse(capsys, *words, "--inception-weights", "a.pth")
    assert f"the Inception weights are not at {Path('a.pth').absolute()}: " in told
