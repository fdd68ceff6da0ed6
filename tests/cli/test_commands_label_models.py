"""Meshes of runs with labels, edge maps, label maps from Python, and what is refused."""

from __future__ import annotations

from pathlib import Path

import mediapy
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.run import Run, load_run
from tests.cli.test_commands import SIDE, refuse, succeed
from tests.cli.test_commands_labels import PALETTE, kept, picture
from tests.export.test_mesh import glb_colors


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_a_mesh_in_the_colours_of_its_classes(
    labelled: Path, labelled_run: Run, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mesh", "--load-config", labelled, "--resolution", 20, "--color", "labels"]
    succeed(capsys, *words, "--output", f"a{suffix}", "--seed", 2, "--input", 3)
    found = trimesh.load(f"a{suffix}", force="mesh", process=False)
    assert isinstance(found, trimesh.Trimesh)
    scene = labelled_run.scene(SceneRequest(2, label=3))
    expected = extract_mesh(scene, 20, color="labels", palette=PALETTE.tolist())
    assert found.volume == pytest.approx(expected.volume, rel=1e-3)
    if suffix == ".glb":
        colors = glb_colors(Path("a.glb"))[:, :3]
    else:
        assert isinstance(found.visual, ColorVisuals)
        colors = np.asarray(found.visual.vertex_colors)[:, :3]
    # Full and empty channels are the same as light, as glTF has them.
    assert {tuple(color) for color in colors} <= {tuple(color) for color in PALETTE}
    if suffix == ".ply":
        ids = expected.vertex_attributes["label"]
        np.testing.assert_array_equal(colors, PALETTE[ids])


def test_a_mesh_of_ones_own_map(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(kept(labelled_run, 3)).save("own.png")
    words = ["mesh", "--load-config", labelled, "--resolution", 16, "--output", "a.ply"]
    succeed(capsys, *words, "--input-file", "own.png", "--input-azimuth", 40)
    view = labelled_run.label_view("own.png", 40.0)
    expected = extract_mesh(labelled_run.scene(SceneRequest(label=view)), 16)
    found = trimesh.load("a.ply", force="mesh", process=False)
    assert isinstance(found, trimesh.Trimesh)
    np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-5)


def test_label_views_for_python(labelled_run: Run) -> None:
    store = labelled_run.model.label_store
    assert store is not None
    view = labelled_run.label_view(4)
    assert torch.equal(view.map, store.maps[4:5])
    assert torch.equal(view.pose, store.poses[4:5])
    Image.fromarray(kept(labelled_run, 4)).save("own.png")
    own = labelled_run.label_view(Path("own.png"), 30.0, 10.0)
    assert torch.equal(own.map, view.map)
    torch.testing.assert_close(own.pose, labelled_run.orbit([30.0], 10.0))
    torch.testing.assert_close(
        labelled_run.label_view("own.png").pose, labelled_run.orbit([0.0], 0.0)
    )
    with pytest.raises(ValueError, match="keeps 16 of them, 0 to 15"):
        labelled_run.label_view(16)
    with pytest.raises(ValueError, match="give no angles"):
        labelled_run.label_view(4, 30.0)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("small.png")
    with pytest.raises(ValueError, match="8 x 8 pixels"):
        labelled_run.label_view("small.png")


def test_edges_are_grey_and_have_no_classes(
    edges: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(edges)
    words = ["sample", "--load-config", edges, "--seeds", 0, "--outputs", "labels"]
    succeed(capsys, *words, "--inputs", 5, "--output", "a.png")
    found = mediapy.read_image("a.png")
    assert (found == found[..., :1]).all()
    # The kept drawing has one dark line, in its sixth row.
    rows = np.full(SIDE, 255)
    rows[5] = 0
    np.testing.assert_array_equal(found[:, :SIDE, 0], np.broadcast_to(rows[:, None], (SIDE, SIDE)))
    view = run.label_view(5)
    expected = picture(run, SceneRequest(0, label=view), run.label_view(5).pose, "labels")
    np.testing.assert_array_equal(found[:, -SIDE:], expected)
    drawing = np.full((SIDE, SIDE), 255, np.uint8)
    drawing[3:9, 7] = 0
    Image.fromarray(drawing).save("drawing.png")
    succeed(capsys, *words, "--input", "drawing.png", "--output", "b.png")
    np.testing.assert_array_equal(mediapy.read_image("b.png")[:, :SIDE, 0], drawing)
    mesh = ["mesh", "--load-config", edges, "--output", "a.ply", "--resolution", 8]
    assert "edge maps, which have no classes" in refuse(capsys, *mesh, "--color", "labels")


def test_a_model_without_labels_says_so(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save("own.png")
    words = ["sample", "--load-config", trained, "--output", "a.png", "--seeds", 0]
    for option, value in (("--inputs", 0), ("--images", 0), ("--input", "own.png")):
        told = refuse(capsys, *words, option, value)
        assert told.startswith(f"gan3d: {option}: ")
        assert "gan3d-ballgan-tiny, a method without labels" in told
    assert "a method without labels" in refuse(capsys, *words, "--outputs", "rgb,labels")
    mesh = ["mesh", "--load-config", trained, "--output", "a.ply", "--resolution", 8]
    for more in (("--color", "labels"), ("--input", 0), ("--input-file", "own.png")):
        assert "a method without labels" in refuse(capsys, *mesh, *more)
    assert not Path("a.png").exists()
    assert not Path("a.ply").exists()
    with pytest.raises(ValueError, match="a method without labels"):
        run.render(run.scene(), run.orbit([0.0]), ["labels"])


def test_seeds_of_a_model_without_labels_are_interpolated_and_mixed(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", trained, "--output"]
    way = ["--interpolate", "appearance", "--views", 3]
    succeed(capsys, *words, "way.mp4", "--seeds", "1,2", *way)
    video = mediapy.read_video("way.mp4")
    assert video.shape == (3, SIDE, SIDE, 3)
    middle = SceneRequest(1, other_seed=2, interpolation=0.5)
    expected = picture(run, middle, run.orbit([30.0])).astype(float)
    assert np.abs(video[1] - expected).mean() < 12
    succeed(capsys, *words, "a.png", "--seeds", 1, "--mix-seed", 2, "--mix-levels", "0,2")
    mixed = SceneRequest(1, mix_seed=2, mix_levels=(0, 2))
    expected = picture(run, mixed, run.orbit([30.0]))
    np.testing.assert_array_equal(mediapy.read_image("a.png"), expected)
    told = refuse(capsys, *words, "a.png", "--mix-seed", 2, "--mix-levels", 40)
    assert "mix levels [40]: this generator has levels 0 to" in told


def test_files_that_are_no_label_maps_are_refused(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", labelled, "--output", "a.png", "--input"]
    Image.fromarray(np.full((SIDE, SIDE), 3, np.uint8)).save("a_class_too_much.png")
    assert "class id 3 is out of range" in refuse(capsys, *words, "a_class_too_much.png")
    Image.fromarray(np.zeros((SIDE, 8), np.uint8)).save("narrow.png")
    assert "8 x 16 pixels" in refuse(capsys, *words, "narrow.png")
    Path("text.png").write_text("no picture")
    assert "not a readable image" in refuse(capsys, *words, "text.png")
    soft = PALETTE[np.zeros((SIDE, SIDE), int)]
    soft[3, 4] = 128
    Image.fromarray(soft).save("soft.png")
    assert "the colour 128, 128, 128 (column 4, row 3)" in refuse(capsys, *words, "soft.png")
