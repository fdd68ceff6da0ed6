"""A run of G3DR as the commands open it, without training."""

from __future__ import annotations

from pathlib import Path

import torch

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.models.settings import plain_settings
from nerfstudio_gan3d.pretrained import unpacked_config, write_run
from nerfstudio_gan3d.run import MODEL_PREFIX
from tests.models.tiny_g3dr import SIDE, g3dr_config, make_g3dr


def untrained_g3dr(folder: Path) -> Path:
    """Writes an untrained micro G3DR into a new folder; returns its config.yml."""
    torch.manual_seed(0)
    config = unpacked_config(folder, "gan3d-g3dr-tiny", plain_settings(g3dr_config()), folder)
    state = {MODEL_PREFIX + name: value for name, value in make_g3dr().state_dict().items()}
    labels = orbit_labels(torch.zeros(64), torch.zeros(64), 2.0, focal=1.5)
    state |= {
        "datamanager.export_labels": labels,
        "datamanager.export_size": torch.tensor(SIDE),
    }
    config.pipeline.datamanager.data = folder / "images"
    write_run(config, {"step": 0, "pipeline": state})
    return folder / "config.yml"
