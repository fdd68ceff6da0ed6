"""Colours of a surface as pictures of the Scene show it, averaged over views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays, project
from nerfstudio_gan3d.export.splat_views import surroundings
from nerfstudio_gan3d.rendering.renderer import RenderSettings, render
from nerfstudio_gan3d.run import Run
from nerfstudio_gan3d.scene import Scene

VIEWS = 24
"""Pictures that colours are averaged over."""
MOST_PIXELS = 256
"""Side of the largest pictures."""
TOLERANCE = 0.08
"""How far a picture's depth may be from a place that it shows, in depths (z) of the box. Volumes
are soft: what pictures show lies this far about the surface."""
_FULL_WEIGHT = 0.2
_RAYS = 2**14
_PLACES = 2**18


@dataclass(frozen=True)
class SeenColors:
    """Pictures of one Scene's foreground, as a source of colours on its surface."""

    pictures: Float[Tensor, "v 5 s s"]
    """Premultiplied RGB, opacity, and distance from the camera."""
    cameras: Float[Tensor, "v 25"]
    """Where the pictures were taken from."""
    tolerance: float
    """How far a picture's distance may be from a place that it shows, object-world units."""

    @torch.no_grad()
    def mixed(
        self,
        positions: Float[np.ndarray, "n 3"],
        normals: Float[np.ndarray, "n 3"],
        field: UInt8[np.ndarray, "n 3"],
    ) -> UInt8[np.ndarray, "n 3"]:
        """RGB at positions: the mean of what the pictures show there, weighted by how squarely each
        looks at the place (the squared cosine between the normal and the way to the camera).

        A picture shows a place if its distance agrees and the place is covered by half at least.
        Where none or hardly one does, the ``field``'s own colours take over.
        """
        pieces = range(_PLACES, len(positions), _PLACES)
        parts = zip(*(np.split(part, pieces) for part in (positions, normals, field)), strict=True)
        return np.concatenate([self._mixed(*(torch.from_numpy(x) for x in row)) for row in parts])

    def _mixed(self, positions: Tensor, normals: Tensor, field: Tensor) -> np.ndarray:
        positions, normals, field = positions.float(), normals.float(), field.float() / 255
        total, weights = torch.zeros_like(field), field.new_zeros(len(field), 1)
        for picture, camera in zip(self.pictures, self.cameras.split(1), strict=True):
            away = positions - camera[0, [3, 7, 11]]
            place, ahead = (part[0] for part in project(camera, positions[None]))
            place = 2 * place - 1
            shown = torch.nn.functional.grid_sample(
                picture[None], place[None, None], align_corners=False
            )[0, :, 0].T  # [N, 5]
            rgb, opacity, depth = shown.split([3, 1, 1], -1)
            distance = away.norm(dim=-1, keepdim=True)
            squarely = -(away / distance * normals).sum(-1, keepdim=True)
            sees = (depth - distance).abs() < self.tolerance
            sees &= (opacity > 0.5) & (place.abs().amax(-1, keepdim=True) < 1)
            weight = squarely.clamp(min=0).square() * (sees & (ahead[:, None] > 0))
            total += weight * rgb / opacity.clamp(min=0.5)
            weights += weight
        # Between seen and unseen places there is no seam.
        share = (weights / _FULL_WEIGHT).clamp(max=1)
        found = share * total / weights.clamp(min=1e-6) + (1 - share) * field
        return (found.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


@torch.no_grad()
def look_at_scene(
    scene: Scene, settings: RenderSettings, cameras: Float[Tensor, "v 25"], side: int
) -> SeenColors:
    """Takes the pictures of one Scene without its background.

    Args:
        scene: One Scene (B = 1).
        settings: How its rays are sampled.
        cameras: Where to look from, on the Scene's device.
        side: Of the pictures, in pixels.
    """
    scene = scene.with_background(None)
    pictures = []
    for camera in cameras.split(1):
        origins, directions = pixel_rays(camera, side, side)
        parts = []
        for start, along in zip(
            origins.expand_as(directions).split(_RAYS, 1), directions.split(_RAYS, 1), strict=True
        ):
            found = render(scene, start, along, settings)
            seen = [found.foreground[..., :3], found.accumulation, found.foreground_distance]
            parts.append(torch.cat(seen, -1)[0].float().cpu())
        pictures.append(torch.cat(parts).T.unflatten(1, (side, side)))
    return SeenColors(torch.stack(pictures), cameras.cpu(), TOLERANCE * scene.bounds.box[2])


def seen_colors(run: Run, scene: Scene) -> SeenColors:
    """Pictures of a run's Scene from where its Scenes are looked at, twice as fine as its images.

    Raises:
        ValueError: If the run does not say where its cameras stand.
    """
    # The sentence about runs that do not say it is there.
    run.orbit([0.0])
    cameras = surroundings(run.settings).training(VIEWS).to(run.device)
    side = min(2 * run.settings.image_resolution, MOST_PIXELS)
    return look_at_scene(scene, run.generator.settings, cameras, side)
