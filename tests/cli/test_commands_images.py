"""`gan3d sample` and `gan3d mesh` on runs whose Scenes are made of images."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import mediapy
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.image_generator import ImageGenerator
from nerfstudio_gan3d.models.reconstruction import with_wall
from nerfstudio_gan3d.pretrained import unpack
from nerfstudio_gan3d.run import Run, load_run
from nerfstudio_gan3d.viewer.image_files import make_view, read_depth, read_photo
from tests.cli.g3dr_run import untrained_g3dr
from tests.cli.test_commands import GAP, SIDE, refuse, succeed
from tests.data.sets import rgbd_files, write_folder
from tests.models.tiny_g3dr import FAR, NEAR, kept_images


@pytest.fixture(scope="module")
def g3dr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of an untrained micro G3DR."""
    return untrained_g3dr(tmp_path_factory.mktemp("g3dr") / "run")


@pytest.fixture(scope="module")
def run(g3dr: Path) -> Run:
    """The same, loaded."""
    return load_run(g3dr, device="cpu")


@pytest.fixture
def photo(elsewhere: Path) -> Path:
    """An image of the run's size with its depth beside it, which rises from row to row."""
    rows = np.arange(SIDE)
    pixels = np.stack(np.broadcast_arrays(rows[:, None] * 16, rows[None] * 16, 100), axis=-1)
    Image.fromarray(pixels.astype(np.uint8)).save("bird.png")
    depth = np.broadcast_to(rows[:, None] * 4096, (SIDE, SIDE)).astype(np.uint16)
    Image.fromarray(depth).save("bird_depth.png")
    Image.fromarray(depth[::-1].copy()).save("other.png")
    return Path("bird.png")


def own(photo: Path, depth: str) -> SceneRequest:
    """The request for an image's Scene, read as the viewer reads it."""
    shown = read_photo(photo.read_bytes(), "photo")
    values = read_depth(Path(depth).read_bytes(), "depth")
    return SceneRequest(image=make_view(shown, values, SIDE, (NEAR, FAR)))


def picture(
    run: Run, request: SceneRequest, cameras: torch.Tensor, name: str = "rgb"
) -> np.ndarray:
    """A picture of a Scene from the first camera, bytes [H, W, 3]."""
    found = run.render(run.scene(request), cameras, [name])[name][0]  # type: ignore[list-item]
    return found.mul(255).round().byte().numpy()


