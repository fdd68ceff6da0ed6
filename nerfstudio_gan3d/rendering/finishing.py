"""What the foreground gives along rays becomes all that they show: background, labels, distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.rendering.settings import RenderSettings
from nerfstudio_gan3d.scene import Scene


@dataclass(frozen=True)
class Rendering:
    """What B Scenes show along R rays each. Colour features are in [0, 1]; the first three are
    RGB."""

    features: Float[Tensor, "b r f"]
    """Foreground over background."""
    foreground: Float[Tensor, "b r f"]
    """Foreground alone, premultiplied by its opacity."""
    background: Float[Tensor, "b r f"] | None
    """Background alone, unattenuated; None for a Scene without one."""
    transmittance: Float[Tensor, "b r 1"]
    """Light left behind the foreground, T_bg."""
    distance: Float[Tensor, "b r 1"]
    """Expected distance along the ray, the background included where there is one."""
    foreground_distance: Float[Tensor, "b r 1"]
    """Expected distance of the foreground alone; the Scene's far bound where there is none. With
    reference conventions it is limited to the batch's sample distances, as in the published
    code."""
    weights: Float[Tensor, "b r s"]
    """Rendering weights of the sorted intervals."""
    edges: Float[Tensor, "b r s+1"]
    """Distances at which the sorted intervals start and end."""
    labels: Float[Tensor, "b r c"] | None = None
    """Label features, foreground over what lies behind; None for Scenes without labels."""
    surface: Float[Tensor, "b r 1"] | None = None
    """Distance of the first surface, infinite where there is none; None for Scenes that are not
    made of surfaces. Not differentiable."""

    @property
    def accumulation(self) -> Float[Tensor, "b r 1"]:
        """Opacity of the foreground, the alpha matte."""
        return 1 - self.transmittance


class March(NamedTuple):
    """What the foreground alone gives along rays; features are those of colour and labels."""

    features: Float[Tensor, "b r f"]
    transmittance: Float[Tensor, "b r 1"]
    opacity: Float[Tensor, "b r 1"]
    moment: Float[Tensor, "b r 1"]
    weights: Float[Tensor, "b r s"]
    edges: Float[Tensor, "b r s+1"]
    surface: Float[Tensor, "b r 1"] | None = None


def finish_march(
    scene: Scene,
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    features: Float[Tensor, "b r f"],
    transmittance: Float[Tensor, "b r 1"],
    weights: Float[Tensor, "b r s"],
    places: Float[Tensor, "b r s"],
    edges: Float[Tensor, "b r s+1"],
    settings: RenderSettings,
) -> Rendering:
    """Everything along rays from what the foreground alone gives.

    Args:
        scene, origins, directions, settings: As `render` takes them.
        features: Foreground, premultiplied: colour, then labels where the Scene has them.
        transmittance: Light left behind it.
        weights, places, edges: Of the sorted intervals: weight, the distance that stands for it,
            and where it starts and ends.
    """
    opacity = weights.sum(-1, keepdim=True)
    moment = (weights * places).sum(-1, keepdim=True)
    march = March(features, transmittance, opacity, moment, weights, edges)
    return finish(scene, origins, directions, march, settings)


def finish(
    scene: Scene, origins: Tensor, directions: Tensor, march: March, settings: RenderSettings
) -> Rendering:
    opacity, transmittance = march.opacity, march.transmittance
    reference = settings.conventions == "reference"
    if reference:
        alone = _clamp_to_batch(_ratio(march.moment, opacity), march.edges)
    else:
        # Without any weight the foreground has no distance; a far one keeps depth maps finite.
        alone = march.moment / opacity.clamp(min=1e-6)
        alone = torch.where(opacity < 1e-6, scene.bounds.far, alone)
    foreground, labels = _split(scene, march.features)
    background, features, distance = None, foreground, alone
    # The published code takes the weights' sum, the corrected rules the light that is left.
    left = 1 - opacity if reference else transmittance
    if scene.nothing and scene.background is None:
        features = foreground + scene.nothing * left
    if labels is not None:
        labels = labels + left * labels.new_tensor(scene.behind_labels)
    if scene.background is not None:
        background = scene.background.query(origins, directions)
        features = foreground + transmittance * background
        behind = scene.background.distance(origins, directions)
        distance = (march.moment + transmittance * behind) / (opacity + transmittance)
        if reference:
            middle = (march.edges[..., 1:] + march.edges[..., :-1]) / 2
            distance = _clamp_to_batch(distance, torch.cat([middle, behind], dim=-1))
    return Rendering(
        features,
        foreground,
        background,
        transmittance,
        distance,
        alone,
        march.weights,
        march.edges,
        labels,
        march.surface,
    )


def _split(scene: Scene, features: Tensor) -> tuple[Tensor, Tensor | None]:
    """Colour and label features of what was composited."""
    count = len(scene.behind_labels)
    if count == 0:
        return features, None
    return features[..., :-count], features[..., -count:]


def _ratio(moment: Tensor, opacity: Tensor) -> Tensor:
    """moment / opacity, infinite where there is no opacity at all."""
    tiny = torch.finfo(opacity.dtype).tiny
    return torch.where(opacity > 0, moment / opacity.clamp(min=tiny), torch.inf)


def _clamp_to_batch(distance: Tensor, distances: Tensor) -> Tensor:
    """Official code limits depth maps to the range of all distances of the batch."""
    low, high = distances.detach().aminmax()
    return distance.clamp(low, high)
