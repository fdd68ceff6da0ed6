"""Settings that cannot work together, or not with a data set: refused before training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from nerfstudio_gan3d.cameras import LABEL_SIZE, pixel_rays
from nerfstudio_gan3d.data.palettes import default_palette
from nerfstudio_gan3d.models.ranges import validate_ranges
from nerfstudio_gan3d.rendering.samplers import box_interval

if TYPE_CHECKING:
    from nerfstudio_gan3d.models.gan import GanModelConfig


def validate(config: GanModelConfig) -> None:
    """Raises ValueError, naming the field, for settings that cannot work together."""
    neural, image, patch = (
        config.neural_resolution,
        config.image_resolution,
        config.patch_resolution,
    )
    if image < neural:
        raise ValueError(
            f"model.neural_resolution = {neural} exceeds model.image_resolution = {image}: "
            "make it equal (no super-resolution) or smaller"
        )
    if config.has_super_resolution and patch:
        raise ValueError(
            f"model.patch_resolution = {patch}: patches need direct rendering; set it to 0 or make "
            "neural_resolution equal to image_resolution"
        )
    if patch > image or (patch and image % patch):
        raise ValueError(
            f"model.patch_resolution = {patch}: choose a divisor of image_resolution = {image}"
        )
    crops = config.schedule.crop_share
    if not 0 <= crops <= 1 or (crops and (not patch or patch == image)):
        raise ValueError(
            f"model.schedule.crop_share = {crops}: it must lie in 0..1, and crops need "
            "model.patch_resolution below image_resolution"
        )
    validate_ranges(config)
    _validate_super_resolution(config)
    if not config.has_super_resolution and config.field.feature_dim != 3:
        raise ValueError(
            f"model.field.feature_dim = {config.field.feature_dim}: without super-resolution the "
            "features are the colours; set it to 3"
        )
    if config.has_super_resolution and config.field.feature_dim < 3:
        raise ValueError(f"model.field.feature_dim = {config.field.feature_dim}: at least 3 (RGB)")
    near, far = config.field.near, config.field.far
    if not (near == far == 0 or 0 <= near < far):
        raise ValueError(
            f"model.field.near = {config.field.near} and far = {config.field.far}: "
            "give 0 <= near < far, or 0 for both"
        )
    if min(config.field.box) <= 0:
        raise ValueError(f"model.field.box = {config.field.box}: give three positive sides")
    if config.conventions == "reference" and config.representation != "triplane":
        raise ValueError(
            "model.conventions = reference exists for triplane only; set model.representation to "
            "triplane or model.conventions to corrected"
        )
    reference = config.conventions == "reference"
    if len(config.latent.neutral_pose) not in (0, LABEL_SIZE):
        raise ValueError(
            f"model.latent.neutral_pose has {len(config.latent.neutral_pose)} numbers: give "
            f"{LABEL_SIZE}, or none"
        )
    if config.field.white_back and config.background:
        raise ValueError("model.field.white_back: the sphere is the background; set one of them")
    if config.sphere.version == "ver0" and not reference:
        raise ValueError("model.sphere.version = ver0 exists for conventions = reference only")
    if config.super_resolution.noise != "none" and not reference:
        raise ValueError(
            f"model.super_resolution.noise = {config.super_resolution.noise}: noise exists for "
            "conventions = reference only; set it to none"
        )
    _validate_palette(config)
    _validate_discriminator(config)
    _validate_labels(config)
    _validate_surface(config)
    _validate_patches(config)
    if config.losses.r1_interval < 1 or config.losses.density_variation_interval < 1:
        raise ValueError("model.losses: intervals of lazy terms must be at least 1 step")


def _validate_super_resolution(config: GanModelConfig) -> None:
    start, end = config.neural_resolution, config.schedule.neural_resolution_final
    if not config.has_super_resolution:
        if end:
            raise ValueError(
                f"model.schedule.neural_resolution_final = {end}: a resolution schedule needs "
                "super-resolution; set it to 0"
            )
        return
    if end and not start <= end <= config.image_resolution:
        raise ValueError(
            f"model.schedule.neural_resolution_final = {end}: give at least neural_resolution = "
            f"{start} and at most image_resolution = {config.image_resolution}, or 0 for none"
        )
    side, image = config.super_resolution_input, config.image_resolution
    if side < 1 or image not in (side, 2 * side, 4 * side):
        raise ValueError(
            f"model.image_resolution = {image}: super-resolution enlarges its input of {side} px "
            "by 1, 2 or 4; change neural_resolution, or set model.super_resolution."
            f"input_resolution to {image // 4} or {image // 2}, to which rendered images are then "
            "resized"
        )


def _validate_palette(config: GanModelConfig) -> None:
    palette = config.field.palette
    if palette < 0 or palette == 1:
        raise ValueError(f"model.field.palette = {palette}: give 2 colours or more, or 0 for none")
    if not palette:
        return
    if config.representation not in ("triplane", "hashgrid") or config.conventions == "reference":
        raise ValueError(
            f"model.field.palette = {palette}: palettes exist for representations triplane and "
            "hashgrid with corrected conventions; set it to 0"
        )
    if config.labels.kind != "none" or config.latent.separate:
        raise ValueError(
            f"model.field.palette = {palette}: with labels or codes (latent.separate) colours have "
            "a network of their own; set it to 0"
        )


def _validate_discriminator(config: GanModelConfig) -> None:
    wrong, settings = config.losses.wrong_camera, config.discriminator
    if wrong > 0 and (settings.kind == "patch" or not settings.camera_conditioning):
        raise ValueError(
            f"model.losses.wrong_camera = {wrong}: it needs model.discriminator.kind = image and "
            "camera_conditioning = True; set it to 0"
        )
    if config.convolutions not in ("auto", "float32", "bfloat16"):
        raise ValueError(
            f"model.convolutions = {config.convolutions}: give auto, float32 or bfloat16"
        )
    if config.convolutions != "float32" and settings.kind == "patch":
        raise ValueError(
            f"model.convolutions = {config.convolutions}: a discriminator of kind patch computes "
            "in float32 alone; set it to float32"
        )


def _validate_patches(config: GanModelConfig) -> None:
    schedule, labelled = config.schedule, config.labels.kind != "none"
    if schedule.patches == "scales":
        if config.has_super_resolution or labelled or schedule.crop_share:
            raise ValueError(
                "model.schedule.patches = scales works without super-resolution, labels and crops: "
                "set neural_resolution to image_resolution, labels.kind to none and "
                "schedule.crop_share to 0, or patches to crops"
            )
        if not config.patch_resolution:
            raise ValueError(
                "model.patch_resolution = 0: model.schedule.patches = scales needs the side of a "
                "patch; GRAF has 32"
            )
        if not 0 < schedule.scale_end <= schedule.scale_start <= 1:
            raise ValueError(
                f"model.schedule.scale_start = {schedule.scale_start} and scale_end = "
                f"{schedule.scale_end}: give 0 < scale_end <= scale_start <= 1"
            )
    if config.discriminator.kind == "patch":
        if config.has_super_resolution or labelled:
            raise ValueError(
                "model.discriminator.kind = patch sees neither raw images nor labels: use image"
            )
        if config.losses.camera > 0 or config.discriminator.camera_conditioning:
            raise ValueError(
                "model.discriminator.kind = patch knows no cameras: set "
                "model.discriminator.camera_conditioning to False and model.losses.camera to 0"
            )


def _validate_surface(config: GanModelConfig) -> None:
    coded = config.representation in ("unisurf", "graf")
    occupancy, surface = config.field.volume == "occupancy", config.field.surface
    if config.representation == "unisurf" and not occupancy:
        raise ValueError(
            "model.field.volume = density: representation unisurf is a surface; set it to occupancy"
        )
    if config.representation == "graf" and occupancy:
        raise ValueError(
            "model.field.volume = occupancy: representation graf is a density; set it to density"
        )
    if occupancy and config.conventions == "reference":
        raise ValueError(
            "model.field.volume = occupancy exists for conventions = corrected only; no published "
            "network of this kind takes codes"
        )
    if coded and (config.has_super_resolution or config.labels.kind != "none"):
        raise ValueError(
            f"model.representation = {config.representation} has neither labels nor "
            "super-resolution: set model.labels.kind to none and neural_resolution to "
            "image_resolution"
        )
    separate = config.latent.separate
    if coded and not separate:
        raise ValueError(
            f"model.latent.separate: representation {config.representation} takes a shape code and "
            "an appearance code; set it to True"
        )
    if separate and (config.latent.pose_conditioning or config.labels.kind != "none"):
        raise ValueError(
            "model.latent.separate: codes take neither a pose nor label maps; set "
            "model.latent.pose_conditioning to False and model.labels.kind to none"
        )
    if config.losses.normal_smoothness > 0 and not occupancy:
        raise ValueError(
            f"model.losses.normal_smoothness = {config.losses.normal_smoothness}: a density has no "
            "surface; set it to 0, or model.field.volume to occupancy"
        )
    losses = config.losses
    if losses.normal_points < 1 or losses.normal_step <= 0 or losses.normal_distance < 0:
        raise ValueError(
            f"model.losses.normal_points = {losses.normal_points}, normal_step = "
            f"{losses.normal_step}, normal_distance = {losses.normal_distance}: at least 1, more "
            "than 0, and 0 or more"
        )
    if not 1 <= config.field.mlp.skip < config.field.mlp.layers:
        raise ValueError(
            f"model.field.mlp.skip = {config.field.mlp.skip}: choose one of the layers 1 to "
            f"{config.field.mlp.layers - 1}"
        )
    mlp = config.field.mlp
    if config.representation == "unisurf" and mlp.hidden_dim <= 3 + 6 * mlp.octaves:
        raise ValueError(
            f"model.field.mlp.hidden_dim = {mlp.hidden_dim}: with octaves = {mlp.octaves} it must "
            f"exceed {3 + 6 * mlp.octaves}, the size of an encoded position"
        )
    if not 0 < surface.shell_end <= surface.shell_start:
        raise ValueError(
            f"model.field.surface.shell_start = {surface.shell_start} and shell_end = "
            f"{surface.shell_end}: give 0 < shell_end <= shell_start"
        )
    if min(surface.slope, surface.slope_final) <= 0:
        raise ValueError(
            f"model.field.surface.slope = {surface.slope} and slope_final = {surface.slope_final}: "
            "both must be positive"
        )
    if surface.grow_share > 0 and not (occupancy and config.representation == "hashgrid"):
        raise ValueError(
            f"model.field.surface.grow_share = {surface.grow_share}: levels grow in surfaces of "
            "representation hashgrid alone; set it to 0"
        )
    for name in ("shell_share", "grow_share"):
        if not 0 <= getattr(surface, name) <= 1:
            raise ValueError(
                f"model.field.surface.{name} = {getattr(surface, name)}: between 0 and 1"
            )


def _validate_labels(config: GanModelConfig) -> None:
    labels, losses = config.labels, config.label_losses
    if labels.kind == "none":
        return
    direct, reference = not config.has_super_resolution, config.conventions == "reference"
    if labels.kind == "edge" and labels.classes not in (0, 1):
        raise ValueError(
            f"model.labels.classes = {labels.classes}: edge maps have 1; leave it at 0"
        )
    if labels.kind == "seg" and not 2 <= labels.classes <= 256:
        raise ValueError(
            f"model.labels.classes = {labels.classes}: label maps have 2 to 256 classes; set the "
            "number of the data set's, which is found where its meta.json or labels.json names them"
        )
    if not direct and labels.channels > labels.feature_dim:
        raise ValueError(
            f"model.labels.feature_dim = {labels.feature_dim}: with super-resolution at least one "
            f"for each of the {labels.channels} classes"
        )
    if reference and labels.encode_pose:
        raise ValueError(
            "model.labels.encode_pose: the published networks are not shown the label map's pose; "
            "set it to False with conventions = reference"
        )
    for name in ("adversarial", "image_l1", "lpips", "labels", "cross_view"):
        if getattr(losses, name) < 0:
            raise ValueError(f"model.label_losses.{name} = {getattr(losses, name)}: 0 or more")
    if losses.cross_view_interval < 1:
        raise ValueError(
            f"model.label_losses.cross_view_interval = {losses.cross_view_interval}: give 1 step "
            "or more"
        )
    if not 0 <= losses.random_pose <= 1:
        raise ValueError(f"model.label_losses.random_pose = {losses.random_pose}: between 0 and 1")
    if labels.palette and len(labels.palette) != labels.classes:
        raise ValueError(
            f"model.labels.palette has {len(labels.palette)} colours for {labels.classes} classes"
        )
    if labels.class_names and len(labels.class_names) != labels.classes:
        raise ValueError(
            f"model.labels.class_names has {len(labels.class_names)} names for {labels.classes} "
            "classes"
        )


def fit_to_labels(
    config: GanModelConfig, names: Sequence[str] | None, palette: Sequence[Sequence[int]] | None
) -> None:
    """Fills in what depends on the data set's label maps and was left open: number, names and
    colours of the classes.

    Raises ValueError where the data set has other classes than the settings.
    """
    labels = config.labels
    if labels.kind != "seg":
        return
    if names and labels.classes not in (0, len(names)):
        raise ValueError(
            f"model.labels.classes = {labels.classes}, but the data set names {len(names)} "
            "classes; set it to 0 to take theirs"
        )
    if labels.classes == 0 and not names:
        raise ValueError(
            "model.labels.classes = 0, and the data set does not name its classes: set it to their "
            'number, or name them in a labels.json, {"classes": ["background", ...]}'
        )
    labels.classes = labels.classes or len(names or ())
    if not labels.class_names:
        given = names or [f"class {number}" for number in range(labels.classes)]
        labels.class_names = tuple(given)
    if not labels.palette:
        given = palette or default_palette(labels.classes)
        labels.palette = tuple((int(r), int(g), int(b)) for r, g, b in given)


def fit_to_cameras(config: GanModelConfig, labels: Tensor) -> None:
    """Fills in what depends on the data set's cameras and was left at 0: near, far, and the
    viewer's camera.

    Near and far hold the box's circumscribed sphere for every camera. Raises ValueError where the
    cameras and the settings do not fit together: cameras outside of the background's sphere, or a
    box that no camera looks at.
    """
    half = math.dist(config.field.box, (0, 0, 0)) / 2
    radius = labels[:, [3, 7, 11]].norm(dim=-1)
    nearest, farthest = float(radius.min()), float(radius.max())
    if config.field.far == 0:
        config.field.near = max(nearest - half, 0.0)
        config.field.far = farthest + half
    if config.background and config.sphere.radius <= farthest:
        raise ValueError(
            f"model.sphere.radius = {config.sphere.radius}: a camera of the data set is "
            f"{farthest:.3f} away from the origin; the background's sphere must be larger"
        )
    pivot = labels.new_tensor(config.view_pivot)
    if config.view_radius == 0:
        config.view_radius = float((labels[:, [3, 7, 11]] - pivot).norm(dim=-1).median())
    if config.view_focal == 0:
        config.view_focal = float(labels[:, 16].median())
    some = labels[:: max(len(labels) // 64, 1)]
    origins, directions = pixel_rays(some, 16, 16)
    near, far = box_interval(
        origins, directions, config.field.box, config.field.near, config.field.far
    )
    if not bool((far > near).any(1).all()):
        raise ValueError(
            f"model.field.box = {config.field.box}: some camera of the data set sees nothing of "
            f"the box between near = {config.field.near} and far = {config.field.far}; the objects "
            "must lie around the world's origin"
        )


def check_labels(config: GanModelConfig, labelled: bool) -> None:
    """Raises ValueError where the settings need camera labels that the data set does not have."""
    if labelled:
        return
    if config.labels.kind != "none":
        raise ValueError(
            f"model.labels.kind = {config.labels.kind}: the data set has no camera labels, and a "
            "label map is one from a known camera; add them to its dataset.json"
        )
    losses, needed = config.losses, []
    if config.discriminator.camera_conditioning:
        needed.append("--pipeline.model.discriminator.camera-conditioning False")
    if losses.camera > 0:
        needed.append(f"--pipeline.model.losses.camera 0 (it is {losses.camera})")
    if losses.wrong_camera > 0:
        needed.append(f"--pipeline.model.losses.wrong-camera 0 (it is {losses.wrong_camera})")
    if needed:
        raise ValueError(f"the data set has no camera labels: set {', '.join(needed)}")


def validate_batch(config: GanModelConfig, batch: int) -> None:
    """Raises ValueError for a number of images per step that the configuration cannot work with."""
    validate_ranges(config)
    if batch < 1:
        raise ValueError(f"datamanager.batch_size = {batch}: give 1 image or more")
    scenes = config.schedule.scenes_per_batch
    if scenes and batch % scenes:
        raise ValueError(
            f"datamanager.batch_size = {batch} is not a multiple of "
            f"model.schedule.scenes_per_batch = {scenes}"
        )
    if batch < 2 and config.losses.wrong_camera > 0:
        raise ValueError(
            f"datamanager.batch_size = {batch}: model.losses.wrong_camera = "
            f"{config.losses.wrong_camera} needs another image's camera; give 2 or more, or set it "
            "to 0"
        )
    group = min(config.discriminator.minibatch_group, batch)
    if config.discriminator.kind == "image" and batch % group:
        raise ValueError(
            f"datamanager.batch_size = {batch} is not a multiple of "
            f"model.discriminator.minibatch_group = {group}"
        )
