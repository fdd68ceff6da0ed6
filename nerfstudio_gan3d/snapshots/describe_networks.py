"""Sizes and rules of an official model's networks, found in their tensors and layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

from torch import Tensor

from nerfstudio_gan3d.cameras import LABEL_SIZE
from nerfstudio_gan3d.models.config import DiscriminatorConfig
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.snapshots import checked
from nerfstudio_gan3d.snapshots.describe_labels import check_label_stage
from nerfstudio_gan3d.snapshots.reader import SnapshotError, SnapshotModule

_STAGES: dict[str, tuple[int, Literal["different", "smaller"], bool]] = {
    "SuperresolutionHybrid2X": (64, "different", True),
    "SuperresolutionHybrid4X": (128, "smaller", True),
    "SuperresolutionHybrid8X": (128, "different", True),
    "SuperresolutionHybrid8XDC": (128, "different", True),
    "SuperresolutionHybridDeepfp32": (128, "smaller", False),
}
"""Side that official super-resolution modules take, when they resize, and whether that filters."""


def network_settings(
    settings: GanModelConfig, state: Mapping[str, Tensor], generator: SnapshotModule
) -> None:
    """Sets the sizes of backbone, mapping network and decoder."""
    widths = checked.channels(state, r"backbone\.synthesis\.b(\d+)\.conv1\.weight", 0)
    planes = settings.field.triplane
    planes.channel_base, planes.channel_max = checked.channel_rule(widths, "backbone.synthesis")
    planes.plane_size = max(widths)
    outputs = checked.shape(state, f"backbone.synthesis.b{planes.plane_size}.torgb.weight", 4)[0]
    if outputs % 3:
        raise SnapshotError(f"the backbone has {outputs} output channels, not three planes")
    planes.plane_channels = outputs // 3
    latent = settings.latent
    # With labels there is a mean for each layer.
    dimensions = 1 if settings.labels.kind == "none" else 2
    latent.w_dim = checked.shape(state, "backbone.mapping.w_avg", dimensions)[-1]
    latent.mapping_layers = checked.count(state, r"backbone\.mapping\.fc(\d+)\.weight")
    width = checked.shape(state, "backbone.mapping.fc0.weight", 2)[1]
    latent.pose_conditioning = "backbone.mapping.embed.weight" in state
    if latent.pose_conditioning:
        label = checked.shape(state, "backbone.mapping.embed.weight", 2)[1]
        if label != LABEL_SIZE:
            raise SnapshotError(
                f"the mapping network takes labels of {label} numbers; cameras have {LABEL_SIZE}"
            )
        width -= latent.w_dim
    latent.z_dim = width
    layer = generator.at("backbone.mapping.fc0")
    latent.lr_multiplier = checked.lr_multiplier(
        layer, width + latent.w_dim * latent.pose_conditioning
    )
    settings.field.hidden_dim = checked.shape(state, "decoder.net.0.weight", 2)[0]
    ball = "decoder.rgb_out.weight" in state
    out = checked.shape(state, "decoder.rgb_out.weight" if ball else "decoder.net.2.weight", 2)[0]
    settings.field.feature_dim = out if ball else out - 1
    settings.field.density_scale = 1.0
    settings.field.initial_ball = False


def super_resolution_settings(
    settings: GanModelConfig,
    state: Mapping[str, Tensor],
    options: Mapping[str, Any],
    generator: SnapshotModule,
) -> None:
    """Sets sizes, resizing and noise of super-resolution, and the sizes of images."""
    module = generator.at("superresolution")
    assert module is not None
    named = str(options.get("superresolution_module", module.class_name)).rpartition(".")[2]
    if named not in _STAGES:
        raise SnapshotError(
            f"superresolution_module = {named!r}; only {', '.join(_STAGES)} exist here"
        )
    check_label_stage(generator, named)
    side, resize, antialias = _STAGES[named]
    stage = settings.super_resolution
    stage.input_resolution, stage.resize = side, resize
    stage.antialias = antialias and checked.flag(options, "sr_antialias", True)
    first = checked.shape(state, "superresolution.block0.conv1.weight", 4)[0]
    last = checked.shape(state, "superresolution.block1.conv1.weight", 4)[0]
    stage.channels = (first, last)
    sizes = [
        checked.shape(state, f"superresolution.block{k}.conv1.noise_const", 2)[0] for k in range(2)
    ]
    if settings.labels.kind != "none" and sizes[1] != settings.image_resolution:
        raise SnapshotError(
            f"label maps have {settings.image_resolution} px and images {sizes[1]} px; both must "
            "be of one size"
        )
    settings.image_resolution = sizes[1]
    expected = sizes[1] // 2 if sizes[1] // side >= 4 else side
    if sizes[0] != expected:
        raise SnapshotError(
            f"the blocks of super-resolution work at {sizes[0]} and {sizes[1]} px; "
            f"{named} has {expected} px first"
        )
    noise = options.get("superresolution_noise_mode", "none")
    if not isinstance(noise, str) or noise not in ("none", "const", "random"):
        raise SnapshotError(f"superresolution_noise_mode = {noise!r}: none, const or random exist")
    stage.noise = cast('Literal["none", "const", "random"]', noise)
    layer = generator.at("superresolution.block0.conv1")
    stage.clamp = checked.clamp(layer)
    size = generator.attributes.get("neural_rendering_resolution", 64)
    if (
        not isinstance(size, int)
        or isinstance(size, bool)
        or not 1 <= size <= settings.image_resolution
    ):
        raise SnapshotError(f"neural_rendering_resolution = {size!r}: not a size in pixels")
    settings.neural_resolution = size


def background_settings(
    settings: GanModelConfig,
    state: Mapping[str, Tensor],
    options: Mapping[str, Any],
    generator: SnapshotModule,
    notes: list[str],
) -> None:
    """Sets version, sizes and radius of BallGAN's background."""
    sphere = settings.sphere
    sphere.version = "ver1" if "BG_Net.fc_in.affine.weight" in state else "ver0"
    dimensions = 4 if sphere.version == "ver1" else 2
    sphere.hidden_dim = checked.shape(state, "BG_Net.fc_in.weight", dimensions)[0]
    sphere.layers = 1 + checked.count(state, r"BG_Net\.blocks\.(\d+)\.weight")
    if sphere.version == "ver1":
        sphere.mapping_layers = checked.count(state, r"BG_mapping\.fc(\d+)\.weight")
    network = generator.at("BG_Net")
    assert network is not None
    given: dict[str, Any] = {}
    created = generator.attributes.get("_init_kwargs")
    inner = created.get("BG_kwargs") if isinstance(created, dict) else None
    for source in (network.attributes, inner, generator.attributes.get("BG_kwargs")):
        if isinstance(source, dict):
            given |= source
    scale = checked.number(given, "downscale_p_by", 2 * math.pi)
    if abs(scale - 2 * math.pi) > 1e-3:
        raise SnapshotError(f"BG_kwargs.downscale_p_by = {scale}: only 2 pi exists here")
    if "R" in given:
        sphere.radius = checked.number(given, "R")
        if sphere.radius <= 0:
            raise SnapshotError(f"BG_kwargs.R = {sphere.radius}: the sphere's radius is positive")
    else:
        notes.append(f"the file does not say its sphere's radius: {sphere.radius:g} was assumed")
    activation = options.get("sigma_act", "linear")
    if activation not in ("linear", None):
        raise SnapshotError(f"sigma_act = {activation!r}: only linear exists here")


