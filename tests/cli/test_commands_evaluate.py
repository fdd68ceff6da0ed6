"""`gan3d evaluate`: figures of meshes in its JSON, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from torch import Tensor, nn

from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.metrics.meshes import (
    mesh_cameras,
    mesh_figures,
    mesh_quality,
    scene_mesh,
    seen_points,
)
from nerfstudio_gan3d.run import Run
from tests.cli.test_commands import refuse, succeed
from tests.metrics.reader import save
from tests.training.micro import micro_config

ALWAYS = {"mesh_nonempty", "mesh_watertight", "mesh_single"}


@pytest.mark.parametrize("kind", ["trained", "labelled"])
def test_figures_of_meshes(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    path: Path = request.getfixturevalue(kind)
    words = ["evaluate", "--load-config", path, "--num-samples", 4, "--seed", 3]
    words += ["--truncation", 0.7, "--output-path", "new/figures.json"]
    succeed(capsys, *words, "--mesh-samples", 2, "--mesh-resolution", 16)
    results = json.loads(Path("new/figures.json").read_text())["results"]
    assert (results["mesh_samples"], results["mesh_resolution"]) == (2, 16)
    # The meshes are those of the seeds from --seed on, as every command makes them.
    run: Run = request.getfixturevalue("run" if kind == "trained" else "labelled_run")
    settings = run.settings
    cameras = mesh_cameras(settings.view_radius, settings.view_focal, settings.view_pivot)
    qualities = []
    for row in range(2):
        scene = run.scene(SceneRequest(seed=3 + row, truncation=0.7, label=row))
        mesh = scene_mesh(scene, 16)
        assert mesh is not None
        seen = seen_points(scene, cameras, run.generator.settings)
        qualities.append(mesh_quality(mesh, seen))
    expected = mesh_figures(qualities)
    assert ALWAYS | {"mesh_chamfer", "mesh_normal_consistency"} <= set(expected)
    assert {name: results[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert ("label_maps" in results) == (kind == "labelled")


def test_a_copied_run_is_measured_by_its_own_checkpoint(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained.parent, copy)
    words = ["--num-samples", 4, "--output-path", "figures.json"]
    succeed(capsys, "evaluate", "--load-config", copy / "config.yml", *words)
    used = Path(json.loads(Path("figures.json").read_text())["checkpoint"])
    assert used.parent == copy / "nerfstudio_models"


def test_no_meshes_unless_they_are_asked_for(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--load-config", trained, "--num-samples", 4]
    succeed(capsys, *words, "--output-path", "figures.json")
    report = json.loads(Path("figures.json").read_text())
    assert report["results"]["num_samples"] == 4
    assert not [name for name in report["results"] if name.startswith("mesh")]


def test_a_classifier_gives_an_inception_score(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One class alone is the same for every image, whatever it shows."""

    class OneClass(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean((2, 3)), x[:, :1, 0, 0]

    save(OneClass(), Path("one.pt"), size=8)
    words: list[object] = ["evaluate", "--load-config", labelled, "--num-samples", 10]
    both = ["--evaluator-outputs", "features", "class_logits"]
    told = refuse(capsys, *words, *both)
    assert "--evaluator-outputs names what --evaluator returns; give that file." in told
    words += ["--evaluator", "one.pt", "--evaluator-size", 8]
    assert "returns 2 output(s) and evaluator_outputs names 0" in refuse(capsys, *words)
    succeed(capsys, *words, *both, "--output-path", "figures.json")
    results = json.loads(Path("figures.json").read_text())["results"]
    assert results["feature_space"].startswith("torchscript:one.pt@sha256:")
    assert (results["inception_score"], results["inception_score_std"]) == (1, 0)


def test_impossible_meshes_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: object) -> str:
        return refuse(capsys, "evaluate", "--load-config", trained, *words)

    assert "--mesh-samples is -1; it must be 0 (no meshes) or more." in told("--mesh-samples", -1)
    for resolution in (7, 513):
        wrong = told("--mesh-samples", 1, "--mesh-resolution", resolution)
        assert f"--mesh-resolution is {resolution}; it must lie between 8 and 512 cells." in wrong


def test_what_cannot_be_measured_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: object, config: object = "gone.yml") -> str:
        return refuse(capsys, "evaluate", "--load-config", config, *words)

    assert "--num-samples is 1; it must be at least 2." in told("--num-samples", 1)
    assert "--seed is -1; it must lie between 0 and 10^18." in told("--seed", -1)
    assert "--evaluator is gone.pt; there is no such file." in told("--evaluator", "gone.pt")
    sizes = "--evaluator", trained, "--evaluator-size", 0
    assert "--evaluator-size is 0; it must lie between 8 and 4096 pixels." in told(*sizes)
    assert "--allow-download belong to --inception." in told("--allow-download")
    assert "--allow-download belong to --inception." in told("--inception-weights", "a.pth")
    # Where the figures go is looked at before they are measured.
    Path("folder").mkdir()
    assert "--output-path is folder, which is a folder" in told("--output-path", "folder")
    assert "nothing can be written to the folder /proc" in told("--output-path", "/proc/a.json")
    assert "gone.yml: no such file" in told()
    Path("list.yml").write_text("[1, 2]")
    assert "list.yml: not the configuration of a gan3d method" in told(config="list.yml")
    Path("broken.yml").write_text("a: [")
    assert "broken.yml: not a configuration that this version can read" in told(config="broken.yml")
    untrained = micro_config(Path("set"), Path("outputs").absolute())
    untrained.save_config()
    written = untrained.get_base_dir() / "config.yml"
    folder = untrained.get_checkpoint_dir()
    assert f"{folder}: there is no such directory of checkpoints" in told(config=written)
    folder.mkdir()
    assert f"{folder}: there is no step-*.ckpt" in told(config=written)
    (folder / "step-000000007.ckpt").write_bytes(b"PK")
    assert "step-000000007.ckpt: truncated or unreadable" in told(config=written)
