"""Settings of an official network, found in its tensors and in the options that came with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import LABEL_SIZE, orbit_labels
from nerfstudio_gan3d.fields.triplane import PLANE_AXES, PlaneAxes
from nerfstudio_gan3d.models.ballgan import ballgan
from nerfstudio_gan3d.models.config import DiscriminatorConfig
from nerfstudio_gan3d.models.eg3d import eg3d
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.snapshots.reader import SnapshotError, SnapshotModule

_STAGES: dict[str, tuple[int, Literal["different", "smaller"], bool]] = {
    "SuperresolutionHybrid2X": (64, "different", True),
    "SuperresolutionHybrid4X": (128, "smaller", True),
    "SuperresolutionHybrid8X": (128, "different", True),
    "SuperresolutionHybrid8XDC": (128, "different", True),
    "SuperresolutionHybridDeepfp32": (128, "smaller", False),
}
"""Side that official super-resolution modules take, when they resize, and whether that filters."""

PORTRAIT_FOCAL = 4.2647
"""Focal length in image sides of FFHQ's and AFHQ's cameras."""
SHAPENET_FOCAL = 1.0254
"""That of the cameras of ShapeNet cars (525 / 512)."""


@dataclass(frozen=True)
class Description:
    """What a snapshot holds, as this project's settings."""

    method: Literal["gan3d-eg3d", "gan3d-ballgan"]
    """The registered method that it is a model of."""
    settings: GanModelConfig
    """The model's settings; losses and schedules are those of the method's preset."""
    notes: tuple[str, ...]
    """Sentences about what the file does not say and was assumed."""


def describe(
    generator: SnapshotModule, discriminator: SnapshotModule | None, focal: float | None = None
) -> Description:
    """The settings of an official EG3D or BallGAN model.

    Args:
        generator: ``G_ema`` or ``G`` of a snapshot.
        discriminator: Its ``D``, if there is one.
        focal: Focal length of the viewer's first camera in image sides; None guesses that of the
            published data sets.

    Raises:
        SnapshotError: If it is another network, or was made with an option that does not exist
            here; the sentence names it.
    """
    state = generator.state_dict()
    options = generator.attributes.get("rendering_kwargs")
    if not isinstance(options, dict):
        raise SnapshotError("the generator has no rendering_kwargs; it is not an EG3D network")
    ball = any(name.startswith("BG_Net.") for name in state)
    _check_family(state, ball)
    settings = ballgan() if ball else eg3d()
    notes: list[str] = []
    settings.representation = "triplane"
    settings.conventions = "reference"
    _networks(settings, state, generator)
    _rendering(settings, options, notes)
    _planes(settings, generator, notes)
    _super_resolution(settings, state, options, generator)
    if ball:
        _background(settings, state, options, generator, notes)
    if discriminator is not None:
        settings.discriminator = _discriminator(discriminator, settings.image_resolution)
    else:
        # Nothing will train it, so it need not fill the checkpoint.
        settings.discriminator = DiscriminatorConfig(channel_max=1, mapping_layers=1)
    settings.view_radius = _number(options, "avg_camera_radius", 2.7)
    if settings.view_radius <= 0:
        raise SnapshotError(f"avg_camera_radius = {settings.view_radius}: it must be positive")
    settings.view_pivot = _pivot(options)
    _limits(settings, options)
    around = settings.field.box[0] > 1.2
    settings.view_focal = focal or (SHAPENET_FOCAL if around else PORTRAIT_FOCAL)
    if focal is None:
        notes.append(
            f"the file does not say its cameras' focal length: {settings.view_focal} image sides, "
            f"that of {'ShapeNet cars' if around else 'FFHQ and AFHQ'}, was assumed (--focal)"
        )
    if settings.latent.pose_conditioning and settings.latent.pose_scale != 0:
        # The published tools tell such a model one frontal pose, whatever it is seen from.
        frontal = orbit_labels(
            torch.zeros(1),
            torch.zeros(1),
            settings.view_radius,
            settings.view_pivot,
            settings.view_focal,
        )
        settings.latent.neutral_pose = tuple(frontal[0].tolist())
    return Description("gan3d-ballgan" if ball else "gan3d-eg3d", settings, tuple(notes))


