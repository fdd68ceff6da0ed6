"""`gan3d mesh` and `gan3d sample` on a trained run: what comes out, and what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import mediapy
import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.latents import SceneRequest, request_latents
from nerfstudio_gan3d.run import Run

SIDE = 16
GAP = 2


def succeed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def refuse(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("gan3d: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_mesh(trained: Path, run: Run, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("meshes") / f"car{suffix}"
    options = ["--seed", 3, "--truncation", 0.5, "--resolution", 24, "--largest-component"]
    told = succeed(capsys, "mesh", "--load-config", trained, "--output", path, *options)
    found = trimesh.load(path, force="mesh")
    assert isinstance(found, trimesh.Trimesh)
    assert f"{len(found.faces)} triangles" in told
    scene = run.scene(SceneRequest(seed=3, truncation=0.5))
    expected = extract_mesh(scene, 24, largest_component=True)
    assert found.volume == pytest.approx(expected.volume, rel=1e-3)
    half = np.array([0.35, 0.35, 0.5])
    assert (np.abs(found.bounds) <= half + 1e-5).all()


def test_mesh_at_a_level_of_ones_own(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def volume(level: object) -> float:
        options = ["--level", level, "--resolution", 24, "--color", "none"]
        succeed(capsys, "mesh", "--load-config", trained, "--output", "m.ply", *options)
        found = trimesh.load("m.ply", force="mesh")
        assert isinstance(found, trimesh.Trimesh)
        return float(found.volume)

    assert volume(1.0) > volume(3.0)


def test_a_grid_with_its_record(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", trained, "--output", "grid.png", "--seeds", "0-2,7"]
    told = succeed(capsys, *words, "--truncation", 0.7)
    assert "4 seeds from 1 view" in told
    picture = mediapy.read_image("grid.png")
    assert picture.shape == (2 * SIDE + GAP, 2 * SIDE + GAP, 3)
    scene = run.scene(SceneRequest(seed=7, truncation=0.7))
    last = run.render(scene, run.orbit([30.0]), ["rgb"])["rgb"][0].numpy()
    np.testing.assert_allclose(picture[-SIDE:, -SIDE:] / 255, last, atol=0.51 / 255)
    record = json.loads(Path("grid.json").read_text())
    assert record["seeds"] == [0, 1, 2, 7]
    assert record["truncation"] == 0.7
    assert record["files"] == ["grid.png"]
    assert record["images_seen"] == 20 * 4
    assert record["views"][0]["label"] == pytest.approx(run.orbit([30.0])[0].tolist())
    latents = np.load("grid.npz")
    w = request_latents(run.generator, SceneRequest(seed=7, truncation=0.7))
    np.testing.assert_allclose(latents["foreground"][3], w.foreground[0], atol=1e-6)
    assert w.background is not None
    np.testing.assert_allclose(latents["background"][3], w.background[0], atol=1e-6)
    # The recorded command writes the same again.
    Path("grid.png").unlink()
    succeed(capsys, *shlex.split(record["command"])[1:])
    np.testing.assert_array_equal(mediapy.read_image("grid.png"), picture)


def test_views_and_outputs_side_by_side(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", trained, "--output", "a.png", "--seeds", 5, "--size", 8]
    succeed(capsys, *words, "--views", 3, "--outputs", "foreground,depth")
    picture = mediapy.read_image("a.png")
    assert picture.shape == (2 * 8 + GAP, 3 * 8 + 2 * GAP, 3)
    found = run.render(run.scene(SceneRequest(5)), run.orbit([150.0]), size=8)
    middle = picture[:8, 8 + GAP : 16 + GAP] / 255
    np.testing.assert_allclose(middle, found["foreground"][0].numpy(), atol=0.51 / 255)
    # Depth is white where nothing is, and coloured where the object is.
    depth = picture[8 + GAP :, 8 + GAP : 16 + GAP]
    empty = found["accumulation"][0, ..., 0].numpy() <= 0.5
    assert empty.any()
    assert (depth[empty] == 255).all()
    assert (depth[~empty] != 255).any(-1).all()


def test_one_file_per_seed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--load-config", trained, "--output", "many", "--seeds", "1,12"]
    succeed(capsys, *words)
    names = {path.name for path in Path("many").iterdir()}
    assert names == {"seed0001.png", "seed0012.png", "samples.json", "samples.npz"}
    assert mediapy.read_image("many/seed0012.png").shape == (SIDE, SIDE, 3)


def test_a_turntable(trained: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--load-config", trained, "--output", "turn.mp4", "--seeds", 0]
    shown = ["--outputs", "rgb,foreground,depth", "--size", 63]
    succeed(capsys, *words, "--turntable", "--views", 4, *shown)
    video = mediapy.read_video("turn.mp4")
    # Sides are made even for the video's pixel format.
    assert video.shape == (4, 64, 3 * 63 + 2 * GAP + 1, 3)
    view = run.render(run.scene(), run.orbit([120.0]), ["foreground"], 63)["foreground"][0]
    middle = video[1][:63, 63 + GAP : 2 * 63 + GAP] / 255
    # Compression changes colours a little.
    assert np.abs(middle - view.numpy()).mean() < 0.04
    assert len(json.loads(Path("turn.json").read_text())["views"]) == 4


def test_a_moved_run_and_its_folder(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained.parent, moved)
    succeed(capsys, "sample", "--load-config", moved, "--output", "a.png", "--seeds", 0)
    assert json.loads(Path("a.json").read_text())["run"] == str(moved)


def test_what_does_not_go_together_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["sample", "--load-config", trained, "--output"]
    assert "ends in .png (.mp4 and .gif go with --turntable)" in refuse(capsys, *words, "a.mp4")
    told = refuse(capsys, *words, "a.png", "--turntable")
    assert "ends in .mp4 or .gif (.png goes without --turntable)" in told
    assert "--size is 5000" in refuse(capsys, *words, "a.png", "--size", 5000)
    Path("folder.png").mkdir()
    assert "is a folder" in refuse(capsys, *words, "folder.png")
    mesh = ["mesh", "--load-config", trained, "--output", "a.ply", "--resolution", 16]
    assert "choose a lower level" in refuse(capsys, *mesh, "--level", 1e6)
    assert not Path("a.ply").exists()
    monkeypatch.setenv("PATH", "")
    assert "ffmpeg" in refuse(capsys, *words, "a.mp4", "--turntable")


def test_runs_that_cannot_be_opened_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(config: Path) -> str:
        return refuse(capsys, "mesh", "--load-config", config, "--output", "a.ply")

    assert "no such file" in told(Path("missing.yml"))
    assert "no such file" in told(tmp_path)
    broken = tmp_path / "broken.yml"
    broken.write_text("a: [1, 2")
    assert "not a configuration that this version can read" in told(broken)
    broken.write_text("!!python/object:nerfstudio_gan3d.gone.Config {}")
    assert "not a configuration that this version can read" in told(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    assert "not a configuration that this version can read" in told(broken)
    broken.write_text("{a: 1}")
    assert "not the configuration of a gan3d method" in told(broken)

    copied = tmp_path / "copied"
    shutil.copytree(trained.parent, copied)
    (checkpoint,) = (copied / "nerfstudio_models").iterdir()
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    assert "no checkpoint can be read" in told(copied / "config.yml")
    checkpoint.unlink()
    assert "there is no step-*.ckpt" in told(copied / "config.yml")
    checkpoint.write_bytes(content)
    state = torch.load(checkpoint, weights_only=True)
    del state["pipeline"]["_model.generator_ema.mapping.w_avg"]
    torch.save(state, checkpoint)
    assert "1 missing: generator_ema.mapping.w_avg" in told(copied / "config.yml")
