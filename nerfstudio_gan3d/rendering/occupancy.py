"""Pictures of one Scene from many sides: what is known to be empty or hidden is not looked up.

The density is put into a grid once. Along a ray the grid says where light is absorbed; there, and
only as far as light still reaches, the field's network is asked, so that what is seen is always its
answer and never the grid's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.rendering import samplers
from nerfstudio_gan3d.rendering.compositing import composite_weights
from nerfstudio_gan3d.rendering.finishing import Rendering, finish_march
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.scene import Scene, activate_density

CELLS = 96
"""Cells along each side of the box."""
CHUNK = 2**17
"""Points whose density is asked for at a time."""
FINE_SHARE = 3
"""Only every third of the fine samples is needed: none is spent on what the grid knows is empty."""
NEGLIGIBLE = 2e-3
"""Opacity of a whole ray that may be left out; each of its intervals may lose an equal share."""
HIDDEN = 2e-3
"""Share of a ray's light below which nothing behind is looked up (early termination)."""


class Cells(NamedTuple):
    """What the grid says of the places of samples, each with the shape of the distances."""

    density: Tensor
    """Volume density in the middle of the cell."""
    highest: Tensor
    """Highest density of the cell and its 26 neighbours."""
    lowest: Tensor
    """Lowest density of these."""


@dataclass(frozen=True)
class OccupancyGrid:
    """The density of one Scene in the cells of a grid over its box."""

    values: Float[Tensor, "n3 3"]
    """Columns of `Cells` for each cell; x runs fastest, then y, then z."""
    cells: int
    """Cells along each side."""
    box: tuple[float, float, float]
    """Sides of the box, object-world units."""

    def along(
        self,
        origins: Float[Tensor, "r 3"],
        directions: Float[Tensor, "r 3"],
        distances: Float[Tensor, "r s"],
    ) -> Cells:
        """What the cells hold at distances along rays; places outside count to the nearest cell."""
        n = self.cells
        box = origins.new_tensor(self.box)
        start, step = (origins / box + 0.5) * n, directions / box * n
        # Whole numbers up to n^3 are exact in single precision below 256 cells.
        index = torch.zeros_like(distances)
        for axis in (2, 1, 0):
            place = torch.addcmul(start[:, axis, None], distances, step[:, axis, None])
            index = index.mul_(n).add_(place.floor_().clamp_(0, n - 1))
        found = self.values.index_select(0, index.flatten().to(torch.int32))
        return Cells(*found.view(*distances.shape, 3).unbind(-1))


@torch.no_grad()
def build_occupancy(scene: Scene, cells: int = CELLS) -> OccupancyGrid:
    """The grid of a Scene (B = 1); asks for the density at ``cells^3`` points.

    Raises:
        ValueError: If there is more than one Scene, or ``cells`` is not in 2..255.
    """
    if scene.batch_size != 1:
        raise ValueError(f"{scene.batch_size} Scenes: a grid is made of one")
    if not 2 <= cells <= 255:
        raise ValueError(f"cells = {cells}: a grid has 2 to 255 cells along a side")
    device = None if scene.style is None else scene.style.device
    axis = (torch.arange(cells, device=device) + 0.5) / cells - 0.5
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).view(1, -1, 3) * axis.new_tensor(scene.bounds.box)
    density = torch.cat([scene.density(part) for part in points.split(CHUNK, dim=1)], dim=1)
    grid = density.view(1, 1, cells, cells, cells)
    highest = torch.nn.functional.max_pool3d(grid, 3, stride=1, padding=1)
    lowest = -torch.nn.functional.max_pool3d(-grid, 3, stride=1, padding=1)
    columns = [part.flatten() for part in (grid, highest, lowest)]
    return OccupancyGrid(torch.stack(columns, dim=1), cells, scene.bounds.box)


@torch.no_grad()
def render_occupied(
    scene: Scene,
    grid: OccupancyGrid,
    origins: Float[Tensor, "1 r 3"],
    directions: Float[Tensor, "1 r 3"],
    settings: RenderSettings,
    clip: tuple[Float[Tensor, "1 r 1"], Float[Tensor, "1 r 1"]] | None = None,
) -> Rendering:
    """What `render` shows of one Scene, without gradients and without jitter, from fewer lookups.

    The grid takes the place of the coarse samples, which only say where the fine ones are needed,
    and a third of the fine ones is enough (`FINE_SHARE`); with ``importance_samples = 0`` the
    coarse ones are looked up themselves. Of those the field is asked for the ones that can be seen.

    Raises:
        ValueError: If the settings ask for the reference rules.
    """
    if settings.conventions != "corrected":
        raise ValueError("the occupancy grid is for corrected sampling only")
    bounds = scene.bounds
    near, far = samplers.box_interval(origins, directions, bounds.box, bounds.near, bounds.far)
    if clip is not None:
        near = torch.maximum(near, clip[0])
        far = torch.maximum(torch.minimum(far, clip[1]), near)
    near, far = near[0], far[0]
    # A look at the grid costs next to nothing, so the coarse samples are twice as dense.
    count = settings.samples * (2 if settings.importance_samples else 1)
    distances = samplers.stratified(near[None], far[None], count)[0]
    coarse = grid.along(origins[0], directions[0], distances)
    step = (far - near) / count
    rows = ((coarse.highest * step).sum(-1) > NEGLIGIBLE).nonzero()[:, 0]
    start, towards = origins[0, rows], directions[0, rows]
    near, far, distances = near[rows], far[rows], distances[rows]
    edges = samplers.interval_edges(distances[None], near[None], far[None])
    cells = Cells(*(values[rows] for values in coarse))
    if settings.importance_samples:
        weights = composite_weights(cells.density[None], edges.diff(dim=-1)).weights
        count = math.ceil(settings.importance_samples / FINE_SHARE)
        distances = samplers.importance(edges, weights, count)[0]
        edges = samplers.interval_edges(distances[None], near[None], far[None])
        cells = grid.along(start, towards, distances)
    lengths = edges[0].diff(dim=-1)
    depth = cells.lowest * lengths
    before = torch.exp(depth - depth.cumsum(-1))
    share = NEGLIGIBLE / lengths.shape[-1]
    needed = (cells.highest * lengths > share) & (before > HIDDEN)
    ray = needed.nonzero()[:, 0]
    points = torch.addcmul(start[ray], towards[ray], distances[needed][:, None])
    found = scene.field.query(points[None])
    density = torch.zeros_like(distances)
    density[needed] = activate_density(found.raw_density[0, :, 0], scene.density_scale)
    seen = composite_weights(density[None], lengths[None])
    weights, left = seen.weights[0], seen.transmittance[0]
    channels = found.channels[0]
    colour = channels.new_zeros(len(rows), channels.shape[-1])
    colour.index_add_(0, ray, channels * weights[needed][:, None])
    count = origins.shape[1]

    def put(values: Tensor, elsewhere: float) -> Tensor:
        full = values.new_full((count, values.shape[-1]), elsewhere)
        return full.index_copy_(0, rows, values)[None]

    return finish_march(
        scene,
        origins,
        directions,
        put(colour, 0.0),
        put(left, 1.0),
        put(weights, 0.0),
        put(distances, bounds.far),
        put(edges[0], bounds.near),
        settings,
    )
