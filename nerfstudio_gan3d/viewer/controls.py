"""The viewer's controls: which Scene is shown, in front of what, and from where."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from nerfstudio.viewer.viewer_elements import (
    ViewerCheckbox,
    ViewerParameter,
    ViewerSlider,
)

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.latents import SceneRequest, has_codes
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork
from nerfstudio_gan3d.viewer.label_editor import LabelEditor
from nerfstudio_gan3d.viewer.sliders import CodeControls, ViewerLevels
from nerfstudio_gan3d.viewer.view_controls import COLOUR, OUTPUTS, OWN, REMOVED, ViewControls

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig

LABELS = "labels"
"""Output of models with labels."""
OTHER_SEED = "another seed's"
# The sliders end here unless the configuration names a larger seed.
LARGEST_SEED = 999
# `seed_latent` doubles a seed, and torch's generators take 64 bits.
MAXIMUM_SEED = 2**62 - 1


class SceneControls(ViewControls):
    """Seeds, truncation, style mixing and backgrounds of a GAN; see `ViewControls`.

    Args:
        model: the model that shows the Scene; its configuration and the sizes of its generator are
        read.

    Raises:
        ValueError: If the configured seeds or truncation cannot be shown.
    """

    def __init__(self, model: GanModel) -> None:
        config = model.config
        _validate(config)
        chosen = OWN if config.background_seed is None else OTHER_SEED
        choices = (
            (OWN, OTHER_SEED, COLOUR, REMOVED) if config.background else (OWN, COLOUR, REMOVED)
        )
        super().__init__(config, choices, chosen)
        self._config: GanModelConfig = config
        self._levels = model.generator.field.num_ws
        self.labels: LabelEditor | None = None
        if model.label_store is not None:
            self.labels = LabelEditor(
                model.generator_ema,
                model.label_store,
                config.view_radius,
                config.view_pivot,
                config.view_focal,
            )
        mapping = model.generator.mapping
        # Levels before these come from the label map, whatever the seed.
        free = mapping.geometry_layers if isinstance(mapping, LabelMappingNetwork) else 0
        seeds = max(LARGEST_SEED, config.seed, config.background_seed or 0)
        coded = has_codes(model.generator)
        self.codes = CodeControls(config.seed, seeds) if coded else None
        # Two latents are the codes themselves, which have seeds of their own.
        self._mixes = self._levels - free > (2 if coded else 1)
        named = "Shape seed" if coded else "Seed"
        self.seed = ViewerSlider(named, config.seed, 0, seeds, 1, hint=self._seed_hint())
        self.truncation = ViewerSlider(
            "Truncation",
            float(config.truncation),
            0.0,
            max(1.0, float(config.truncation)),
            0.01,
            hint="Psi: 1 is the full variety, 0 the mean object"
            + ("" if self.labels is None else ", of label maps as well as seeds"),
        )
        cutoff = config.truncation_cutoff
        self.truncation_cutoff = ViewerSlider(
            "Truncated levels",
            self._levels if cutoff is None else min(cutoff, self._levels),
            0,
            self._levels,
            1,
            hint="How many levels truncation acts on, from the coarsest",
        )
        self.other_seed = ViewerSlider(
            "Other seed", min(config.seed + 1, seeds), 0, seeds, 1, hint="Where the path below ends"
        )
        self.interpolation = ViewerSlider(
            "Shape: towards other seed" if coded else "Interpolation",
            0.0,
            0.0,
            1.0,
            0.01,
            hint="0 shows the seed, 1 the other seed",
        )
        self.mix = ViewerCheckbox("Mix styles", False, hint="Take some levels from another seed")
        self.mix_seed = ViewerSlider("Mixing seed", min(config.seed + 1, seeds), 0, seeds, 1)
        self.mix_levels = ViewerLevels(
            "Mixed levels",
            (free, self._levels - 1),
            (free, max((self._levels - 1) // 2, free)),
            "First and last level taken from the mixing seed; low levels are coarse",
        )
        self.background_seed = ViewerSlider(
            "Background seed", config.background_seed or 0, 0, seeds, 1
        )
        self.conditioning = ViewerCheckbox(
            "Conditioning pose",
            False,
            hint="Tell the generator a camera; otherwise the neutral one",
        )
        self.conditioning_azimuth = ViewerSlider("Pose azimuth", 0.0, -180.0, 180.0, 1.0)
        self.conditioning_elevation = ViewerSlider("Pose elevation", 0.0, -89.0, 89.0, 1.0)

    def _seed_hint(self) -> str:
        if self.codes is not None:
            return "Which shape is shown, and before which background"
        if self.labels is None:
            return "Which object is shown"
        return "Colours and materials alone: the label map decides the shape"

    def request(self) -> SceneRequest:
        """The Scene that the controls name at this moment."""
        path = float(self.interpolation.value)
        codes = self.codes
        look = path if codes is None else float(codes.interpolation.value)
        moves = max(path, look) > 0
        edit = None if self.labels is None else self.labels.now
        first, last = sorted(self.mix_levels.value)
        return SceneRequest(
            seed=int(self.seed.value),
            background_seed=(
                int(self.background_seed.value) if self.background.value == OTHER_SEED else None
            ),
            truncation=float(self.truncation.value),
            truncation_cutoff=self._cutoff(),
            other_seed=int(self.other_seed.value) if moves else None,
            interpolation=path,
            mix_seed=int(self.mix_seed.value) if self.mix.value else None,
            mix_levels=tuple(range(first, last + 1)) if self.mix.value else (),
            camera_label=self._camera_label(),
            label=0 if edit is None else edit.label,
            appearance=None if edit is None else edit.appearance,
            appearance_seed=None if codes is None else int(codes.seed.value),
            appearance_interpolation=look if moves and codes is not None else None,
        )

    def _cutoff(self) -> int | None:
        chosen = int(self.truncation_cutoff.value)
        # Without truncation it means nothing, and the same Scene should have one request.
        return None if chosen == self._levels or float(self.truncation.value) == 1 else chosen

    def _camera_label(self) -> tuple[float, ...] | None:
        config = self._config
        if not (config.latent.pose_conditioning and self.conditioning.value):
            return None
        azimuth = torch.tensor([math.radians(self.conditioning_azimuth.value)])
        elevation = torch.tensor([math.radians(self.conditioning_elevation.value)])
        label = orbit_labels(
            azimuth, elevation, config.view_radius, config.view_pivot, config.view_focal
        )
        return tuple(label[0].tolist())

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return OUTPUTS if self.labels is None else (*OUTPUTS, LABELS)

    def _add_panel(self, viewer: Viewer, order: float) -> None:
        if self.labels is not None:
            # It reads data sets, which nothing that models import does.
            from nerfstudio_gan3d.viewer.label_panel import LabelPanel

            LabelPanel(self.labels, viewer, order)

    def _elements(self) -> list[ViewerParameter]:
        """All controls that mean something for this model, in the order of the screen."""
        elements: list[ViewerParameter] = [
            self.seed,
            self.truncation,
            self.other_seed,
            self.interpolation,
        ]
        if self._levels > 1:
            elements.insert(2, self.truncation_cutoff)
        if self.codes is not None:
            elements.insert(1, self.codes.seed)
            elements.append(self.codes.interpolation)
        if self._mixes:
            elements += [self.mix, self.mix_seed, self.mix_levels]
        elements.append(self.background)
        if self._config.background:
            elements.append(self.background_seed)
        elements.append(self.colour)
        latent = self._config.latent
        # With a label map its own camera is what the generator is told.
        if latent.pose_conditioning and latent.pose_scale != 0 and self.labels is None:
            elements += [self.conditioning, self.conditioning_azimuth, self.conditioning_elevation]
        return elements

    def _applies(self) -> dict[ViewerParameter, bool]:
        """Controls that others switch off, and whether they mean something now."""
        mixes, poses = bool(self.mix.value), bool(self.conditioning.value)
        return {
            self.mix_seed: mixes,
            self.mix_levels: mixes,
            self.background_seed: self.background.value == OTHER_SEED,
            self.conditioning_azimuth: poses,
            self.conditioning_elevation: poses,
        }


def _validate(config: GanModelConfig) -> None:
    if config.background_seed is not None and not config.background:
        raise ValueError(
            f"model.background_seed = {config.background_seed}: this model has no background; "
            "leave it at None"
        )
    for name in ("seed", "background_seed"):
        seed = getattr(config, name)
        if seed is not None and not 0 <= seed <= MAXIMUM_SEED:
            raise ValueError(f"model.{name} = {seed}: choose a seed from 0 to {MAXIMUM_SEED}")
    if not 0 <= config.truncation <= 2:
        raise ValueError(f"model.truncation = {config.truncation}: choose psi from 0 to 2")
    if config.truncation_cutoff is not None and config.truncation_cutoff < 0:
        raise ValueError(
            f"model.truncation_cutoff = {config.truncation_cutoff}: choose 0 or more levels"
        )
