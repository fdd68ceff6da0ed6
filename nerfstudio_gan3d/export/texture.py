"""Textures: a mesh cut into flat charts, and an image of the Scene's colours on its surface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

Colors = Callable[[Float[np.ndarray, "n 3"]], UInt8[np.ndarray, "n 3"]]
"""RGB at positions."""

GUTTER = 1.5
"""Texels around each triangle that are given its colour where no other triangle has them: a
bilinear look-up at a chart's border reaches one texel (its diagonal 1.42) beyond it."""
_CANDIDATES_PER_PIECE = 2**21
_TEXELS_PER_QUERY = 2**18


@dataclass(frozen=True)
class Atlas:
    """A mesh cut into charts that lie beside each other in a square."""

    source: Int[np.ndarray, "v"]
    """Vertex of the mesh that each vertex of the charts is; those on cuts are there several
    times."""
    faces: Int[np.ndarray, "f 3"]
    """The mesh's triangles, as vertices of the charts."""
    uv: Float[np.ndarray, "v 2"]
    """Places of the charts' vertices in the square, 0 to 1."""


@dataclass(frozen=True)
class Coverage:
    """Which triangle each texel of a square texture shows, and where on it."""

    face: Int[np.ndarray, "n n"]
    """Number of the triangle; -1 where there is none. Rows are v, columns u."""
    weights: Float[np.ndarray, "n n 3"]
    """Barycentric coordinates of the texel's centre, or of the triangle's place nearest to it."""
    inside: Bool[np.ndarray, "n n"]
    """Whether the texel's centre lies in the triangle, and not in the gutter around it."""


def unwrap(mesh: trimesh.Trimesh, size: int) -> Atlas:
    """Charts of a mesh for a texture of ``size`` texels a side, by xatlas."""
    # Imported here, since most meshes have no texture.
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution = size
    # A gutter on either side, and a texel that shields them from each other; xatlas meets the size
    # only roughly, and its square is then fitted into this one.
    packing.padding = 4 if size >= 256 else 2
    packing.bilinear = True
    atlas.generate(xatlas.ChartOptions(), packing)
    source, faces, uv = atlas[0]
    # Coordinates are shares of the width and of the height, which need not be equal.
    sides = np.array([atlas.width, atlas.height])
    uv = np.asarray(uv, np.float64) * sides / sides.max()
    return Atlas(np.asarray(source, np.int64), np.asarray(faces, np.int64), uv)


def rasterize(corners: Float[np.ndarray, "f 3 2"], size: int) -> Coverage:
    """Triangles in a square texture: which of them each texel's centre lies in, or is nearest to
    within `GUTTER`.

    Args:
        corners: Places of the triangles' corners in the square, 0 to 1.
        size: Texels a side; the centre of texel (row r, column c) is (c + 1/2, r + 1/2) / size.
    """
    best = np.full(size * size, -GUTTER, np.float32)
    face = np.full(size * size, -1, np.int32)
    weights = np.zeros((size * size, 3), np.float32)
    for rows, texels, centers in _candidates(corners * size, size):
        found, depth = _barycentric((corners[rows] * size)[:, None], centers)
        order = np.argsort(depth, axis=None)
        texels, depth = texels.reshape(-1)[order], depth.reshape(-1)[order]
        # Of values for the same place numpy keeps the last: the texel goes to the triangle that it
        # lies in, or else is nearest to.
        better = depth > best[texels]
        order, texels = order[better], texels[better]
        best[texels] = depth[better]
        face[texels] = np.repeat(rows, centers.shape[1])[order]
        weights[texels] = found.reshape(-1, 3)[order]
    # Beyond an edge: the place on it.
    weights = weights.clip(0)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-12)
    return Coverage(
        face.reshape(size, size),
        weights.reshape(size, size, 3),
        (best >= 0).reshape(size, size),
    )


