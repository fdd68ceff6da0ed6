"""Small EG3D, BallGAN and pix2pix3D models with random weights, and their official descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nerfstudio_gan3d.fields.decoder import LabelDecoder
from nerfstudio_gan3d.fields.triplane import TriPlane
from nerfstudio_gan3d.models.config import (
    BackgroundConfig,
    FieldConfig,
    LabelConfig,
    LatentConfig,
    SuperResolutionConfig,
    TriPlaneConfig,
)
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.snapshots.official_names import official_state
from tests.snapshots.official_pickle import write_snapshot

LATENT = 16
SIZE = 128
NEURAL = 16
RENDERING: dict[str, Any] = {
    "depth_resolution": 6,
    "depth_resolution_importance": 5,
    "ray_start": 1.0,
    "ray_end": 2.8,
    "box_warp": 1.1,
    "avg_camera_radius": 1.9,
    "avg_camera_pivot": [0, 0.1, 0],
    "clamp_mode": "softplus",
    "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
    "sr_antialias": True,
    "c_scale": 1,
    "c_gen_conditioning_zero": False,
}
# Rows of the three planes' matrices; a plane's axes are the first two rows where it is a rotation.
PUBLISHED_PLANES = torch.tensor(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    ],
    dtype=torch.float32,
)
MENDED_PLANES = PUBLISHED_PLANES.clone()
MENDED_PLANES[2] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])


def generator(
    background: Literal["none", "ver0", "ver1"] = "none",
    white_back: bool = False,
    box_bounds: bool = False,
    axes: Literal["xy_xz_zx", "xy_xz_zy"] = "xy_xz_zx",
    seed: int = 0,
    labels: LabelConfig | None = None,
    pose_scale: float = 1.0,
) -> Generator:
    """Published rules: planes of 8 px, 16 px rendered, 128 px after super-resolution."""
    torch.manual_seed(seed)
    sphere = None
    if background != "none":
        sphere = BackgroundConfig(
            3.0, 8, 3 if background == "ver1" else 2, mapping_layers=3, version=background
        )
    made = Generator(
        "triplane",
        LatentConfig(
            LATENT, LATENT, mapping_layers=2, pose_conditioning=True, pose_scale=pose_scale
        ),
        FieldConfig(
            TriPlaneConfig(8, 4, 64, 8, axes),
            hidden_dim=8,
            feature_dim=6,
            initial_ball=False,
            box=(1.1, 1.1, 1.1),
            near=1.0,
            far=2.8,
            white_back=white_back,
        ),
        sphere,
        SuperResolutionConfig((8, 4), 256.0, 64),
        RenderSettings(6, 5, "reference", "box" if box_bounds else "constant"),
        NEURAL,
        SIZE,
        labels=labels,
    )
    with torch.no_grad():
        for name, value in (*made.named_parameters(), *made.named_buffers()):
            if name.endswith(("bias", "noise_strength", "w_avg")):
                value.add_(torch.randn_like(value) * 0.1)
        # A density that is neither empty nor solid.
        assert isinstance(made.field, TriPlane)
        decoder = made.field.decoder
        density = decoder.label_out if isinstance(decoder, LabelDecoder) else decoder.out
        assert density.bias is not None
        density.weight[0].normal_(std=4.0)
        density.bias[0] = 2.0
    return made.eval()


def label_config(classes: int, geometry_layers: int = 3) -> LabelConfig:
    """Labels as pix2pix3D has them: one class is an edge map. There are 4 latents in all."""
    kind = "edge" if classes == 1 else "seg"
    return LabelConfig(
        kind,
        classes,
        geometry_layers,
        encode_pose=False,
        feature_dim=7,
        encoder_base=512,
        encoder_max=8,
    )


def discriminator(seed: int = 1, classes: int = 0, channel_max: int = 8) -> DualDiscriminator:
    """For images of 128 px, with so many label channels beside them."""
    torch.manual_seed(seed)
    return DualDiscriminator(
        SIZE,
        img_channels=3 + classes,
        channel_base=256,
        channel_max=channel_max,
        conv_clamp=256.0,
        mapping_layers=2,
    ).eval()


def description(
    class_name: str, state: dict[str, Tensor], attributes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The nested modules that a flat state dict belongs to."""
    root: dict[str, Any] = {"class_name": class_name, "attributes": attributes or {}}
    for name, value in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            children = module.setdefault("modules", {})
            module = children.setdefault(part, {"class_name": "Layer"})
        buffer = leaf in ("resample_filter", "noise_const", "w_avg", "alpha")
        module.setdefault("buffers" if buffer else "parameters", {})[leaf] = value.detach().clone()
    return root


def generator_description(
    made: Generator, planes: Tensor | None = PUBLISHED_PLANES, **rendering: Any
) -> dict[str, Any]:
    """A generator as the official repositories would have saved it."""
    state = official_state(made.state_dict())
    # Tensors that official files have beside those that matter.
    state["superresolution.resample_filter"] = torch.ones(4, 4)
    attributes: dict[str, Any] = {
        "rendering_kwargs": {**RENDERING, **rendering},
        "neural_rendering_resolution": NEURAL,
    }
    labelled = made.labels is not None
    if labelled:
        state["superresolution_semantic.resample_filter"] = torch.ones(4, 4)
        state["backbone.mapping.embed_mask.alpha"] = torch.tensor(-1)
    if made.background is not None:
        attributes["BG_kwargs"] = {"R": made.background.radius}
    class_name = "TriPlaneSemanticEntangleGenerator" if labelled else "TriPlaneGenerator"
    root = description(class_name, state, attributes)
    if made.labels is not None:
        name = "Edge" if made.labels.kind == "edge" else "Mask"
        modules = root["modules"]
        mapping = modules["backbone"]["modules"]["mapping"]
        mapping["class_name"] = f"{name}MappingNetwork_disentangle"
        decoder = "training.triplane_cond.OSGDecoder_semantic_lateSeparate"
        modules["decoder"]["class_name"] = decoder
        modules["superresolution_semantic"]["class_name"] = "SuperresolutionHybrid2X_semantic"
    root["buffers"] = {"dataset_label_std": torch.zeros(25)}
    if planes is not None:
        root["modules"]["renderer"] = {
            "class_name": "training.volumetric_rendering.renderer.ImportanceRenderer",
            "attributes": {"plane_axes": planes},
        }
    return root


def discriminator_description(made: DualDiscriminator) -> dict[str, Any]:
    """A discriminator as the official repositories would have saved it."""
    root = description("DualDiscriminator", made.state_dict(), {"disc_c_noise": 0})
    root["modules"]["b4"]["modules"]["mbstd"] = {
        "class_name": "MinibatchStdLayer",
        "attributes": {"group_size": 2},
    }
    return root


def snapshot(
    path: Path, averaged: Generator, with_discriminator: bool = True, **rendering: Any
) -> Path:
    """A file with ``averaged`` as G_ema, and a discriminator, or both where there are labels."""
    networks: dict[str, Any] = {"G_ema": generator_description(averaged, **rendering)}
    if with_discriminator:
        networks["D"] = discriminator_description(discriminator())
    if with_discriminator and averaged.labels is not None:
        judge = discriminator(2, averaged.labels.channels)
        networks["D_semantic"] = discriminator_description(judge)
    return write_snapshot(path, networks)
