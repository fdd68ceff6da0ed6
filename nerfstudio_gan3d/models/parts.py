"""Parts of a generator from their configuration."""

from __future__ import annotations

from typing import Literal

from nerfstudio_gan3d.fields.coded import GrafField, UnisurfField
from nerfstudio_gan3d.fields.decoder import LabelActivation, initial_ball, initial_sphere
from nerfstudio_gan3d.fields.hashgrid import StyleHashGrid
from nerfstudio_gan3d.fields.surface_mlp import ColourMlp, GeometryMlp
from nerfstudio_gan3d.fields.triplane import TriPlane
from nerfstudio_gan3d.models.config import (
    FieldConfig,
    LabelConfig,
    LatentConfig,
    MlpConfig,
    SuperResolutionConfig,
)
from nerfstudio_gan3d.networks.stylegan2 import drop_noise
from nerfstudio_gan3d.networks.superresolution import SuperResolution
from nerfstudio_gan3d.rendering.renderer import Conventions

Representation = Literal["hashgrid", "triplane", "unisurf", "graf"]
AnyField = StyleHashGrid | TriPlane | UnisurfField | GrafField


def make_field(
    representation: Representation,
    latent: LatentConfig,
    field: FieldConfig,
    conventions: Conventions,
    labels: LabelConfig | None = None,
    label_dim: int = 0,
) -> AnyField:
    """The foreground's field; ``label_dim`` label features (0: none)."""
    if representation == "unisurf":
        return unisurf(latent.w_dim, field.mlp)
    if representation == "graf":
        mlp = field.mlp
        sizes = mlp.hidden_dim, mlp.layers, mlp.octaves, mlp.view_octaves, mlp.skip
        return GrafField(latent.w_dim, *sizes, initial_ball if field.initial_ball else None)
    start = initial_sphere if field.volume == "occupancy" else initial_ball
    activation = None if labels is None else label_activation(labels, conventions)
    if representation == "triplane":
        planes = field.triplane
        return TriPlane(
            latent.w_dim,
            field.feature_dim,
            planes.plane_size,
            planes.plane_channels,
            planes.channel_base,
            planes.channel_max,
            field.hidden_dim,
            conventions,
            start if field.initial_ball else None,
            planes.axes,
            label_dim,
            activation,
            latent.separate,
            field.palette,
        )
    grid = field.hashgrid
    return StyleHashGrid(
        latent.w_dim,
        field.feature_dim,
        levels=grid.levels,
        base_resolution=grid.base_resolution,
        max_resolution=grid.max_resolution,
        log2_table_size=grid.log2_table_size,
        features_per_level=grid.features_per_level,
        bases=grid.bases,
        hidden_dim=field.hidden_dim,
        modulation=grid.modulation,
        implementation=grid.implementation,
        initial_density=start if field.initial_ball else None,
        label_dim=label_dim,
        label_activation=activation,
        own_colour=latent.separate,
        growing=field.volume == "occupancy" and field.surface.grow_share > 0,
        palette=field.palette,
    )


def unisurf(code_dim: int, mlp: MlpConfig) -> UnisurfField:
    """UNISURF's networks with a shape and an appearance code of this size."""
    geometry = GeometryMlp(
        code_dim, mlp.hidden_dim, mlp.layers, mlp.hidden_dim, mlp.octaves, (mlp.skip,)
    )
    colour = ColourMlp(
        code_dim,
        mlp.hidden_dim,
        mlp.hidden_dim,
        mlp.colour_layers,
        mlp.view_octaves,
        mlp.normals_in_colour,
    )
    return UnisurfField(geometry, colour)


def make_superresolution(
    config: SuperResolutionConfig,
    neural_resolution: int,
    image_resolution: int,
    w_dim: int,
    conventions: Conventions,
    in_channels: int,
    image_channels: int = 3,
) -> SuperResolution:
    """Super-resolution of colours (3 image channels) or of labels (one a class)."""
    network = SuperResolution(
        config.input_resolution or neural_resolution,
        image_resolution,
        in_channels,
        config.channels,
        w_dim,
        config.clamp,
        config.resize,
        config.antialias,
        image_channels=image_channels,
    )
    if conventions != "reference":
        drop_noise(network)
    return network


def label_features(labels: LabelConfig, direct: bool) -> int:
    """Label features that a position has."""
    return labels.channels if direct else labels.feature_dim


def labels_behind(
    labels: LabelConfig, direct: bool, conventions: Conventions, white_back: bool
) -> tuple[float, ...]:
    """Label features of a ray that ends in nothing.

    They say background (class 0), or paper. The published code gives them the brightness that
    colours have there, which says no class at all.
    """
    count = label_features(labels, direct)
    if conventions == "reference":
        return (float(white_back),) * count
    if labels.kind == "edge":
        return (1.0,) * count
    return (1.0,) + (0.0,) * (count - 1)


def label_activation(labels: LabelConfig, conventions: Conventions) -> LabelActivation:
    """How label features are composited."""
    if labels.kind == "edge":
        return LabelActivation("values", 1)
    return LabelActivation("scores" if conventions == "reference" else "shares", labels.classes)


def geometry_layers(labels: LabelConfig, field: AnyField) -> int:
    """Latents that come from the label map."""
    if labels.geometry_layers:
        return labels.geometry_layers
    return field.num_ws - 1 if isinstance(field, StyleHashGrid) else field.num_ws // 2
