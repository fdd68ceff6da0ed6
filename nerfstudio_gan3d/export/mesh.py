"""A Scene's surface as a triangle mesh with normals and colours, straight from its density."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import KDTree
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.obj import export_obj
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import SimpleMaterial

from nerfstudio_gan3d.data.palettes import Palette, colorize
from nerfstudio_gan3d.export.cut import Before
from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.grid import POINTS_PER_QUERY, density_grid, surface
from nerfstudio_gan3d.export.level import LONGEST_RAY, surface_level
from nerfstudio_gan3d.export.mesh_shape import decimated
from nerfstudio_gan3d.export.multires import coarse_stride, refined_surface
from nerfstudio_gan3d.export.options import texture_files
from nerfstudio_gan3d.export.seen_colors import SeenColors
from nerfstudio_gan3d.export.texture import texture_of, textured
from nerfstudio_gan3d.models.outputs import surface_normals
from nerfstudio_gan3d.scene import Scene

COARSE_CELLS = 64
"""Cells along the longest side that a refined grid starts from at most."""
_GRADIENTS_PER_QUERY = 2**15


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


def vertex_normals(
    scene: Scene, mesh: trimesh.Trimesh, device: torch.device | str = "cpu", cell: float = 0.0
) -> NDArray[np.floating]:
    """Unit normals ``[V, 3]`` out of the surface, from the gradient of the raw density.

    They do not show the grid's cells, as the means of the triangles' normals do. Two kinds of
    vertices keep these means: those in the faces of the Scene's box, and of one that is cut off
    those within a ``cell`` of that plane, since a lid is cut through the density and does not lie
    across its gradient; and those where the gradient vanishes or is not
    finite (a density that stands still has no direction, and glTF demands unit vectors).
    """
    normals = np.array(mesh.vertex_normals)
    half = np.array(scene.bounds.box) / 2
    inside = (np.abs(mesh.vertices) < half * (1 - 1e-6)).all(1)
    if isinstance(scene.field, Before):
        inside &= mesh.vertices[:, 2] > scene.field.limit + cell
    free = np.flatnonzero(inside)
    for start in range(0, len(free), _GRADIENTS_PER_QUERY):
        rows = free[start : start + _GRADIENTS_PER_QUERY]
        positions = torch.from_numpy(np.asarray(mesh.vertices)[rows]).float().to(device)
        found = surface_normals(scene, positions[None])[0].double().cpu().numpy()
        length = np.linalg.norm(found, axis=1)
        is_unit = np.isfinite(length) & (length > 0.5)
        normals[rows[is_unit]] = found[is_unit] / length[is_unit, None]
    # A vertex of triangles without area alone has no mean, either.
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0.5, normals / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])


def extract_mesh(
    scene: Scene,
    resolution: int = 128,
    level: float | Literal["auto"] = "auto",
    color: Literal["rgb", "labels", "none"] = "rgb",
    largest_component: bool = False,
    device: torch.device | str = "cpu",
    palette: Palette = (),
    *,
    extraction: Literal["multires", "dense"] = "multires",
    normals: Literal["gradient", "faces"] = "gradient",
    texture: int = 0,
    triangles: int | None = None,
    seen: SeenColors | None = None,
) -> trimesh.Trimesh:
    """The surface of one Scene, object-world units, y up.

    Args:
        scene: One Scene (B = 1).
        resolution: Cells along the longest side of the Scene's box.
        level: Density of the surface, per unit length; auto is `half_opaque_level`. Of Scenes made
            of surfaces the occupancy; auto is 1/2.
        color: rgb gives every vertex the Scene's colour at its place, labels the colour of the
            class with the highest score there. The class ids are then the vertex attribute
            ``label``.
        largest_component: Keep only the connected part with the largest area.
        device: Where the Scene's tensors are.
        palette: An RGB colour, 0 to 255, for each class; for color labels.
        extraction: multires refines those cells alone that the surface passes; dense looks at all.
        normals: Those of the vertices: `vertex_normals`, or the means of the triangles' normals.
        texture: Side in texels of a texture that takes the place of the vertices' colours; 0 makes
            none.
        triangles: The most triangles; None keeps all that marching cubes finds. Normals, colours
            and textures are those of the surface that is left.
        seen: Pictures of the Scene whose colours rgb takes where they show the surface; None takes
            the field's everywhere.

    Raises:
        ValueError: If there is no surface at the level, no level at which there is one, the Scene
            has no such classes, a texture is to have no colours, or the surface cannot be made of
            so few triangles.
    """
    if color == "labels" and not palette:
        raise ValueError("color labels: give the palette, one colour a class")
    if color == "none" and texture:
        raise ValueError("a texture holds colours, and color is none; choose rgb or labels")
    stride = 1
    if extraction == "multires":
        # The level is chosen before the refinement, which needs it, from as many cells as would be
        # compared in the whole grid.
        is_sought = level == "auto" and scene.volume == "density"
        stride = coarse_stride(resolution, LONGEST_RAY if is_sought else COARSE_CELLS)
    grid = density_grid(scene, resolution, device, stride)
    found = surface_level(grid, level)
    if stride == 1:
        mesh = surface(grid, found.raw)
    else:
        mesh = refined_surface(scene, grid, stride, resolution, found.raw, device)
    if largest_component:
        mesh = largest_part(mesh)
    mesh.metadata[f"{found.volume}_level"] = found.value
    if triangles is not None:
        mesh = decimated(mesh, triangles, scene.bounds.box)
    outwards = mesh.vertex_normals
    if normals == "gradient":
        outwards = vertex_normals(scene, mesh, device, max(scene.bounds.box) / resolution)

    def class_colors(positions: NDArray[np.floating]) -> NDArray[np.uint8]:
        return colorize(vertex_labels(scene, positions, len(palette), device)[None], palette)[0]

    rgb = partial(vertex_colors, scene, device=device)
    if seen is not None and color == "rgb":
        rgb = partial(_mixed_colors, scene, seen, KDTree(mesh.vertices), outwards, device)
    if texture and color == "rgb":
        return textured(mesh, outwards, texture, rgb)
    if texture:
        return textured(mesh, outwards, texture, class_colors, "labels")
    if color == "rgb":
        colors = rgb(np.asarray(mesh.vertices))
        mesh.visual = ColorVisuals(mesh, vertex_colors=colors)
    elif color == "labels":
        ids = vertex_labels(scene, mesh.vertices, len(palette), device)
        mesh.visual = ColorVisuals(mesh, vertex_colors=colorize(ids[None], palette)[0])
        mesh.vertex_attributes["label"] = ids
    mesh.vertex_normals = outwards
    return mesh


def _mixed_colors(
    scene: Scene,
    seen: SeenColors,
    vertices: KDTree,
    normals: NDArray[np.floating],
    device: torch.device | str,
    positions: NDArray[np.floating],
) -> NDArray[np.uint8]:
    """`SeenColors.mixed` at positions, with the normals of the nearest vertices."""
    nearest = vertices.query(positions)[1]
    return seen.mixed(positions, normals[nearest], vertex_colors(scene, positions, device))


def describe(mesh: trimesh.Trimesh) -> str:
    """Size of an extracted mesh and which surface it is, in words."""
    told = f"{len(mesh.vertices)} vertices, {len(mesh.faces)} triangles"
    if "triangles_before" in mesh.metadata:
        told = f"{told} of {mesh.metadata['triangles_before']}"
    if "opened" in mesh.metadata:
        told = f"{told} (no longer closed; more triangles may keep it closed)"
    texture = texture_of(mesh)
    if texture is not None:
        told = f"{told}, texture of {texture.width} x {texture.height} texels"
    (volume,) = (name for name in ("density", "occupancy") if f"{name}_level" in mesh.metadata)
    told = f"{told}, surface at {volume} {mesh.metadata[f'{volume}_level']:.4g}"
    if "longest_side" in mesh.metadata:
        told = f"{told}, longest side {mesh.metadata['longest_side']:.4g}"
    return told


def write_mesh(mesh: trimesh.Trimesh, path: Path) -> None:
    """Writes PLY (binary), OBJ or GLB by the ending of ``path``, replacing a file as a whole.

    Colours are those of the images (sRGB) in PLY, OBJ and textures; glTF defines vertex colours as
    linear light, so they are converted for GLB. The axes are the mesh's; those of the object world,
    y up with the front towards +z, are also glTF's. Class ids, where vertices have them, are
    the integer property ``label`` of PLY. Textures lie in the GLB file, or beside an OBJ file:
    ``NAME.obj`` comes with ``NAME.mtl`` and ``NAME_texture.png``.

    Raises:
        ValueError: If the ending is another one, the format has no textures and the mesh has one,
            or ``path`` is a folder.
    """
    suffix = path.suffix.lower()
    if suffix not in (".ply", ".obj", ".glb"):
        raise ValueError(f"{path}: a mesh file must end in .ply, .obj or .glb")
    if suffix == ".ply" and isinstance(mesh.visual, TextureVisuals):
        raise ValueError(f"{path}: PLY has no textures; write .glb or .obj, or vertex colours")
    if suffix == ".obj" and isinstance(mesh.visual, TextureVisuals):
        files = _textured_obj(mesh, path)
    elif suffix == ".glb":
        files = {path: _glb(mesh)}
    else:
        with replaced(path) as temporary:
            shown = {"vertex_normal" if suffix == ".ply" else "include_normals": True}
            mesh.export(temporary, file_type=suffix[1:], **shown)
        return
    # None changes before all are written, and then the first one changes last.
    with ExitStack() as stack:
        for file, content in files.items():
            stack.enter_context(replaced(file)).write_bytes(content)


def _textured_obj(mesh: trimesh.Trimesh, path: Path) -> dict[Path, bytes]:
    """Contents of the three files; that which names the others comes first."""
    assert isinstance(mesh.visual, TextureVisuals)
    white, black = [255, 255, 255, 255], [0, 0, 0, 255]
    material_file, picture = texture_files(path)
    material = SimpleMaterial(
        image=texture_of(mesh),
        name=picture.stem,
        diffuse=white,
        ambient=white,
        specular=black,
    )
    shown = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        visual=TextureVisuals(uv=mesh.visual.uv, material=material),
        process=False,
    )
    shown.vertex_normals = mesh.vertex_normals
    text, beside = export_obj(
        shown, include_normals=True, return_texture=True, mtl_name=material_file.name
    )
    files = {path.parent / file: content for file, content in beside.items()}
    return {path: text.encode(), **files}


def _glb(mesh: trimesh.Trimesh) -> bytes:
    linear = mesh.copy()
    # glTF demands four bytes for each vertex of an attribute; the classes show in the colours.
    linear.vertex_attributes.clear()
    finish = _matte
    if isinstance(mesh.visual, TextureVisuals):
        # Textures are sRGB in glTF, too, and the material is its own.
        finish = _nearest if mesh.visual.material.name == "labels" else None
    elif isinstance(mesh.visual, ColorVisuals) and mesh.visual.kind == "vertex":
        colors = np.asarray(mesh.visual.vertex_colors).copy()
        light = colors[:, :3] / 255.0
        light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
        colors[:, :3] = np.round(light * 255)
        linear.visual = ColorVisuals(linear, vertex_colors=colors)
    linear.vertex_normals = mesh.vertex_normals
    exported = export_glb(
        linear, include_normals=True, unitize_normals=True, tree_postprocessor=finish
    )
    assert isinstance(exported, bytes)
    return exported


def _nearest(tree: dict) -> None:
    """Lets viewers show a texture's texels as they are: between classes there is no colour."""
    tree["samplers"] = [{"magFilter": 9728, "minFilter": 9728}]
    for texture in tree["textures"]:
        texture["sampler"] = 0


def _matte(tree: dict) -> None:
    """Gives all meshes a matte material; glTF's default one is a metal, which shows colours
    dark."""
    tree["materials"] = [
        {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "name": "matte"}
    ]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
