"""Meshes with fewer triangles lie on surfaces that are known; axes and units are worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import open3d
import pytest
import torch
import trimesh
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.cameras import object_to_nerfstudio
from nerfstudio_gan3d.export.mesh import describe, extract_mesh, write_mesh
from nerfstudio_gan3d.export.mesh_shape import decimated, placed
from nerfstudio_gan3d.export.texture import texture_of
from nerfstudio_gan3d.scene import Bounds, Field, Scene
from tests.export.analytic import Balls, scene_of
from tests.export.shapes import Bumpy, Torus, solid
from tests.export.test_surfaces import reloaded

SURFACE = math.log(2)


def volume_of(field: Field) -> Scene:
    return Scene(field, Bounds(), 1)


def distances(mesh: trimesh.Trimesh, scene: Scene, slope: float) -> np.ndarray:
    """How far places of a mesh are from the surface of a Scene whose raw density falls linearly
    with the distance, through 1 on the surface."""
    places = trimesh.sample.sample_surface(mesh, 20000, seed=0)[0]
    places = np.concatenate([places, np.asarray(mesh.vertices)])
    raw = scene.field.query(torch.from_numpy(places)[None].double()).raw_density
    return np.abs(raw[0, :, 0].numpy() - 1) / slope


def test_a_ball_of_few_triangles_is_round():
    mesh = extract_mesh(scene_of(Balls()), 40, SURFACE, triangles=500)
    assert len(mesh.faces) == 500
    assert mesh.is_watertight
    # An edge of 500 equal triangles is 0.072 long, its middle 0.0022 deep in the ball, a
    # triangle's middle 0.0029; vertices stand as far out. Where quadrics pass for singular, the
    # volume is that of an inscribed mesh, 3.4 % too small.
    assert distances(mesh, scene_of(Balls()), 100.0).max() < 0.006
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.015)
    assert " 500 triangles of 5144, surface at" in describe(mesh)
    # Normals and colours are those of the places where the vertices are now.
    outwards = np.asarray(mesh.vertices) / np.linalg.norm(mesh.vertices, axis=1)[:, None]
    assert np.abs(mesh.vertex_normals - outwards).max() < 1e-3
    assert isinstance(mesh.visual, ColorVisuals)
    expected = (np.asarray(mesh.vertices) + 0.5) * 255
    assert np.abs(mesh.visual.vertex_colors[:, :3] - expected).max() <= 0.5 + 1e-3


def test_a_ring_stays_a_closed_ring():
    scene = volume_of(Torus())
    mesh = extract_mesh(scene, 48, SURFACE, "none", triangles=800)
    assert len(mesh.faces) == 800
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 0
    assert distances(mesh, scene, 50.0).max() < 0.006
    assert mesh.volume == pytest.approx(2 * math.pi**2 * 0.27 * 0.11**2, rel=0.015)


def test_a_ragged_surface_of_many_parts_stays_closed():
    full = extract_mesh(volume_of(Bumpy()), 40, SURFACE, "none", normals="faces")
    few = extract_mesh(volume_of(Bumpy()), 40, SURFACE, "none", normals="faces", triangles=1500)
    assert full.is_watertight
    assert few.is_watertight
    assert len(few.faces) <= 1500
    assert few.volume == pytest.approx(full.volume, rel=0.04)


def test_lids_stay_in_the_faces_of_the_box():
    scene = scene_of(Balls(radii=(0.45,)), (0.4, 0.6, 1.0))
    mesh = extract_mesh(scene, 40, SURFACE, "none", triangles=600)
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds, [[-0.2, -0.3, -0.45], [0.2, 0.3, 0.45]], atol=3e-3)
    assert np.abs(mesh.bounds[:, 0]).max() == 0.2
    # Of the plane x = 0.2 the ball cuts a disc of radius 0.403, of which two segments lie beyond
    # y = 0.3 and -0.3: pi r^2 - 2 (r^2 acos(0.3 / r) - 0.3 sqrt(r^2 - 0.09)) = 0.4343.
    # Marching cubes cuts the corner between ball and lid within half a cell, and edges of few
    # triangles cut it further.
    lid = (np.abs(mesh.triangles[:, :, 0] - 0.2) < 1e-9).all(1)
    assert mesh.area_faces[lid].sum() == pytest.approx(0.4343, rel=0.05)


def test_a_mesh_with_few_triangles_is_left_alone():
    mesh = extract_mesh(scene_of(Balls()), 8, SURFACE, "none")
    assert decimated(mesh, len(mesh.faces), (1.0, 1.0, 1.0)) is mesh
    assert "triangles_before" not in mesh.metadata


def test_too_few_triangles_are_refused():
    # A closed ring has at least 14 triangles (Csaszar's polyhedron).
    ring = trimesh.creation.torus(0.27, 0.11)
    with pytest.raises(ValueError, match=r"10 triangles are too few .* are left at the least"):
        decimated(ring, 10, (1.0, 1.0, 1.0))
    # Four balls need 16 triangles.
    ball = trimesh.creation.icosphere(2, 0.1)
    row = [ball.copy().apply_translation([place, 0, 0]) for place in (-0.375, -0.125, 0.125, 0.375)]
    four = trimesh.util.concatenate(row)
    assert isinstance(four, trimesh.Trimesh)
    with pytest.raises(ValueError, match=r"4 triangles are too few .* becomes flat"):
        decimated(four, 4, (1.0, 1.0, 1.0))


def test_textures_are_those_of_the_triangles_that_are_left():
    mesh = extract_mesh(scene_of(Balls()), 24, SURFACE, texture=64, triangles=300)
    assert len(mesh.faces) == 300
    assert texture_of(mesh) is not None
    assert " 300 triangles of " in describe(mesh)


def test_z_up_is_nerfstudios_world():
    mesh = trimesh.Trimesh([[1, 2, 3], [4, 2, 3], [1, 2, 5]], [[0, 1, 2]], process=False)
    mesh.vertex_normals = np.array([[0.6, 0.8, 0.0], [0, 1, 0], [0, 0, 1]])
    found = placed(mesh, "z")
    np.testing.assert_allclose(found.vertices, [[1, -3, 2], [4, -3, 2], [1, -5, 2]])
    np.testing.assert_allclose(found.vertex_normals, [[0.6, 0, 0.8], [0, 0, 1], [0, -1, 0]])
    turn = object_to_nerfstudio().double().numpy()
    np.testing.assert_allclose(found.vertices, np.asarray(mesh.vertices) @ turn.T)
    np.testing.assert_array_equal(mesh.vertices[0], [1, 2, 3])


def test_the_longest_side_is_as_long_as_wished_about_the_same_origin():
    mesh = trimesh.Trimesh([[1, 2, 3], [4, 2, 3], [1, 2, 5]], [[0, 1, 2]], process=False)
    mesh.vertex_normals = np.array([[0.0, 1.0, 0.0]] * 3)
    # It is 3 long: a factor of 1.5.
    found = placed(mesh, longest_side=4.5)
    np.testing.assert_allclose(found.vertices, [[1.5, 3, 4.5], [6, 3, 4.5], [1.5, 3, 7.5]])
    np.testing.assert_allclose(found.vertex_normals, [[0, 1, 0]] * 3)
    assert found.metadata["longest_side"] == pytest.approx(4.5)
    point = trimesh.Trimesh([[1, 1, 1]] * 3, [[0, 1, 2]], process=False)
    with pytest.raises(ValueError, match="no extent"):
        placed(point, longest_side=2.0)


def read_by_open3d(path: Path) -> open3d.geometry.TriangleMesh:
    return open3d.io.read_triangle_mesh(path)


@pytest.mark.parametrize("name", ["ball.ply", "ball.obj", "ball.glb", "look.obj", "look.glb"])
@pytest.mark.parametrize("scene", [scene_of(Balls()), solid()], ids=["density", "surface"])
def test_other_programs_read_every_format(tmp_path: Path, name: str, scene: Scene):
    texture = 64 if name.startswith("look") else 0
    mesh = placed(
        extract_mesh(scene, 16, texture=texture, triangles=200),
        "y" if name.endswith("glb") else "z",
        longest_side=2.0,
    )
    path = tmp_path / name
    write_mesh(mesh, path)
    for vertices, faces in (
        (reloaded(path).vertices, reloaded(path).faces),
        (read_by_open3d(path).vertices, read_by_open3d(path).triangles),
    ):
        found = np.asarray(vertices)
        assert len(np.asarray(faces)) == 200
        assert np.ptp(found, axis=0).max() == pytest.approx(2.0, rel=1e-5)
        np.testing.assert_allclose(found.min(0), mesh.bounds[0], atol=1e-5)
        np.testing.assert_allclose(found.max(0), mesh.bounds[1], atol=1e-5)
