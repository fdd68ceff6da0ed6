"""A real viewer with a real websocket; only the page is missing."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.viewer.utils import get_camera

from nerfstudio_gan3d.cameras import camera_angles, cameras_to_labels
from nerfstudio_gan3d.models.gan import GanModel
from nerfstudio_gan3d.viewer.camera import first_camera
from tests.viewer.browser import Browser
from tests.viewer.session import (
    PATIENCE,
    Session,
    build,
    running_viewer,
    small_config,
    wait_until,
)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, Browser]]:
    """A viewer of the small model, and a browser that has got its first sharp picture."""
    model = build(small_config())
    with running_viewer(model, tmp_path_factory.mktemp("viewer"), max_res=64) as session:
        browser = Browser(session.port)
        session.rest()
        yield session, browser
        browser.close()


def gan_model(session: Session) -> GanModel:
    """The model that is shown."""
    model = session.viewer.get_model()
    assert isinstance(model, GanModel)
    return model


def test_only_this_machine_is_answered(live: tuple[Session, Browser]) -> None:
    """A server on all interfaces would also answer at 127.0.0.2."""
    session, _ = live
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", session.port)).close()
    url = f"http://127.0.0.1:{session.port}"
    assert session.viewer.viewer_info == [f"Viewer running locally at: {url}"]


def test_first_camera_sees_the_object_as_training_cameras_do(
    live: tuple[Session, Browser],
) -> None:
    session, browser = live
    browser.click("Reset view")
    wait_until(lambda: np.allclose(browser.view.look_at, 0))
    (client,) = session.viewer.viser_server.get_clients().values()
    camera = get_camera(session.viewer.get_camera_state(client), 100, 150)
    # The origin, the cars' centre, projected by nerfstudio's own camera: x right, y up, z backward.
    pose = camera.camera_to_worlds[0].double()
    x, y, z = (-pose[:, 3] @ pose[:, :3]).tolist()
    fx, cx, cy = (float(value[0, 0]) for value in (camera.fx, camera.cx, camera.cy))
    assert (cx - fx * x / z, cy + fx * y / z) == pytest.approx((75, 50), abs=1e-3)
    label = cameras_to_labels(camera).float()
    angles = torch.stack(camera_angles(label))[:, 0] * torch.tensor([180 / np.pi, 180 / np.pi, 1])
    torch.testing.assert_close(angles.float(), torch.tensor([30.0, 15.0, 1.9]), atol=1e-3, rtol=0)
    assert float(label[0, 20]) == pytest.approx(1.5, abs=1e-4)


def test_rgb_is_shown_first(live: tuple[Session, Browser]) -> None:
    session, _ = live
    assert session.viewer.control_panel.output_render == "rgb"
    assert gan_model(session).controls.shown_output() == "rgb"


def test_controls_change_the_picture_and_show_what_applies(live: tuple[Session, Browser]) -> None:
    _, browser = live
    assert browser.elements["Background seed"]["visible"] is False
    browser.set("Background", "plain colour")
    browser.set("Colour", (0, 255, 0))
    # The corner of the picture shows no foreground.
    wait_until(lambda: tuple(browser.pictures[-1].pixels[0, 0]) == (0, 255, 0))
    browser.set("Background", "another seed's")
    wait_until(lambda: browser.elements["Background seed"]["visible"] is True)


def test_reset_view_returns(live: tuple[Session, Browser]) -> None:
    _, browser = live
    browser.click("Reset view")
    first = first_camera(1.9, (0.0, 0.0, 0.0), 1.5, browser.view.aspect).position
    wait_until(lambda: np.allclose(browser.view.position, first))
    browser.orbit(40)
    assert np.linalg.norm(np.subtract(browser.view.position, first)) > 5
    browser.click("Reset view")
    wait_until(lambda: np.allclose(browser.view.position, first))


def test_a_change_interrupts_a_sharp_picture(
    live: tuple[Session, Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharp pictures are made to take forever; nerfstudio's own wiring would wait for them."""
    session, browser = live
    model = gan_model(session)
    render = model.get_outputs_for_camera
    sharpening = threading.Event()

    def slow(camera: Any, obb_box: Any = None) -> Any:
        while session.machine.state == "high":
            sharpening.set()
        return render(camera, obb_box)

    monkeypatch.setattr(model, "get_outputs_for_camera", slow)
    browser.orbit(10)
    assert sharpening.wait(PATIENCE)
    start = time.perf_counter()
    browser.set("Seed", 5)
    session.answer(start)
    assert model.controls.request().seed == 5
    monkeypatch.undo()
    start = time.perf_counter()
    browser.set("Seed", 6)
    session.answer(start)
    session.rest()
