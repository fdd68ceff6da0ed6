"""A Scene as 3D Gaussians: flat ones along its surface, then refined to look like it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from nerfstudio_gan3d.data.palettes import Palette, colorize
from nerfstudio_gan3d.export.grid import cells_along_depth
from nerfstudio_gan3d.export.level import NoSurfaceError
from nerfstudio_gan3d.export.mesh import extract_mesh, vertex_colors, vertex_labels
from nerfstudio_gan3d.export.ray_casting import seen_faces
from nerfstudio_gan3d.export.splat_refine import Rasterizer, refine_splats
from nerfstudio_gan3d.export.splat_views import VIEW_SIDE, Surroundings, scene_views
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.rendering.splatting import Splats
from nerfstudio_gan3d.scene import Scene

__all__ = ["Splats", "make_splats", "quick_splats", "surface_splats"]

DEFAULT_COUNT, DEFAULT_SIZE, DEFAULT_STEPS, DEFAULT_CELLS = 4000, 0.8, 240, 64
QUICK_COUNT = 2500
TRAINING_VIEWS, TRAINING_SIDE = 32, 96
"""Number and side in pixels of the pictures that splats are refined with. Larger ones cost more and
teach little more."""
SHOWN_SIDES = VIEW_SIDE, 512
"""Sides of the pictures in which splats shall look right: small ones, and a viewer's."""
FLATNESS = 0.1
"""Thickness of a splat across the surface, in its size along it."""
OPACITY = 0.8
"""Of every splat, before it is refined."""
_NEIGHBOURS = 4


class Quickness(NamedTuple):
    """How `quick_splats` saves time."""

    views: int
    """Pictures that splats are refined with ..."""
    side: int
    """... and their side in pixels."""
    steps: int
    """Of the refinement."""
    cells: int
    """Of the grid that finds the surface."""


ALL_AROUND, ONE_SIDED = Quickness(10, 64, 40, 40), Quickness(6, 48, 24, 32)
"""Scenes that are looked at from one side fill the pictures, so that each takes longer."""


