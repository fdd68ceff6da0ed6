"""Shape and appearance codes in whole commands: grids of both, ways along one, meshes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Literal

import mediapy
import numpy as np
import pytest
import torch
import trimesh
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.export.films import between
from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.export.options import SampleOptions
from nerfstudio_gan3d.export.sheets import plan
from nerfstudio_gan3d.latents import SceneRequest, request_latents
from nerfstudio_gan3d.method_configs.threedgen import gan3d_3dgen_tiny
from nerfstudio_gan3d.models.gan import GanModel
from nerfstudio_gan3d.pretrained import fresh_model
from nerfstudio_gan3d.run import MODEL_PREFIX, Run, load_run
from nerfstudio_gan3d.training.checkpoints import checkpoint_path, save_atomic
from tests.cli.test_commands import GAP, SIDE, refuse, succeed
from tests.models.coded import with_shapes
from tests.training.micro import micro_config

STEP = SIDE + GAP


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of an untrained micro 3DGEN."""
    folder = tmp_path_factory.mktemp("coded")
    config = micro_config(
        folder,
        folder / "outputs",
        gan3d_3dgen_tiny,
        pipeline__model__view_radius=2.0,
        pipeline__model__view_focal=1.5,
        pipeline__model__field__near=1.0,
        pipeline__model__field__far=3.0,
    )
    fresh = fresh_model(config)
    assert isinstance(fresh, GanModel)
    model = with_shapes(fresh)
    state = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    config.save_config()
    save_atomic({"step": 0, "pipeline": state}, checkpoint_path(config.get_checkpoint_dir(), 0))
    return config.get_base_dir() / "config.yml"


@pytest.fixture(scope="module")
def coded_run(coded: Path) -> Run:
    """The same, loaded."""
    return load_run(coded)


def cell(picture: np.ndarray, row: int, column: int, width: int = 1) -> np.ndarray:
    """One sample of a grid, ``width`` pictures wide."""
    wide = width * STEP
    left = column * wide
    return picture[row * STEP : row * STEP + SIDE, left : left + wide - GAP]


def reloaded(path: str) -> trimesh.Trimesh:
    found = trimesh.load(path, process=False)
    assert isinstance(found, trimesh.Trimesh)
    return found


def vertex_colours(mesh: trimesh.Trimesh) -> np.ndarray:
    assert isinstance(mesh.visual, ColorVisuals)
    return np.asarray(mesh.visual.vertex_colors)


