"""The generator of BallGAN and EG3D: Condition -> latents -> Scene -> images. Plain torch."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import LABEL_SIZE, pixel_rays
from nerfstudio_gan3d.fields.hashgrid import StyleHashGrid
from nerfstudio_gan3d.fields.sphere import BoundSphere, SphereBackground
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.models.config import (
    BackgroundConfig,
    FieldConfig,
    LabelConfig,
    LatentConfig,
    SuperResolutionConfig,
)
from nerfstudio_gan3d.models.parts import (
    Representation,
    geometry_layers,
    labels_behind,
    make_field,
    make_superresolution,
)
from nerfstudio_gan3d.models.scene_generator import Images, SceneGenerator
from nerfstudio_gan3d.networks.codes import CodeMapping
from nerfstudio_gan3d.networks.label_encoder import LabelEncoder, LabelMappingNetwork
from nerfstudio_gan3d.networks.stylegan2 import MappingNetwork, truncate
from nerfstudio_gan3d.rendering.renderer import Conventions, RenderSettings
from nerfstudio_gan3d.rendering.surface import shell_width
from nerfstudio_gan3d.scene import Bounds, Condition, Scene

RAY_CHANNELS = 6
"""Origin and direction of a pixel's ray."""


class Latents(NamedTuple):
    """Intermediate latents w, one a layer."""

    foreground: Float[Tensor, "b l w"]
    background: Float[Tensor, "b *m w"] | None


