"""Meshes of Scenes: whether they are whole, and how near they lie to what images show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.export.level import NoSurfaceError
from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.models.outputs import surface_normals
from nerfstudio_gan3d.rendering.renderer import render
from nerfstudio_gan3d.rendering.settings import RenderSettings
from nerfstudio_gan3d.scene import Scene

VIEW_SIZE = 64
"""Side of the depth maps that meshes are compared with, pixels."""
SIDE_VIEWS, SIDE_ELEVATION_DEG = 6, 20.0
"""Cameras all around the object, evenly, and their elevation."""
STEEP_ELEVATION_DEG = 70.0
"""Elevation of one more camera above the object and of one below it."""
_CANDIDATES = 16
_PAIRS_AT_ONCE = 2**19


class SeenPoints(NamedTuple):
    """Places where images show a Scene's surface."""

    positions: Float[Tensor, "n 3"]
    """Object-world units."""
    normals: Float[Tensor, "n 3"]
    """Unit vectors out of the Scene's surface; zero where its density has no direction."""


class Nearest(NamedTuple):
    """The places of a mesh that are nearest to points."""

    distances: Float[np.ndarray, "n"]
    """To the triangles' surface, in the mesh's unit."""
    faces: Int[np.ndarray, "n"]
    """Indices of the triangles that hold the places."""


@dataclass(frozen=True)
class MeshQuality:
    """Figures of one mesh that has triangles."""

    watertight: bool
    """Whether every edge belongs to exactly two triangles."""
    components: int
    """Parts of which no triangle shares an edge with another part."""
    largest_share: float
    """Share of the surface's area that belongs to the largest part, 0..1."""
    chamfer: float | None = None
    """Mean distance from seen points to the mesh, as a share of the longest side of the mesh's
    bounding box; None where nothing was seen."""
    normal_consistency: float | None = None
    """Mean cosine between the Scene's normals at the seen points and the nearest triangles' ones;
    None where nothing was seen."""


