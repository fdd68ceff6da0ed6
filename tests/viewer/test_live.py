"""A real viewer with a real websocket; only the page is missing."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.viewer.utils import get_camera
from nerfstudio.viewer.viewer import Viewer

from nerfstudio_gan3d.cameras import camera_angles, cameras_to_labels
from nerfstudio_gan3d.models.gan import GanModel
from tests.viewer.browser import Browser
from tests.viewer.session import running_viewer

PATIENCE = 60.0


@pytest.fixture
def live(model: GanModel, tmp_path: Path) -> Iterator[tuple[Viewer, Browser]]:
    """A viewer of the small model, a browser that watches it, and its first sharp picture."""
    with running_viewer(model, tmp_path) as (viewer, port):
        browser = Browser(port)
        browser.rest(PATIENCE)
        yield viewer, browser
        browser.close()


def gan_model(viewer: Viewer) -> GanModel:
    """The model that is shown."""
    model = viewer.get_model()
    assert isinstance(model, GanModel)
    return model


def wait_until(condition: Any) -> None:
    """Waits for another thread. Raises TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the viewer did not answer")
        time.sleep(0.01)


def test_only_this_machine_is_answered(live: tuple[Viewer, Browser]) -> None:
    """A server on all interfaces would also answer at 127.0.0.2."""
    viewer, browser = live
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.2", browser.port)),
    ):
        pass
    assert viewer.viewer_info == [f"Viewer running locally at: http://127.0.0.1:{browser.port}"]


def test_first_camera_sees_the_object_as_training_cameras_do(live: tuple[Viewer, Browser]) -> None:
    viewer, _ = live
    (client,) = viewer.viser_server.get_clients().values()
    camera = get_camera(viewer.get_camera_state(client), 100, 150)
    # The origin, the cars' centre, projected by nerfstudio's own camera: x right, y up, z backward.
    pose = camera.camera_to_worlds[0].double()
    x, y, z = (-pose[:, 3] @ pose[:, :3]).tolist()
    fx, cx, cy = (float(value[0, 0]) for value in (camera.fx, camera.cx, camera.cy))
    assert (cx - fx * x / z, cy + fx * y / z) == pytest.approx((75, 50), abs=1e-3)
    label = cameras_to_labels(camera).float()
    angles = torch.stack(camera_angles(label))[:, 0] * torch.tensor([180 / np.pi, 180 / np.pi, 1])
    torch.testing.assert_close(angles.float(), torch.tensor([30.0, 15.0, 1.9]), atol=1e-3, rtol=0)
    assert float(label[0, 20]) == pytest.approx(1.5, abs=1e-4)


def test_controls_change_the_picture_and_show_what_applies(live: tuple[Viewer, Browser]) -> None:
    viewer, browser = live
    assert viewer.control_panel.output_render == "rgb"
    assert gan_model(viewer).controls.shown_output() == "rgb"
    assert browser.elements["Background seed"]["visible"] is False
    seen = len(browser.pictures)
    browser.set("Background", "plain colour")
    browser.set("Colour", (0, 255, 0))
    browser.wait(seen + 1, PATIENCE)
    wait_until(lambda: browser.sharp(browser.pictures[-1]))
    wait_until(lambda: tuple(browser.pictures[-1].pixels[0, 0]) == (0, 255, 0))
    browser.set("Background", "another seed's")
    wait_until(lambda: browser.elements["Background seed"]["visible"] is True)


def test_reset_view_returns(live: tuple[Viewer, Browser]) -> None:
    _, browser = live
    first = browser.view.position
    browser.orbit(40)
    assert np.linalg.norm(np.subtract(browser.view.position, first)) > 5
    browser.click("Reset view")
    wait_until(lambda: np.allclose(browser.view.position, first))


def test_a_change_interrupts_a_sharp_picture(
    live: tuple[Viewer, Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharp pictures are made to take forever; nerfstudio's own controls would wait for them."""
    viewer, browser = live
    model = gan_model(viewer)
    render = model.get_outputs_for_camera
    started = threading.Event()

    def slow(camera: Any, obb_box: Any = None) -> Any:
        largest = max(int(camera.width), int(camera.height))
        while largest == viewer.control_panel.max_res:
            started.set()
        return render(camera, obb_box)

    monkeypatch.setattr(model, "get_outputs_for_camera", slow)
    browser.orbit(10)
    assert started.wait(PATIENCE)
    seen = len(browser.pictures)
    browser.set("Seed", 5)
    assert not browser.sharp(browser.wait(seen + 1, PATIENCE)[seen])
    assert model.controls.request().seed == 5
    monkeypatch.undo()
    browser.set("Seed", 6)
    wait_until(lambda: browser.sharp(browser.pictures[-1]))
