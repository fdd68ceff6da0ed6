"""A running viewer of a model, without data or trainer, for tests and benchmarks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer_legacy.server.viewer_utils import get_free_port
from torch import nn

from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig
from nerfstudio_gan3d.viewer.settings import gan_viewer_config


class ModelPipeline(nn.Module):
    """What a viewer needs of a pipeline."""

    def __init__(self, model: GanModel) -> None:
        super().__init__()
        self._model = model
        self.datamanager = SimpleNamespace(includes_time=False)

    @property
    def model(self) -> GanModel:
        """The model, under the name that the viewer shows it by."""
        return self._model


def fit_to_cars(config: GanModelConfig) -> GanModelConfig:
    """Fills in the bundled cars' cameras, as training on them does."""
    config.view_radius, config.view_focal = 1.9, 1.5
    config.field.near, config.field.far = 1.1, 2.7
    return config


def build(config: GanModelConfig) -> GanModel:
    """An untrained model."""
    box = SceneBox(torch.tensor([[-0.5] * 3, [0.5] * 3]))
    model = config.setup(
        scene_box=box, num_train_data=1, metadata={}, device="cpu", grad_scaler=None
    )
    return model.eval()


@contextmanager
def running_viewer(model: GanModel, folder: Path) -> Iterator[tuple[Viewer, int]]:
    """A viewer of this model on a free port of this machine, and the port."""
    config = gan_viewer_config()
    port = config.websocket_port = get_free_port()
    # nerfstudio's types ask for whole classes; the viewer uses no more of them than is here.
    viewer = Viewer(
        config,
        log_filename=folder / "viewer.log",
        datapath=folder,
        pipeline=ModelPipeline(model),  # type: ignore[arg-type]
        train_lock=threading.Lock(),  # type: ignore[arg-type]
    )
    viewer.init_scene([], "completed")  # type: ignore[arg-type]
    try:
        yield viewer, port
    finally:
        viewer.viser_server.stop()
