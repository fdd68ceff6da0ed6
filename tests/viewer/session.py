"""A running viewer of a model, without data or trainer, for tests and benchmarks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.viewer.render_state_machine import RenderStateMachine, RenderStates
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer_legacy.server.viewer_utils import get_free_port
from torch import nn
from viser import ClientHandle

from nerfstudio_gan3d.models.ballgan import ballgan_tiny
from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig
from nerfstudio_gan3d.models.pix2pix3d import pix2pix3d_edges_tiny, pix2pix3d_tiny
from nerfstudio_gan3d.models.scene_model import SceneModel
from nerfstudio_gan3d.viewer.settings import gan_viewer_config

PATIENCE = 120.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for another thread. Raises TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the viewer did not answer in {PATIENCE} s")
        time.sleep(0.005)


class ModelPipeline(nn.Module):
    """What a viewer needs of a pipeline."""

    def __init__(self, model: SceneModel[Any, Any, Any], datamanager: Any = None) -> None:
        super().__init__()
        self._model = model
        self.datamanager = datamanager or SimpleNamespace(includes_time=False)

    @property
    def model(self) -> SceneModel[Any, Any, Any]:
        """The model, under the name that the viewer shows it by."""
        return self._model


def fit_to_cars(config: GanModelConfig) -> GanModelConfig:
    """Fills in the bundled cars' cameras, as training on them does."""
    config.view_radius, config.view_focal = 1.9, 1.5
    config.field.near, config.field.far = 1.1, 2.7
    return config


def small_config() -> GanModelConfig:
    """The tiny preset with fewer samples, for tests that render often."""
    config = fit_to_cars(ballgan_tiny())
    config.samples = 3
    config.field.triplane.plane_size = 8
    return config


def small_labels_config(kind: Literal["seg", "edge"] = "seg") -> GanModelConfig:
    """The tiny preset of pix2pix3D at 16 px; of three classes, or of edges."""
    config = fit_to_cars(pix2pix3d_tiny() if kind == "seg" else pix2pix3d_edges_tiny())
    config.samples = 3
    # Planes of that size have four latents, of which half come from the map.
    config.field.triplane.plane_size, config.labels.geometry_layers = 8, 0
    config.image_resolution = config.neural_resolution = 16
    config.patch_resolution, config.schedule.crop_share = 0, 0.0
    # Solid, so that an untrained model has something to show besides background.
    config.field.density_scale = 300.0
    if kind == "seg":
        config.labels.classes = 3
        config.labels.class_names = ("background", "body", "wheel")
        config.labels.palette = ((0, 0, 0), (255, 0, 0), (0, 0, 255))
    return config


def build(config: GanModelConfig) -> GanModel:
    """An untrained model."""
    box = SceneBox(torch.tensor([[-0.5] * 3, [0.5] * 3]))
    model = config.setup(
        scene_box=box, num_train_data=1, metadata={}, device="cpu", grad_scaler=None
    )
    return model.eval()


@dataclass
class Session:
    """A running viewer, and what its render thread has sent."""

    viewer: Viewer
    port: int
    sent: list[tuple[float, RenderStates]] = field(default_factory=list)
    """Time (`time.perf_counter`) and kind of each picture; ``high`` is a sharp one."""

    @property
    def machine(self) -> RenderStateMachine:
        """The render thread of the only browser."""
        (machine,) = self.viewer.render_statemachines.values()
        return machine

    def listen(self, client: ClientHandle) -> None:
        """Notes what is sent to a browser that has just connected."""
        machine = self.viewer.render_statemachines[client.client_id]
        send = machine._send_output_to_viewer

        def noted(outputs: dict[str, Any], static_render: bool = True) -> None:
            send(outputs, static_render)
            self.sent.append((time.perf_counter(), machine.state))

        machine._send_output_to_viewer = noted

    def rest(self) -> float:
        """Waits for the sharp picture that ends a movement; the time at which it was sent."""
        wait_until(lambda: bool(self.sent) and self.sent[-1][1] == "high")
        return self.sent[-1][0]

    def answer(self, start: float) -> float:
        """Waits for a small picture sent after ``start``; the time at which it was sent."""

        def answers() -> list[float]:
            return [at for at, kind in list(self.sent) if at > start and kind != "high"]

        wait_until(lambda: bool(answers()))
        return answers()[0]


@contextmanager
def running_viewer(
    model: SceneModel[Any, Any, Any],
    folder: Path,
    max_res: int | None = None,
    datamanager: Any = None,
) -> Iterator[Session]:
    """A viewer of this model on a free port of this machine; ``max_res`` limits its pictures,
    ``datamanager`` is that of a data set."""
    config = gan_viewer_config()
    port = config.websocket_port = get_free_port()
    # nerfstudio's types ask for whole classes; the viewer uses no more of them than is here.
    viewer = Viewer(
        config,
        log_filename=folder / "viewer.log",
        datapath=folder,
        pipeline=ModelPipeline(model, datamanager),  # type: ignore[arg-type]
        train_lock=threading.Lock(),  # type: ignore[arg-type]
    )
    if max_res is not None:
        viewer.control_panel._max_res.value = max_res
    viewer.init_scene([], "completed")  # type: ignore[arg-type]
    session = Session(viewer, port)
    viewer.viser_server.on_client_connect(session.listen)
    try:
        yield session
    finally:
        viewer.viser_server.stop()
