"""The viewer's controls of models that make Scenes of images: which image is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerfstudio.viewer.viewer_elements import ViewerParameter

from nerfstudio_gan3d.image_views import STORED_IMAGES, ImageView
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.viewer.view_controls import ViewControls

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from nerfstudio_gan3d.models.g3dr import G3drModel


class ImageControls(ViewControls):
    """Which of the kept images a Scene is made of, or one of the user's own; see `ViewControls`.

    Args:
        model: the model that shows the Scene; its configuration is read.

    Raises:
        ValueError: If the configured image is none of those that a checkpoint keeps.
    """

    def __init__(self, model: G3drModel) -> None:
        config = model.config
        _check(config.image, "model.image")
        super().__init__(config)
        self._image: int | ImageView = config.image

    @property
    def image(self) -> int | ImageView:
        """What the Scene is made of: number of a kept image, or an image with its depth."""
        return self._image

    def show(self, image: int | ImageView) -> None:
        """Makes the Scene of another image; raises ValueError for one that is not kept."""
        if isinstance(image, int):
            _check(image, "image")
        self._image = image

    def request(self) -> SceneRequest:
        """The Scene that the controls name at this moment."""
        return SceneRequest(image=self._image)

    def _add_panel(self, viewer: Viewer, order: float) -> None:
        # It reads data sets, which nothing that models import does.
        from nerfstudio_gan3d.viewer.image_panel import ImagePanel

        ImagePanel(self, viewer, order)

    def _elements(self) -> list[ViewerParameter]:
        return [self.background, self.colour]


def _check(image: int, name: str) -> None:
    if not 0 <= image < STORED_IMAGES:
        raise ValueError(
            f"{name} = {image}: a checkpoint keeps the images 0 to {STORED_IMAGES - 1}"
        )