def _check_family(state: Mapping[str, Tensor], ball: bool) -> None:
    if any("semantic" in name for name in state):
        raise SnapshotError("the generator is a pix2pix3D network; EG3D and BallGAN can be read")
    needed = [
        "backbone.synthesis.b4.const",
        "backbone.mapping.w_avg",
        "decoder.net.0.weight",
        "superresolution.block1.conv1.weight",
        "decoder.sigma_out.weight" if ball else "decoder.net.2.weight",
    ]
    missing = [name for name in needed if name not in state]
    if missing:
        raise SnapshotError(
            f"the generator has no tensor {missing[0]}; only EG3D and BallGAN networks can be read"
        )


def _networks(
    settings: GanModelConfig, state: Mapping[str, Tensor], generator: SnapshotModule
) -> None:
    channels = _channels(state, r"backbone\.synthesis\.b(\d+)\.conv1\.weight", 0)
    planes = settings.field.triplane
    planes.plane_size = max(channels)
    planes.channel_base, planes.channel_max = _channel_rule(channels, "backbone.synthesis")
    outputs = _shape(state, f"backbone.synthesis.b{planes.plane_size}.torgb.weight", 4)[0]
    if outputs % 3:
        raise SnapshotError(f"the backbone has {outputs} output channels, not three planes")
    planes.plane_channels = outputs // 3
    latent = settings.latent
    latent.w_dim = _shape(state, "backbone.mapping.w_avg", 1)[0]
    latent.mapping_layers = _count(state, r"backbone\.mapping\.fc(\d+)\.weight")
    width = _shape(state, "backbone.mapping.fc0.weight", 2)[1]
    latent.pose_conditioning = "backbone.mapping.embed.weight" in state
    if latent.pose_conditioning:
        label = _shape(state, "backbone.mapping.embed.weight", 2)[1]
        if label != LABEL_SIZE:
            raise SnapshotError(
                f"the mapping network takes labels of {label} numbers; cameras have {LABEL_SIZE}"
            )
        width -= latent.w_dim
    latent.z_dim = width
    layer = generator.at("backbone.mapping.fc0")
    latent.lr_multiplier = _lr_multiplier(layer, width + latent.w_dim * latent.pose_conditioning)
    settings.field.hidden_dim = _shape(state, "decoder.net.0.weight", 2)[0]
    ball = "decoder.rgb_out.weight" in state
    out = _shape(state, "decoder.rgb_out.weight" if ball else "decoder.net.2.weight", 2)[0]
    settings.field.feature_dim = out if ball else out - 1
    settings.field.density_scale = 1.0
    settings.field.initial_ball = False


def _rendering(settings: GanModelConfig, options: Mapping[str, Any], notes: list[str]) -> None:
    if options.get("clamp_mode", "softplus") != "softplus":
        raise SnapshotError(f"clamp_mode = {options['clamp_mode']!r}: only softplus exists here")
    if _flag(options, "disparity_space_sampling"):
        raise SnapshotError("disparity_space_sampling = True does not exist here")
    if _number(options, "decoder_lr_mul", 1.0) != 1:
        raise SnapshotError(f"decoder_lr_mul = {options['decoder_lr_mul']}: only 1 exists here")
    if _number(options, "density_noise", 0.0):
        notes.append("density_noise was left out; it would make every rendering differ")
    settings.samples = _whole(options, "depth_resolution", 4)
    settings.importance_samples = _whole(options, "depth_resolution_importance", 0)
    side = _number(options, "box_warp")
    if side <= 0:
        raise SnapshotError(f"box_warp = {side}: the box needs a positive side")
    settings.field.box = (side, side, side)
    settings.field.white_back = _flag(options, "white_back")
    # A model trained without a pose has the layers, and was told zeros at every step.
    told = not _flag(options, "c_gen_conditioning_zero")
    settings.latent.pose_scale = _number(options, "c_scale", 0.0) if told else 0.0


def _limits(settings: GanModelConfig, options: Mapping[str, Any]) -> None:
    start, end = options.get("ray_start"), options.get("ray_end")
    field = settings.field
    if isinstance(start, str) and start == end == "auto":
        settings.ray_bounds = "box"
        # The box alone limits the rays; from any sensible distance it lies between these.
        half = math.dist(field.box, (0, 0, 0)) / 2
        field.near, field.far = 0.0, 4 * settings.view_radius + half
        return
    field.near, field.far = _number(options, "ray_start"), _number(options, "ray_end")
    if not 0 <= field.near < field.far:
        raise SnapshotError(
            f"ray_start = {field.near}, ray_end = {field.far}: 0 <= start < end is needed"
        )