def surface_points(
    mesh: trimesh.Trimesh, count: int, seed: int = 0
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points spread over a mesh by area, and the unit normals there.

    The area of all triangles, one after the other, is cut into ``count`` equal pieces with one
    point in each: triangles that follow each other lie close to each other, so that points lie more
    evenly than independent ones.
    """
    random = np.random.default_rng(seed)
    edges = np.cumsum(mesh.area_faces)
    places = (np.arange(count) + random.random(count)) / count * edges[-1]
    faces = np.searchsorted(edges, places, side="right").clip(max=len(edges) - 1)
    root, share = np.sqrt(random.random(count)), random.random(count)
    weights = np.stack([1 - root, root * (1 - share), root * share], -1)[..., None]
    points = (mesh.triangles[faces] * weights).sum(1)
    normals = (np.asarray(mesh.vertex_normals)[mesh.faces[faces]] * weights).sum(1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    flat = np.asarray(mesh.face_normals)[faces]
    return points, np.where(length > 1e-6, normals / np.maximum(length, 1e-6), flat)


def turned_to(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    """Unit quaternions (w, x, y, z) of the shortest turns that take the z axis to unit vectors."""
    x, y, z = normals.unbind(-1)
    zero = torch.zeros_like(x)
    # Half way between the two vectors: (1 + n . z, z x n). Straight down it is half a turn about x.
    found = torch.stack([1 + z, -y, x, zero], -1)
    down = (1 + z < 1e-6)[:, None]
    return F.normalize(torch.where(down, found.new_tensor([0.0, 1.0, 0.0, 0.0]), found), dim=-1)


def surface_splats(
    scene: Scene,
    count: int = DEFAULT_COUNT,
    size: float = DEFAULT_SIZE,
    *,
    resolution: int = DEFAULT_CELLS,
    level: float | Literal["auto"] = "auto",
    palette: Palette = (),
    behind: float | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    seen_from: Float[Tensor, "v 25"] | None = None,
) -> Splats:
    """Flat Gaussians along the surface of a Scene (B = 1), directly computed.

    Args:
        scene: Of its foreground alone.
        count: Number of splats.
        size: Their standard deviation along the surface, in mean distances to the four nearest
            others.
        resolution: Cells along the longest side of the box, of the grid that finds the surface;
            with ``seen_from`` along the box's depth (z).
        level: Which surface, as `extract_mesh` takes it.
        palette: Colours of classes, 0 to 255; each splat has that of the class with the highest
            score. Without one splats have the field's own colours.
        behind: Leaves out what lies farther along -z than this, object-world units.
        device: Where the Scene's tensors are.
        seed: Of the points on the surface.
        seen_from: Leaves out what none of these cameras sees, of a Scene that is looked at from
            one side.

    Raises:
        ValueError: If there is no surface, none before ``behind``, none that is seen, or the Scene
            has no such classes.
    """
    if seen_from is not None:
        resolution = cells_along_depth(scene.bounds.box, resolution)
    mesh = extract_mesh(scene, resolution, level, "none", device=device, normals="faces")
    if behind is not None:
        mesh.update_faces((mesh.triangles[:, :, 2] > behind).all(1))
        if not len(mesh.faces):
            raise NoSurfaceError(f"nothing of the Scene's surface lies before z = {behind:.4g}")
    if seen_from is not None:
        mesh.update_faces(seen_faces(mesh, seen_from, TRAINING_SIDE))
        if not len(mesh.faces):
            raise NoSurfaceError("the cameras see nothing of the Scene's surface")
    points, normals = surface_points(mesh, count, seed)
    if palette:
        ids = vertex_labels(scene, points, len(palette), device)
        colours = colorize(ids[None], palette)[0]
    else:
        colours = vertex_colors(scene, points, device)
    nearest = min(_NEIGHBOURS, count - 1)
    if nearest:
        apart = np.asarray(KDTree(points).query(points, nearest + 1)[0])[:, 1:].mean(1)
        # A lone crumb far from all others must not become a disc as large as the object.
        apart = apart.clip(max=3 * np.median(apart))
    else:
        apart = np.sqrt([mesh.area])
    along = size * torch.from_numpy(apart).float().clamp(min=1e-6)
    return Splats(
        torch.from_numpy(points).float(),
        turned_to(torch.from_numpy(normals).float()),
        torch.stack([along, along, FLATNESS * along], -1),
        torch.full_like(along, OPACITY),
        torch.from_numpy(colours).float() / 255,
    ).to(device)


def make_splats(
    scene: Scene,
    settings: RenderSettings,
    cameras: Float[Tensor, "v 25"],
    count: int = DEFAULT_COUNT,
    size: float = DEFAULT_SIZE,
    *,
    steps: int = DEFAULT_STEPS,
    side: int = TRAINING_SIDE,
    resolution: int = DEFAULT_CELLS,
    level: float | Literal["auto"] = "auto",
    palette: Palette = (),
    behind: float | None = None,
    device: torch.device | str = "cpu",
    rasterizer: Rasterizer = "auto",
    seed: int = 0,
    one_sided: bool = False,
) -> Splats:
    """The foreground of a Scene (B = 1) as Gaussians in the object world.

    `surface_splats`, refined by `refine_splats` towards the Scene's own pictures.

    Args:
        scene: What to make splats of.
        settings: How its rays are sampled.
        cameras: Where it is looked at from, `TRAINING_VIEWS` or more of `Surroundings.training`.
        count: Splats to begin with; those that end up invisible are dropped.
        size: As `surface_splats` takes it.
        steps: Of the refinement; 0 computes the splats directly.
        side: Of the pictures, in pixels.
        resolution, level, palette, behind, device, seed: As `surface_splats` takes them.
        rasterizer: As `refine_splats` takes it.
        one_sided: Whether the Scene is looked at from the side of these cameras alone, so that
            splats that none of them sees would be wasted: `Surroundings.one_sided`.

    Raises:
        ValueError: If there is no surface, the Scene has no such classes, or gsplat is asked for
            without a CUDA device.
    """
    splats = surface_splats(
        scene,
        count,
        size,
        resolution=resolution,
        level=level,
        palette=palette,
        behind=behind,
        device=device,
        seed=seed,
        seen_from=cameras if one_sided else None,
    )
    if not steps:
        return splats
    cameras = cameras.to(device)
    pictures = scene_views(scene, settings, cameras, side, palette, behind)
    return refine_splats(
        splats,
        cameras,
        pictures,
        steps,
        with_colours=not palette,
        rasterizer=rasterizer,
        shown_sides=SHOWN_SIDES,
        seed=seed,
    )


def quick_splats(
    scene: Scene,
    settings: RenderSettings,
    around: Surroundings,
    count: int = QUICK_COUNT,
    device: torch.device | str = "cpu",
) -> Splats:
    """`make_splats` for a live viewer: fewer, refined for a moment towards small pictures from
    where the Scene is looked at.

    Raises ValueError if there is no surface.
    """
    quick = ONE_SIDED if around.one_sided else ALL_AROUND
    return make_splats(
        scene,
        settings,
        around.training(quick.views),
        count,
        steps=quick.steps,
        side=quick.side,
        resolution=quick.cells,
        device=device,
        one_sided=around.one_sided,
    )
