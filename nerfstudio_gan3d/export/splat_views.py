"""Pictures that splats are made from, and others that they are measured with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.data.palettes import Palette
from nerfstudio_gan3d.metrics.reconstruction import psnr
from nerfstudio_gan3d.models.g3dr import G3drModelConfig
from nerfstudio_gan3d.models.scene_model import SceneModelConfig
from nerfstudio_gan3d.rendering.renderer import RenderSettings, render
from nerfstudio_gan3d.rendering.splatting import Splats, rasterize
from nerfstudio_gan3d.scene import Scene

GOLDEN = (math.sqrt(5) - 1) / 2
VIEW_SIDE = 128
"""Side in pixels of the pictures that splats are refined and measured with."""
HELD_OUT = 20
"""Views that splats are measured from."""
_RAYS = 2**14


@dataclass(frozen=True)
class Surroundings:
    """Where a Scene is looked at from: a section of a sphere about its pivot."""

    radius: float
    """Distance of the cameras from the pivot, object-world units."""
    focal: float
    """Focal length in image sides."""
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The point that all look at."""
    azimuth_deg: tuple[float, float] = (-180.0, 180.0)
    """Smallest and largest azimuth; 0 is the front (+z)."""
    elevation_deg: tuple[float, float] = (-5.0, 50.0)
    """Smallest and largest elevation above the horizon."""

    @property
    def one_sided(self) -> bool:
        """Whether the Scene is looked at from one side alone."""
        return self.azimuth_deg[1] - self.azimuth_deg[0] < 180

    def cameras(self, count: int, turn: float = 0.0) -> Float[Tensor, "v 25"]:
        """Cameras spread evenly: elevations even in their sine, azimuths by the golden ratio.

        Another ``turn`` (a share of all azimuths) gives other cameras.
        """
        order = torch.arange(count) + 0.5
        (left, right), (low, high) = (
            [math.radians(angle) for angle in limits]
            for limits in (self.azimuth_deg, self.elevation_deg)
        )
        azimuth = left + (right - left) * ((order * GOLDEN + turn) % 1)
        sine = math.sin(low) + (math.sin(high) - math.sin(low)) * order / count
        return orbit_labels(azimuth, sine.asin(), self.radius, self.pivot, self.focal)

    def training(self, count: int) -> Float[Tensor, "v 25"]:
        """Cameras that splats are made from."""
        return self.cameras(count)

    def held_out(self, count: int = HELD_OUT) -> Float[Tensor, "v 25"]:
        """Cameras that splats are measured from."""
        return self.cameras(count, turn=0.25)


def surroundings(settings: SceneModelConfig) -> Surroundings:
    """Where a model's Scenes are looked at from: all around, or, if they are made of images, from
    about where these were seen."""
    if isinstance(settings, G3drModelConfig):
        return Surroundings(
            settings.view_radius,
            settings.view_focal,
            azimuth_deg=(-25.0, 25.0),
            elevation_deg=(-10.0, 10.0),
        )
    return Surroundings(settings.view_radius, settings.view_focal, settings.view_pivot)


@torch.no_grad()
def scene_views(
    scene: Scene,
    settings: RenderSettings,
    cameras: Float[Tensor, "v 25"],
    side: int = VIEW_SIDE,
    palette: Palette = (),
    behind: float | None = None,
) -> Float[Tensor, "v side side 4"]:
    """What the foreground of a Scene (B = 1) shows: premultiplied RGB and opacity.

    Args:
        scene: Its background is left out.
        settings: How rays are sampled.
        cameras: Where to look from; on the Scene's device.
        side: Of the pictures, in pixels.
        palette: Colours of classes; each pixel shows that of its highest score. Without one the
            Scene's colours are shown.
        behind: Leaves out what lies farther along -z than this, object-world units.
    """
    scene = scene.with_background(None)
    pictures = []
    for camera in cameras.split(1):
        parts = []
        rays = zip(*(part.split(_RAYS, 1) for part in pixel_rays(camera, side, side)), strict=True)
        for origins, directions in rays:
            clip = None if behind is None else _before(origins, directions, behind)
            found = render(scene, origins, directions, settings, clip=clip)
            colours = found.foreground[0, :, :3]
            if palette:
                assert found.labels is not None
                # What lies behind has labels, too, but no part in the foreground's.
                left = found.transmittance * found.labels.new_tensor(scene.behind_labels)
                ids = (found.labels - left)[0, :, : len(palette)].argmax(-1)
                table = torch.tensor(palette, device=ids.device).to(colours) / 255
                colours = table[ids] * found.accumulation[0]
            parts.append(torch.cat([colours, found.accumulation[0]], -1))
        pictures.append(torch.cat(parts).unflatten(0, (side, side)))
    return torch.stack(pictures)


def _before(
    origins: Float[Tensor, "1 r 3"], directions: Float[Tensor, "1 r 3"], depth: float
) -> tuple[Float[Tensor, "1 r 1"], Float[Tensor, "1 r 1"]]:
    """Distances between which rays are before the plane z = depth."""
    start, slope = origins[..., 2:], directions[..., 2:]
    meets = (depth - start) / torch.where(slope.abs() < 1e-9, 1e-9, slope)
    near = torch.where(slope > 0, meets, torch.zeros_like(meets)).clamp(min=0)
    far = torch.where(slope > 0, torch.inf, meets)
    return near, far


def over_white(pictures: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 3"]:
    """Premultiplied pictures before white."""
    return pictures[..., :3] + (1 - pictures[..., 3:])


@torch.no_grad()
def splat_psnr(
    splats: Splats, cameras: Float[Tensor, "v 25"], pictures: Float[Tensor, "v h w 4"]
) -> Float[Tensor, "v"]:
    """How alike splats and pictures are before white, dB for each view."""
    height, width = pictures.shape[1:3]
    shown = torch.stack([rasterize(splats, one, height, width) for one in cameras.split(1)])
    pair = [over_white(found).movedim(-1, 1) for found in (shown, pictures)]
    return psnr(*pair, span=1.0)
