"""A browser's side of the viewer, without a browser: viser's messages over a real websocket."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from PIL import Image
from viser import transforms
from websockets.sync.client import connect

# Message, field of `View`, and the key under which the message holds it.
CAMERA_FIELDS = {
    "SetCameraPositionMessage": ("position", "position"),
    "SetCameraLookAtMessage": ("look_at", "look_at"),
    "SetCameraUpDirectionMessage": ("up_direction", "position"),
    "SetCameraFovMessage": ("fov", "fov"),
}


@dataclass
class Picture:
    """A picture that the viewer sent."""

    time: float
    """When it arrived, seconds of `time.perf_counter`."""
    pixels: np.ndarray
    """[H, W, 3], uint8."""


@dataclass
class View:
    """A camera as viser's client keeps it; its default is that of a fresh client."""

    position: tuple[float, ...] = (3.0, 3.0, 3.0)
    look_at: tuple[float, ...] = (0.0, 0.0, 0.0)
    up_direction: tuple[float, ...] = (0.0, 0.0, 1.0)
    fov: float = 1.3
    aspect: float = 1.5

    def message(self) -> dict[str, Any]:
        """The message that tells the viewer where this camera is."""
        eye, target = np.array(self.position), np.array(self.look_at)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, np.array(self.up_direction))
        right /= np.linalg.norm(right)
        matrix = np.stack([right, np.cross(forward, right), forward], axis=1)
        return {
            "type": "ViewerCameraMessage",
            "wxyz": tuple(transforms.SO3.from_matrix(matrix).wxyz.tolist()),
            "position": tuple(self.position),
            "fov": self.fov,
            "aspect": self.aspect,
            "look_at": tuple(self.look_at),
            "up_direction": tuple(self.up_direction),
        }


@dataclass
class Browser:
    """Connects to a viewer on this machine and answers it as the viewer's page would."""

    port: int
    view: View = field(default_factory=View)
    pictures: list[Picture] = field(default_factory=list)
    elements: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Controls by their label, as the viewer described and updated them."""
    notes: list[str] = field(default_factory=list)
    """Texts of the notifications, in the order in which they came."""
    texts: list[str] = field(default_factory=list)
    """Markdown that took the place of other Markdown in a panel."""
    pointer: str | None = None
    """What a drag or a click on the picture does: "click", "rect-select", or None (the camera)."""

    def __post_init__(self) -> None:
        self._socket = connect(f"ws://127.0.0.1:{self.port}", max_size=None)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.send(self.view.message())

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message to the viewer."""
        self._socket.send(msgspec.msgpack.encode(message))

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()
        self._reader.join(timeout=5)

    def orbit(self, degrees: float) -> None:
        """Turns the camera about the vertical axis through what it looks at."""
        angle = np.deg2rad(degrees)
        x, y, z = np.array(self.view.position) - np.array(self.view.look_at)
        turned = (
            np.cos(angle) * x - np.sin(angle) * y,
            np.sin(angle) * x + np.cos(angle) * y,
            z,
        )
        self.view.position = tuple((np.array(turned) + np.array(self.view.look_at)).tolist())
        self.send(self.view.message())

    def set(self, label: str, value: Any) -> None:
        """Moves a slider, ticks a box, chooses from a list."""
        element = self.elements[label]
        element["value"] = value
        self.send({"type": "GuiUpdateMessage", "id": element["id"], "updates": {"value": value}})

    def click(self, label: str) -> None:
        """Presses a button."""
        self.set(label, True)

    def click_scene(self, name: str, place: tuple[float, float]) -> None:
        """Clicks on a thing of the scene; ``place`` is in the picture, 0..1 from left and top.

        The page sends a ray as well, which the viewer has no use for.
        """
        ray = {"ray_origin": (0.0, 0.0, 0.0), "ray_direction": (1.0, 0.0, 0.0)}
        self.send(
            {"type": "SceneNodeClickMessage", "name": name, "instance_index": None,
             "screen_pos": place, **ray}
        )  # fmt: skip

    def draw_rectangle(self, low: tuple[float, float], high: tuple[float, float]) -> None:
        """Drags the mouse from one place of the picture to another."""
        self.send(
            {"type": "ScenePointerMessage", "event_type": "rect-select", "ray_origin": None,
             "ray_direction": None, "screen_pos": (low, high)}
        )  # fmt: skip

    def upload(self, label: str, name: str, content: bytes) -> None:
        """Gives a file to an upload button."""
        where = {"source_component_id": self.elements[label]["id"], "transfer_uuid": name}
        self.send(
            {"type": "FileTransferStart", "filename": name, "mime_type": "image/png",
             "part_count": 1, "size_bytes": len(content), **where}
        )  # fmt: skip
        self.send({"type": "FileTransferPart", "part": 0, "content": content, **where})

    def _read(self) -> None:
        for raw in self._socket:
            assert isinstance(raw, bytes)
            now = time.perf_counter()
            moves = [self._take(message, now) for message in msgspec.msgpack.decode(raw)]
            if any(moves):
                self.send(self.view.message())

    def _take(self, message: dict[str, Any], now: float) -> bool:
        """Takes note of a message; true if it moved the camera."""
        kind = message["type"]
        if kind.startswith("GuiAdd") and message.get("label"):
            self.elements[message["label"]] = message
        elif kind == "GuiUpdateMessage":
            if "markdown" in message["updates"]:
                self.texts.append(message["updates"]["markdown"])
            for element in self.elements.values():
                if element["id"] == message["id"]:
                    element.update(message["updates"])
        elif kind == "NotificationMessage":
            self.notes.append(message["body"])
        elif kind == "ScenePointerEnableMessage":
            self.pointer = message["event_type"] if message["enable"] else None
        elif kind in CAMERA_FIELDS:
            name, key = CAMERA_FIELDS[kind]
            setattr(self.view, name, message[key])
        elif kind == "BackgroundImageMessage":
            pixels = np.asarray(Image.open(io.BytesIO(message["rgb_bytes"])).convert("RGB"))
            self.pictures.append(Picture(now, pixels))
        return kind in CAMERA_FIELDS