def test_kept_images_stand_before_their_scenes(
    g3dr: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", g3dr, "--output", "grid.png", "--inputs", "2,9"]
    told = succeed(capsys, *words, "--outputs", "rgb,normals")
    assert "grid.png: 2 images from 1 view; described in grid.json" in told
    found = mediapy.read_image("grid.png")
    step = SIDE + GAP
    assert found.shape == (2 * SIDE + GAP, 3 * SIDE + 2 * GAP, 3)
    images, distances = kept_images()
    # Seen from where the images were taken.
    front = run.orbit([0.0], 0.0)
    for row, index in enumerate((2, 9)):
        tiles = [found[row * step :, column * step :][:SIDE, :SIDE] for column in range(3)]
        np.testing.assert_array_equal(tiles[0], images[index].permute(1, 2, 0))
        request = SceneRequest(image=index)
        np.testing.assert_array_equal(tiles[1], picture(run, request, front))
        np.testing.assert_array_equal(tiles[2], picture(run, request, front, "normals"))
    record = json.loads(Path("grid.json").read_text())
    assert [one["source"] for one in record["inputs"]] == ["kept image 2", "kept image 9"]
    assert record["views"][0]["label"] == pytest.approx(front[0].tolist())
    assert record["images"] == "grid.npz"
    assert not {"seeds", "truncation", "latents"} & set(record)
    arrays = np.load("grid.npz")
    np.testing.assert_array_equal(arrays["images"], images[[2, 9]])
    np.testing.assert_array_equal(arrays["distances"], distances[[2, 9], 0])
    # The recorded command writes the same again.
    Path("grid.png").unlink()
    succeed(capsys, *shlex.split(record["command"])[1:])
    np.testing.assert_array_equal(mediapy.read_image("grid.png"), found)


def test_an_image_of_ones_own(
    g3dr: Path, run: Run, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", g3dr, "--views", 2, "--input"]
    succeed(capsys, *words, photo, "--output", "a.png")
    succeed(capsys, *words, photo, "--depth", "other.png", "--output", "b.png")
    cameras = run.orbit([-25.0, 25.0], 0.0)
    for name, depth in (("a", "bird_depth.png"), ("b", "other.png")):
        found = mediapy.read_image(f"{name}.png")
        assert found.shape == (SIDE, 3 * SIDE + 2 * GAP, 3)
        np.testing.assert_array_equal(found[:, :SIDE], np.array(Image.open(photo)))
        expected = picture(run, own(photo, depth), cameras)
        np.testing.assert_array_equal(found[:, SIDE + GAP : 2 * SIDE + GAP], expected)
        (source,) = json.loads(Path(f"{name}.json").read_text())["inputs"]
        assert source["source"] == f"bird.png, depth {depth}"
    assert (mediapy.read_image("a.png") != mediapy.read_image("b.png")).any()
    # Without a choice it is the first kept one; a number is that of a kept one.
    succeed(capsys, *words[:3], "--output", "c.png")
    succeed(capsys, *words[:3], "--output", "d.png", "--input", 0)
    np.testing.assert_array_equal(mediapy.read_image("c.png"), mediapy.read_image("d.png"))
    shown = mediapy.read_image("c.png")[:, :SIDE]
    np.testing.assert_array_equal(shown, kept_images()[0][0].permute(1, 2, 0))


def test_a_folder_and_a_turntable(g3dr: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--load-config", g3dr, "--inputs", "1,4"]
    succeed(capsys, *words, "--output", "many", "--size", 9)
    names = {"input0001.png", "input0004.png", "input0001_scene.png", "input0004_scene.png"}
    assert {path.name for path in Path("many").iterdir()} == {*names, "samples.json", "samples.npz"}
    for name in names:
        assert Image.open(f"many/{name}").size == (9, 9)
    succeed(capsys, *words, "--output", "turn.mp4", "--turntable", "--views", 3)
    assert mediapy.read_video("turn.mp4").shape == (3, 2 * SIDE + GAP, 2 * SIDE + GAP, 3)


def test_images_of_the_data_set(
    g3dr: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "nerfstudio_models").symlink_to(g3dr.parent / "nerfstudio_models")
    content = g3dr.read_text()
    # Paths are written part by part.
    assert "- images\n" in content
    (moved / "config.yml").write_text(content.replace("- images\n", "- set\n"))
    files = rgbd_files()
    words = ["sample", "--load-config", moved, "--output", "a.png", "--images", 3]
    assert "set: no such file or folder" in refuse(capsys, *words)
    write_folder(g3dr.parent / "set", files)
    succeed(capsys, *words)
    found = mediapy.read_image("a.png")
    (source,) = json.loads(Path("a.json").read_text())["inputs"]
    name = source["source"].rpartition("/")[2].removesuffix(".jpg")
    (place,) = [key for key in files if key.endswith(f"{name}.jpg")]
    photo = read_photo(files[place], place)
    depth = read_depth(files[place.replace(".jpg", "_depth.png")], "depth")
    view = make_view(photo, depth, SIDE, (NEAR, FAR))
    assert isinstance(run.generator, ImageGenerator)
    assert torch.equal(with_wall(run.generator, view.distance, 0.95), view.distance)
    np.testing.assert_array_equal(found[:, :SIDE], view.image[0].permute(1, 2, 0))
    expected = picture(run, SceneRequest(image=view), run.orbit([0.0], 0.0))
    np.testing.assert_array_equal(found[:, SIDE + GAP :], expected)


def test_meshes_of_images(
    g3dr: Path, run: Run, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mesh", "--load-config", g3dr, "--resolution", 12, "--output", "a.ply"]
    for options, request in (
        ([], SceneRequest(image=0)),
        (["--input", 5], SceneRequest(image=5)),
        (["--input", photo], own(photo, "bird_depth.png")),
        (["--input-file", photo, "--depth", "other.png"], own(photo, "other.png")),
    ):
        succeed(capsys, *words, *options)
        found = trimesh.load("a.ply", force="mesh", process=False)
        expected = extract_mesh(run.scene(request), 12)
        assert isinstance(found, trimesh.Trimesh)
        np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-5)


def test_what_does_not_go_with_images_is_refused(
    g3dr: Path, trained: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = ["sample", "--load-config", g3dr, "--output", "a.png"]
    mesh = ["mesh", "--load-config", g3dr, "--output", "a.ply"]
    for words in (
        [*sample, "--seeds", "0"],
        [*sample, "--truncation", 0.5],
        [*sample, "--mix-seed", 1, "--mix-levels", 0],
        [*sample, "--grid", "shape,appearance"],
        [*sample[:-1], "a.mp4", "--interpolate", "appearance"],
        [*mesh, "--seed", 3],
        [*mesh, "--to-seed", 3],
    ):
        told = refuse(capsys, *words)
        assert (
            "is a run of gan3d-g3dr-tiny, a method without seeds, whose Scenes are made of" in told
        )
        assert told.startswith(f"gan3d: {[word for word in words if str(word)[:2] == '--'][2]}: ")
    angles = ["--input", photo, "--input-azimuth", 3]
    for words in (sample, mesh):
        assert "takes every image to be seen from one camera" in refuse(capsys, *words, *angles)
        assert "--input has 16; a checkpoint keeps" in refuse(capsys, *words, "--input", 16)
        told = refuse(capsys, *words, "--input", "none.png")
        assert told == "gan3d: --input is none.png; there is no such file.\n"
        told = refuse(capsys, *words, "--input", photo, "--depth", "none.png")
        assert "--depth is none.png; there is no such file" in told
        told = refuse(capsys, *words, "--input", 3, "--depth", "other.png")
        assert "--depth is that of the image" in told
        told = refuse(capsys, *words, "--input", "other.png")
        assert "other.png: there is no other_depth.png beside it; name its depth with" in told
        assert "a depth map of mode RGB" in refuse(
            capsys, *words, "--input", photo, "--depth", photo
        )
    assert "a method without labels" in refuse(capsys, *mesh, "--color", "labels")
    assert "a method without labels" in refuse(capsys, *sample, "--outputs", "labels")
    # A method without images has no use for depth.
    for name, ending in (("sample", "png"), ("mesh", "ply")):
        words = [name, "--load-config", trained, "--output", f"b.{ending}", "--input", photo]
        assert "a method without labels" in refuse(capsys, *words)
        told = refuse(capsys, *words, "--depth", "other.png")
        assert "--depth: " in told or "--input: " in told
    left = {path.suffix for path in Path().iterdir()} - {".png"}
    assert not left
    assert not Path("a.png").exists()


def test_a_mesh_ends_before_what_is_behind(
    elsewhere: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled cars stand before a wall 0.85 half sides of a box 1.8 deep behind the origin."""
    unpack("g3dr-cars64", Path("cars"))
    words = ["mesh", "--resolution", 48, "--output", "car.ply", "--color", "none"]
    succeed(capsys, *words, "--load-config", "cars/config.yml")
    whole = trimesh.load("car.ply", force="mesh")
    assert isinstance(whole, trimesh.Trimesh)
    assert whole.bounds[0, 2] < -0.85 * 0.9
    succeed(
        capsys, *words, "--load-config", "cars/config.yml", "--behind", 0.6, "--largest-component"
    )
    car = trimesh.load("car.ply", force="mesh")
    assert isinstance(car, trimesh.Trimesh)
    assert car.is_watertight
    # Cells are 3.4 / 48; the wall is as wide as the box.
    assert car.bounds[0, 2] > -0.6 * 0.9 - 3.4 / 48
    assert whole.extents[0] > 3.3
    assert car.extents[0] < whole.extents[0] / 2
    assert "--behind: " in refuse(capsys, *words, "--load-config", trained, "--behind", 0.6)
    assert "--behind is 1.0; it must" in refuse(
        capsys, *words, "--load-config", "cars/config.yml", "--behind", 1
    )


def test_views_stay_where_there_is_something_to_see(
    g3dr: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five views stand every 12.5 degrees about the image's camera, at its height."""
    words = ["sample", "--load-config", g3dr, "--inputs", "2", "--outputs", "rgb"]
    succeed(capsys, *words, "--output", "views.png", "--views", 5)
    record = json.loads(Path("views.json").read_text())
    azimuth, elevation = (
        [(view[name] + 180) % 360 - 180 for view in record["views"]]
        for name in ("azimuth_deg", "elevation_deg")
    )
    assert azimuth == pytest.approx([-25, -12.5, 0, 12.5, 25], abs=1e-3)
    assert elevation == pytest.approx([0] * 5, abs=1e-3)
    found = mediapy.read_image("views.png")
    expected = picture(run, SceneRequest(image=2), run.orbit([0.0], 0.0))
    third = found[:, 3 * (SIDE + GAP) :][:, :SIDE]
    assert np.abs(third.astype(int) - expected).max() <= 1
