"""Raw densities on a grid over a Scene's box, and the triangles of a level in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor

from nerfstudio_gan3d.scene import Scene

POINTS_PER_QUERY = 2**17
MOST_CELLS = 1024
"""Along the longest side of a box: the largest grid that memory is sure to hold."""
JOINED_CELLS = 1e-4
"""Distance, in cells, below which vertices are one."""

Axes = tuple[Float[Tensor, "x"], Float[Tensor, "y"], Float[Tensor, "z"]]


@dataclass(frozen=True)
class DensityGrid:
    """Raw density of a Scene at the corners of a grid of cells that fills its box."""

    raw: Float[Tensor, "x y z"]
    """Density before its activation, or logit of the occupancy; on the CPU."""
    axes: Axes
    """Positions of the corners along each axis, object-world units; the first and the last lie on
    the box's faces."""
    density_scale: float
    """Factor of the density's activation."""
    volume: Literal["density", "occupancy"] = "density"
    """What the raw densities mean; see `Scene.volume`."""

    @property
    def cell(self) -> tuple[float, float, float]:
        """Sides of a cell, object-world units; see `even`."""
        x, y, z = (
            float(axis[count - 1] - axis[0]) / (count - 1)
            for axis, count in zip(self.axes, self.even.shape, strict=True)
        )
        return x, y, z

    @property
    def even(self) -> Float[Tensor, "x2 y2 z2"]:
        """The raw density without the last corners that a stride put nearer to those before."""
        x, y, z = (_even_corners(axis) for axis in self.axes)
        return self.raw[:x, :y, :z]


def _even_corners(axis: Float[Tensor, "n"]) -> int:
    """Number of corners that are equally far from each other."""
    first, last = float(axis[1] - axis[0]), float(axis[-1] - axis[-2])
    return len(axis) - (len(axis) > 2 and last < 0.99 * first)


def grid_axes(scene: Scene, resolution: int, stride: int = 1) -> Axes:
    """Corners of a grid whose longest side has ``resolution`` cells; of these every ``stride``-th
    one, and the last.

    Cells are cubes but for the rounding that makes them end on the box's faces.
    """
    side = max(scene.bounds.box) / resolution
    axes = []
    for length in scene.bounds.box:
        count = max(round(length / side), 1)
        corners = torch.linspace(-length / 2, length / 2, count + 1)
        # As many corners as cells of the stride have, so that a finer grid halves each of them.
        rows = torch.arange(-(-count // stride) + 1) * stride
        axes.append(corners[rows.clamp(max=count)])
    return axes[0], axes[1], axes[2]


def raw_at(
    scene: Scene, positions: Float[Tensor, "n 3"], device: torch.device | str = "cpu"
) -> Float[Tensor, "n"]:
    """Raw density of one Scene at positions, in pieces; on the CPU.

    Raises:
        ValueError: If a density is not finite.
    """
    with torch.no_grad():
        found = torch.cat(
            [
                scene.field.query(piece[None].to(device)).raw_density[0, :, 0].float().cpu()
                for piece in positions.split(POINTS_PER_QUERY)
            ]
        )
    if not bool(found.isfinite().all()):
        raise ValueError("the Scene's density is not finite everywhere; the training has diverged")
    return found


def cells_along_depth(box: tuple[float, float, float], resolution: int) -> int:
    """Cells along the longest side of a box, of which ``resolution`` lie along its depth (z).

    Raises:
        ValueError: If they are more than `MOST_CELLS`.
    """
    cells = round(resolution * max(box) / box[2])
    if cells > MOST_CELLS:
        raise ValueError(
            f"resolution is {resolution}: along the depth of this box, which is "
            f"{max(box) / box[2]:.3g} times as wide; give at most "
            f"{int(MOST_CELLS * box[2] / max(box))}"
        )
    return cells


def density_grid(
    scene: Scene, resolution: int, device: torch.device | str = "cpu", stride: int = 1
) -> DensityGrid:
    """Density on the whole of a grid over the Scene's box.

    Args:
        scene: One Scene (B = 1).
        resolution: Cells along the longest side of the box.
        device: Where the Scene's tensors are.
        stride: Looks at every so many corners along each axis alone; see `grid_axes`.

    Raises:
        ValueError: If there are several Scenes, or a density is not finite.
    """
    if scene.batch_size != 1:
        raise ValueError(f"a mesh is made from one Scene, and there are {scene.batch_size}")
    axes = grid_axes(scene, resolution, stride)
    raw = torch.empty(*(len(axis) for axis in axes))
    # Slabs along x keep the memory bounded without an array of all positions.
    slab = max(POINTS_PER_QUERY // (len(axes[1]) * len(axes[2])), 1)
    for start in range(0, len(axes[0]), slab):
        part = torch.meshgrid(axes[0][start : start + slab], *axes[1:], indexing="ij")
        positions = torch.stack(part, dim=-1).view(-1, 3)
        raw[start : start + slab] = raw_at(scene, positions, device).view(part[0].shape)
    return DensityGrid(raw, axes, scene.density_scale, scene.volume)


def surface(grid: DensityGrid, raw_level: float) -> trimesh.Trimesh:
    """Triangles of the surface on which the raw density equals ``raw_level``; see `triangles`.

    Every corner of the grid is known: the plain twin of `multires.refined_surface`.
    """
    padded = np.pad(grid.raw.numpy(), 1, constant_values=outside(raw_level))
    return triangles(padded, grid.axes, raw_level)


def outside(raw_level: float) -> float:
    """What stands around the box: below the level. No vertex depends on how far, since all of a
    margin's cells end on the box's face."""
    return raw_level - 1.0


def triangles(
    padded: Float[np.ndarray, "px py pz"],
    axes: Axes,
    raw_level: float,
    active: Bool[np.ndarray, "px py pz"] | None = None,
) -> trimesh.Trimesh:
    """Triangles of the surface on which the raw density equals a level, closed at the box's faces.

    Marching cubes (Lorensen and Cline; the variant of Lewiner et al. that scikit-image has) runs on
    the raw density, which the activation does not bend, so that linear interpolation finds the
    place. Outside of the box there is nothing: where the surface would leave it, it ends in a flat
    lid. Triangles are counter-clockwise seen from outside.

    Args:
        padded: Raw densities at the grid's corners, with a margin of one that holds `outside`.
        axes: Positions of the corners, without the margin.
        raw_level: Where the surface is.
        active: As large as ``padded``: whether to look at the cell whose last corner this is; None
            is all of them. Corners of other cells may hold anything.
    """
    vertices, faces, _, _ = marching_cubes(
        padded, raw_level, gradient_direction="ascent", mask=active
    )
    vertices = vertices.astype(np.float64)
    # The margin's corners stand on the faces themselves: a lid's vertices lie in the plane of its
    # face.
    for axis, positions in enumerate(axes):
        table = torch.cat([positions[:1], positions, positions[-1:]]).double().numpy()
        vertices[:, axis] = np.interp(vertices[:, axis], np.arange(len(table)), table)
    cell = np.array([float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in axes])
    return trimesh.Trimesh(*_joined(vertices, faces, cell), process=False)


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