def mesh_cameras(
    radius: float, focal: float, pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Float[Tensor, "v 25"]:
    """Eight cameras that meshes are compared from: six around the object, one above, one below.

    Args:
        radius: Distance from the pivot, object-world units.
        focal: Normalised focal length.
        pivot: Point looked at.
    """
    turns = [360.0 * i / SIDE_VIEWS for i in range(SIDE_VIEWS)]
    heights = [SIDE_ELEVATION_DEG] * SIDE_VIEWS
    azimuth = torch.tensor([*turns, 0.0, 0.0]) * (math.pi / 180)
    elevation = torch.tensor([*heights, STEEP_ELEVATION_DEG, -STEEP_ELEVATION_DEG])
    return orbit_labels(azimuth, elevation * (math.pi / 180), radius, pivot, focal)


def scene_mesh(
    scene: Scene, resolution: int, device: torch.device | str = "cpu"
) -> trimesh.Trimesh | None:
    """The mesh of one Scene as `gan3d mesh` extracts it, all parts kept, without colours; None for
    a Scene without surface. Raises ValueError for densities that are not finite."""
    try:
        mesh = extract_mesh(scene, resolution, color="none", device=device, normals="faces")
    except NoSurfaceError:
        return None
    return mesh if len(mesh.faces) else None


@torch.no_grad()
def seen_points(
    scene: Scene,
    cameras: Float[Tensor, "v 25"],
    settings: RenderSettings,
    size: int = VIEW_SIZE,
) -> SeenPoints:
    """Where the foreground of one Scene is seen: its rendered depth maps as points.

    ``p = o + t d`` for each pixel of which the foreground covers more than half; t is the expected
    distance of the foreground along the ray, which depth images show. Of Scenes made of surfaces it
    is not the place that was found for the surface, so that a renderer whose images differ from
    the surface does not pass.

    Args:
        scene: One Scene (B = 1).
        cameras: Camera labels, on the Scene's device.
        settings: How rays are sampled.
        size: Side of the depth maps in pixels.
    """
    positions, normals = [], []
    for camera in cameras.split(1):
        origins, directions = pixel_rays(camera, size, size)
        found = render(scene, origins, directions, settings)
        rows = (found.accumulation[0, :, 0] > 0.5).nonzero()[:, 0]
        if not len(rows):
            continue
        seen = (origins + directions * found.foreground_distance)[:, rows]
        positions.append(seen[0])
        normals.append(surface_normals(scene, seen)[0])
    if not positions:
        nothing = cameras.new_zeros(0, 3)
        return SeenPoints(nothing, nothing)
    return SeenPoints(torch.cat(positions), torch.cat(normals))


def nearest_on_mesh(mesh: trimesh.Trimesh, points: Float[np.ndarray, "n 3"]) -> Nearest:
    """The nearest place of a mesh's triangles to each point, exact but for rounding.

    The triangles with the nearest centroids are looked at first. A triangle whose centroid is ``c``
    away and whose corners are at most ``r`` from their centroid is no nearer than ``c - r``, so a
    point's search ends when the next centroid cannot hold anything nearer; otherwise it goes on
    with four times as many. That is quick for triangles of similar size, as extraction makes them.

    Raises:
        ValueError: If the mesh has no triangle with an area.
    """
    solid = np.flatnonzero(mesh.area_faces > 0)
    if not len(solid):
        raise ValueError("the mesh has no triangle with an area, so no place of it is nearest")
    triangles = np.asarray(mesh.triangles, np.float64)[solid]
    centers = triangles.mean(axis=1)
    reach = float(np.linalg.norm(triangles - centers[:, None], axis=2).max())
    tree = KDTree(centers)
    distances, faces = np.zeros(len(points)), np.zeros(len(points), np.int64)
    rest, count = np.arange(len(points)), min(_CANDIDATES, len(solid))
    while len(rest):
        left = []
        step = max(_PAIRS_AT_ONCE // count, 1)
        for rows in (rest[start : start + step] for start in range(0, len(rest), step)):
            # With one candidate the second axis would be left out.
            found = tree.query(points[rows], k=count)
            apart, candidates = (np.reshape(part, (len(rows), count)) for part in found)
            best, chosen = _nearest_of(triangles, candidates, points[rows])
            distances[rows], faces[rows] = best, solid[chosen]
            if count < len(solid):
                left.append(rows[apart[:, -1] - reach < best])
        rest = np.concatenate(left) if left else rest[:0]
        count = min(4 * count, len(solid))
    return Nearest(distances, faces)


def _nearest_of(
    triangles: Float[np.ndarray, "t 3 3"],
    candidates: Int[np.ndarray, "n k"],
    points: Float[np.ndarray, "n 3"],
) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Distance to the nearest of each point's candidate triangles, and which one it is."""
    repeated = np.repeat(points, candidates.shape[1], axis=0)
    places = trimesh.triangles.closest_point(triangles[candidates.ravel()], repeated)
    apart = np.linalg.norm(places - repeated, axis=1).reshape(candidates.shape)
    # Needles whose area is lost in rounding have no nearest place; their edges are others', too.
    apart = np.where(np.isfinite(apart), apart, np.inf)
    best = apart.argmin(axis=1)
    rows = np.arange(len(points))
    return apart[rows, best], candidates[rows, best]


def component_areas(mesh: trimesh.Trimesh) -> Float[np.ndarray, "parts"]:
    """Surface areas of the parts of a mesh that share no edge, the largest first."""
    labels = trimesh.graph.connected_component_labels(
        mesh.face_adjacency, node_count=len(mesh.faces)
    )
    return np.sort(np.bincount(labels, weights=mesh.area_faces))[::-1]


def mesh_quality(mesh: trimesh.Trimesh, seen: SeenPoints) -> MeshQuality:
    """Figures of one mesh against the points at which images show the same Scene.

    The distance is measured from the points to the mesh alone. The way back, from the mesh to the
    nearest point, would measure how far the pixels' points lie apart: for an exact sphere in exact
    depth maps of 64 pixels it is 0.8 % of the size, and the way there 0.01 %. What the mesh has and
    no image shows is left to the figures of its parts.

    Args:
        mesh: A mesh with triangles.
        seen: Points of the same Scene in the same unit; may be none.

    Raises:
        ValueError: If there are points and the mesh has no triangle with an area.
    """
    areas = component_areas(mesh)
    whole = float(areas.sum())
    share = float(areas[0]) / whole if whole else 1.0 / len(areas)
    chamfer = consistency = None
    if len(seen.positions):
        nearest = nearest_on_mesh(mesh, seen.positions.double().cpu().numpy())
        size = float(np.ptp(mesh.bounds, axis=0).max())
        chamfer = float(nearest.distances.mean()) / size
        normals = seen.normals.double().cpu().numpy()
        consistency = float((normals * mesh.face_normals[nearest.faces]).sum(axis=1).mean())
    return MeshQuality(bool(mesh.is_watertight), len(areas), share, chamfer, consistency)


def mesh_figures(qualities: Sequence[MeshQuality | None]) -> dict[str, float]:
    """Figures of a set of samples, of which those without a mesh are None.

    Shares are of all samples; the others are means over the samples that have them, and are left
    out where none has. See docs/evaluation.md.

    Raises:
        ValueError: If there are no samples.
    """
    if not qualities:
        raise ValueError("there are no samples; figures of meshes need at least 1")
    count = len(qualities)
    found = [quality for quality in qualities if quality is not None]
    figures = {
        "mesh_nonempty": len(found) / count,
        "mesh_watertight": sum(quality.watertight for quality in found) / count,
        "mesh_single": sum(quality.components == 1 for quality in found) / count,
    }
    if found:
        figures["mesh_components"] = float(np.mean([one.components for one in found]))
        figures["mesh_largest_share"] = float(np.mean([one.largest_share for one in found]))
    chamfers = [one.chamfer for one in found if one.chamfer is not None]
    cosines = [one.normal_consistency for one in found if one.normal_consistency is not None]
    if chamfers:
        figures["mesh_chamfer"] = float(np.mean(chamfers))
        figures["mesh_chamfer_median"] = float(np.median(chamfers))
    if cosines:
        figures["mesh_normal_consistency"] = float(np.mean(cosines))
    return figures