class Generator(SceneGenerator):
    """Latents to Scenes to images.

    Args:
        latent, field, background, super_resolution: sizes; ``background=None`` is EG3D (rays end in
        black),
            ``super_resolution=None`` renders the final image directly.
        representation: hashgrid or triplane.
        settings: samples along rays and the rules of sampling.
        neural_resolution: side of the rendered image that super-resolution takes.
        image_resolution: side of the final image.
        conventions: rules that the networks follow; None are those of sampling.
        labels: label maps that Scenes are made from; None for models without.
    """

    training_share: Tensor | None

    def __init__(
        self,
        representation: Representation,
        latent: LatentConfig,
        field: FieldConfig,
        background: BackgroundConfig | None,
        super_resolution: SuperResolutionConfig | None,
        settings: RenderSettings,
        neural_resolution: int,
        image_resolution: int,
        conventions: Conventions | None = None,
        labels: LabelConfig | None = None,
    ) -> None:
        super().__init__(settings, neural_resolution, image_resolution, conventions, labels)
        self.latent = latent
        self.bounds = Bounds(field.box, field.near, field.far)
        self.density_scale = field.density_scale
        self.white_back = field.white_back
        self.volume: Literal["density", "occupancy"] = field.volume
        self.surface = field.surface
        # Part of a checkpoint: slope and shell belong to the weights that were trained with them.
        share = torch.zeros(()) if field.volume == "occupancy" else None
        self.register_buffer("training_share", share)
        conventions = self.conventions
        direct = super_resolution is None
        self.behind_labels: tuple[float, ...] = ()
        if labels is not None:
            self.behind_labels = labels_behind(labels, direct, conventions, field.white_back)
        self.field = make_field(
            representation, latent, field, conventions, labels, len(self.behind_labels)
        )
        self.mapping = self._make_mapping(latent, labels)
        self.background: SphereBackground | None = None
        self.background_mapping: MappingNetwork | None = None
        if background is not None:
            self.background = SphereBackground(
                latent.w_dim,
                field.feature_dim,
                background.hidden_dim,
                background.layers,
                background.radius,
                background.octaves,
                conventions,
                latent.z_dim if background.version == "ver0" else 0,
            )
        if background is not None and background.version == "ver1":
            assert self.background is not None
            self.background_mapping = MappingNetwork(
                latent.z_dim,
                0,
                latent.w_dim,
                self.background.num_ws,
                background.mapping_layers,
                latent.lr_multiplier,
            )
        if super_resolution is not None:
            sizes = neural_resolution, image_resolution, latent.w_dim, conventions
            self.superresolution = make_superresolution(super_resolution, *sizes, field.feature_dim)
            self.superresolution_noise = super_resolution.noise
            if labels is not None:
                self.superresolution_labels = make_superresolution(
                    super_resolution, *sizes, labels.feature_dim, labels.channels
                )

    def _make_mapping(
        self, latent: LatentConfig, labels: LabelConfig | None
    ) -> MappingNetwork | CodeMapping:
        if latent.separate:
            return CodeMapping(
                latent.z_dim,
                latent.w_dim,
                self.field.num_ws,
                latent.mapping_layers,
                latent.lr_multiplier,
            )
        sizes = (
            latent.z_dim,
            LABEL_SIZE if latent.pose_conditioning else 0,
            latent.w_dim,
            self.field.num_ws,
            latent.mapping_layers,
            latent.lr_multiplier,
        )
        if labels is None:
            return MappingNetwork(*sizes)
        encoder = LabelEncoder(
            self.image_resolution,
            labels.channels + (RAY_CHANNELS if labels.encode_pose else 0),
            geometry_layers(labels, self.field),
            latent.w_dim,
            labels.encoder_base,
            labels.encoder_max,
        )
        return LabelMappingNetwork(encoder, *sizes)

    def map(
        self,
        condition: Condition,
        truncation: float = 1.0,
        cutoff: int | None = None,
        background_truncation: float | None = None,
    ) -> Latents:
        """Latents w of a condition, pulled towards their mean by truncation psi.

        ``background_truncation=None`` uses the foreground's psi. Raises ValueError where the
        condition lacks a latent that this generator needs.
        """
        label = condition.camera_label
        if self.latent.pose_conditioning and label is None:
            neutral = self.latent.neutral_pose or (0.0,) * LABEL_SIZE
            label = condition.z.new_tensor(neutral).expand(len(condition.z), -1)
        if label is not None and self.latent.pose_scale != 1:
            label = label * self.latent.pose_scale
        pose = label if self.latent.pose_conditioning else None
        if isinstance(self.mapping, LabelMappingNetwork):
            ws = self.mapping(condition.z, pose, self._encoder_input(condition))
        else:
            ws = self.mapping(condition.z, pose)
        ws = truncate(ws, self.mapping.w_avg, truncation, cutoff)
        behind = None
        if self.background is not None:
            behind = condition.z_background
            if behind is None:
                raise ValueError(
                    "the condition has no z_background, but this generator has a sphere"
                )
        if self.background_mapping is not None:
            psi = truncation if background_truncation is None else background_truncation
            behind = self.background_mapping(behind)
            behind = truncate(behind, self.background_mapping.w_avg, psi, cutoff)
        return Latents(ws, behind)

    def _encoder_input(self, condition: Condition) -> Float[Tensor, "b c r r"]:
        """The label map, and the origin and direction of each of its pixels' rays."""
        assert self.labels is not None
        found, pose = condition.label_map, condition.camera_label
        if found is None:
            raise ValueError("the condition has no label_map, but this generator needs one")
        if not self.labels.encode_pose:
            return found
        if pose is None:
            raise ValueError(
                "the condition has no camera_label, but this generator needs to know where its "
                "label map is seen from"
            )
        height, width = found.shape[2:]
        rays = torch.cat(pixel_rays(pose, height, width), dim=-1)  # [B, R, 6]
        return torch.cat([found, rays.mT.unflatten(2, (height, width))], dim=1)

    def scene(self, latents: Latents) -> Scene:
        """The Scene of these latents; rays need no network of the generator's but the field's
        decoder."""
        prepared = self.field.prepare(latents.foreground)
        slope, shell = self._surface_now()
        background = None
        if self.background is not None and latents.background is not None:
            background = BoundSphere(self.background, latents.background)
        return Scene(
            BoundField(self.field, prepared, self.bounds.box, slope),
            self.bounds,
            len(latents.foreground),
            background,
            self.density_scale,
            latents.foreground[:, -1],
            1.0 if self.white_back else 0.0,
            self.behind_labels,
            self.volume,
            shell,
        )

    @torch.no_grad()
    def set_training_share(self, share: float) -> None:
        """Tells how much of training is done, 0..1: what surfaces are rendered like depends on
        it."""
        if self.training_share is not None:
            self.training_share.fill_(share)
        if isinstance(self.field, StyleHashGrid) and self.surface.grow_share > 0:
            self.field.grow(min(share / self.surface.grow_share, 1.0))

    def _surface_now(self) -> tuple[float, float]:
        """Slope of the occupancy, and half width of the shell in object-world units; infinite where
        the shell holds the whole ray."""
        if self.training_share is None:
            return 1.0, math.inf
        surface, share = self.surface, float(self.training_share)
        slope = surface.slope + (surface.slope_final - surface.slope) * share
        decay = math.log(surface.shell_start / surface.shell_end) / max(surface.shell_share, 1e-9)
        width = shell_width(share, surface.shell_start, surface.shell_end, decay)
        if width >= 1:
            return slope, math.inf
        return slope, width * max(self.bounds.box) / 2

    def update_averages(self, latents: Latents) -> None:
        """Move the running means of w towards this (untruncated) batch."""
        self.mapping.update_w_avg(latents.foreground)
        if self.background_mapping is not None and latents.background is not None:
            self.background_mapping.update_w_avg(latents.background)

    def forward(self, condition: Condition, labels: Float[Tensor, "b 25"]) -> Images:
        """Conditions straight to images, deterministic."""
        return self.render(self.scene(self.map(condition)), labels)
