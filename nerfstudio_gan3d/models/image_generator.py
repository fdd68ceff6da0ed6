"""The generator of G3DR: one image with depth -> three planes -> Scene -> images. Plain torch.

The image's own camera, the canonical one, stands at azimuth 0 and elevation 0, so that a Scene is
seen from there as its image shows it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import LABEL_SIZE, orbit_labels, pixel_rays
from nerfstudio_gan3d.fields.multiplane import MultiPlane
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.models.scene_generator import Images, SceneGenerator
from nerfstudio_gan3d.networks.unet import PlaneUNet
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import Conventions, DepthGuide, RenderSettings, render
from nerfstudio_gan3d.scene import Bounds, ImageCondition, Scene


class ImageGenerator(SceneGenerator):
    """Images with depth to Scenes.

    Args:
        unet: makes the planes.
        field: what positions in the planes mean.
        bounds: box, nearest and farthest distance of samples.
        radius: distance of the canonical camera from the origin, object-world units.
        focal: its focal length in image sides.
        density_scale: factor of the density's activation.
        settings: samples along rays and the rules of sampling.
        resolution: side of the images.
        conventions: reference feeds distances to the network as they are, and sends the rays of the
            outermost pixels through the image's border; corrected feeds distances from the origin's
            in half sides of the box, and sends rays through the pixels' centres.
    """

    def __init__(
        self,
        unet: PlaneUNet,
        field: MultiPlane,
        bounds: Bounds,
        radius: float,
        focal: float,
        density_scale: float,
        settings: RenderSettings,
        resolution: int,
        conventions: Conventions = "corrected",
    ) -> None:
        super().__init__(settings, resolution, resolution, conventions)
        self.unet = unet
        self.field = field
        self.bounds = bounds
        self.radius = radius
        self.density_scale = density_scale
        self.canonical: Float[Tensor, "1 25"]
        zero = torch.zeros(1)
        label = orbit_labels(zero, zero, radius, focal=focal)
        self.register_buffer("canonical", label, persistent=False)

    def encode(
        self, condition: ImageCondition
    ) -> tuple[Float[Tensor, "b 3 c h w"], Float[Tensor, "b m"]]:
        """The network's planes for these images, and its description of each image: the mean of the
        features in its middle."""
        distance = condition.distance
        if self.conventions == "corrected":
            distance = (distance - self.radius) / (self.bounds.box[2] / 2)
        middle, skips = self.unet.encode(torch.cat([condition.image, distance], dim=1))
        return self.unet.decode(middle, skips), middle.mean((2, 3))

    def scene(self, condition: ImageCondition) -> Scene:
        """The Scenes of these images."""
        prepared = self.field.prepare(*self.encode(condition))
        return Scene(
            BoundField(self.field, prepared, self.bounds.box),
            self.bounds,
            len(condition.image),
            density_scale=self.density_scale,
        )

    def rays(
        self, labels: Float[Tensor, "b 25"], height: int, width: int
    ) -> tuple[Float[Tensor, "b r 3"], Float[Tensor, "b r 3"]]:
        """Origins and directions of an image's rays by the rules of this generator."""
        if self.conventions == "corrected":
            return pixel_rays(labels, height, width)
        return pixel_rays(labels, height, width, to_border=True)

    def canonical_labels(self, count: int) -> Float[Tensor, "b 25"]:
        """The canonical camera, ``count`` times."""
        return self.canonical.expand(count, LABEL_SIZE)

    def march(
        self,
        scene: Scene,
        rays: tuple[Float[Tensor, "b r 3"], Float[Tensor, "b r 3"]],
        jitter: bool = False,
        guide: DepthGuide | None = None,
    ) -> Rendering:
        """Everything along rays of B Scenes, such as some of those of `rays`."""
        return render(scene, *rays, self.settings, "draw" if jitter else None, guide=guide)

    def forward(self, condition: ImageCondition, labels: Float[Tensor, "b 25"]) -> Images:
        """Images with depth straight to what other cameras see."""
        return self.render(self.scene(condition), labels)


def expected_distance(rendering: Rendering) -> Float[Tensor, "b r 1"]:
    """``sum_i w_i t_i / (sum_i w_i + 0.001)``: the distance that G3DR's losses compare, t_i the
    middle of interval i. It falls to 0 where nothing is."""
    edges = rendering.edges
    middle = (edges[..., 1:] + edges[..., :-1]) / 2
    weights = rendering.weights
    opacity = weights.sum(-1, keepdim=True)
    return (weights * middle).sum(-1, keepdim=True) / (opacity + 0.001)


def distance_spread(
    rendering: Rendering, distance: Float[Tensor, "b r 1"], missing: float
) -> Float[Tensor, "b r 1"]:
    """``sum_i w_i |t_i - d| + (1 - W) m``: how far from the distance d a ray's light comes from,
    t_i the middle of interval i; what passes through everything counts as m (``missing``) away.

    Fog on both sides of d, of which `expected_distance` says nothing, is far from it too."""
    edges, weights = rendering.edges, rendering.weights
    middle = (edges[..., 1:] + edges[..., :-1]) / 2
    apart = (weights * (middle - distance).abs()).sum(-1, keepdim=True)
    return apart + (1 - weights.sum(-1, keepdim=True)) * missing


def opacity(rendering: Rendering) -> Float[Tensor, "b r 1"]:
    """``W = sum_i w_i``: how much of a ray's light the Scene gives."""
    return rendering.weights.sum(-1, keepdim=True)
