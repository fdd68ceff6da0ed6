"""The viewer's brush for label maps: what is painted, how wide, and where the user points.

viser tells the server of clicks and of rectangles, but of no other movement of the mouse. A pointer
callback of viser's for clicks takes dragging away from the camera for as long as it is there. A
click on a thing of the scene does not, and so there is an invisible box around everything, whose
inside is clicked on. For rectangles there is no such way: the callback is there for one gesture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from nerfstudio.viewer.utils import get_camera
from torch import Tensor
from viser import ClientHandle, GuiEvent, SceneNodePointerEvent, ScenePointerEvent

from nerfstudio_gan3d.cameras import cameras_to_labels
from nerfstudio_gan3d.data.palettes import class_colours
from nerfstudio_gan3d.scene import Scene
from nerfstudio_gan3d.viewer.label_editor import LabelEditor
from nerfstudio_gan3d.viewer.label_files import class_names

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

PEN, ERASER = "pen", "eraser"
LINE, PAPER = 0, 255
BOX = "/label_map"
# viser's camera cannot leave this box, and nothing of the scene is behind its sides.
BOX_SIDE = 1000.0

Do = Callable[[ClientHandle, Callable[[], "str | None"]], None]
"""Carries out what a user asked for and tells the user's browser what came of it."""


class LabelBrush:
    """Class, brush and strokes of the viewer's folder "Label map".

    Args:
        editor: what is painted on.
        viewer: nerfstudio's viewer.
        scene: gives the Scene that is shown.
        do: runs a stroke.
    """

    def __init__(
        self, editor: LabelEditor, viewer: Viewer, scene: Callable[[], Scene], do: Do
    ) -> None:
        self._editor, self._viewer, self._scene, self._do = editor, viewer, scene, do
        self._edges = editor.labels.kind == "edge"
        gui = viewer.viser_server.gui
        self._names = [PEN, ERASER] if self._edges else list(class_names(editor.labels))
        self._tool = gui.add_dropdown(
            "Tool" if self._edges else "Class",
            self._names,
            # The first class is the background, with which nothing seems to happen.
            initial_value=self._names[0 if self._edges else min(1, len(self._names) - 1)],
            hint="The pen draws lines, the eraser paper" if self._edges else "What is painted",
        )
        self._colour = gui.add_markdown("", visible=not self._edges)
        self._clicks = gui.add_checkbox(
            "Paint by clicking",
            False,
            hint="A click paints a dot; dragging turns the camera as ever",
        )
        side = editor.side
        self._width = gui.add_slider(
            "Brush size",
            1,
            max(side // 4, 2),
            1,
            1 if self._edges else max(side // 16, 1),
            hint="Pixels of the label map",
        )
        self._connect = gui.add_checkbox(
            "Connect clicks", self._edges, hint="Draw a line from the click before"
        )
        rectangle = gui.add_button(
            "Paint rectangle", hint="The next drag over the picture fills a rectangle"
        )
        self._box = viewer.viser_server.scene.add_mesh_simple(
            BOX, *box_from_inside(BOX_SIDE), opacity=0.0, visible=False
        )
        self._box.on_click(self._clicked)
        self._tool.on_update(lambda _: self._show_colour())
        self._clicks.on_update(lambda _: self._show_what_applies())
        rectangle.on_click(self._arm)
        self._show_colour()
        self._show_what_applies()

    @property
    def value(self) -> int:
        """What the brush writes into the label map: class id or grey value."""
        if self._edges:
            return PAPER if self._tool.value == ERASER else LINE
        return self._names.index(self._tool.value)

    def camera(self, client: ClientHandle) -> Float[Tensor, "1 25"]:
        """Where a browser looks from."""
        state = self._viewer.get_camera_state(client)
        # nerfstudio's cameras have whole pixels.
        return cameras_to_labels(get_camera(state, 1000, round(1000 * state.aspect))).float()

    def _clicked(self, event: SceneNodePointerEvent[Any]) -> None:
        def paint() -> None:
            self._editor.dot(
                self._scene(),
                self.camera(event.client),
                event.screen_pos,
                self.value,
                self._width.value,
                self._connect.value,
            )

        if self._clicks.value:
            self._do(event.client, paint)

    def _arm(self, event: GuiEvent[Any]) -> None:
        """Makes the next drag in this browser a rectangle."""
        client = event.client
        if client is None:
            return
        # A drag that goes nowhere would count as a click, too.
        self._box.visible = False
        note = client.add_notification("Label map", "Drag a rectangle over the picture.")

        @client.scene.on_pointer_event("rect-select")
        def _(drawn: ScenePointerEvent) -> None:
            client.scene.remove_pointer_callback()
            note.remove()
            self._show_what_applies()
            self._do(client, lambda: self._fill(client, drawn))

    def _fill(self, client: ClientHandle, drawn: ScenePointerEvent) -> None:
        low, high = drawn.screen_pos
        if low[0] == high[0] or low[1] == high[1]:
            raise ValueError("no rectangle was drawn; press Paint rectangle again, then drag")
        self._editor.rectangle(self._scene(), self.camera(client), low, high, self.value)

    def _show_colour(self) -> None:
        if not self._edges:
            chosen = slice(self.value, self.value + 1)
            palette = class_colours(self._editor.labels)
            self._colour.content = legend(self._names[chosen], palette[chosen])

    def _show_what_applies(self) -> None:
        for element in (self._box, self._width, self._connect):
            element.visible = self._clicks.value


def legend(names: Sequence[str], palette: Sequence[tuple[int, int, int]]) -> str:
    """Markdown with a line for each class; viser draws a chip beside a colour's code."""
    lines = ("`#{:02x}{:02x}{:02x}` ".format(*colour) for colour in palette)
    return "  \n".join(line + name for line, name in zip(lines, names, strict=True))


def box_from_inside(side: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners [8, 3] and triangles [12, 3] of a cube about the origin whose front is its inside.

    viser outlines what is under the mouse by drawing its back; from the inside there is none to be
    seen.
    """
    ends = (-side / 2, side / 2)
    corners = np.array([(x, y, z) for x in ends for y in ends for z in ends])
    # Corner i is at the upper end along x, y, z where bits 4, 2, 1 of i are set.
    squares = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [(c, b, a) for a, b, c, _ in squares] + [(d, c, a) for a, _, c, d in squares]
    return corners, np.array(triangles)
