"""Settings of an official network, found in its tensors and in the options that came with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import LABEL_SIZE, orbit_labels
from nerfstudio_gan3d.fields.triplane import PLANE_AXES, PlaneAxes
from nerfstudio_gan3d.models.ballgan import ballgan
from nerfstudio_gan3d.models.config import DiscriminatorConfig
from nerfstudio_gan3d.models.eg3d import eg3d
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.snapshots import checked
from nerfstudio_gan3d.snapshots.describe_labels import (
    CARS_FOCAL,
    NEEDED,
    check_label_discriminator,
    has_labels,
    label_settings,
)
from nerfstudio_gan3d.snapshots.describe_networks import (
    background_settings,
    discriminator_settings,
    network_settings,
    super_resolution_settings,
)
from nerfstudio_gan3d.snapshots.official_names import UNUSED
from nerfstudio_gan3d.snapshots.reader import SnapshotError, SnapshotModule

PORTRAIT_FOCAL = 4.2647
"""Focal length in image sides of FFHQ's and AFHQ's cameras."""
SHAPENET_FOCAL = 1.0254
"""That of the cameras of ShapeNet cars (525 / 512)."""


@dataclass(frozen=True)
class Description:
    """What a snapshot holds, as this project's settings."""

    method: str
    """The registered method that it is a model of."""
    settings: GanModelConfig
    """The model's settings; losses and schedules are those of the method's preset."""
    notes: tuple[str, ...]
    """Sentences about what the file does not say and was assumed."""


def describe(
    generator: SnapshotModule,
    discriminator: SnapshotModule | None,
    focal: float | None = None,
    label_discriminator: SnapshotModule | None = None,
) -> Description:
    """The settings of an official EG3D, BallGAN or pix2pix3D model.

    Args:
        generator: ``G_ema`` or ``G`` of a snapshot.
        discriminator: Its ``D``, if there is one.
        focal: Focal length of the viewer's first camera in image sides; None guesses that of the
            published data sets.
        label_discriminator: Its ``D_semantic``, if there is one; models with labels alone have it,
            and are trained with both or not at all.

    Raises:
        SnapshotError: If it is another network, or was made with an option that does not exist
            here; the sentence names it.
    """
    state = generator.state_dict()
    options = generator.attributes.get("rendering_kwargs")
    if not isinstance(options, dict):
        raise SnapshotError("the generator has no rendering_kwargs; it is not an EG3D network")
    notes: list[str] = []
    method, settings = _preset(state, generator, notes)
    labelled = settings.labels.kind != "none"
    settings.representation = "triplane"
    settings.conventions = "reference"
    network_settings(settings, state, generator)
    _rendering(settings, options, notes)
    _planes(settings, generator, notes)
    super_resolution_settings(settings, state, options, generator)
    if settings.background:
        background_settings(settings, state, options, generator, notes)
    side = settings.image_resolution
    if discriminator is None or (labelled and label_discriminator is None):
        # Nothing will train it, so it need not fill the checkpoint.
        settings.discriminator = DiscriminatorConfig(channel_max=1, mapping_layers=1)
    else:
        settings.discriminator = discriminator_settings(discriminator, side)
        if labelled and label_discriminator is not None:
            found = discriminator_settings(label_discriminator, side)
            check_label_discriminator(label_discriminator, found, settings)
    _cameras(settings, options, focal, notes)
    return Description(method, settings, tuple(notes))


def _preset(
    state: Mapping[str, Tensor], generator: SnapshotModule, notes: list[str]
) -> tuple[str, GanModelConfig]:
    """The method that a generator is a model of, and its preset, whose networks are yet to be
    replaced."""
    ball, labelled = any(name.startswith("BG_Net.") for name in state), has_labels(state)
    needed = [
        "backbone.synthesis.b4.const",
        "backbone.mapping.w_avg",
        "decoder.net.0.weight",
        "superresolution.block1.conv1.weight",
        "decoder.sigma_out.weight" if ball else "decoder.net.2.weight",
        *(NEEDED if labelled else ()),
    ]
    missing = [name for name in needed if name not in state]
    if missing:
        raise SnapshotError(
            f"the generator has no tensor {missing[0]}; only the networks of EG3D, BallGAN and "
            "pix2pix3D can be read"
        )
    _check_unused(state, notes)
    if labelled:
        return label_settings(state, generator, notes)
    return ("gan3d-ballgan", ballgan()) if ball else ("gan3d-eg3d", eg3d())


