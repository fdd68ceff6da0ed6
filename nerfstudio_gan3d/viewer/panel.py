"""A folder of the viewer that carries out what a user does, and says what came of it."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from viser import ClientHandle, GuiDropdownHandle, GuiEvent

from nerfstudio_gan3d.viewer.camera import ViewerCamera

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

PREVIEW_SIDE = 256
"""Pictures in a panel are enlarged by a whole factor up to this width, pixels."""
READ_MS = 8000
"""How long a message that is no error can be read."""

Action = Callable[["GuiEvent[Any]", ClientHandle], "str | None"]
"""What a control does for a browser; returns what to tell the user."""


class Panel:
    """Controls that change what is shown.

    Args:
        title: of its messages.
        viewer: nerfstudio's viewer, which is just being built.
    """

    def __init__(self, title: str, viewer: Viewer) -> None:
        self._title, self._viewer = title, viewer
        self._gui = viewer.viser_server.gui

    def do(self, client: ClientHandle, action: Callable[[], str | None]) -> None:
        """Carries out what a user asked for, and tells of its result or of what is wrong."""
        try:
            message = action()
        except (ValueError, OSError) as error:
            client.add_notification(self._title, str(error), color="red")
        else:
            if message is not None:
                client.add_notification(self._title, message, auto_close=READ_MS)
        self._refresh()
        # Training stops for a moment, as after a move of the camera, so that the answer is quick.
        self._viewer.last_move_time = time.time()  # type: ignore[assignment]
        self._viewer._trigger_rerender()

    def _button(self, label: str, action: Action, hint: str | None = None) -> Any:
        button = self._gui.add_button(label, hint=hint)
        button.on_click(self._event(action))
        return button

    def _event(self, action: Action) -> Callable[[GuiEvent[Any]], None]:
        """Calls ``action`` for what a user does, and not for what the program sets itself."""

        def run(event: GuiEvent[Any]) -> None:
            client = event.client
            if client is not None:
                self.do(client, lambda: action(event, client))

        return run

    def _refresh(self) -> None:
        """Makes the panel show what is true now."""
        # Each panel has its own.
        raise NotImplementedError


def set_choices(dropdown: GuiDropdownHandle[str], options: Sequence[str], value: str) -> None:
    """Sets what a list offers and shows, as far as it does not yet."""
    if list(dropdown.options) != list(options):
        dropdown.options = options
    if dropdown.value != value:
        dropdown.value = value


def look_from(client: ClientHandle, camera: ViewerCamera) -> None:
    """Moves the camera of a browser."""
    with client.atomic():
        client.camera.up_direction = (0.0, 0.0, 1.0)
        client.camera.position = camera.position
        client.camera.look_at = camera.look_at
        client.camera.fov = camera.fov


def data_url(pixels: UInt8[np.ndarray, "h w *c"]) -> str:
    """A picture as an address that holds it, enlarged without smoothing."""
    image = Image.fromarray(pixels)
    factor = max(PREVIEW_SIDE // image.width, 1)
    larger = image.width * factor, image.height * factor
    image = image.resize(larger, Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def as_text(name: str) -> str:
    """A name for text that is read as Markdown, where a file's name must mean nothing more.

    Otherwise viser would read ``![](/path)`` from this machine's disk, and braces, which its page
    takes for code, would leave the text empty.
    """
    return re.sub(r"([\\`*_{}\[\]<>()#!|~$&])", r"\\\1", name)
