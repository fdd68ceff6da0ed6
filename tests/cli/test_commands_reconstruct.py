"""`gan3d reconstruct`: one photograph with depth to pictures, a film, a mesh and a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mediapy
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from nerfstudio_gan3d.cameras import camera_angles
from nerfstudio_gan3d.export import reconstruct
from nerfstudio_gan3d.export.arcs import around
from nerfstudio_gan3d.export.reconstruct import scene_mesh
from nerfstudio_gan3d.export.splat_files import read_splats
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.g3dr import G3drModel
from nerfstudio_gan3d.run import Run, load_run
from nerfstudio_gan3d.scene import Bounds, Scene
from tests.cli.g3dr_run import untrained_g3dr
from tests.cli.test_commands import GAP, SIDE, refuse, succeed
from tests.export.analytic import Balls
from tests.models.tiny_g3dr import FAR, NEAR, g3dr_config


@pytest.fixture(scope="module")
def g3dr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of an untrained micro G3DR."""
    return untrained_g3dr(tmp_path_factory.mktemp("g3dr") / "run")


@pytest.fixture(scope="module")
def g3dr_run(g3dr: Path) -> Run:
    """The same, loaded."""
    return load_run(g3dr, device="cpu")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph of the run's size with its depth beside it, which rises from row to row."""
    rows = np.arange(SIDE)
    pixels = np.stack(np.broadcast_arrays(rows[:, None] * 16, rows[None] * 16, 100), axis=-1)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "bird.png")
    depth = np.broadcast_to(rows[:, None] * 4096, (SIDE, SIDE)).astype(np.uint16)
    Image.fromarray(depth).save(tmp_path / "bird_depth.png")
    return tmp_path / "bird.png"


