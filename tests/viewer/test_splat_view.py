"""The switch that lets the browser draw: what it is sent, when, and what the server draws then."""

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.gan import GanModel
from nerfstudio_gan3d.rendering.splatting import Splats
from nerfstudio_gan3d.viewer import splat_view
from nerfstudio_gan3d.viewer.splat_view import NODE, viewer_gaussians
from tests.viewer.browser import Browser
from tests.viewer.session import Session, build, running_viewer, small_config, wait_until

SWITCH = "Splats in the browser"


def splats(count: int = 1) -> Splats:
    """Flat discs at (1, 2, 3), upright, with the disc's axis along x."""
    turn = math.sqrt(0.5)
    return Splats(
        torch.tensor([[1.0, 2.0, 3.0]]).expand(count, 3),
        # A quarter turn about y takes z to x.
        torch.tensor([[turn, 0.0, turn, 0.0]]).expand(count, 4),
        torch.tensor([[0.2, 0.3, 0.01]]).expand(count, 3),
        torch.full((count,), 0.8),
        torch.tensor([[1.0, 0.5, 0.0]]).expand(count, 3),
    )


def test_gaussians_in_the_browsers_world_by_hand() -> None:
    """z up: (x, y, z) is at (x, -z, y), ten times larger. The disc's axes: 0.2 along its own x,
    which stands along -z, 0.3 along y, and its thickness along x."""
    centers, covariances = viewer_gaussians(splats())
    np.testing.assert_allclose(centers, [[10.0, -30.0, 20.0]], rtol=1e-6)
    wanted = np.diag([0.1**2, 2.0**2, 3.0**2])
    np.testing.assert_allclose(covariances[0], wanted, atol=1e-5)


class Maker:
    """Makes as many splats as the seed says, when it is let."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, request: SceneRequest) -> Splats:
        self.asked.append(request.seed)
        self.go.wait()
        if request.seed == 13:
            raise ValueError("this Scene is empty")
        return splats(request.seed)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Session, Browser, Maker, list[tuple[str, Any]]]]:
    maker, sent = Maker(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splat_view, "splat_maker", lambda model: maker)
        model = build(small_config())
        with running_viewer(model, tmp_path_factory.mktemp("viewer"), max_res=64) as session:
            scene = session.viewer.viser_server.scene
            add = scene._add_gaussian_splats

            def noted(name: str, centers: np.ndarray, *others: Any) -> Any:
                handle = add(name, centers, *others)
                remove = handle.remove

                def removed() -> None:
                    sent.append(("removed", 0))
                    remove()

                handle.remove = removed
                sent.append((name, len(centers)))
                return handle

            patch.setattr(scene, "_add_gaussian_splats", noted)
            browser = Browser(session.port)
            session.rest()
            yield session, browser, maker, sent
            browser.close()


def test_splats_follow_the_controls(
    running: tuple[Session, Browser, Maker, list[tuple[str, Any]]],
) -> None:
    session, browser, maker, sent = running
    model = session.viewer.get_model()
    assert isinstance(model, GanModel)
    controls = model.controls
    browser.set("Seed", 3)
    session.rest()
    assert not sent
    assert len(np.unique(browser.pictures[-1].pixels)) > 3
    browser.set(SWITCH, True)
    wait_until(lambda: sent == [(NODE, 3)])
    # The server's picture is the chosen colour, white, and nothing else.
    wait_until(lambda: bool((browser.pictures[-1].pixels == 255).all()))
    # While one is made the seed moves on: the newest is made next, those between never.
    maker.go.clear()
    for seed in (4, 5, 6):
        browser.set("Seed", seed)
        wait_until(lambda: controls.request().seed == seed)  # noqa: B023
        session.rest()
    maker.go.set()
    wait_until(lambda: sent[-1] == (NODE, 6))
    assert maker.asked[0] == 3
    assert maker.asked[-1] == 6
    assert len(maker.asked) <= 3
    # A camera that moves asks for nothing new.
    count = len(maker.asked)
    browser.click("Reset view")
    session.rest()
    assert len(maker.asked) == count


def test_an_empty_scene_says_so_and_the_switch_brings_pictures_back(
    running: tuple[Session, Browser, Maker, list[tuple[str, Any]]],
) -> None:
    _, browser, _, sent = running
    browser.set(SWITCH, True)
    browser.set("Seed", 2)
    wait_until(lambda: sent[-1] == (NODE, 2))
    browser.set("Seed", 13)
    wait_until(lambda: sent[-1] == ("removed", 0))
    wait_until(lambda: "No splats: this Scene is empty" in browser.texts)
    browser.set("Seed", 7)
    wait_until(lambda: sent[-1] == (NODE, 7))
    browser.set(SWITCH, False)
    wait_until(lambda: sent[-1] == ("removed", 0))
    wait_until(lambda: len(np.unique(browser.pictures[-1].pixels)) > 3)
