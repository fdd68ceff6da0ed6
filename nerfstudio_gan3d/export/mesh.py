"""A Scene's surface as a triangle mesh with vertex colours, straight from its density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor
from trimesh.exchange.gltf import export_glb
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.data.palettes import Palette, colorize
from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.level import half_opaque_level, raw_of_density
from nerfstudio_gan3d.scene import Scene

POINTS_PER_QUERY = 2**17
JOINED_CELLS = 1e-4
"""Distance, in cells, below which vertices are one."""


@dataclass(frozen=True)
class DensityGrid:
    """Raw density of a Scene at the corners of a grid of cells that fills its box."""

    raw: Float[Tensor, "x y z"]
    """Density before its activation; on the CPU."""
    axes: tuple[Float[Tensor, "x"], Float[Tensor, "y"], Float[Tensor, "z"]]
    """Positions of the corners along each axis, object-world units; the first and the last lie on
    the box's faces."""
    density_scale: float
    """Factor of the density's activation."""

    @property
    def cell(self) -> tuple[float, float, float]:
        """Sides of a cell, object-world units."""
        x, y, z = (float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in self.axes)
        return x, y, z


def density_grid(scene: Scene, resolution: int, device: torch.device | str = "cpu") -> DensityGrid:
    """Density on a grid over the Scene's box.

    Cells are cubes but for the rounding that makes them end on the box's faces.

    Args:
        scene: One Scene (B = 1).
        resolution: Cells along the longest side of the box.
        device: Where the Scene's tensors are.

    Raises:
        ValueError: If there are several Scenes, or a density is not finite.
    """
    if scene.batch_size != 1:
        raise ValueError(f"a mesh is made from one Scene, and there are {scene.batch_size}")
    side = max(scene.bounds.box) / resolution
    counts = [max(round(length / side), 1) for length in scene.bounds.box]
    axes = tuple(
        torch.linspace(-length / 2, length / 2, count + 1)
        for length, count in zip(scene.bounds.box, counts, strict=True)
    )
    raw = torch.empty(*(len(axis) for axis in axes))
    # Slabs along x keep the memory bounded without an array of all positions.
    slab = max(POINTS_PER_QUERY // (len(axes[1]) * len(axes[2])), 1)
    with torch.no_grad():
        for start in range(0, len(axes[0]), slab):
            part = torch.meshgrid(axes[0][start : start + slab], *axes[1:], indexing="ij")
            positions = torch.stack(part, dim=-1).view(1, -1, 3).to(device)
            found = torch.cat(
                [
                    scene.field.query(piece).raw_density
                    for piece in positions.split(POINTS_PER_QUERY, dim=1)
                ],
                dim=1,
            )
            raw[start : start + slab] = found.view(part[0].shape).float().cpu()
    if not bool(raw.isfinite().all()):
        raise ValueError("the Scene's density is not finite everywhere; the training has diverged")
    return DensityGrid(raw, axes, scene.density_scale)  # type: ignore[arg-type]


def surface(grid: DensityGrid, level: float) -> trimesh.Trimesh:
    """Triangles of the surface on which the density equals ``level``, closed at the box's faces.

    Marching cubes (Lorensen and Cline; the variant of Lewiner et al. that scikit-image has) runs on
    the raw density, which the activation does not bend, so that linear interpolation finds the
    place. Outside of the box there is nothing: where the surface would leave it, it ends in a flat
    lid. Triangles are counter-clockwise seen from outside.

    Raises:
        ValueError: If no density of the grid lies on the other side of ``level`` (no surface).
    """
    raw_level = raw_of_density(level, grid.density_scale)
    highest = float(grid.raw.max())
    if highest <= raw_level:
        density = grid.density_scale * math.log1p(math.exp(min(highest - 1, 50.0)))
        raise ValueError(
            f"no density of the Scene reaches the level {level:.4g}; the highest is {density:.4g}, "
            "so choose a lower level"
        )
    outside = min(float(grid.raw.min()), raw_level) - 1.0
    padded = np.pad(grid.raw.numpy(), 1, constant_values=outside)
    vertices, faces, _, _ = marching_cubes(padded, raw_level, gradient_direction="ascent")
    vertices = vertices.astype(np.float64)
    # The margin's corners stand on the faces themselves: a lid's vertices lie in the plane of its
    # face.
    for axis, positions in enumerate(grid.axes):
        table = torch.cat([positions[:1], positions, positions[-1:]]).double().numpy()
        vertices[:, axis] = np.interp(vertices[:, axis], np.arange(len(table)), table)
    return trimesh.Trimesh(*_joined(vertices, faces, np.asarray(grid.cell)), process=False)


def _joined(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], cell: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """Vertices at the same place made one, and triangles that have no three vertices left dropped.

    Such triangles come from lids that meet at an edge of the box, and from surfaces that pass a
    corner of the grid. Dropping other triangles without area, whose vertices differ, would open the
    mesh.
    """
    places = np.round(vertices / cell / JOINED_CELLS).astype(np.int64)
    _, first, index = np.unique(places, axis=0, return_index=True, return_inverse=True)
    faces = index.reshape(-1)[faces]
    a, b, c = faces.T
    return vertices[first], faces[(a != b) & (b != c) & (c != a)]


def largest_part(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The connected part with the largest surface area."""
    labels = trimesh.graph.connected_component_labels(
        mesh.face_adjacency, node_count=len(mesh.faces)
    )
    areas = np.bincount(labels, weights=mesh.area_faces)
    part = mesh.copy()
    part.update_faces(labels == areas.argmax())
    part.remove_unreferenced_vertices()
    return part


def vertex_colors(
    scene: Scene, vertices: NDArray[np.floating], device: torch.device | str = "cpu"
) -> NDArray[np.uint8]:
    """RGB of the Scene at positions ``[V, 3]``: its first three features, as bytes."""
    colors = []
    with torch.no_grad():
        for piece in torch.from_numpy(np.asarray(vertices)).float().split(POINTS_PER_QUERY):
            features = scene.field.query(piece[None].to(device)).features[0, :, :3]
            colors.append((features.clamp(0, 1) * 255).round().to(torch.uint8).cpu())
    return torch.cat(colors).numpy()


def vertex_labels(
    scene: Scene,
    vertices: NDArray[np.floating],
    classes: int,
    device: torch.device | str = "cpu",
) -> NDArray[np.uint8]:
    """Class with the highest score of the Scene at positions ``[V, 3]``; of equal ones the first.

    Raises:
        ValueError: If the Scene has not that many classes.
    """
    ids = []
    with torch.no_grad():
        for piece in torch.from_numpy(np.asarray(vertices)).float().split(POINTS_PER_QUERY):
            found = scene.field.query(piece[None].to(device)).labels
            known = 0 if found is None else found.shape[-1]
            if found is None or known < classes:
                raise ValueError(
                    f"{classes} classes are to be coloured, but the Scene knows {known}; leave the "
                    "labels out"
                )
            # Label features that super-resolution takes stand behind those of the classes.
            ids.append(found[0, :, :classes].argmax(-1).to(torch.uint8).cpu())
    return torch.cat(ids).numpy()


def extract_mesh(
    scene: Scene,
    resolution: int = 128,
    level: float | Literal["auto"] = "auto",
    color: Literal["rgb", "labels", "none"] = "rgb",
    largest_component: bool = False,
    device: torch.device | str = "cpu",
    palette: Palette = (),
) -> trimesh.Trimesh:
    """The surface of one Scene, object-world units, y up.

    Args:
        scene: One Scene (B = 1).
        resolution: Cells along the longest side of the Scene's box.
        level: Density of the surface, per unit length; auto is `half_opaque_level`.
        color: rgb gives every vertex the Scene's colour at its place, labels the colour of the
            class with the highest score there. The class ids are then the vertex attribute
            ``label``.
        largest_component: Keep only the connected part with the largest area.
        device: Where the Scene's tensors are.
        palette: An RGB colour, 0 to 255, for each class; for color labels.

    Raises:
        ValueError: If there is no surface at the level, no level at which there is one, or the
            Scene has no such classes.
    """
    grid = density_grid(scene, resolution, device)
    if level == "auto":
        level = half_opaque_level(grid.raw, grid.cell, grid.density_scale)
    mesh = surface(grid, level)
    if largest_component:
        mesh = largest_part(mesh)
    if color == "rgb":
        colors = vertex_colors(scene, mesh.vertices, device)
        mesh.visual = ColorVisuals(mesh, vertex_colors=colors)
    elif color == "labels":
        if not palette:
            raise ValueError("color labels: give the palette, one colour a class")
        ids = vertex_labels(scene, mesh.vertices, len(palette), device)
        mesh.visual = ColorVisuals(mesh, vertex_colors=colorize(ids[None], palette)[0])
        mesh.vertex_attributes["label"] = ids
    mesh.metadata["density_level"] = float(level)
    return mesh


def write_mesh(mesh: trimesh.Trimesh, path: Path) -> None:
    """Writes PLY (binary), OBJ or GLB by the ending of ``path``, replacing a file as a whole.

    Colours are those of the images (sRGB) in PLY and OBJ; glTF defines vertex colours as linear
    light, so they are converted for GLB. All formats keep the object world's axes, y up with the
    front towards +z, which is also glTF's convention. Class ids, where vertices have them, are the
    integer property ``label`` of PLY.

    Raises:
        ValueError: If the ending is another one, or ``path`` is a folder.
    """
    suffix = path.suffix.lower()
    if suffix not in (".ply", ".obj", ".glb"):
        raise ValueError(f"{path}: a mesh file must end in .ply, .obj or .glb")
    with replaced(path) as temporary:
        if suffix == ".glb":
            temporary.write_bytes(_glb(mesh))
        else:
            mesh.export(temporary, file_type=suffix[1:])


def _glb(mesh: trimesh.Trimesh) -> bytes:
    linear = mesh.copy()
    # glTF demands four bytes for each vertex of an attribute; the classes show in the colours.
    linear.vertex_attributes.clear()
    if isinstance(mesh.visual, ColorVisuals) and mesh.visual.kind == "vertex":
        colors = np.asarray(mesh.visual.vertex_colors).copy()
        light = colors[:, :3] / 255.0
        light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
        colors[:, :3] = np.round(light * 255)
        linear.visual = ColorVisuals(linear, vertex_colors=colors)
    exported = export_glb(linear, include_normals=True, tree_postprocessor=_matte)
    assert isinstance(exported, bytes)
    return exported


def _matte(tree: dict) -> None:
    """Gives all meshes a matte material; glTF's default one is a metal, which shows colours
    dark."""
    tree["materials"] = [
        {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "name": "matte"}
    ]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
