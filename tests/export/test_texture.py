"""Textures show the Scene's colours at the mesh's places."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import Delaunay
from trimesh.visual import TextureVisuals

from nerfstudio_gan3d.export.mesh import describe, extract_mesh, write_mesh
from nerfstudio_gan3d.export.texture import rasterize, texture_of, unwrap
from tests.export.analytic import Balls, Parts, scene_of
from tests.export.test_mesh import PALETTE, parts_at, read_glb
from tests.export.test_surfaces import reloaded

SURFACE = math.log(2)
SIZE = 256


def test_a_triangle_covers_half_of_a_square():
    corners = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    found = rasterize(corners, 4)
    # Texels on and before the diagonal: their centres are (c + r + 1) / 4 <= 1 along u + v.
    rows, columns = np.indices((4, 4))
    np.testing.assert_array_equal(found.inside, columns + rows <= 3)
    # One texel further the centres are 0.71 texels beyond the edge, two further 1.41, then 2.12.
    np.testing.assert_array_equal(found.face, np.where(columns + rows <= 5, 0, -1))
    np.testing.assert_allclose(found.weights[0, 0], [0.75, 0.125, 0.125], atol=1e-6)
    np.testing.assert_allclose(found.weights[1, 2], [0.0, 0.625, 0.375], atol=1e-6)
    # Beyond the edge: weights (-1/4, 7/8, 3/8), of which the first cannot be.
    np.testing.assert_allclose(found.weights[1, 3], [0, 0.7, 0.3], atol=1e-6)


def test_every_texel_finds_its_place_among_triangles_of_all_sizes():
    generator = np.random.default_rng(0)
    # Crowded about a corner, so that some triangles are smaller than a texel and some are large.
    points = np.concatenate([generator.random((300, 2)) ** 3, [[0, 0], [0, 1], [1, 0], [1, 1]]])
    mesh = Delaunay(points)
    corners = points[mesh.simplices]
    found = rasterize(corners, 64)
    assert found.inside.all()
    centers = (np.stack(np.meshgrid(np.arange(64), np.arange(64)), -1) + 0.5) / 64
    places = (found.weights[..., None] * corners[found.face]).sum(2)
    np.testing.assert_allclose(places, centers, atol=1e-5)
    expected = mesh.find_simplex(centers.reshape(-1, 2)).reshape(64, 64)
    # Centres on an edge belong to both.
    assert (found.face == expected).mean() > 0.99


def test_triangles_without_area_and_outside_gutters_cover_nothing():
    corners = np.array([[[0.5, 0.5], [0.6, 0.6], [0.7, 0.7]], [[0, 0], [0.1, 0], [0, 0.1]]])
    found = rasterize(corners, 20)
    assert set(np.unique(found.face)) == {-1, 1}
    assert (found.face[5:] == -1).all()


def test_an_atlas_keeps_the_triangles_and_its_charts_do_not_overlap():
    mesh = extract_mesh(scene_of(Balls()), 16, level=SURFACE, color="none")
    atlas = unwrap(mesh, SIZE)
    np.testing.assert_array_equal(atlas.source[atlas.faces], mesh.faces)
    assert atlas.uv.min() >= 0
    assert atlas.uv.max() <= 1
    a, b, c = (atlas.uv[atlas.faces[:, i]] for i in range(3))
    areas = np.abs(np.cross(b - a, c - a)) / 2
    covered = rasterize(atlas.uv[atlas.faces], SIZE).inside
    # Overlapping charts would share texels.
    assert areas.sum() == pytest.approx(covered.mean(), rel=0.02)
    assert covered.mean() > 0.3


def looked_up(texture: Image.Image, uv: np.ndarray) -> np.ndarray:
    """Colours 0 to 1 by bilinear look-up, v upwards; texels are squares with a colour in the
    middle."""
    pixels = np.asarray(texture.convert("RGB"), np.float64) / 255
    size = len(pixels)
    x, y = uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    found = np.zeros((len(uv), 3))
    for i in (0, 1):
        for j in (0, 1):
            share = np.abs(1 - i - (x - left)) * np.abs(1 - j - (y - top))
            row, column = (top + j).clip(0, size - 1), (left + i).clip(0, size - 1)
            found += share[:, None] * pixels[row, column]
    return found


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_files_show_the_colour_of_each_place(tmp_path: Path, suffix: str):
    mesh = extract_mesh(scene_of(Balls()), 20, level=SURFACE, texture=SIZE)
    assert f"texture of {SIZE} x {SIZE} texels, surface at density" in describe(mesh)
    path = tmp_path / "new" / f"a ball{suffix}"
    write_mesh(mesh, path)
    loaded = reloaded(path)
    assert isinstance(loaded.visual, TextureVisuals)
    places, faces = trimesh.sample.sample_surface(loaded, 5000, seed=0)[:2]
    weights = trimesh.triangles.points_to_barycentric(loaded.triangles[faces], places)
    assert loaded.visual.uv is not None
    uv = (weights[..., None] * loaded.visual.uv[loaded.faces[faces]]).sum(1)
    material = loaded.visual.material
    texture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    assert texture is not None
    assert texture.size == (SIZE, SIZE)
    # The colour is the place. A byte is off by 1 / 510; texels in gutters show the chart's border,
    # which is half of a texel away (a texel is about 0.005 wide).
    assert np.abs(looked_up(texture, uv) - (places + 0.5)).max() < 0.006
    outwards = np.asarray(loaded.vertices) / np.linalg.norm(loaded.vertices, axis=1)[:, None]
    assert np.abs(loaded.vertex_normals - outwards).max() < 1e-3
    names = {file.name for file in path.parent.iterdir()}
    beside = {"a_ball.mtl", "a_ball_texture.png"} if suffix == ".obj" else set()
    assert names == {path.name} | beside


def test_a_textured_glb_is_matte_and_holds_the_image_as_it_is(tmp_path: Path):
    mesh = extract_mesh(scene_of(Balls()), 16, level=SURFACE, texture=64)
    write_mesh(mesh, tmp_path / "ball.glb")
    tree, data = read_glb(tmp_path / "ball.glb")
    (primitive,) = tree["meshes"][0]["primitives"]
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} == set(primitive["attributes"])
    looks = tree["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert (looks["metallicFactor"], looks["roughnessFactor"]) == (0.0, 1.0)
    assert looks.get("baseColorFactor", [1.0] * 4) == [1.0] * 4
    image = tree["images"][tree["textures"][looks["baseColorTexture"]["index"]]["source"]]
    view = tree["bufferViews"][image["bufferView"]]
    png = data[view["byteOffset"] :][: view["byteLength"]]
    (tmp_path / "texture.png").write_bytes(png)
    texture = texture_of(mesh)
    assert texture is not None
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "texture.png").convert("RGB")), np.asarray(texture)
    )


def test_classes_are_baked_without_mixtures(tmp_path: Path):
    scene = scene_of(Parts())
    mesh = extract_mesh(scene, 20, SURFACE, "labels", palette=PALETTE, texture=SIZE)
    texture = texture_of(mesh)
    assert texture is not None
    pixels = np.asarray(texture)
    assert {tuple(color) for color in pixels.reshape(-1, 3).tolist()} == set(PALETTE)
    # At the triangles' middles the nearest texel has the colour of the class.
    assert isinstance(mesh.visual, TextureVisuals)
    assert mesh.visual.uv is not None
    u, v = mesh.visual.uv[mesh.faces].mean(1).T
    found = pixels[((1 - v) * SIZE).astype(int), (u * SIZE).astype(int)]
    expected = parts_at(mesh.triangles_center)
    assert (found == np.array(PALETTE)[expected]).all(1).mean() > 0.97
    write_mesh(mesh, tmp_path / "parts.glb")
    tree, _ = read_glb(tmp_path / "parts.glb")
    (sampler,) = tree["samplers"]
    assert tree["textures"][0]["sampler"] == 0
    # 9728: NEAREST.
    assert sampler == {"magFilter": 9728, "minFilter": 9728}


def test_textures_that_cannot_be_are_refused(tmp_path: Path):
    scene = scene_of(Balls())
    with pytest.raises(ValueError, match="a texture holds colours"):
        extract_mesh(scene, 16, SURFACE, "none", texture=64)
    mesh = extract_mesh(scene, 8, SURFACE, texture=16)
    with pytest.raises(ValueError, match="PLY has no textures"):
        write_mesh(mesh, tmp_path / "ball.ply")
