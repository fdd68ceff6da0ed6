"""What every viewer here has: what stands behind the object, where the camera starts, one output
at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.viewer_elements import (
    ViewerControl,
    ViewerDropdown,
    ViewerParameter,
    ViewerRGB,
)
from torch import Tensor
from viser import ClientHandle

from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.outputs import Backdrop
from nerfstudio_gan3d.viewer.camera import first_camera
from nerfstudio_gan3d.viewer.fair_lock import FairLock
from nerfstudio_gan3d.viewer.pace import keep_pace
from nerfstudio_gan3d.viewer.panel import look_from

if TYPE_CHECKING:
    from nerfstudio.viewer.control_panel import ControlPanel
    from nerfstudio.viewer.viewer import Viewer

    from nerfstudio_gan3d.models.scene_model import SceneModel, SceneModelConfig
    from nerfstudio_gan3d.viewer.splat_view import SplatView

OUTPUTS = ("rgb", "foreground", "background", "depth", "accumulation", "normals")
LABELS = "labels"
"""Output of models with labels."""
OWN, COLOUR, REMOVED = "own", "plain colour", "removed"

# Default of "Max res", the longer side of the picture when nothing moves, for direct rendering on a
# CPU.
CPU_MAX_RES = 256
# While training, the training waits as long as a picture takes.
CPU_TRAINING_MAX_RES = 160


class ViewControls(ViewerControl):
    """What a user can choose in the viewer, and its defaults where there is none.

    nerfstudio finds this object on the model by its type and calls `_setup` once, where the
    controls are put into one folder in their own order. It is not a module, so a checkpoint knows
    nothing of it. Without a viewer (ns-render, ns-export) the values are those of the model's
    configuration.

    Args:
        config: of the model.
        backgrounds: choices of what is behind the object.
        background: the first one.
    """

    def __init__(
        self,
        config: SceneModelConfig,
        backgrounds: tuple[str, ...] = (OWN, COLOUR, REMOVED),
        background: str = OWN,
    ) -> None:
        self._config = config
        self._panel: ControlPanel | None = None
        self._training = False
        self._applied: dict[ViewerParameter, bool] = {}
        self._splats: SplatView | None = None
        self.background = ViewerDropdown[str](
            "Background", background, list(backgrounds), hint="What is behind the object"
        )
        self.colour = ViewerRGB(
            "Colour",
            (255, 255, 255),
            hint="Behind the output `foreground`, and with a plain colour behind `rgb`",
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return OUTPUTS

    def request(self) -> SceneRequest:
        """The Scene that the controls name at this moment."""
        # Each kind of controls has its own.
        raise NotImplementedError

    def backdrop(self) -> Backdrop:
        """What stands behind the foreground; another seed's background is part of the `request`."""
        red, green, blue = (channel / 255 for channel in self.colour.value)
        if self.background.value == COLOUR:
            return Backdrop("colour", (red, green, blue))
        if self.background.value == REMOVED:
            return Backdrop("removed", (red, green, blue))
        return Backdrop("own", (red, green, blue))

    @property
    def watched(self) -> bool:
        """Whether a viewer shows what the controls name, while nothing trains."""
        return self._panel is not None and not self._training

    def behind_splats(self, camera: Cameras) -> dict[str, Tensor] | None:
        """What the server shows while the browser draws the Scene as splats: every output [H, W, 3]
        in the chosen colour. None where it does not."""
        if self._splats is None or not self._splats.shown:
            return None
        # Whatever changes what is shown asks for a new picture.
        self._splats.update()
        size = int(camera.height.flatten()[0]), int(camera.width.flatten()[0])
        colour = torch.tensor(self.colour.value, dtype=torch.float32) / 255
        return {name: colour.expand(*size, 3) for name in self.outputs}

    def shown_output(self) -> str | None:
        """The only output that is looked at; None without a viewer or where its screen is split.

        Without super-resolution the other outputs are complete but for normals, so then one of the
        two of a split screen stands for both.
        """
        if self._panel is None:
            return None
        if not self._panel.split:
            return self._panel.output_render
        if self._config.has_super_resolution:
            return None
        chosen = self._panel.output_render, self._panel.split_output_render
        return "normals" if "normals" in chosen else chosen[0]

    def _setup(self, viewer: Viewer) -> None:
        """Puts the controls into the viewer; nerfstudio calls it when the viewer starts."""
        super()._setup(viewer)
        self._panel = viewer.control_panel
        self._training = viewer.trainer is not None
        # nerfstudio learns the outputs from the first picture; the choice is known before it.
        self._panel.update_output_options(list(self.outputs))
        model = viewer.get_model()
        if model.device.type == "cpu" and not self._config.has_super_resolution:
            training = viewer.trainer is not None
            self._panel._max_res.value = CPU_TRAINING_MAX_RES if training else CPU_MAX_RES
        if viewer.trainer is None:
            viewer.pause_train.visible = False
        else:
            # nerfstudio uses it in `with` statements only.
            viewer.trainer.train_lock = viewer.train_lock = FairLock()  # type: ignore[assignment]
        if viewer.config.max_num_display_images == 0:
            viewer.hide_images.visible = False
        # Between nerfstudio's statistics and its tabs.
        order = viewer.stats_markdown.order + 0.5
        with viewer.viser_server.gui.add_folder("Scene", order=order):
            for element in self._elements():
                element.install(viewer.viser_server)
                # Called without the lock that a running render holds, so that a change interrupts
                # it.
                element.cb_hook = self._changed
            reset = viewer.viser_server.gui.add_button("Reset view")
            reset.on_click(lambda event: event.client and self._place_camera(event.client))
            if viewer.trainer is None:
                # It stands on exporters, which nothing that models import does.
                from nerfstudio_gan3d.viewer.splat_view import SplatView, splat_maker

                make = splat_maker(cast("SceneModel[Any, Any, Any]", model))
                self._splats = SplatView(viewer, self.request, make)
        self._show_what_applies()
        self._add_panel(viewer, order + 0.25)
        viewer.viser_server.on_client_connect(self._greet)

    def _add_panel(self, viewer: Viewer, order: float) -> None:
        """Adds what stands below the folder of controls."""

    def _elements(self) -> list[ViewerParameter]:
        """All controls that mean something for this model, in the order of the screen."""
        # Each kind of controls has its own.
        raise NotImplementedError

    def _applies(self) -> dict[ViewerParameter, bool]:
        """Controls that others switch off, and whether they mean something now."""
        return {}

    def _show_what_applies(self) -> None:
        """Hides the controls that the others switch off."""
        self._applied = self._applies()
        for element, shown in self._applied.items():
            if element.gui_handle is not None:
                element.set_visible(shown)

    def _changed(self, element: ViewerParameter) -> None:
        if self._applies() != self._applied:
            self._show_what_applies()
        # Training stops for a tenth of a second after a move of the camera; a slider deserves the
        # same.
        self.viewer.last_move_time = time.time()  # type: ignore[assignment]
        self.viewer._trigger_rerender()

    def _greet(self, client: ClientHandle) -> None:
        """Prepares a browser that has just connected."""
        keep_pace(self.viewer.render_statemachines[client.client_id])
        self._place_camera(client)

    def _place_camera(self, client: ClientHandle) -> None:
        config = self._config
        camera = first_camera(
            config.view_radius, config.view_pivot, config.view_focal, client.camera.aspect
        )
        look_from(client, camera)
