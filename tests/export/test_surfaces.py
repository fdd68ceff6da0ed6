"""Meshes of Scenes made of a surface, normals, and levels against a slow twin."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_gan3d.export.level import _first_crossings
from nerfstudio_gan3d.export.mesh import describe, extract_mesh, write_mesh
from nerfstudio_gan3d.scene import FieldSamples
from tests.export.analytic import Balls, Full, scene_of
from tests.export.shapes import solid

CELLS = 40
SURFACE = math.log(2)


def radii(mesh: trimesh.Trimesh) -> np.ndarray:
    return np.linalg.norm(mesh.vertices, axis=1)


def reloaded(path: Path) -> trimesh.Trimesh:
    """The only mesh of a file, with the normals that stand there."""
    # force="mesh" would compute normals of its own.
    found = trimesh.load(path, process=False)
    if isinstance(found, trimesh.Scene):
        (found,) = found.geometry.values()
    assert isinstance(found, trimesh.Trimesh)
    assert "vertex_normals" in found._cache
    return found


@pytest.mark.parametrize("resolution", [CELLS, 80])
def test_a_surface_lies_where_the_occupancy_is_one_half(resolution):
    mesh = extract_mesh(solid(), resolution, color="none")
    assert mesh.is_watertight
    # Logits are linear along the radius: what is left is the curvature within a cell.
    assert np.abs(radii(mesh) - 0.3).max() < 0.05 / resolution
    assert mesh.metadata == {"occupancy_level": 0.5}
    assert describe(mesh).endswith("triangles, surface at occupancy 0.5")


def test_a_level_of_a_surface_is_an_occupancy():
    # logit(0.9) = log 9, which the slope of 100 has at 0.0220 below the surface.
    mesh = extract_mesh(solid(), 80, level=0.9, color="none")
    assert np.abs(radii(mesh) - (0.3 - math.log(9) / 100)).max() < 0.05 / 80
    assert mesh.metadata == {"occupancy_level": 0.9}
    for level in (0.0, 1.0, 30.0):
        with pytest.raises(ValueError, match=f"the level is {level:.4g}, .* between 0 and 1"):
            extract_mesh(solid(), 16, level=level)


def test_a_scene_without_a_surface_says_how_far_it_is_from_one():
    # sigmoid(-1) = 0.2689.
    empty = solid(Full(raw=-1.0))
    sentence = r"no surface: its occupancy is nowhere above 0\.5 \(the highest is 0\.2689\)"
    with pytest.raises(ValueError, match=sentence):
        extract_mesh(empty, 16)
    with pytest.raises(ValueError, match=r"no occupancy .* level 0\.4; the highest is 0\.2689"):
        extract_mesh(empty, 16, level=0.4)
    full = extract_mesh(empty, 16, level=0.2, color="none")
    assert full.volume == pytest.approx(1.0, rel=1e-5)


def test_densities_keep_their_level():
    mesh = extract_mesh(scene_of(Balls()), 16, level=SURFACE, color="none")
    assert mesh.metadata == {"density_level": SURFACE}
    assert describe(mesh).endswith("surface at density 0.6931")


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_normals_are_those_of_the_ball_in_files_too(tmp_path: Path, suffix: str):
    center = np.array([0.05, -0.03, 0.08])
    scene = scene_of(Balls(centers=(tuple(center.tolist()),)))
    mesh = extract_mesh(scene, 16, level=SURFACE)
    path = tmp_path / f"ball{suffix}"
    write_mesh(mesh, path)
    for found in (mesh, reloaded(path)):
        outwards = np.asarray(found.vertices) - center
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
        assert np.abs(found.vertex_normals - outwards).max() < 1e-3
        np.testing.assert_allclose(np.linalg.norm(found.vertex_normals, axis=1), 1, atol=1e-5)


def test_normals_of_faces_are_means():
    scene = scene_of(Balls())
    mesh = extract_mesh(scene, 16, level=SURFACE, normals="faces")
    again = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    np.testing.assert_array_equal(mesh.vertex_normals, again.vertex_normals)
    # They show the cells, which the gradient's do not.
    outwards = np.asarray(mesh.vertices) / radii(mesh)[:, None]
    assert np.abs(mesh.vertex_normals - outwards).max() > 0.01


def test_lids_have_the_normals_of_the_box():
    mesh = extract_mesh(scene_of(Balls(radii=(0.45,)), (0.4, 0.6, 1.0)), CELLS, level=SURFACE)
    x, y, z = np.asarray(mesh.vertices).T
    # A cell away from the lid's rim all triangles are the lid's.
    lid = (x > 0.2 - 1e-6) & (np.hypot(y, z) < 0.36) & (np.abs(y) < 0.27)
    assert lid.sum() > 100
    np.testing.assert_allclose(mesh.vertex_normals[lid], [[1.0, 0, 0]] * lid.sum(), atol=1e-6)


def test_where_the_gradient_vanishes_the_triangles_decide():
    class Steps(Balls):
        """Raw densities of 2 and 0, which stand still on either side of the surface."""

        def query(self, positions, directions=None):
            found = super().query(positions)
            flat = 0 * found.raw_density
            return replace(found, raw_density=torch.where(found.raw_density > 1, 2 + flat, flat))

    class Broken(Balls):
        """An infinite gradient everywhere."""

        def query(self, positions, directions=None):
            found = super().query(positions)
            root = (found.raw_density - found.raw_density.detach()).abs().sqrt()
            return FieldSamples(found.raw_density + root, found.features)

    for field in (Steps(), Broken()):
        mesh = extract_mesh(scene_of(field), 16, level=SURFACE, color="none")
        again = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        np.testing.assert_allclose(mesh.vertex_normals, again.vertex_normals, atol=1e-12)


def test_first_crossings_are_those_of_a_walk_along_each_ray():
    def walked(row: list[float], level: float) -> float:
        for index, value in enumerate(row):
            if value >= level:
                if index == 0:
                    return 0.0
                return index - 1 + (level - row[index - 1]) / (value - row[index - 1])
        return math.nan

    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 4, 9, generator=generator, dtype=torch.float64)
    levels = torch.tensor([-3.0, -0.5, 0.0, 0.7, 1.5], dtype=torch.float64)
    found = _first_crossings(values, levels)
    expected = torch.tensor(
        [[[walked(row, level) for level in levels.tolist()] for row in rows]
         for rows in values.tolist()],
        dtype=torch.float64,
    )  # fmt: skip
    # Rows that never reach a level have no place; one here has no 0.7, and many no 1.5.
    reached = ~expected.isnan()
    assert 0.5 < reached.double().mean() < 1
    torch.testing.assert_close(found[reached], expected[reached])
