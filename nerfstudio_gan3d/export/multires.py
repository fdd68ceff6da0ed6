"""Surfaces found by refining only those cells that they pass, so that fine grids stay affordable.

All corners of a coarse grid are looked at; cells whose corners lie on both sides of the level are
active; active cells are halved, and only their corners looked at, until the grid is as fine as it
was asked for (Multiresolution IsoSurface Extraction: Mescheder et al., Occupancy Networks, CVPR
2019). Two things differ. The neighbours of active cells are active, too, which loses thin parts
less often. And in the finest grid the surface is followed: where it leaves the active cells, the
next ones become active. So every part that any of the grids touched is whole and closed, exactly as
`grid.surface` finds it on the whole grid.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Int

from nerfstudio_gan3d.export.grid import DensityGrid, grid_axes, outside, raw_at, triangles
from nerfstudio_gan3d.scene import Scene

_CELLS_PER_PIECE = 2**14


def coarse_stride(resolution: int, most: int) -> int:
    """The power of two with which a grid has ``most`` cells along its longest side at most."""
    stride = 1
    while -(-resolution // stride) > most:
        stride *= 2
    return stride


def refined_surface(
    scene: Scene,
    coarse: DensityGrid,
    stride: int,
    resolution: int,
    raw_level: float,
    device: torch.device | str = "cpu",
) -> trimesh.Trimesh:
    """Triangles of the surface on which the raw density equals ``raw_level``.

    Parts that lie between the coarse grid's corners may be lost; all others are those of
    `grid.surface`.

    Args:
        scene: One Scene (B = 1).
        coarse: What `grid.density_grid` found at this resolution with this stride.
        stride: A power of two.
        resolution: Cells along the longest side of the Scene's box.
        raw_level: Where the surface is.
        device: Where the Scene's tensors are.

    Raises:
        ValueError: If a density is not finite.
    """
    level = _Level(scene, resolution, stride, raw_level, device)
    level.raw[...] = coarse.raw.numpy()
    active = np.ones(level.cells, bool)
    while level.stride > 1:
        active = _dilated(level.straddling())
        finer = _Level(scene, resolution, level.stride // 2, raw_level, device)
        finer.take(level)
        finer.look_at(np.argwhere(active))
        level = finer
    if stride > 1:
        active = _follow(level, active)
        for axis, count in enumerate(level.cells):
            active = active.repeat(2, axis).take(range(count), axis)
    # A margin's cells are looked at where those beside them are. The first corner has no cell that
    # ends in it.
    mask = np.pad(np.pad(active, 1, mode="edge"), ((1, 0),) * 3)
    return triangles(level.padded, level.axes, raw_level, mask)


class _Level:
    """What is known of the Scene at every ``stride``-th corner of the final grid; the rest is NaN.

    Corner ``i`` of an axis with ``n`` cells is corner ``min(i * stride, n)`` of the final grid:
    where the stride does not divide n, the last cell is smaller. So any number of cells can be
    refined, and the final grid is the same whatever it was started from.
    """

    def __init__(
        self,
        scene: Scene,
        resolution: int,
        stride: int,
        raw_level: float,
        device: torch.device | str,
    ) -> None:
        self.scene = scene
        self.device = device
        self.stride = stride
        self.raw_level = raw_level
        self.axes = grid_axes(scene, resolution, stride)
        self.corners = tuple(len(axis) for axis in self.axes)
        self.cells = tuple(count - 1 for count in self.corners)
        # With the margin that marching cubes wants, so that the finest grid is not copied.
        shape = [count + 2 for count in self.corners]
        self.padded = np.full(shape, outside(raw_level), np.float32)
        self.raw = self.padded[1:-1, 1:-1, 1:-1]
        self.raw[...] = np.nan

    def take(self, coarse: _Level) -> None:
        """Corners that the grid of twice the stride has, too."""
        every = self.raw[::2, ::2, ::2]
        x, y, z = every.shape
        every[...] = coarse.raw[:x, :y, :z]

    def look_at(self, parents: Int[np.ndarray, "m 3"]) -> None:
        """Queries the unknown corners of all cells in these cells of twice the stride."""
        for start in range(0, len(parents), _CELLS_PER_PIECE):
            rows = self._corners_of(parents[start : start + _CELLS_PER_PIECE]).reshape(-1, 3)
            unknown = rows[np.isnan(self.raw[tuple(rows.T)])]
            keys = np.unique(np.ravel_multi_index(tuple(unknown.T), self.corners))
            if not len(keys):
                continue
            index = np.unravel_index(keys, self.corners)
            positions = [
                axis[torch.from_numpy(rows)] for axis, rows in zip(self.axes, index, strict=True)
            ]
            self.raw[index] = raw_at(self.scene, torch.stack(positions, -1), self.device).numpy()

    def straddling(self) -> Bool[np.ndarray, "x y z"]:
        """Cells that the surface passes, by the corners that are known."""
        with np.errstate(invalid="ignore"):
            inside, beyond = self.raw >= self.raw_level, self.raw <= self.raw_level
        # Outside of the box there is nothing, so that a lid lies in a face where it is inside.
        for axis in range(3):
            for end in (0, -1):
                beyond.swapaxes(0, axis)[end] = True
        return _any_corner(inside) & _any_corner(beyond)

    def leaving(self, parents: Int[np.ndarray, "m 3"]) -> Int[np.ndarray, "k 3"]:
        """Neighbours of cells of twice the stride into which the surface goes on; all corners of
        the cells are known."""
        corners = self._corners_of(parents)  # [M, 3, 3, 3, 3]
        values = self.raw[tuple(np.moveaxis(corners, -1, 0))]
        ends = (corners == 0) | (corners == np.array(self.cells))
        inside = values >= self.raw_level
        beyond = (values <= self.raw_level) | ends.any(-1)
        found = []
        for axis, side in product(range(3), (0, 1)):
            shared = [part.take(2 * side, axis + 1).any((1, 2)) for part in (inside, beyond)]
            passed = shared[0] & shared[1]
            found.append(parents[passed] + (2 * side - 1) * np.eye(3, dtype=np.int64)[axis])
        neighbours = np.concatenate(found)
        last = -(-np.array(self.cells) // 2)
        return neighbours[((neighbours >= 0) & (neighbours < last)).all(-1)]

    def _corners_of(self, parents: Int[np.ndarray, "m 3"]) -> Int[np.ndarray, "m 3 3 3 3"]:
        offsets = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1)
        corners = 2 * parents[:, None, None, None] + offsets
        return np.minimum(corners, np.array(self.cells))


def _follow(level: _Level, active: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Active cells of twice the stride with all those into which the surface goes on from them."""
    active = active.copy()
    fresh = np.argwhere(active)
    while len(fresh):
        pieces = np.split(fresh, range(_CELLS_PER_PIECE, len(fresh), _CELLS_PER_PIECE))
        neighbours = np.concatenate([level.leaving(piece) for piece in pieces])
        neighbours = neighbours[~active[tuple(neighbours.T)]]
        fresh = np.unique(neighbours, axis=0)
        active[tuple(fresh.T)] = True
        level.look_at(fresh)
    return active


def _any_corner(corners: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x2 y2 z2"]:
    """Whether it is so at any of a cell's eight corners."""
    for axis in range(3):
        rows = corners.swapaxes(0, axis)
        corners = (rows[1:] | rows[:-1]).swapaxes(0, axis)
    return corners


def _dilated(cells: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The cells and all that share a corner with one of them."""
    # Two cells share a corner if a corner of the grid lies at both: corners of cells, cells of
    # corners.
    return _any_corner(_any_corner(np.pad(cells, 1)))
