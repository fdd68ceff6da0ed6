"""What cameras see of a mesh, by Open3D's ray casting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays


class Casts(NamedTuple):
    """Where the middles of the pixels of V cameras meet a mesh."""

    face: Int[np.ndarray, "v s s"]
    """Index of the triangle; -1 where they miss the mesh."""
    weights: Float32[np.ndarray, "v s s 3"]
    """Barycentric coordinates in it."""


def cast(mesh: trimesh.Trimesh, cameras: Float[Tensor, "v 25"], side: int) -> Casts:
    """What square pictures of ``side`` pixels show of a mesh in the object world."""
    # Imported here: it takes seconds, and most of what leaves a Scene does without.
    import open3d

    tensor = open3d.core.Tensor.from_numpy
    shapes = open3d.t.geometry.RaycastingScene()
    shapes.add_triangles(
        tensor(np.asarray(mesh.vertices).astype(np.float32)),
        tensor(np.asarray(mesh.faces).astype(np.uint32)),
    )
    faces, weights = [], []
    for camera in cameras.cpu().split(1):
        origins, directions = pixel_rays(camera, side, side)
        rays = torch.cat([origins.expand_as(directions), directions], -1)[0].numpy()
        found = shapes.cast_rays(tensor(rays))
        hit = np.isfinite(found["t_hit"].numpy())
        # Rays that miss have a number beyond the last triangle.
        face = np.where(hit, found["primitive_ids"].numpy().astype(np.int64), -1)
        second, third = np.moveaxis(found["primitive_uvs"].numpy(), -1, 0)
        faces.append(face.reshape(side, side))
        shares = np.stack([1 - second - third, second, third], -1).astype(np.float32)
        weights.append(shares.reshape(side, side, 3))
    return Casts(np.stack(faces), np.stack(weights))


def seen_faces(
    mesh: trimesh.Trimesh, cameras: Float[Tensor, "v 25"], side: int
) -> Bool[np.ndarray, "f"]:
    """Whether at least one pixel's middle shows a triangle, or one that shares an edge with it.

    Without the neighbours, triangles smaller than a pixel would leave gaps.
    """
    face = cast(mesh, cameras, side).face
    seen = np.zeros(len(mesh.faces), bool)
    seen[face[face >= 0]] = True
    beside = mesh.face_adjacency
    grown = seen.copy()
    grown[beside[seen[beside[:, 0]], 1]] = True
    grown[beside[seen[beside[:, 1]], 0]] = True
    return grown
