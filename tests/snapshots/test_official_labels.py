"""The four published pix2pix3D models at full size: each tensor has its place, each size is found.

The networks are made without memory; names and shapes are those of the official models.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nerfstudio_gan3d.data.palettes import SEG2CAT_CLASSES, SEG2FACE_CLASSES
from nerfstudio_gan3d.models.gan import GanModelConfig, make_generator, make_objective
from nerfstudio_gan3d.models.label_objective import LabelObjective
from nerfstudio_gan3d.snapshots.describe import describe
from nerfstudio_gan3d.snapshots.official_names import UNUSED, generator_state, official_state
from nerfstudio_gan3d.snapshots.reader import SnapshotModule
from nerfstudio_gan3d.training.checkpoints import check_fits
from tests.parity.fill import key_list

PORTRAIT = {"ray_start": 2.25, "ray_end": 3.3, "box_warp": 1, "avg_camera_radius": 2.7}
CARS = {
    "ray_start": 0.1,
    "ray_end": 2.6,
    "box_warp": 1.6,
    "avg_camera_radius": 1.7,
    "white_back": True,
    "c_gen_conditioning_zero": True,
}
METHODS = {
    "seg2cat": ("gan3d-pix2pix3d", 6, 512),
    "seg2face": ("gan3d-pix2pix3d-faces", 19, 512),
    "edge2cat": ("gan3d-pix2pix3d-edge", 1, 512),
    "edge2car": ("gan3d-pix2pix3d-edge-128", 1, 128),
}
TASKS = pytest.mark.parametrize("task", METHODS)


def official(task: str, network: str, attributes: dict[str, Any] | None = None) -> SnapshotModule:
    """A network of the published names and shapes, without numbers."""
    root = SnapshotModule("Network", "", {}, {}, {}, attributes or {})
    for name, shape, kind in key_list(f"pix2pix3d_{task}_{network}"):
        *path, leaf = name.split(".")
        module = root
        for part in path:
            module = module.modules.setdefault(part, SnapshotModule("Layer", "", {}, {}, {}, {}))
        value = torch.tensor(-1) if leaf == "alpha" else torch.empty(shape, device="meta")
        (module.parameters if kind == "P" else module.buffers)[leaf] = value
    return root


def described(task: str) -> tuple[str, GanModelConfig, SnapshotModule]:
    """Method, settings and generator of a task."""
    large = METHODS[task][2] == 512
    samples = 48 if large else 64
    stage = "8XDC" if large else "2X"
    generator = official(
        task,
        "G",
        {
            "rendering_kwargs": {
                **(PORTRAIT if large else CARS),
                "depth_resolution": samples,
                "depth_resolution_importance": samples,
                "superresolution_module": f"training.superresolution.SuperresolutionHybrid{stage}",
                "c_scale": 1,
            },
            "neural_rendering_resolution": 128 if large else 64,
        },
    )
    judges = official(task, "D"), official(task, "D_semantic")
    found = describe(generator, judges[0], None, judges[1])
    return found.method, found.settings, generator


@TASKS
def test_settings(task: str) -> None:
    name, classes, size = METHODS[task]
    method, settings, _ = described(task)
    labels = settings.labels
    assert method == name
    assert (labels.kind, labels.classes) == ("edge" if classes == 1 else "seg", classes)
    assert (labels.geometry_layers, labels.feature_dim) == (7, 32)
    assert (labels.encoder_base, labels.encoder_max) == (32768, 512)
    assert not labels.encode_pose
    names = {"seg2cat": SEG2CAT_CLASSES, "seg2face": SEG2FACE_CLASSES}
    assert labels.class_names == names.get(task, ())
    assert settings.image_resolution == size
    assert (settings.latent.z_dim, settings.latent.w_dim) == (512, 512)
    assert settings.latent.pose_scale == (size == 512)
    assert settings.field.white_back == (size == 128)
    assert settings.view_focal == (4.2647 if size == 512 else 1.7074)
    assert (settings.discriminator.channel_base, settings.discriminator.channel_max) == (32768, 512)
    weights = settings.label_losses
    assert weights.class_weights == ("celeba_squared" if task == "seg2face" else "none")
    assert weights.cross_view == (1e-4 if size == 512 else 1e-6)


@TASKS
def test_every_tensor_has_its_place(task: str) -> None:
    _, settings, network = described(task)
    tensors = network.state_dict()
    with torch.device("meta"):
        generator, objective = make_generator(settings), make_objective(settings)
    state = generator_state(tensors)
    check_fits(generator, state)
    parameters = dict(generator.named_parameters())
    count = sum(value.numel() for value in parameters.values())
    stated = {"seg2cat": 84_100_553, "seg2face": 84_106_403, "edge2cat": 84_098_303}
    assert count == {**stated, "edge2car": 81_355_327}[task]
    # What is not read is known by name, and all else comes back under the name it had.
    back = official_state({name: state[name] for name in generator.state_dict()})
    assert tensors.keys() - back.keys() <= {
        *UNUSED,
        "superresolution.resample_filter",
        "superresolution_semantic.resample_filter",
    }
    for name, value in back.items():
        assert value.shape == tensors[name].shape, name
    assert isinstance(objective, LabelObjective)
    assert objective.label_discriminator is not None
    compare(task, "D", objective.discriminator)
    compare(task, "D_semantic", objective.label_discriminator)


def compare(task: str, name: str, network: nn.Module) -> None:
    """Names, shapes, kinds and order of a discriminator's tensors are the official ones."""
    parameters = dict(network.named_parameters())
    own = [
        (key, tuple(value.shape), "P" if key in parameters else "B")
        for key, value in network.state_dict().items()
    ]
    assert own == key_list(f"pix2pix3d_{task}_{name}")