def _planes(settings: GanModelConfig, generator: SnapshotModule, notes: list[str]) -> None:
    renderer = generator.at("renderer")
    matrices = None if renderer is None else renderer.attributes.get("plane_axes")
    if not isinstance(matrices, Tensor):
        notes.append("the file does not say its plane axes: the published ones were assumed")
        settings.field.triplane.axes = "xy_xz_zx"
        return
    settings.field.triplane.axes = plane_axes(matrices)


def plane_axes(matrices: Tensor) -> PlaneAxes:
    """The name in `PLANE_AXES` of official plane matrices [3, 3, 3].

    A position x lies at the first two components of ``x @ inv(P_k)`` on plane k. Raises
    SnapshotError for planes that no name stands for.
    """
    if tuple(matrices.shape) != (3, 3, 3):
        raise SnapshotError(f"plane_axes has shape {list(matrices.shape)}; [3, 3, 3] is needed")
    inverse, failed = torch.linalg.inv_ex(matrices.double())
    found: list[tuple[int, int]] = []
    if not bool(failed.any()):
        for plane in inverse:
            columns = plane[:, :2]
            if bool(((columns == 0) | (columns == 1)).all()) and columns.sum(0).tolist() == [1, 1]:
                found.append((int(columns[:, 0].argmax()), int(columns[:, 1].argmax())))
    for name, axes in PLANE_AXES.items():
        if tuple(found) == axes:
            return cast(PlaneAxes, name)
    raise SnapshotError(f"plane_axes = {matrices.tolist()}: planes of these axes do not exist here")


def _super_resolution(
    settings: GanModelConfig,
    state: Mapping[str, Tensor],
    options: Mapping[str, Any],
    generator: SnapshotModule,
) -> None:
    module = generator.at("superresolution")
    assert module is not None
    named = str(options.get("superresolution_module", module.class_name)).rpartition(".")[2]
    if named not in _STAGES:
        raise SnapshotError(
            f"superresolution_module = {named!r}; only {', '.join(_STAGES)} exist here"
        )
    side, resize, antialias = _STAGES[named]
    stage = settings.super_resolution
    stage.input_resolution, stage.resize = side, resize
    stage.antialias = antialias and _flag(options, "sr_antialias", True)
    first = _shape(state, "superresolution.block0.conv1.weight", 4)[0]
    last = _shape(state, "superresolution.block1.conv1.weight", 4)[0]
    stage.channels = (first, last)
    sizes = [_shape(state, f"superresolution.block{k}.conv1.noise_const", 2)[0] for k in range(2)]
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
    stage.clamp = _clamp(layer)
    size = generator.attributes.get("neural_rendering_resolution", 64)
    if (
        not isinstance(size, int)
        or isinstance(size, bool)
        or not 1 <= size <= settings.image_resolution
    ):
        raise SnapshotError(f"neural_rendering_resolution = {size!r}: not a size in pixels")
    settings.neural_resolution = size


def _background(
    settings: GanModelConfig,
    state: Mapping[str, Tensor],
    options: Mapping[str, Any],
    generator: SnapshotModule,
    notes: list[str],
) -> None:
    sphere = settings.sphere
    sphere.version = "ver1" if "BG_Net.fc_in.affine.weight" in state else "ver0"
    dimensions = 4 if sphere.version == "ver1" else 2
    sphere.hidden_dim = _shape(state, "BG_Net.fc_in.weight", dimensions)[0]
    sphere.layers = 1 + _count(state, r"BG_Net\.blocks\.(\d+)\.weight")
    if sphere.version == "ver1":
        sphere.mapping_layers = _count(state, r"BG_mapping\.fc(\d+)\.weight")
    network = generator.at("BG_Net")
    assert network is not None
    given: dict[str, Any] = {}
    created = generator.attributes.get("_init_kwargs")
    inner = created.get("BG_kwargs") if isinstance(created, dict) else None
    for source in (network.attributes, inner, generator.attributes.get("BG_kwargs")):
        if isinstance(source, dict):
            given |= source
    scale = _number(given, "downscale_p_by", 2 * math.pi)
    if abs(scale - 2 * math.pi) > 1e-3:
        raise SnapshotError(f"BG_kwargs.downscale_p_by = {scale}: only 2 pi exists here")
    if "R" in given:
        sphere.radius = _number(given, "R")
        if sphere.radius <= 0:
            raise SnapshotError(f"BG_kwargs.R = {sphere.radius}: the sphere's radius is positive")
    else:
        notes.append(f"the file does not say its sphere's radius: {sphere.radius:g} was assumed")
    activation = options.get("sigma_act", "linear")
    if activation not in ("linear", None):
        raise SnapshotError(f"sigma_act = {activation!r}: only linear exists here")


