"""Meshes of Scenes whose surface is known."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.export.level import raw_of_density
from nerfstudio_gan3d.export.mesh import density_grid, extract_mesh, write_mesh
from nerfstudio_gan3d.scene import Bounds, FieldSamples, Scene, activate_density
from tests.export.analytic import Balls, Full, Parts, scene_of

CELLS = 40
HALF_CELL = 0.5 / CELLS
PALETTE = ((250, 250, 240), (204, 0, 0), (0, 0, 30))
# The density at the surface of `Balls`: softplus(1 - 1).
SURFACE = math.log(2)


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON tree and the binary chunk of a GLB file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<I", content[12:16])
    return json.loads(content[20 : 20 + length]), content[28 + length :]


def glb_colors(path: Path) -> np.ndarray:
    """Vertex colours of the only mesh of a GLB file, bytes [V, 4]."""
    tree, data = read_glb(path)
    (primitive,) = tree["meshes"][0]["primitives"]
    accessor = tree["accessors"][primitive["attributes"]["COLOR_0"]]
    assert (accessor["componentType"], accessor["type"]) == (5121, "VEC4")
    start = tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
    colors = np.frombuffer(data, np.uint8, accessor["count"] * 4, start)
    return colors.reshape(-1, 4)


def colors_of(mesh: trimesh.Trimesh) -> np.ndarray:
    """Vertex colours, bytes [V, 4]."""
    assert isinstance(mesh.visual, ColorVisuals)
    return np.asarray(mesh.visual.vertex_colors)


def radii(mesh: trimesh.Trimesh) -> np.ndarray:
    return np.linalg.norm(mesh.vertices, axis=1)


def test_a_ball_is_found_at_its_radius_with_normals_outwards():
    mesh = extract_mesh(scene_of(Balls()), CELLS, level=SURFACE)
    assert mesh.is_watertight
    # The raw density is linear along the radius: what is left is the curvature within a cell.
    assert np.abs(radii(mesh) - 0.3).max() < 0.1 * HALF_CELL
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.01)
    outwards = (mesh.face_normals * mesh.triangles_center).sum(1)
    assert (outwards > 0.29).all()


def test_the_automatic_level_finds_a_steep_surface_within_half_a_cell():
    # The density passes 300 a cell below the surface: what a ray sees is the ball.
    mesh = extract_mesh(scene_of(Balls(slope=300.0 * CELLS)), CELLS)
    assert np.abs(radii(mesh) - 0.3).max() < HALF_CELL


def test_the_automatic_level_of_a_soft_ball_is_where_rays_become_half_opaque():
    # Far from the activation's bend density = k (R - r): a ray through the centre has passed
    # k x^2 / 2 at depth x, so T = 1/2 at x = sqrt(2 log 2 / k). Oblique rays stay longer in the
    # thin shell, which puts the best common level below that of the central ray.
    slope = 200.0
    depth = math.sqrt(2 * math.log(2) / slope)
    mesh = extract_mesh(scene_of(Balls(slope=slope, radii=(0.4,))), 80)
    assert np.ptp(radii(mesh)) < 1 / 80
    assert 0.4 - depth < radii(mesh).mean() < 0.4 - 0.4 * depth


def test_the_automatic_level_passes_through_haze():
    class Hazy(Balls):
        def query(self, positions, directions=None):
            found = super().query(positions)
            # A density of 0.4 per unit everywhere: a ray across the box keeps two thirds of its
            # light.
            haze = raw_of_density(0.4, 1.0)
            return FieldSamples(found.raw_density.clamp(min=haze), found.features)

    mesh = extract_mesh(scene_of(Hazy(slope=4000.0)), CELLS)
    assert np.abs(radii(mesh) - 0.3).max() < HALF_CELL


def test_cells_are_cubes_in_a_box_that_is_not_one():
    scene = scene_of(Balls(radii=(0.2,)), box=(0.5, 0.6, 1.0))
    grid = density_grid(scene, CELLS)
    assert tuple(grid.raw.shape) == (21, 25, 41)
    assert grid.cell == pytest.approx((0.025, 0.025, 0.025))
    mesh = extract_mesh(scene, CELLS, level=SURFACE)
    assert np.abs(radii(mesh) - 0.2).max() < HALF_CELL


def test_a_surface_that_leaves_the_box_is_closed_by_flat_lids():
    box = (0.4, 0.6, 1.0)
    mesh = extract_mesh(scene_of(Balls(radii=(0.45,)), box), CELLS, level=SURFACE)
    assert mesh.is_watertight
    assert mesh.volume > 0
    np.testing.assert_allclose(mesh.bounds, [[-0.2, -0.3, -0.45], [0.2, 0.3, 0.45]], atol=1e-3)
    lid = np.abs(mesh.vertices[:, 0] - 0.2) < 1e-6
    assert lid.sum() > 100


def test_a_box_full_of_density_becomes_the_box():
    box = (0.4, 0.6, 1.0)
    mesh = extract_mesh(scene_of(Full(), box), CELLS)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(0.24, rel=1e-5)


def test_the_largest_part_alone_is_kept():
    balls = Balls(centers=((-0.25, 0, 0), (0.3, 0, 0)), radii=(0.2, 0.1))
    both = extract_mesh(scene_of(balls), CELLS, level=SURFACE)
    one = extract_mesh(scene_of(balls), CELLS, level=SURFACE, largest_component=True)
    assert both.body_count == 2
    assert one.body_count == 1
    assert one.is_watertight
    np.testing.assert_allclose(one.centroid, [-0.25, 0, 0], atol=1e-3)


def test_vertices_have_the_colour_of_their_place():
    mesh = extract_mesh(scene_of(Balls()), CELLS, level=SURFACE)
    expected = (np.asarray(mesh.vertices) + 0.5) * 255
    assert np.abs(colors_of(mesh)[:, :3] - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_files_keep_shape_and_colour(tmp_path, suffix):
    path = tmp_path / "new" / f"ball{suffix}"
    mesh = extract_mesh(scene_of(Balls()), 16, level=SURFACE)
    write_mesh(mesh, path)
    loaded = trimesh.load(path, force="mesh", process=False)
    assert isinstance(loaded, trimesh.Trimesh)
    np.testing.assert_allclose(loaded.bounds, mesh.bounds, atol=1e-6)
    assert loaded.volume == pytest.approx(mesh.volume, rel=1e-4)
    if suffix == ".glb":
        # trimesh drops the vertex colours of a mesh with a material.
        colors = glb_colors(path)[:, :3] / 255.0
        # glTF stores light; the sRGB curve brings the image's colours back.
        colors = np.where(colors <= 0.0031308, 12.92 * colors, 1.055 * colors ** (1 / 2.4) - 0.055)
    else:
        colors = colors_of(loaded)[:, :3] / 255.0
    order = trimesh.proximity.ProximityQuery(mesh).vertex(loaded.vertices)[1]
    expected = colors_of(mesh)[order, :3] / 255.0
    # Eight bits of light are coarse in the dark; no colour of this ball is darker than 0.2.
    assert np.abs(colors - expected).max() < 0.01
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def parts_at(vertices: np.ndarray) -> np.ndarray:
    """Classes of `Parts`, -1 where two scores are equal up to rounding."""
    x, y, _ = vertices.T
    ids = np.where(20 * (y - 0.2) > np.abs(x), 0, np.where(x > 0, 2, 1))
    margin = np.minimum(np.abs(20 * (y - 0.2) - np.abs(x)), np.abs(x))
    return np.where(margin < 1e-5, -1, ids)


def test_vertices_have_the_class_with_the_highest_score():
    mesh = extract_mesh(scene_of(Parts()), CELLS, SURFACE, "labels", palette=PALETTE)
    ids = mesh.vertex_attributes["label"]
    expected = parts_at(np.asarray(mesh.vertices))
    known = expected >= 0
    assert known.mean() > 0.9
    np.testing.assert_array_equal(ids[known], expected[known])
    assert set(ids.tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(colors_of(mesh)[:, :3], np.array(PALETTE)[ids])


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_files_keep_classes(tmp_path, suffix):
    path = tmp_path / f"parts{suffix}"
    mesh = extract_mesh(scene_of(Parts()), 16, SURFACE, "labels", palette=PALETTE)
    write_mesh(mesh, path)
    loaded = trimesh.load(path, force="mesh", process=False)
    assert isinstance(loaded, trimesh.Trimesh)
    colors = glb_colors(path) if suffix == ".glb" else colors_of(loaded)
    order = trimesh.proximity.ProximityQuery(mesh).vertex(loaded.vertices)[1]
    ids = mesh.vertex_attributes["label"][order]
    palette = np.array(PALETTE)
    if suffix == ".glb":
        # glTF stores light: 250, 204, 30 and 0 of sRGB, each worked out by hand.
        palette = np.array([[244, 244, 222], [154, 0, 0], [0, 0, 3]])
    np.testing.assert_array_equal(colors[:, :3], palette[ids])
    if suffix == ".ply":
        header = path.read_bytes().split(b"end_header")[0]
        assert b"property uchar label" in header
        np.testing.assert_array_equal(loaded.metadata["_ply_raw"]["vertex"]["data"]["label"], ids)


def test_classes_that_a_scene_does_not_have_are_refused():
    _refused(scene_of(Balls()), "3 classes are to be coloured", color="labels", palette=PALETTE)
    many = [(i, i, i) for i in range(6)]
    _refused(scene_of(Parts()), "the Scene knows 5", color="labels", palette=many)
    _refused(scene_of(Parts()), "give the palette", color="labels")


def test_glb_is_matte_with_normals(tmp_path):
    write_mesh(extract_mesh(scene_of(Balls()), 16, level=SURFACE), tmp_path / "ball.glb")
    tree, _ = read_glb(tmp_path / "ball.glb")
    (primitive,) = tree["meshes"][0]["primitives"]
    assert {"POSITION", "NORMAL", "COLOR_0"} <= set(primitive["attributes"])
    material = tree["materials"][primitive["material"]]
    assert material["pbrMetallicRoughness"] == {"metallicFactor": 0.0, "roughnessFactor": 1.0}


def test_a_mesh_without_colours_has_none(tmp_path):
    mesh = extract_mesh(scene_of(Balls()), 16, level=SURFACE, color="none")
    write_mesh(mesh, tmp_path / "ball.ply")
    header = (tmp_path / "ball.ply").read_bytes().split(b"end_header")[0]
    assert b"property float x" in header
    assert b"red" not in header


def test_a_file_is_replaced_whole_or_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "ball.ply"
    path.write_text("before")
    mesh = extract_mesh(scene_of(Balls()), 16, level=SURFACE)

    def interrupted(file, **_):
        file.write_text("half a me")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mesh, "export", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_mesh(mesh, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_mesh(mesh, path)
    assert path.read_bytes().startswith(b"ply")


def test_the_raw_density_of_a_density_is_the_activations_inverse():
    density = torch.tensor([1e-6, 0.01, 0.7, 5.0, 40.0, 900.0], dtype=torch.float64)
    for scale in (1.0, 30.0):
        raw = torch.tensor([raw_of_density(float(d), scale) for d in density]).double()
        torch.testing.assert_close(activate_density(raw, scale), density, rtol=1e-5, atol=0)


def _refused(scene: Scene, sentence: str, **options) -> None:
    with pytest.raises(ValueError, match=sentence):
        extract_mesh(scene, 16, **options)


def test_what_has_no_surface_is_refused(tmp_path):
    _refused(scene_of(Full(raw=-5.0)), "no ray through it becomes half opaque")
    _refused(scene_of(Balls(slope=10)), r"reaches the level 1e\+06; the highest is", level=1e6)
    _refused(scene_of(Full(raw=float("nan"))), "not finite")
    _refused(Scene(Full(), Bounds(), 2), "made from one Scene, and there are 2")
    mesh = extract_mesh(scene_of(Balls()), 16, level=SURFACE)
    with pytest.raises(ValueError, match=r"must end in \.ply, \.obj or \.glb"):
        write_mesh(mesh, tmp_path / "ball.stl")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        write_mesh(mesh, tmp_path / "folder.ply")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        write_mesh(mesh, tmp_path / "file" / "ball.ply")
