"""Several cameras that see the same Scenes: their rays side by side, and apart again."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.rendering.finishing import Rendering


def fold_rays(rays: Float[Tensor, "v r c"], scenes: int) -> Float[Tensor, "b s c"]:
    """Rays of all cameras that see the same Scene side by side, so that a Scene is looked up
    once."""
    if len(rays) == scenes:
        return rays
    return rays.unflatten(0, (-1, scenes)).transpose(0, 1).flatten(1, 2)


def unfold_rendering(rendering: Rendering, cameras: int) -> Rendering:
    """The inverse of `fold_rays` for what was found along the rays."""
    scenes = len(rendering.features)
    if cameras == scenes:
        return rendering

    def back(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        return values.unflatten(1, (cameras // scenes, -1)).transpose(0, 1).flatten(0, 1)

    names = rendering.__dataclass_fields__
    return Rendering(**{name: back(getattr(rendering, name)) for name in names})  # type: ignore[arg-type]