def _discriminator(network: SnapshotModule, resolution: int) -> DiscriminatorConfig:
    state = network.state_dict()
    channels = _channels(state, r"b(\d+)\.conv0\.weight", 0)
    if not channels or max(channels) != resolution or "b4.conv.weight" not in state:
        raise SnapshotError(
            f"the discriminator's blocks are {sorted(channels)}; "
            f"one for images of {resolution} px is needed"
        )
    channels[4] = _shape(state, "b4.conv.weight", 4)[0]
    config = DiscriminatorConfig()
    config.channel_base, config.channel_max = _channel_rule(channels, "the discriminator")
    config.camera_conditioning = "mapping.embed.weight" in state
    if config.camera_conditioning:
        config.mapping_layers = _count(state, r"mapping\.fc(\d+)\.weight")
        layer = network.at("mapping.fc0")
        config.lr_multiplier = _lr_multiplier(layer, _shape(state, "mapping.fc0.weight", 2)[1])
    statistics = network.at("b4.mbstd")
    if statistics is not None:
        config.minibatch_group = _whole(statistics.attributes, "group_size", 1, 4)
    config.camera_noise = _number(network.attributes, "disc_c_noise", 0.0)
    block = network.at(f"b{resolution}.conv0")
    config.clamp = _clamp(block)
    return config


def _clamp(layer: SnapshotModule | None) -> float | None:
    value = None if layer is None else layer.attributes.get("conv_clamp", 256)
    return None if value is None else _number({"conv_clamp": value}, "conv_clamp")


def _lr_multiplier(layer: SnapshotModule | None, inputs: int) -> float:
    """From a layer's stored gain, lr / sqrt(in); 0.01 where it is not stored."""
    if layer is None or "weight_gain" not in layer.attributes:
        return 0.01
    gain = _number(layer.attributes, "weight_gain")
    if gain <= 0:
        raise SnapshotError(f"weight_gain = {gain}: it must be positive")
    # Six digits take the square root's rounding away.
    return float(f"{gain * inputs**0.5:.6g}")


def _channels(state: Mapping[str, Tensor], pattern: str, dimension: int) -> dict[int, int]:
    found = {}
    for name, value in state.items():
        if match := re.fullmatch(pattern, name):
            if value.ndim != 4:
                raise SnapshotError(f"tensor {name} has shape {list(value.shape)}; 4 are needed")
            found[int(match[1])] = int(value.shape[dimension])
    return found


def _channel_rule(channels: Mapping[int, int], where: str) -> tuple[int, int]:
    """channel_base and channel_max of ``min(base / size, max)`` at every size."""
    sizes = sorted(channels)
    expected = [2**k for k in range(2, 2 + len(sizes))]
    if sizes != expected:
        raise SnapshotError(f"{where} has blocks of {sizes} px, not of {expected} px")
    largest, last = channels[4], sizes[-1]
    base = channels[last] * last
    for size in sizes:
        if channels[size] != min(base // size, largest):
            raise SnapshotError(
                f"{where} has {channels[size]} channels at {size} px, which no channel_base and "
                "channel_max give"
            )
    return base, largest


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    numbers = {int(match[1]) for name in state if (match := re.fullmatch(pattern, name))}
    if numbers != set(range(len(numbers))):
        raise SnapshotError(f"layers {pattern!r} have numbers {sorted(numbers)}, with gaps")
    return len(numbers)


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise SnapshotError(f"the network has no tensor {name}")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise SnapshotError(f"tensor {name} has shape {list(shape)}; {dimensions} sizes are needed")
    return shape


def _number(options: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SnapshotError(f"{name} = {_short(value)}: a number is needed")
    return float(value)


def _whole(options: Mapping[str, Any], name: str, least: int, default: int | None = None) -> int:
    value = _number(options, name, None if default is None else float(default))
    if value != int(value) or value < least:
        raise SnapshotError(f"{name} = {value:g}: a whole number of at least {least} is needed")
    return int(value)


def _flag(options: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = options.get(name, default)
    if value is not None and not isinstance(value, bool | int):
        raise SnapshotError(f"{name} = {_short(value)}: True or False is needed")
    return bool(value)


def _pivot(options: Mapping[str, Any]) -> tuple[float, float, float]:
    value = options.get("avg_camera_pivot", (0.0, 0.0, 0.0))
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise SnapshotError(f"avg_camera_pivot = {_short(value)}: three numbers are needed")
    x, y, z = (_number({"avg_camera_pivot": part}, "avg_camera_pivot") for part in value)
    return x, y, z


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
