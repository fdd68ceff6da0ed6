"""What every generator here can do with its Scenes: render them, and finish the images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.cameras import axis_cosine, pixel_rays
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.networks.stylegan2 import NoiseMode
from nerfstudio_gan3d.networks.superresolution import SuperResolution
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import Conventions, RenderSettings, render
from nerfstudio_gan3d.rendering.shared import fold_rays, unfold_rendering
from nerfstudio_gan3d.scene import Scene

SMALL_SHARE = 1e-3
"""Added to the share of each class before its logarithm, which keeps gradients bounded."""


@dataclass(frozen=True)
class Images:
    """What B Scenes look like from one camera each. Colours in [-1, 1]."""

    image: Float[Tensor, "b 3 h w"]
    """The final image."""
    raw: Float[Tensor, "b 3 h2 w2"]
    """The image as rendered, before super-resolution; the same as ``image`` without one."""
    rendering: Rendering
    """Everything else that was found along the rays of the raw image."""
    labels: Float[Tensor, "b c h w"] | None = None
    """Label image of the size of ``image``: class scores, or for edge maps values in [-1, 1]; None
    for models without labels."""
    raw_labels: Float[Tensor, "b c h2 w2"] | None = None
    """The same as rendered."""


class SceneGenerator(nn.Module):
    """A generator makes Scenes, from whatever; this is what it does with them afterwards.

    Args:
        settings: samples along rays and the rules of sampling.
        neural_resolution: side of the rendered image that super-resolution takes.
        image_resolution: side of the final image.
        conventions: rules that the networks follow; None are those of sampling.
        labels: label maps that Scenes are made from; None for models without.
    """

    superresolution: SuperResolution | None
    superresolution_labels: SuperResolution | None
    superresolution_noise: NoiseMode

    def __init__(
        self,
        settings: RenderSettings,
        neural_resolution: int,
        image_resolution: int,
        conventions: Conventions | None = None,
        labels: LabelConfig | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.neural_resolution = neural_resolution
        self.image_resolution = image_resolution
        self.conventions: Conventions = conventions or settings.conventions
        self.labels = labels
        self.superresolution = None
        self.superresolution_labels = None
        self.superresolution_noise = "none"

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(self.parameters()).device

    def rays(
        self, labels: Float[Tensor, "b 25"], height: int, width: int
    ) -> tuple[Float[Tensor, "b r 3"], Float[Tensor, "b r 3"]]:
        """Origins and unit directions of the rays of an image's pixels."""
        return pixel_rays(labels, height, width)

    def render(
        self,
        scene: Scene,
        labels: Float[Tensor, "v 25"],
        resolution: int | None = None,
        jitter: bool = False,
        height: int | None = None,
    ) -> Images:
        """Images of B Scenes from V cameras; V is a multiple of B and camera i sees Scene i mod B.

        ``resolution`` is the width (and height, if that is not given) of the raw image, by default
        the neural resolution; the final image is larger by the factor of super-resolution. Raises
        ValueError if V is not a multiple of B.
        """
        scenes, cameras = scene.batch_size, len(labels)
        if cameras % scenes:
            raise ValueError(
                f"{cameras} cameras for {scenes} Scenes: give a multiple of the Scenes"
            )
        width = resolution or self.neural_resolution
        height = height or width
        origins, directions = (fold_rays(rays, scenes) for rays in self.rays(labels, height, width))
        found = render(scene, origins, directions, self.settings, "draw" if jitter else None)
        return self.finish(scene, unfold_rendering(found, cameras), height, width)

    def finish(self, scene: Scene, rendering: Rendering, height: int, width: int) -> Images:
        """Colour features of V images' rays to the raw and the final images."""
        features = rendering.features.mT.unflatten(2, (height, width)) * 2 - 1
        raw = features[:, :3]
        label_features, raw_labels = self.label_images(rendering, height, width)
        if self.superresolution is None:
            return Images(raw, raw, rendering, raw_labels, raw_labels)
        assert scene.style is not None
        style = scene.style.repeat(len(raw) // scene.batch_size, 1)[:, None]
        out = self.superresolution(features, raw, style, self.superresolution_noise)
        quirk = (
            self.conventions == "reference" and width == height == self.superresolution.input_size
        )
        labels = None
        if self.superresolution_labels is not None and label_features is not None:
            assert raw_labels is not None
            made = self.superresolution_labels(
                label_features, raw_labels, style, self.superresolution_noise
            )
            labels = made.image
            raw_labels = made.mutated_raw if quirk else raw_labels
        return Images(out.image, out.mutated_raw if quirk else raw, rendering, labels, raw_labels)

    def label_images(
        self, rendering: Rendering, height: int, width: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """All label features as an image, and those that are the labels themselves.

        Labels are class scores: of composited shares, their logarithm. The published code
        composites scores, and brings them to [-1, 1] as if they were colours.
        """
        if rendering.labels is None or self.labels is None:
            return None, None
        features = rendering.labels.mT.unflatten(2, (height, width))
        if self.labels.kind == "edge" or self.conventions == "reference":
            features = features * 2 - 1
            return features, features[:, : self.labels.channels]
        return features, (features[:, : self.labels.channels] + SMALL_SHARE).log()


def z_depth(
    rendering: Rendering, labels: Float[Tensor, "b 25"], height: int, width: int
) -> Float[Tensor, "b 1 h w"]:
    """z-depth of the foreground (along the optical axis) of an image's rays."""
    directions = pixel_rays(labels, height, width)[1]
    depth = rendering.foreground_distance * axis_cosine(labels, directions)
    return depth.mT.unflatten(2, (height, width))


def alpha_map(rendering: Rendering, height: int, width: int) -> Float[Tensor, "b 1 h w"]:
    """Opacity of the foreground as an image, 0..1."""
    return rendering.accumulation.mT.unflatten(2, (height, width))