def discriminator_settings(network: SnapshotModule, resolution: int) -> DiscriminatorConfig:
    """Settings of a discriminator of images with this side."""
    state = network.state_dict()
    widths = checked.channels(state, r"b(\d+)\.conv0\.weight", 0)
    if not widths or max(widths) != resolution or "b4.conv.weight" not in state:
        raise SnapshotError(
            f"the discriminator's blocks are {sorted(widths)}; "
            f"one for images of {resolution} px is needed"
        )
    widths[4] = checked.shape(state, "b4.conv.weight", 4)[0]
    config = DiscriminatorConfig()
    config.channel_base, config.channel_max = checked.channel_rule(widths, "the discriminator")
    config.camera_conditioning = "mapping.embed.weight" in state
    if config.camera_conditioning:
        config.mapping_layers = checked.count(state, r"mapping\.fc(\d+)\.weight")
        layer = network.at("mapping.fc0")
        config.lr_multiplier = checked.lr_multiplier(
            layer, checked.shape(state, "mapping.fc0.weight", 2)[1]
        )
    statistics = network.at("b4.mbstd")
    if statistics is not None:
        config.minibatch_group = checked.whole(statistics.attributes, "group_size", 1, 4)
    config.camera_noise = checked.number(network.attributes, "disc_c_noise", 0.0)
    block = network.at(f"b{resolution}.conv0")
    config.clamp = checked.clamp(block)
    return config
