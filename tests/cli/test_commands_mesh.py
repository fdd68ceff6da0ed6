"""`gan3d mesh`: textures, normals, refinement and ways between seeds; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.export.seen_colors import seen_colors
from nerfstudio_gan3d.export.texture import texture_of
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.run import Run
from tests.cli.test_commands import refuse, succeed
from tests.export.test_mesh import read_glb
from tests.export.test_surfaces import reloaded


def test_a_way_between_two_seeds(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mesh", "--load-config", trained, "--output", "new/way.ply", "--resolution", 16]
    told = succeed(capsys, *words, "--seed", 3, "--to-seed", 8, "--steps", 3)
    assert "3 meshes from seed 3 to seed 8; the first is new/way_00.ply: " in told
    assert "; the last is new/way_02.ply: " in told
    assert {file.name for file in Path("new").iterdir()} == {f"way_0{i}.ply" for i in range(3)}
    for step, share in enumerate((0.0, 0.5, 1.0)):
        request = SceneRequest(seed=3, other_seed=8, interpolation=share)
        expected = extract_mesh(run.scene(request), 16)
        found = reloaded(Path(f"new/way_0{step}.ply"))
        np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-5)
        np.testing.assert_allclose(found.vertex_normals, expected.vertex_normals, atol=1e-4)
    # The far end is the other seed itself.
    alone = extract_mesh(run.scene(SceneRequest(seed=8)), 16)
    last = reloaded(Path("new/way_02.ply"))
    np.testing.assert_allclose(last.vertices, alone.vertices, atol=1e-5)


def test_a_textured_mesh(trained: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mesh", "--load-config", trained, "--resolution", 12, "--texture", 64]
    told = succeed(capsys, *words, "--output", "car.glb", "--normals", "faces")
    assert "texture of 64 x 64 texels, surface at density" in told
    tree, _ = read_glb(Path("car.glb"))
    (primitive,) = tree["meshes"][0]["primitives"]
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} == set(primitive["attributes"])
    found = reloaded(Path("car.glb"))
    image = texture_of(found)
    assert image is not None
    assert image.size == (64, 64)
    expected = extract_mesh(run.scene(SceneRequest()), 12, texture=64, normals="faces")
    expected_image = texture_of(expected)
    assert expected_image is not None
    np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(expected_image))
    succeed(capsys, *words, "--output", "car.obj")
    assert {file.name for file in Path().iterdir()} == {
        "car.glb", "car.obj", "car.mtl", "car_texture.png",
    }  # fmt: skip


def test_a_refined_mesh_is_that_of_the_whole_grid(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mesh", "--load-config", trained, "--resolution", 72, "--level", 2.0]
    words += ["--color", "none", "--normals", "faces"]
    succeed(capsys, *words, "--output", "refined.ply")
    succeed(capsys, *words, "--output", "dense.ply", "--extraction", "dense")
    refined, dense = (trimesh.load(f"{name}.ply", process=False) for name in ("refined", "dense"))
    assert isinstance(refined, trimesh.Trimesh)
    assert isinstance(dense, trimesh.Trimesh)
    # A young GAN's density is ragged: of its crumbs a coarse grid may see not every one.
    assert refined.area == pytest.approx(dense.area, rel=0.02)
    assert refined.is_watertight


def test_few_triangles_in_other_axes_and_another_unit(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mesh", "--load-config", trained, "--output", "car.ply", "--resolution", 16]
    words += ["--triangles", 100, "--up", "z", "--longest-side", 4.5, "--color-from", "views"]
    told = succeed(capsys, *words)
    scene = run.scene(SceneRequest())
    expected = extract_mesh(scene, 16, triangles=100, seen=seen_colors(run, scene))
    whole = len(extract_mesh(scene, 16).faces)
    assert len(expected.faces) <= 100 < whole
    assert f" {len(expected.faces)} triangles of {whole}" in told
    assert told.rstrip().endswith("longest side 4.5")
    found = reloaded(Path("car.ply"))
    turned = np.asarray(expected.vertices)[:, [0, 2, 1]] * [1, -1, 1]
    turned *= 4.5 / np.ptp(turned, axis=0).max()
    np.testing.assert_allclose(found.vertices, turned, atol=1e-5)
    assert isinstance(found.visual, ColorVisuals)
    assert isinstance(expected.visual, ColorVisuals)
    np.testing.assert_array_equal(found.visual.vertex_colors, expected.visual.vertex_colors)


def test_impossible_meshes_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: object, output: str = "a.glb") -> str:
        return refuse(capsys, "mesh", "--load-config", trained, "--output", output, *words)

    assert "--texture is 8; it must lie between 16 and 8192" in told("--texture", 8)
    assert "must end in .glb or .obj" in told("--texture", 64, output="a.ply")
    assert "--texture and --color none" in told("--texture", 64, "--color", "none")
    assert "--steps without --to-seed" in told("--steps", 3)
    assert "--steps is 1; it must lie between 2 and 1000" in told("--to-seed", 3, "--steps", 1)
    assert "--to-seed is -1" in told("--to-seed", -1)
    assert "--triangles is 3; a closed mesh has at least 4" in told("--triangles", 3)
    assert "--up is z and --output is a.glb; glTF defines y as up" in told("--up", "z")
    for length in (0.0, -1.0, 1e-10, 1e10, float("inf"), float("nan")):
        wrong = f"--longest-side is {length}; it must be a positive length, from 1e-09 to 1e+09."
        assert wrong in told("--longest-side", length)
    views = "--color-from", "views", "--color", "none"
    assert "--color-from views and --color none: views show rgb alone" in told(*views)
    for option in ("--seed", "--to-seed", "--appearance-seed"):
        for seed in (-1, 10**18):
            wrong = f"{option} is {seed}; it must lie between 0 and 10^18."
            assert wrong in told(option, seed)
    assert not list(Path().iterdir())


def test_targets_are_looked_at_before_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    def told(output: str, *words: object) -> str:
        return refuse(capsys, "mesh", "--load-config", "gone.yml", "--output", output, *words)

    Path("file").touch()
    for name in ("folder.ply", "way_03.glb", "a.mtl", "b_00_texture.png"):
        Path(name).mkdir()
    before = sorted(Path().iterdir())
    assert "--output is folder.ply, which is a folder" in told("folder.ply")
    assert "file is a file and no folder" in told("file/new/a.ply")
    assert "nothing can be written to the folder /proc" in told("/proc/new/a.ply")
    assert "way_03.glb is a folder" in told("way.glb", "--to-seed", 1)
    assert "a.mtl is a folder" in told("a.obj", "--texture", 64)
    assert "b_00_texture.png is a folder" in told("b.obj", "--texture", 64, "--to-seed", 1)
    # None of these is in the way of a mesh without them.
    assert "gone.yml: no such file" in told("way.glb", "--to-seed", 1, "--steps", 3)
    assert "gone.yml: no such file" in told("a.obj")
    assert sorted(Path().iterdir()) == before