def _candidates(
    corners: Float[np.ndarray, "f 3 2"], size: int
) -> Iterator[tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m k"], Float[np.ndarray, "m k 2"]]]:
    """Numbers of triangles, texels that each of them may reach, and the centres of these texels.

    Triangles whose bounding boxes fit into squares of the same size come together.
    """
    first = np.floor(corners.min(1) - GUTTER).astype(np.int64).clip(0, size - 1)
    last = np.floor(corners.max(1) + GUTTER).astype(np.int64).clip(0, size - 1)
    needed = (last - first).max(-1) + 1
    twice_areas = np.abs(_cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    for power in range(1, size.bit_length() + 1):
        side = 2**power
        fits = (needed <= side) & ((needed > side // 2) | (power == 1))
        chosen = np.flatnonzero(fits & (twice_areas > 1e-12))
        steps = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
        pieces = max(len(chosen) * len(steps) // _CANDIDATES_PER_PIECE, 1)
        for rows in np.array_split(chosen, pieces):
            # Texels beyond the square's border stand for its last ones: twice there, with the same
            # result.
            places = (first[rows, None] + steps).clip(max=size - 1)
            yield rows, places[..., 1] * size + places[..., 0], places + 0.5


def _barycentric(
    corners: Float[np.ndarray, "m 1 3 2"], places: Float[np.ndarray, "m k 2"]
) -> tuple[Float[np.ndarray, "m k 3"], Float[np.ndarray, "m k"]]:
    """Barycentric coordinates, and how deep inside of the triangle a place is: the distance to the
    nearest of its edges' lines, negative outside."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    twice_area = _cross(b - a, c - a)
    weights, depths = [], []
    for start, stop in ((b, c), (c, a), (a, b)):
        weight = _cross(stop - start, places - start) / twice_area
        length = np.linalg.norm(stop - start, axis=-1)
        weights.append(weight)
        depths.append(weight * np.abs(twice_area) / np.maximum(length, 1e-12))
    return np.stack(weights, -1), np.min(depths, axis=0)


def _cross(a: Float[np.ndarray, "*m 2"], b: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*k"]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def bake(
    vertices: Float[np.ndarray, "v 3"], atlas: Atlas, size: int, colors: Colors
) -> UInt8[np.ndarray, "n n 3"]:
    """The texture of a mesh: the colour of the surface's place in each texel.

    Texels that no triangle reaches get the colour of the nearest one that has some, so that small
    pictures of the texture mix in nothing foreign.
    """
    cover = rasterize(atlas.uv[atlas.faces], size)
    known = cover.face >= 0
    texture = np.zeros((size * size, 3), np.uint8)
    texels = np.flatnonzero(known)
    for rows in np.array_split(texels, len(texels) // _TEXELS_PER_QUERY + 1):
        faces = atlas.faces[cover.face.reshape(-1)[rows]]
        corners = vertices[atlas.source[faces]]  # [N, 3, 3]
        weights = cover.weights.reshape(-1, 3)[rows]
        texture[rows] = colors((weights[..., None] * corners).sum(1))
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    assert nearest is not None
    return texture.reshape(size, size, 3)[tuple(nearest)]


def textured(
    mesh: trimesh.Trimesh,
    normals: Float[np.ndarray, "v 3"],
    size: int,
    colors: Colors,
    name: str = "colours",
) -> trimesh.Trimesh:
    """The mesh with a texture; vertices on the charts' borders are there several times.

    Args:
        mesh: Without colours.
        normals: Unit normals of its vertices.
        size: Side of the texture in texels.
        colors: RGB (sRGB, as images have it) at positions.
        name: Name of the material.
    """
    atlas = unwrap(mesh, size)
    image = bake(np.asarray(mesh.vertices), atlas, size, colors)
    # trimesh counts v upwards from the image's last row.
    uv = np.stack([atlas.uv[:, 0], 1 - atlas.uv[:, 1]], -1)
    material = PBRMaterial(
        name=name,
        baseColorTexture=Image.fromarray(image),
        baseColorFactor=[255, 255, 255, 255],
        metallicFactor=0.0,
        roughnessFactor=1.0,
    )
    found = trimesh.Trimesh(
        np.asarray(mesh.vertices)[atlas.source],
        atlas.faces,
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
    )
    found.metadata.update(mesh.metadata)
    found.vertex_normals = normals[atlas.source]
    return found


def texture_of(mesh: trimesh.Trimesh) -> Image.Image | None:
    """The image that `textured` made; None for meshes without one."""
    if not isinstance(mesh.visual, TextureVisuals):
        return None
    assert isinstance(mesh.visual.material, PBRMaterial)
    image = mesh.visual.material.baseColorTexture
    assert isinstance(image, Image.Image)
    return image
