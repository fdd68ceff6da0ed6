"""Figures of meshes of spheres and of Scenes whose surface is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_gan3d.cameras import camera_angles, pixel_rays
from nerfstudio_gan3d.metrics.config import EvaluationConfig
from nerfstudio_gan3d.metrics.meshes import (
    MeshQuality,
    SeenPoints,
    component_areas,
    mesh_cameras,
    mesh_figures,
    mesh_quality,
    nearest_on_mesh,
    scene_mesh,
    seen_points,
)
from nerfstudio_gan3d.rendering.settings import RenderSettings
from nerfstudio_gan3d.scene import Bounds, Scene
from tests.export.analytic import Balls, Full, scene_of
from tests.rendering.surfaces import Sphere

RADIUS = 0.4
CAMERAS = mesh_cameras(1.9, 1.5)
NOTHING = SeenPoints(torch.zeros(0, 3), torch.zeros(0, 3))
SETTINGS = RenderSettings(samples=48, importance_samples=0)


def ball(radius: float = RADIUS) -> trimesh.Trimesh:
    """A sphere of 5120 triangles, which lie inside of it by a thousandth of its radius at most."""
    return trimesh.creation.icosphere(subdivisions=4, radius=radius)


def exact_points(size: int = 32) -> SeenPoints:
    """What depth maps without error show of the sphere of radius 0.4."""
    origins, directions = pixel_rays(CAMERAS, size, size)
    reached = Sphere(radius=RADIUS).hit(origins, directions)
    hit = reached[..., 0].isfinite()
    points = origins[hit] + directions[hit] * reached[hit]
    return SeenPoints(points, torch.nn.functional.normalize(points, dim=-1))


def solid(slope: float = 4000.0) -> Scene:
    """The same sphere as a Scene made of a surface, rendered within a thin shell."""
    shape = Sphere(slope, RADIUS)
    return Scene(shape, Bounds(near=1.0, far=2.8), 1, volume="occupancy", shell=0.04)


def whole_quality(**changes: float | int | bool | None) -> MeshQuality:
    values = {"watertight": True, "components": 1, "largest_share": 1.0, "chamfer": 0.01}
    values |= {"normal_consistency": 0.9, **changes}
    return MeshQuality(**values)  # pyright: ignore[reportArgumentType]


def test_cameras_stand_around_above_and_below() -> None:
    azimuth, elevation, radius = camera_angles(
        mesh_cameras(2.5, 1.2, (0.1, 0.2, 0.3)), (0.1, 0.2, 0.3)
    )
    # Half a turn either way is the same place.
    around = (azimuth[:6].rad2deg() + 1) % 360
    assert around.tolist() == pytest.approx([1, 61, 121, 181, 241, 301], abs=1e-3)
    assert elevation.rad2deg().tolist() == pytest.approx([20] * 6 + [70, -70], abs=1e-3)
    assert radius.tolist() == pytest.approx([2.5] * 8)
    assert mesh_cameras(2.5, 1.2)[:, 16].tolist() == pytest.approx([1.2] * 8)


def test_nearest_places_of_a_cube() -> None:
    box = trimesh.creation.box((2.0, 2.0, 2.0))
    points = np.array(
        [
            [3.0, 0.2, -0.4],  # before the face x = 1
            [0.1, -0.2, 0.7],  # inside, 0.3 below the face z = 1
            [2.0, 2.0, 0.0],  # beside the edge x = y = 1
            [4.0, 3.0, 7.0],  # off the corner: (3, 2, 6) is 7 long
        ]
    )
    found = nearest_on_mesh(box, points)
    np.testing.assert_allclose(found.distances, [2.0, 0.3, 2**0.5, 7.0], atol=1e-12)
    np.testing.assert_allclose(box.face_normals[found.faces[:2]], [[1, 0, 0], [0, 0, 1]])


def test_nearest_places_are_those_of_all_triangles() -> None:
    # Slivers beside small triangles: the nearest centroids mislead.
    mesh = trimesh.util.concatenate(
        [trimesh.creation.cylinder(0.02, 3.0, sections=7), ball(0.2).apply_translation([0.3, 0, 0])]
    )
    assert isinstance(mesh, trimesh.Trimesh)
    points = np.random.default_rng(3).uniform(-0.6, 0.6, (20, 3))
    triangles = np.asarray(mesh.triangles)
    expected = [
        np.linalg.norm(
            trimesh.triangles.closest_point(triangles, np.tile(p, (len(triangles), 1))) - p, axis=1
        ).min()
        for p in points
    ]
    np.testing.assert_allclose(nearest_on_mesh(mesh, points).distances, expected, atol=1e-12)


def test_a_mesh_without_area_has_no_nearest_place() -> None:
    flat = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]], process=False)
    with pytest.raises(ValueError, match="no triangle with an area"):
        nearest_on_mesh(flat, np.zeros((1, 3)))


def test_an_exact_sphere() -> None:
    found = mesh_quality(ball(), exact_points())
    assert (found.watertight, found.components, found.largest_share) == (True, 1, 1.0)
    assert found.chamfer is not None
    assert 0 < found.chamfer < 1e-3
    assert found.normal_consistency == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("scale", [1.05, 0.95])
def test_a_sphere_of_the_wrong_size(scale: float) -> None:
    found = mesh_quality(ball(scale * RADIUS), exact_points())
    # Everywhere 5 % of the radius off, told as a share of the mesh's own diameter.
    assert found.chamfer == pytest.approx(0.05 / (2 * scale), rel=0.02)


def test_a_moved_plane() -> None:
    mesh = trimesh.Trimesh([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    points = torch.tensor([[0.3, 0.2, 0.1], [-0.5, 0.4, -0.2], [0.0, 0.9, 0.3]])
    # Normals at 0, 60 and 90 degrees to the plane's own.
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.75**0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    found = mesh_quality(mesh, SeenPoints(points, normals))
    # (0.1 + 0.2 + 0.3) / 3 of a plane that is 2 long.
    assert found.chamfer == pytest.approx(0.1)
    assert found.normal_consistency == pytest.approx(0.5)
    assert not found.watertight


def test_normals_that_point_inwards() -> None:
    mesh = ball()
    mesh.invert()
    found = mesh_quality(mesh, exact_points(16))
    assert found.normal_consistency == pytest.approx(-1.0, abs=1e-3)
    assert found.chamfer == pytest.approx(mesh_quality(ball(), exact_points(16)).chamfer)


def test_two_spheres_and_a_hole() -> None:
    # Areas are as the squares of 0.3 and 0.1: nine tenths belong to the larger one.
    large, small = ball(0.3), ball(0.1).apply_translation([0.45, 0.0, 0.0])
    both = trimesh.util.concatenate([small, large])
    assert isinstance(both, trimesh.Trimesh)
    found = mesh_quality(both, NOTHING)
    assert (found.watertight, found.components) == (True, 2)
    assert found.largest_share == pytest.approx(0.9)
    assert (found.chamfer, found.normal_consistency) == (None, None)
    np.testing.assert_allclose(component_areas(both), [large.area, small.area])
    large.update_faces(np.arange(len(large.faces)) > 0)
    assert mesh_quality(large, NOTHING) == MeshQuality(False, 1, 1.0)


def test_a_scene_of_two_balls() -> None:
    centers = ((-0.15, 0.0, 0.0), (0.3, 0.0, 0.0))
    two = Balls(centers, (0.24, 0.12), surface_raw=0.0)
    mesh = scene_mesh(Scene(two, Bounds(), 1, volume="occupancy"), 40)
    assert mesh is not None
    found = mesh_quality(mesh, NOTHING)
    assert (found.watertight, found.components) == (True, 2)
    assert found.largest_share == pytest.approx(0.8, abs=0.02)


def test_scenes_without_surface_have_no_mesh() -> None:
    assert scene_mesh(scene_of(Full(-50.0)), 16) is None
    empty = Scene(Sphere(radius=-1.0), Bounds(), 1, volume="occupancy")
    assert scene_mesh(empty, 16) is None
    assert not len(seen_points(empty, CAMERAS, SETTINGS, 8).positions)


def test_seen_points_lie_on_the_surface() -> None:
    found = seen_points(solid(), CAMERAS, SETTINGS, 24)
    radii = found.positions.norm(dim=1)
    # Samples are 0.04 * 2 / 48 apart, and rays along the silhouette meet the surface at an angle.
    np.testing.assert_allclose(radii, RADIUS, atol=0.01)
    assert float((radii - RADIUS).abs().mean()) < 0.003
    outwards = torch.nn.functional.normalize(found.positions, dim=-1)
    np.testing.assert_allclose(found.normals, outwards, atol=1e-4)
    # A sphere covers pi (f r)^2 / (d^2 - r^2) of an image at the distance d, to a few per cent.
    share = torch.pi * (1.5 * RADIUS) ** 2 / (1.9**2 - RADIUS**2)
    assert len(found.positions) / (8 * 24 * 24) == pytest.approx(share, rel=0.05)


# A ray through this density is half opaque after 0.019 only, a fortieth of the ball.
@pytest.mark.parametrize(("kind", "most"), [("surface", 0.006), ("density", 0.012)])
def test_the_mesh_of_a_scene_lies_where_images_show_it(kind: str, most: float) -> None:
    scene = solid() if kind == "surface" else scene_of(Balls(radii=(RADIUS,), slope=4000.0))
    mesh = scene_mesh(scene, 32)
    assert mesh is not None
    found = mesh_quality(mesh, seen_points(scene, CAMERAS, RenderSettings(), 16))
    assert found.chamfer is not None
    assert found.chamfer < most
    assert found.normal_consistency == pytest.approx(1.0, abs=0.002)


def test_figures_of_four_samples() -> None:
    broken = whole_quality(watertight=False, components=4, largest_share=0.4, chamfer=0.05)
    unseen = whole_quality(chamfer=None, normal_consistency=None)
    figures = mesh_figures([whole_quality(), None, broken, unseen, whole_quality(chamfer=0.03)])
    assert figures == pytest.approx(
        {
            "mesh_nonempty": 0.8,
            "mesh_watertight": 0.6,
            "mesh_single": 0.6,
            "mesh_components": 7 / 4,
            "mesh_largest_share": 3.4 / 4,
            "mesh_chamfer": 0.03,
            "mesh_chamfer_median": 0.03,
            "mesh_normal_consistency": 0.9,
        }
    )


def test_figures_that_nothing_has_are_left_out() -> None:
    empty = {"mesh_nonempty": 0.0, "mesh_watertight": 0.0, "mesh_single": 0.0}
    assert mesh_figures([None, None]) == empty
    unseen = whole_quality(chamfer=None, normal_consistency=None)
    assert set(mesh_figures([unseen])) == {*empty, "mesh_components", "mesh_largest_share"}
    with pytest.raises(ValueError, match="at least 1"):
        mesh_figures([])


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="mesh_samples is -1; give 0"):
        EvaluationConfig(mesh_samples=-1).validate()
    for resolution in (7, 513):
        with pytest.raises(ValueError, match=f"mesh_resolution is {resolution}; .* 8 and 512"):
            EvaluationConfig(mesh_resolution=resolution).validate()
    EvaluationConfig(mesh_samples=3, mesh_resolution=512).validate()


def test_a_diverged_scene_is_an_error_and_no_empty_mesh() -> None:
    with pytest.raises(ValueError, match="not finite"):
        scene_mesh(Scene(Full(raw=float("nan")), Bounds(), 1), 16)
