"""The Scene as 3D Gaussians in the browser, which draws them at its own rate, whatever the server
is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from viser import ViserServer

from nerfstudio_gan3d.cameras import object_to_nerfstudio
from nerfstudio_gan3d.export.splat_views import surroundings
from nerfstudio_gan3d.export.splats import quick_splats
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.scene_model import SceneModel
from nerfstudio_gan3d.rendering.splatting import Splats, rotations
from nerfstudio_gan3d.viewer.camera import VIEWER_SCALE

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

NODE = "/splats"
OFF = ""
MAKING = "Making splats ..."

Make = Callable[[SceneRequest], Splats]
"""Splats of the foreground of the Scene that a request names."""


class SplatView:
    """A switch that puts the Scene into the browser as splats, anew whenever the controls change.

    Splats are made in a thread of their own, one Scene at a time, the newest that was asked for
    next. While they are shown the server sends plain pictures (`shown`).

    Args:
        viewer: nerfstudio's viewer, which is just being built.
        request: the Scene that the controls name at this moment.
        make: makes its splats.
    """

    def __init__(self, viewer: Viewer, request: Callable[[], SceneRequest], make: Make) -> None:
        self._viewer, self._request, self._make = viewer, request, make
        self._server = viewer.viser_server
        self._node: Any = None
        self._made: SceneRequest | None = None
        self._wake = threading.Event()
        self._switch = self._server.gui.add_checkbox(
            "Splats in the browser",
            False,
            hint="Shows the foreground as 3D Gaussians that the browser draws itself, so that "
            "turning it is smooth on any server",
        )
        self._status = self._server.gui.add_markdown(OFF, visible=False)
        self._switch.on_update(lambda _: self._switched())
        threading.Thread(target=self._work, name="gan3d splats", daemon=True).start()

    @property
    def shown(self) -> bool:
        """Whether the browser draws, and the server need not."""
        return self._switch.value

    def update(self) -> None:
        """The controls have changed."""
        if self._switch.value:
            self._wake.set()

    def _switched(self) -> None:
        self._wake.set()
        self._viewer._trigger_rerender()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self._refresh()
            except ValueError as error:
                self._remove()
                self._tell(f"No splats: {error}")

    def _refresh(self) -> None:
        if not self._switch.value:
            self._remove()
            self._tell(OFF)
            return
        request = self._request()
        if request == self._made:
            return
        self._tell(MAKING)
        start = time.perf_counter()
        splats = self._make(request)
        if not self._switch.value:
            return
        self._node = show_splats(self._server, splats)
        self._made = request
        self._tell(f"{len(splats)} splats, made in {time.perf_counter() - start:.1f} s")

    def _remove(self) -> None:
        if self._node is not None:
            self._node.remove()
        self._node = self._made = None

    def _tell(self, text: str) -> None:
        self._status.content = text
        self._status.visible = text != OFF


def splat_maker(model: SceneModel[Any, Any, Any]) -> Make:
    """Makes splats of a model's Scenes, quickly, towards pictures from where they are looked at."""
    around = surroundings(model.config)

    def make(request: SceneRequest) -> Splats:
        with torch.no_grad():
            scene = model.make_scene(request).with_background(None)
        return quick_splats(scene, model.generator_ema.settings, around, device=model.device)

    return make


def show_splats(server: ViserServer, splats: Splats) -> Any:
    """Puts splats into the browsers' scene, in place of earlier ones; returns their handle."""
    scene = server.scene
    add: Any = getattr(scene, "add_gaussian_splats", None)
    if add is None:
        # Its name in the oldest versions of viser that are supported.
        add = scene._add_gaussian_splats
    centers, covariances = viewer_gaussians(splats)
    colours, opacities = splats.colours.cpu().numpy(), splats.opacities[:, None].cpu().numpy()
    return add(NODE, centers, covariances, colours, opacities)


def viewer_gaussians(
    splats: Splats,
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3 3"]]:
    """Centres and covariances in the browser's world: nerfstudio's (z up) times `VIEWER_SCALE`."""
    turn = object_to_nerfstudio(splats.means.device) * VIEWER_SCALE
    axes = turn @ (rotations(splats.quaternions) * splats.scales[:, None])
    covariances = axes @ axes.mT
    return (splats.means @ turn.T).cpu().numpy(), covariances.cpu().numpy()
