"""The scripts of docs/examples, run on bundled checkpoints and a small run: what they write."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

import nerfstudio_gan3d
from nerfstudio_gan3d.export.splat_files import read_splats
from nerfstudio_gan3d.image_views import STORED_IMAGES
from nerfstudio_gan3d.metrics.meshes import nearest_on_mesh
from tests.cli.g3dr_run import untrained_g3dr
from tests.models.tiny_g3dr import SIDE, kept_images
from tests.packaging.project import ROOT

EXAMPLES = ROOT / "docs" / "examples"
RESOLUTION = 20
"""Cells of the meshes' grids; the default takes longer."""


@pytest.fixture
def run_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a script in a folder of its own; returns the folder that it wrote to."""

    def run(name: str, source: object, *words: object) -> Path:
        monkeypatch.chdir(tmp_path)
        line = [f"{name}.py", source, "out", "--resolution", RESOLUTION, *words]
        monkeypatch.setattr(sys, "argv", [str(word) for word in line])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return tmp_path / "out"

    return run


def views(file: Path, count: int, side: int) -> np.ndarray:
    """Pictures side by side, [V, S, S, C], of which none is constant and no two are equal."""
    found = np.array(Image.open(file))
    assert found.shape[:2] == (side, count * side)
    split = np.stack(np.split(found, count, axis=1))
    assert (split.reshape(count, -1).std(1) > 5).all()
    assert len(np.unique(split.reshape(count, -1), axis=0)) == count
    return split


def surface(file: Path) -> trimesh.Trimesh:
    found = trimesh.load(file, force="mesh")
    assert isinstance(found, trimesh.Trimesh)
    assert len(found.faces) > 100
    return found


def test_every_example_is_run_here() -> None:
    names = {path.stem for path in EXAMPLES.iterdir() if path.suffix == ".py"}
    assert names == {"ballgan", "pix2pix3d", "threedgen", "g3dr"}


def test_ballgan(run_example) -> None:
    out = run_example("ballgan", "ballgan-cars64", "--seed", 3, "--splat-steps", 0)
    orbit = views(out / "orbit.png", 6, 64)
    alone = views(out / "foreground.png", 6, 64)
    assert alone.shape[-1] == 4
    # Where the car covers a pixel, both show the same; elsewhere there is nothing.
    alpha = alone[..., 3:]
    covered = alpha[..., 0] > 250
    assert 0.05 < covered.mean() < 0.5
    apart = orbit[covered].astype(int) - alone[covered][:, :3]
    assert np.abs(apart).max() <= 6
    assert (alone[alpha[..., 0] == 0] == 0).all()
    # A car of the data set is longer (z) than it is wide (x).
    mesh = surface(out / "mesh.glb")
    assert mesh.extents[2] > mesh.extents[0]
    # Splats lie where the mesh does, which has cells of 0.05, but for crumbs; with y pointing down.
    places = read_splats(out / "splats.ply").means.double().numpy()
    assert len(places) == 4000
    upright, upside_down = (
        np.median(nearest_on_mesh(mesh, places * turn).distances)
        for turn in ([1, -1, -1], [1, 1, 1])
    )
    assert upright < 0.015
    assert upside_down > 2 * upright


def test_pix2pix3d(run_example) -> None:
    out = run_example("pix2pix3d", "pix2pix3d-cars64")
    views(out / "orbit.png", 6, 64)
    labels = np.array(Image.open(out / "labels.png"))
    assert labels.shape == (64, 64)
    ids = set(np.unique(labels))
    assert ids <= set(range(6))
    assert {0, 1} < ids
    views(out / "edited.png", 7, 64)
    mesh = trimesh.load(out / "mesh.ply", force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) > 100
    # The labels that it wrote are a label map of one's own.
    again = run_example(
        "pix2pix3d", "pix2pix3d-cars64", "--map", out / "labels.png", "--azimuth", 90
    )
    views(again / "orbit.png", 6, 64)


def test_threedgen(run_example) -> None:
    out = run_example("threedgen", "3dgen-cars64")
    views(out / "orbit.png", 6, 64)
    grid = np.array(Image.open(out / "grid.png"))
    assert grid.shape == (2 * 64, 3 * 64, 3)
    # The way's ends are the first column's shapes in the first appearance.
    way = views(out / "way.png", 3, 64)
    np.testing.assert_array_equal(way[0], grid[:64, :64])
    np.testing.assert_array_equal(way[2], grid[64:, :64])
    # Appearances differ in colours.
    rows = np.split(grid[:64], 3, axis=1)
    assert np.abs(rows[0].astype(int) - rows[1]).mean() > 1
    surface(out / "mesh.glb")


def test_g3dr(run_example, tmp_path: Path) -> None:
    config = untrained_g3dr(tmp_path / "run")
    out = run_example("g3dr", config)
    kept = views(out / "orbit.png", 5, SIDE)
    depth = np.array(Image.open(out / "depth.png"))
    assert depth.shape == (SIDE, 5 * SIDE)
    # From a distance of 2 the box of side 2 lies within 0.26 and 3.74.
    assert (depth >= 260).all()
    assert (depth <= 3740).all()
    surface(out / "mesh.glb")
    # The same image from files shows the same, and another one something else.
    images, distances = kept_images()
    assert len(images) == STORED_IMAGES
    for index in (0, 5):
        Image.fromarray(images[index].permute(1, 2, 0).numpy()).save(tmp_path / "own.png")
        value = np.rint((distances[index, 0].numpy() - 1) / 2 * 65536).astype(np.uint16)
        Image.fromarray(value).save(tmp_path / "own_depth.png")
        run_example("g3dr", config, "--image", "own.png")
        found = views(out / "orbit.png", 5, SIDE)
        apart = np.abs(found.astype(int) - kept).max()
        assert apart <= 1 if index == 0 else apart > 1


def test_g3dr_on_the_bundled_checkpoint(run_example) -> None:
    """The middle view is the kept image's own: the README says 36 dB, and here are at least 28."""
    out = run_example("g3dr", "g3dr-cars64")
    own = views(out / "orbit.png", 5, 64)[2]
    store = nerfstudio_gan3d.load("g3dr-cars64", "cpu").run.model.image_store
    assert store is not None
    image = store.images[0].permute(1, 2, 0).numpy()
    error = np.square((own.astype(float) - image) / 255).mean()
    assert -10 * np.log10(error) > 28
    surface(out / "mesh.glb")
