"""What an official pix2pix3D network says of its label maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from nerfstudio_gan3d.data.palettes import SEG2CAT_CLASSES, SEG2FACE_CLASSES, default_palette
from nerfstudio_gan3d.models.config import DiscriminatorConfig, LabelConfig
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.models.pix2pix3d import pix2pix3d, pix2pix3d_edges, pix2pix3d_faces, small
from nerfstudio_gan3d.snapshots import checked
from nerfstudio_gan3d.snapshots.reader import SnapshotError, SnapshotModule

CARS_FOCAL = 1.7074
"""Focal length in image sides of pix2pix3D's cars, whose cameras are not those of EG3D's."""
SMALL = 128
"""Largest side of images that the small presets are for, pixels."""
NEEDED = (
    "backbone.mapping.embed_mask.projector.weight",
    "decoder.net_semantic.2.weight",
    "superresolution_semantic.block1.torgb.weight",
)
"""Tensors that a generator with labels has beside those of EG3D."""
_BLOCK = r"backbone\.mapping\.embed_mask\.b(\d+)\.conv0\.weight"
_NAMED = {
    len(SEG2CAT_CLASSES): ("the published cats", SEG2CAT_CLASSES),
    len(SEG2FACE_CLASSES): ("CelebAMask-HQ", SEG2FACE_CLASSES),
}
"""Whose classes so many are, and their names."""


def has_labels(state: Mapping[str, Tensor]) -> bool:
    """Whether a generator's tensors are those of a network with labels."""
    return any("semantic" in name or ".embed_mask." in name for name in state)


def label_settings(
    state: Mapping[str, Tensor], generator: SnapshotModule, notes: list[str]
) -> tuple[str, GanModelConfig]:
    """The method that a generator with labels is a model of, and its preset with these labels.

    Classes are found in the output of the labels' super-resolution, the latents that the label map
    decides in the encoder's projector, and the side of the maps in its blocks.

    Raises:
        SnapshotError: If it is an official network with labels that does not exist here, or its
            shapes contradict each other.
    """
    _check_classes(generator)
    labels = LabelConfig(encode_pose=False)
    classes = checked.shape(state, "superresolution_semantic.block1.torgb.weight", 4)[0]
    labels.kind, labels.classes = "edge" if classes == 1 else "seg", classes
    w_dim = checked.shape(state, "backbone.mapping.w_avg", 2)[1]
    outputs, features = checked.shape(state, "backbone.mapping.embed_mask.projector.weight", 4)[:2]
    if outputs % w_dim:
        raise SnapshotError(
            f"the label encoder gives {outputs} numbers, which are no whole latents of {w_dim}"
        )
    labels.geometry_layers = outputs // w_dim
    widths = checked.channels(state, _BLOCK, 0) | {4: features}
    labels.encoder_base, labels.encoder_max = checked.channel_rule(widths, "the label encoder")
    # The first of the decoder's outputs is the density.
    labels.feature_dim = checked.shape(state, "decoder.net_semantic.2.weight", 2)[0] - 1
    if not 1 <= classes <= min(labels.feature_dim, 256):
        raise SnapshotError(
            f"the labels have {classes} classes and {labels.feature_dim} features; there must be "
            "at least a feature for each class, and at most 256 classes"
        )
    _name_classes(labels, notes)
    method, settings = _preset(labels, max(widths))
    settings.labels = labels
    settings.image_resolution = max(widths)
    return method, settings


def check_label_stage(generator: SnapshotModule, stage: str) -> None:
    """Raises SnapshotError unless labels have the super-resolution of colours, ``stage``."""
    module = generator.at("superresolution_semantic")
    named = "" if module is None else module.class_name.removesuffix("_semantic")
    if named.startswith("Superresolution") and named != stage:
        raise SnapshotError(
            f"super-resolution of labels is {named} and that of colours {stage}; one for both is "
            "needed"
        )


def check_label_discriminator(
    network: SnapshotModule, found: DiscriminatorConfig, settings: GanModelConfig
) -> None:
    """Raises SnapshotError unless D_semantic goes with D and with the generator's classes.

    Args:
        network: D_semantic.
        found: its settings.
        settings: of the model, with those of D.
    """
    for item in dataclasses.fields(found):
        own, other = getattr(found, item.name), getattr(settings.discriminator, item.name)
        if own != other:
            raise SnapshotError(
                f"D_semantic has {item.name} = {own} and D has {other}; both must be alike"
            )
    name = f"b{settings.image_resolution}.fromrgb.weight"
    inputs = checked.shape(network.state_dict(), name, 4)[1]
    # The image and its labels, and both as they were rendered.
    expected = 2 * (3 + settings.labels.channels)
    if inputs != expected:
        raise SnapshotError(
            f"D_semantic takes {inputs} channels; labels of {settings.labels.channels} channels "
            f"beside an image, twice, are {expected}"
        )


def _check_classes(generator: SnapshotModule) -> None:
    """Some official networks with labels differ in what they do, and not in their tensors."""
    for path, known, kind in (
        ("backbone.mapping", "_disentangle", "MappingNetwork"),
        ("decoder", "_semantic_lateSeparate", "OSGDecoder"),
    ):
        module = generator.at(path)
        name = "" if module is None else module.class_name
        if kind in name and not name.endswith(known):
            raise SnapshotError(
                f"{path} is a {name}; of pix2pix3D's networks those of the published files can be "
                f"read, whose {path} has a name that ends in {known}"
            )


def _name_classes(labels: LabelConfig, notes: list[str]) -> None:
    if labels.kind == "edge":
        return
    count = labels.classes
    labels.palette = default_palette(count)
    if count in _NAMED:
        whose, labels.class_names = _NAMED[count]
        notes.append(f"the file does not name its {count} classes: those of {whose} were assumed")
    else:
        labels.class_names = tuple(f"class {number}" for number in range(count))
        notes.append(f"the file does not name its {count} classes: they have numbers")


def _preset(labels: LabelConfig, resolution: int) -> tuple[str, GanModelConfig]:
    """The registered method for such label maps; losses and schedules are its own."""
    edges, little = labels.kind == "edge", resolution <= SMALL
    if labels.classes == len(SEG2FACE_CLASSES) and not little:
        return "gan3d-pix2pix3d-faces", pix2pix3d_faces()
    name = "gan3d-pix2pix3d-edge" if edges else "gan3d-pix2pix3d"
    settings = pix2pix3d_edges() if edges else pix2pix3d()
    return (f"{name}-128", small(settings)) if little else (name, settings)
