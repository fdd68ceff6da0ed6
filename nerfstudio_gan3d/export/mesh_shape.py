"""Meshes with fewer triangles, in other axes and units."""

from __future__ import annotations

from typing import Literal

import numpy as np
import trimesh
from jaxtyping import Float

from nerfstudio_gan3d.export.options import FEWEST_TRIANGLES

_LEAST_VOLUME = 0.1
"""Share of its volume that a mesh has to keep; a ball's tetrahedron has 0.12 to 0.24 of it."""
_SNAP = 1e-5
"""Distance from a face of the box, in halves of its side, within which a vertex lies in it."""
_Y_TO_Z = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def decimated(
    mesh: trimesh.Trimesh, triangles: int, box: tuple[float, float, float]
) -> trimesh.Trimesh:
    """The surface with at most so many triangles, by Open3D's quadric error decimation.

    Edges are collapsed where that moves the surface least (Garland and Heckbert, Surface
    Simplification Using Quadric Error Metrics, SIGGRAPH 1997). A mesh with no more triangles is
    returned as it is. If the mesh was closed and the new one is not, ``metadata["opened"]`` is
    True; ``metadata["triangles_before"]`` is the number that there was.

    Args:
        mesh: Without colours.
        triangles: The most triangles.
        box: Sides of the Scene's box about the origin, which no vertex leaves.

    Raises:
        ValueError: If that many triangles cannot be reached, since handles keep some, or would hold
            next to no volume.
    """
    if len(mesh.faces) <= triangles:
        return mesh
    # Imported here: it takes seconds, and most meshes keep their triangles.
    import open3d

    # Open3D calls quadrics with a determinant below 1e-4 singular, and then leaves vertices on the
    # old ones, which makes round things thinner. Their unit is area, so triangles get areas near 1.
    factor = 1 / np.sqrt(mesh.area / len(mesh.faces))
    full = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(factor * np.asarray(mesh.vertices, np.float64)),
        open3d.utility.Vector3iVector(np.asarray(mesh.faces, np.int32)),
    )
    small = full.simplify_quadric_decimation(triangles)
    vertices = _within(np.asarray(small.vertices) / factor, np.array(box) / 2)
    found = trimesh.Trimesh(vertices, np.asarray(small.triangles), process=False)
    found.remove_unreferenced_vertices()
    count = len(found.faces)
    if count > triangles:
        raise ValueError(
            f"{triangles} triangles are too few for this surface, of which {count} are left at the "
            "least; ask for more, for a lower resolution, or for the largest part alone"
        )
    if count < FEWEST_TRIANGLES or found.volume < _LEAST_VOLUME * mesh.volume:
        raise ValueError(
            f"{triangles} triangles are too few for this surface, which becomes flat; ask for more"
        )
    found.metadata.update(mesh.metadata)
    found.metadata["triangles_before"] = len(mesh.faces)
    if mesh.is_watertight and not found.is_watertight:
        found.metadata["opened"] = True
    return found


def _within(
    vertices: Float[np.ndarray, "v 3"], half: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "v 3"]:
    """Vertices moved into the box; those that rounding took out of its faces back onto them."""
    vertices = vertices.clip(-half, half)
    return np.where(np.abs(vertices) > half * (1 - _SNAP), np.sign(vertices) * half, vertices)


def placed(
    mesh: trimesh.Trimesh, up: Literal["y", "z"] = "y", longest_side: float | None = None
) -> trimesh.Trimesh:
    """The mesh in other axes and another unit; colours, texture and classes are kept.

    Args:
        mesh: Object-world units, y up.
        up: z takes (x, y, z) to (x, -z, y), which is nerfstudio's world.
        longest_side: How long the longest side of the mesh's bounding box becomes; None keeps the
            generator's unit. The origin stays where it is: a factor is all that changes.

    Raises:
        ValueError: If the mesh has no extent.
    """
    found = mesh.copy()
    factor, turn = 1.0, np.eye(3)
    if longest_side is not None:
        extent = float(np.ptp(np.asarray(mesh.vertices), axis=0).max())
        if not extent > 0:
            raise ValueError(f"the mesh has no extent, so no side of it can be {longest_side} long")
        factor = longest_side / extent
    if up == "z":
        turn = _Y_TO_Z
    # Normals would be computed anew from the triangles if they were not set again.
    normals = np.array(mesh.vertex_normals)
    found.vertices = factor * (np.asarray(mesh.vertices) @ turn.T)
    found.vertex_normals = normals @ turn.T
    found.metadata["longest_side"] = float(np.ptp(np.asarray(found.vertices), axis=0).max())
    return found