def test_rows_are_shapes_and_columns_appearances(
    coded: Path, coded_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", coded, "--output", "grid.png", "--seeds", "1,5"]
    words += ["--grid", "shape,appearance", "--appearance-seeds", "2-4"]
    told = succeed(capsys, *words, "--outputs", "foreground,accumulation")
    assert "2 shapes in 3 appearances from 1 view" in told
    picture = mediapy.read_image("grid.png")
    assert picture.shape == (2 * STEP - GAP, 6 * STEP - GAP, 3)
    shown = [[cell(picture, row, column, 2) for column in range(3)] for row in range(2)]
    colours = [[one[:, :SIDE] for one in row] for row in shown]
    silhouettes = [[one[:, STEP:] for one in row] for row in shown]
    for row in range(2):
        for column in (1, 2):
            np.testing.assert_array_equal(silhouettes[row][0], silhouettes[row][column])
            assert (colours[row][0] != colours[row][column]).any()
    assert (silhouettes[0][0] > 250).any()
    assert (np.abs(silhouettes[0][0].astype(int) - silhouettes[1][0]) > 100).any()
    scene = coded_run.scene(SceneRequest(5, appearance_seed=4))
    last = coded_run.render(scene, coded_run.orbit([30.0]), ["foreground"])["foreground"][0]
    np.testing.assert_allclose(colours[1][2] / 255, last.numpy(), atol=0.51 / 255)
    record = json.loads(Path("grid.json").read_text())
    assert record["grid"] == "shape,appearance"
    assert record["seeds"] == [1, 5]
    assert record["appearance_seeds"] == [2, 3, 4]
    latents = np.load("grid.npz")["foreground"]
    assert len(latents) == 6
    # Rows first: the second sample has the first one's shape and the fifth one's appearance.
    np.testing.assert_array_equal(latents[1, :-1], latents[0, :-1])
    np.testing.assert_array_equal(latents[1, -1], latents[4, -1])
    Path("grid.png").unlink()
    succeed(capsys, *shlex.split(record["command"])[1:])
    np.testing.assert_array_equal(mediapy.read_image("grid.png"), picture)


def test_columns_are_the_same_seeds_where_nobody_names_any(
    coded: Path, coded_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", coded, "--grid", "shape,appearance", "--seeds", "3,6"]
    succeed(capsys, *words, "--output", "grid.png")
    picture = mediapy.read_image("grid.png")
    assert picture.shape == (2 * STEP - GAP, 2 * STEP - GAP, 3)
    for place, seed in enumerate((3, 6)):
        found = coded_run.render(coded_run.scene(SceneRequest(seed)), coded_run.orbit([30.0]))
        own = cell(picture, place, place) / 255
        np.testing.assert_allclose(own, found["rgb"][0].numpy(), atol=0.51 / 255)
    # One column stays one column.
    succeed(capsys, *words, "--appearance-seeds", 6, "--output", "column.png")
    column = mediapy.read_image("column.png")
    np.testing.assert_array_equal(column, picture[:, STEP:])
    succeed(capsys, *words, "--output", "cells")
    names = {f"shape{row:04d}_appearance{look:04d}.png" for row in (3, 6) for look in (3, 6)}
    assert {file.name for file in Path("cells").glob("*.png")} == names
    one = mediapy.read_image("cells/shape0003_appearance0006.png")
    np.testing.assert_array_equal(one, cell(picture, 0, 1))


@pytest.mark.parametrize("moving", ["shape", "appearance"])
def test_a_way_moves_one_code(
    coded: Path,
    coded_run: Run,
    moving: Literal["shape", "appearance"],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["sample", "--load-config", coded, "--seeds", "1,5,3", "--interpolate", moving]
    told = succeed(capsys, *words, "--views", 5, "--output", "way.mp4", "--outputs", "foreground")
    assert f"3 seeds, {moving} over 5 frames" in told
    video = mediapy.read_video("way.mp4").astype(float)
    assert video.shape == (5, SIDE, SIDE, 3)
    both = {
        "shape": [SceneRequest(seed, appearance_seed=1) for seed in (1, 5, 3)],
        "appearance": [SceneRequest(1, appearance_seed=seed) for seed in (1, 5, 3)],
    }
    halfway = {
        "shape": SceneRequest(
            1, other_seed=5, interpolation=0.5, appearance_seed=1, appearance_interpolation=0.0
        ),
        "appearance": SceneRequest(1, other_seed=5, appearance_interpolation=0.5),
    }
    stations = both[moving]
    expected = [stations[0], halfway[moving], stations[1], None, stations[2]]
    for frame, request in zip(video, expected, strict=True):
        if request is not None:
            scene = coded_run.scene(request)
            image = coded_run.render(scene, coded_run.orbit([30.0]), ["foreground"])["foreground"]
            # Compression changes colours a little.
            assert np.abs(frame / 255 - image[0].numpy()).mean() < 0.05
    options = SampleOptions(coded, Path("way.mp4"), seeds="1,5,3", interpolate=moving)
    ((way,),) = (row.cells for row in plan(coded_run, options, [], [1, 5, 3]))
    found = [
        request_latents(coded_run.generator, between(way.keys, place / 2)).foreground[0]
        for place in range(5)
    ]
    still, moved = slice(-1, None), slice(0, -1)
    if moving == "appearance":
        still, moved = moved, still
    for latents, nearest in zip(found, (1, None, 5, None, 3), strict=True):
        assert torch.equal(latents[still], found[0][still])
        if nearest is not None:
            own = request_latents(coded_run.generator, SceneRequest(nearest)).foreground[0]
            assert torch.equal(latents[moved], own[moved])
    for between_two in (1, 3):
        middle = (found[between_two - 1] + found[between_two + 1]) / 2
        torch.testing.assert_close(found[between_two], middle)
    # The record has the stations.
    recorded = np.load("way.npz")["foreground"]
    np.testing.assert_array_equal(recorded, torch.stack(found[::2]).numpy())


def test_meshes_in_another_appearance(
    coded: Path, coded_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mesh", "--load-config", coded, "--resolution", 16, "--seed", 1]
    succeed(capsys, *words, "--output", "own.ply")
    succeed(capsys, *words, "--output", "other.ply", "--appearance-seed", 5)
    own, other = reloaded("own.ply"), reloaded("other.ply")
    np.testing.assert_array_equal(own.vertices, other.vertices)
    np.testing.assert_array_equal(own.faces, other.faces)
    expected = extract_mesh(coded_run.scene(SceneRequest(1, appearance_seed=5)), 16)
    np.testing.assert_array_equal(vertex_colours(other), vertex_colours(expected))
    assert (vertex_colours(other) != vertex_colours(own)).any()
    # On the way to another seed both codes move, and its end is that seed itself.
    way = ["--output", "way.ply", "--appearance-seed", 5, "--to-seed", 3, "--steps", 2]
    succeed(capsys, *words, *way)
    first, last = (reloaded(f"way_0{step}.ply") for step in range(2))
    end = extract_mesh(coded_run.scene(SceneRequest(3)), 16)
    for found, wanted in ((first, other), (last, end)):
        np.testing.assert_allclose(found.vertices, wanted.vertices, atol=1e-5)
        np.testing.assert_array_equal(vertex_colours(found), vertex_colours(wanted))


def test_what_does_not_go_together_is_refused(
    coded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: object, output: str = "a.png") -> str:
        return refuse(capsys, "sample", "--load-config", coded, "--output", output, *words)

    assert "--appearance-seeds without --grid" in told("--appearance-seeds", "1")
    grid = "--grid", "shape,appearance"
    assert "--appearance-seeds is 'a'" in told(*grid, "--appearance-seeds", "a")
    mixing = "--mix-seed", 1, "--mix-levels", 0
    assert "--grid and --mix-seed: choose one" in told(*grid, *mixing)
    way = "--interpolate", "shape"
    assert "--grid and --interpolate: choose one" in told(*grid, *way, output="a.mp4")
    alone = told(*way, "--seeds", 3, output="a.mp4")
    assert "--seeds is '3'; --interpolate shape needs at least two seeds" in alone
    mesh = "mesh", "--load-config", coded, "--output", "a.ply", "--appearance-seed"
    assert "--appearance-seed is -1" in refuse(capsys, *mesh, -1)
    assert not list(Path().iterdir())


def test_models_without_codes_say_so(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--load-config", trained, "--output"]
    cases = [
        ([*words, "a.png", "--grid", "shape,appearance"], "--grid shape,appearance"),
        ([*words, "a.mp4", "--interpolate", "shape"], "--interpolate shape"),
        (
            ["mesh", "--load-config", trained, "--output", "a.ply", "--appearance-seed", 1],
            "--appearance-seed",
        ),
    ]
    for command, asked in cases:
        told = refuse(capsys, *command)
        assert told.startswith(f"gan3d: {asked}: ")
        assert "gan3d-ballgan-tiny, a method without a shape code" in told
    assert not list(Path().iterdir())