def _check_unused(state: Mapping[str, Tensor], notes: list[str]) -> None:
    """Tensors that are left out are what they are left out for."""
    for name, sizes in zip(UNUSED, ([LABEL_SIZE], []), strict=True):
        if name in state and list(state[name].shape) != sizes:
            raise SnapshotError(
                f"tensor {name} has shape {list(state[name].shape)}; {sizes} is needed"
            )
    alpha = state.get(UNUSED[1])
    if alpha is not None and float(alpha) != -1:
        notes.append(
            f"{UNUSED[1]} is {float(alpha):g}, where published files have -1; it was left out, as "
            "the published code does"
        )


def _rendering(settings: GanModelConfig, options: Mapping[str, Any], notes: list[str]) -> None:
    if options.get("clamp_mode", "softplus") != "softplus":
        raise SnapshotError(f"clamp_mode = {options['clamp_mode']!r}: only softplus exists here")
    if checked.flag(options, "disparity_space_sampling"):
        raise SnapshotError("disparity_space_sampling = True does not exist here")
    if checked.number(options, "decoder_lr_mul", 1.0) != 1:
        raise SnapshotError(f"decoder_lr_mul = {options['decoder_lr_mul']}: only 1 exists here")
    if checked.number(options, "density_noise", 0.0):
        notes.append("density_noise was left out; it would make every rendering differ")
    settings.samples = checked.whole(options, "depth_resolution", 4)
    settings.importance_samples = checked.whole(options, "depth_resolution_importance", 0)
    side = checked.number(options, "box_warp")
    if side <= 0:
        raise SnapshotError(f"box_warp = {side}: the box needs a positive side")
    settings.field.box = (side, side, side)
    settings.field.white_back = checked.flag(options, "white_back")
    # A model trained without a pose has the layers, and was told zeros at every step.
    told = not checked.flag(options, "c_gen_conditioning_zero")
    settings.latent.pose_scale = checked.number(options, "c_scale", 0.0) if told else 0.0


def _cameras(
    settings: GanModelConfig, options: Mapping[str, Any], focal: float | None, notes: list[str]
) -> None:
    """The viewer's first camera, the limits of its rays, and the pose that is told."""
    settings.view_radius = checked.number(options, "avg_camera_radius", 2.7)
    if settings.view_radius <= 0:
        raise SnapshotError(f"avg_camera_radius = {settings.view_radius}: it must be positive")
    settings.view_pivot = _pivot(options)
    _limits(settings, options)
    if focal is None:
        around = settings.field.box[0] > 1.2
        cars = SHAPENET_FOCAL if settings.labels.kind == "none" else CARS_FOCAL
        focal = cars if around else PORTRAIT_FOCAL
        notes.append(
            f"the file does not say its cameras' focal length: {focal} image sides, "
            f"that of {'ShapeNet cars' if around else 'FFHQ and AFHQ'}, was assumed (--focal)"
        )
    settings.view_focal = focal
    if settings.latent.pose_conditioning and settings.latent.pose_scale != 0:
        # The published tools tell such a model one frontal pose, whatever it is seen from.
        settings.latent.neutral_pose = tuple(frontal_pose(settings)[0].tolist())


def frontal_pose(settings: GanModelConfig) -> Tensor:
    """Camera label [1, 25] of a look at the pivot from the front, at the view radius."""
    return orbit_labels(
        torch.zeros(1),
        torch.zeros(1),
        settings.view_radius,
        settings.view_pivot,
        settings.view_focal,
    )


def _limits(settings: GanModelConfig, options: Mapping[str, Any]) -> None:
    start, end = options.get("ray_start"), options.get("ray_end")
    field = settings.field
    if isinstance(start, str) and start == end == "auto":
        settings.ray_bounds = "box"
        # The box alone limits the rays; from any sensible distance it lies between these.
        half = math.dist(field.box, (0, 0, 0)) / 2
        field.near, field.far = 0.0, 4 * settings.view_radius + half
        return
    field.near, field.far = checked.number(options, "ray_start"), checked.number(options, "ray_end")
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


def _pivot(options: Mapping[str, Any]) -> tuple[float, float, float]:
    value = options.get("avg_camera_pivot", (0.0, 0.0, 0.0))
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise SnapshotError(f"avg_camera_pivot = {checked.short(value)}: three numbers are needed")
    x, y, z = (checked.number({"avg_camera_pivot": part}, "avg_camera_pivot") for part in value)
    return x, y, z