def test_a_flatter_relief(
    g3dr: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Depth keeps its middle, which is the origin's, and a quarter of what it is about it."""
    out = tmp_path / "out"
    options = ["--frames", 0, "--mesh", "none", "--splats", "none", "--relief", 0.25]
    succeed(capsys, "reconstruct", photo, "--load-config", g3dr, "--output", out, *options)
    opened = load_run(out / "run", device="cpu")
    assert isinstance(opened.model, G3drModel)
    middle = (NEAR + FAR) / 2
    expected = middle + 0.25 * (NEAR + torch.arange(SIDE) / 16 * (FAR - NEAR) - middle)
    torch.testing.assert_close(opened.model.images.view(0).distance[0, 0, :, 3], expected)
    assert json.loads((out / "reconstruction.json").read_text())["relief"] == 0.25
    for wrong in (0, 1.5, "nan"):
        command = ["reconstruct", photo, "--load-config", g3dr, "--output", tmp_path / "no"]
        told = refuse(capsys, *command, "--relief", wrong)
        assert f"--relief is {float(wrong)}; it must be more than 0 and at most 1" in told


def test_everything_is_written(
    g3dr: Path, g3dr_run: Run, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--azimuths", "-10,0,15", "--frames", 4, "--resolution", 16]
    command = ["reconstruct", photo, "--load-config", g3dr, "--output", out, *options]
    told = succeed(capsys, *command)
    # Depth at row i is near + 4096 i / 65536 (far - near).
    opened = load_run(out / "run", device="cpu")
    assert isinstance(opened.model, G3drModel)
    view = opened.model.images.view(7)
    np.testing.assert_array_equal(view.image[0].permute(1, 2, 0), np.array(Image.open(photo)))
    expected = NEAR + torch.arange(SIDE) / 16 * (FAR - NEAR)
    torch.testing.assert_close(view.distance[0, 0, :, 3], expected)
    # The run shows the Scene of the photograph, in every place of its kept images.
    scene = g3dr_run.scene(SceneRequest(image=view))
    positions = torch.rand(1, 20, 3) - 0.5
    again = opened.scene(SceneRequest(image=11)).field.query(positions)
    torch.testing.assert_close(again.features, scene.field.query(positions).features)
    with pytest.raises(ValueError, match="16 of them"):
        opened.scene(SceneRequest(image=16))
    # Views are those of the run's own renderer.
    labels = g3dr_run.orbit([-10.0, 0.0, 15.0], 0.0)
    rgb = g3dr_run.render(scene, labels, ["rgb"])["rgb"]
    for name, image in zip(("-10", "+0", "+15"), rgb, strict=True):
        found = np.array(Image.open(out / f"rgb_{name}.png")).astype(float)
        np.testing.assert_allclose(found, image.numpy() * 255, atol=0.51)
        assert Image.open(out / f"depth_{name}.png").size == (SIDE, SIDE)
    # Image above depth, each before its three views.
    sheet = np.array(Image.open(out / "views.png"))
    assert sheet.shape == (2 * SIDE + GAP, 4 * SIDE + 3 * GAP, 3)
    np.testing.assert_array_equal(sheet[:SIDE, :SIDE], np.array(Image.open(photo)))
    third = sheet[:SIDE, 2 * (SIDE + GAP) : 2 * (SIDE + GAP) + SIDE]
    np.testing.assert_array_equal(third, np.array(Image.open(out / "rgb_+0.png")))
    assert mediapy.read_video(out / "orbit.mp4").shape[0] == 4
    mesh = trimesh.load(out / "mesh.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) > 0
    assert f"{out / 'mesh.glb'}: " in told
    # What the browser or another program shows lies on the surface that the mesh is of.
    splats = read_splats(out / "splats.ply")
    assert f"{out / 'splats.ply'}: {len(splats)} splats" in told
    inside = (splats.means.numpy() > mesh.bounds[0] - 0.1) & (
        splats.means.numpy() < mesh.bounds[1] + 0.1
    )
    assert inside.all(axis=1).mean() > 0.95
    record = json.loads((out / "reconstruction.json").read_text())
    assert record["depth"] == str(photo.with_name("bird_depth.png"))
    assert record["depth_range"] == [NEAR, FAR]
    assert [one["azimuth_deg"] for one in record["views"]] == [-10.0, 0.0, 15.0]


def test_parts_can_be_left_out(
    g3dr: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--frames", 0, "--mesh", "none", "--splats", "none", "--no-run"]
    options += ["--size", 24]
    succeed(capsys, "reconstruct", photo, "--load-config", g3dr, "--output", out, *options)
    names = sorted(path.name for path in out.iterdir())
    views = [f"{kind}_{angle}.png" for kind in ("depth", "rgb") for angle in ("+0", "+20", "-20")]
    assert names == sorted([*views, "input.png", "reconstruction.json", "views.png"])
    assert Image.open(out / "rgb_+0.png").size == (24, 24)


def test_bad_input_is_one_sentence(
    g3dr: Path, trained: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def refused(image: Path, config: Path, *options: object) -> str:
        command = ["reconstruct", image, "--load-config", config, "--output", out, *options]
        found = refuse(capsys, *command)
        assert not out.exists()
        return found

    assert "whose Scenes are not made of photographs" in refused(photo, trained)
    assert "no such file" in refused(tmp_path / "none.png", g3dr)
    assert "--azimuths is 'left'" in refused(photo, g3dr, "--azimuths", "left")
    assert "--frames is 1" in refused(photo, g3dr, "--frames", 1)
    assert "--behind is 2.0" in refused(photo, g3dr, "--behind", 2)
    for place, sentence in (
        (photo, "which is a file; give a folder"),
        (photo / "new", "is a file and no folder"),
        ("/proc/new", "nothing can be written to the folder /proc"),
    ):
        words = ["reconstruct", photo, "--load-config", "gone.yml", "--output", place]
        assert sentence in refuse(capsys, *words)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert str(text) in refused(text, g3dr)
    wide = tmp_path / "wide_depth.png"
    Image.fromarray(np.zeros((8, 16), np.uint16)).save(wide)
    assert "16 x 8 pixels" in refused(photo, g3dr, "--depth", wide)
    taken = tmp_path / "taken" / "run"
    taken.mkdir(parents=True)
    (taken / "mine.txt").write_text("keep")
    command = ["reconstruct", photo, "--load-config", g3dr, "--output", taken.parent]
    assert "not an empty folder" in refuse(capsys, *command)
    assert (taken / "mine.txt").read_text() == "keep"
    assert [path.name for path in taken.parent.iterdir()] == ["run"]


def test_without_a_surface_nothing_is_written(
    g3dr: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(*_: object) -> None:
        raise ValueError("the Scene has no surface")

    monkeypatch.setattr(reconstruct, "scene_splats", none)
    command = ["reconstruct", photo, "--load-config", g3dr, "--output", tmp_path / "out"]
    assert "no surface" in refuse(capsys, *command, "--mesh", "none")
    assert not (tmp_path / "out").exists()


def test_the_film_goes_around_the_photographs_camera() -> None:
    config = g3dr_config()
    azimuth, elevation, radius = camera_angles(around(config, 8))
    # sin and cos of 0, 45, 90, ... degrees times 0.25 and 0.1.
    half = math.sqrt(0.5)
    turns = [0, half, 1, half, 0, -half, -1, -half]
    torch.testing.assert_close(azimuth, 0.25 * torch.tensor(turns), atol=1e-6, rtol=0)
    rises = torch.tensor([1, half, 0, -half, -1, -half, 0, half])
    torch.testing.assert_close(elevation, 0.1 * rises, atol=1e-6, rtol=0)
    torch.testing.assert_close(radius, torch.full((8,), 2.0))


def test_what_is_behind_is_left_out_of_a_mesh(g3dr_run: Run) -> None:
    """A ball in the middle, a small one beside it, and a large one behind, as a wall is."""
    balls = Balls(((0.0, 0.0, 0.2), (0.35, 0.0, 0.2), (0.0, 0.0, -0.6)), (0.2, 0.08, 0.25), 5000.0)
    scene = Scene(balls, Bounds((2.0, 2.0, 2.0), 1.0, 3.0), 1)
    whole = scene_mesh(g3dr_run, scene, 48, None)
    assert len(whole.split()) == 3
    front = scene_mesh(g3dr_run, scene, 48, 0.3)
    assert len(front.split()) == 1
    assert front.is_watertight
    np.testing.assert_allclose(front.bounds.mean(0), [0, 0, 0.2], atol=0.02)
    # A ball that is cut through is closed by a lid in the plane, within a cell of 2/48.
    half = scene_mesh(g3dr_run, scene, 48, -0.2)
    assert half.is_watertight
    assert half.bounds[0, 2] == pytest.approx(0.2, abs=2 / 48)
    lid = half.vertices[:, 2] < half.bounds[0, 2] + 0.01
    inner = lid & (np.linalg.norm(half.vertices[:, :2], axis=1) < 0.1)
    assert inner.sum() > 10
    down = np.broadcast_to([0, 0, -1], (inner.sum(), 3))
    np.testing.assert_allclose(half.vertex_normals[inner], down, atol=0.1)
    assert half.volume == pytest.approx(2 / 3 * np.pi * 0.2**3, abs=np.pi * 0.2**2 * 2 / 48)
    np.testing.assert_allclose(front.extents, 0.4, atol=0.04)
    with pytest.raises(ValueError, match=r"--behind is -0\.9"):
        scene_mesh(g3dr_run, scene, 48, -0.9)
