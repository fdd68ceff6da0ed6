"""The viewer's controls: which Scene is shown, in front of what, and from where."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch
from nerfstudio.viewer.viewer_elements import (
    ViewerCheckbox,
    ViewerControl,
    ViewerDropdown,
    ViewerParameter,
    ViewerRGB,
    ViewerSlider,
)
from viser import ClientHandle

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.latents import SceneRequest, has_codes
from nerfstudio_gan3d.models.outputs import Backdrop
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork
from nerfstudio_gan3d.viewer.camera import first_camera
from nerfstudio_gan3d.viewer.fair_lock import FairLock
from nerfstudio_gan3d.viewer.label_editor import LabelEditor
from nerfstudio_gan3d.viewer.pace import keep_pace
from nerfstudio_gan3d.viewer.sliders import CodeControls, ViewerLevels

if TYPE_CHECKING:
    from nerfstudio.viewer.control_panel import ControlPanel
    from nerfstudio.viewer.viewer import Viewer

    from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig

OUTPUTS = ("rgb", "foreground", "background", "depth", "accumulation", "normals")
LABELS = "labels"
"""Output of models with labels."""
OWN, OTHER_SEED, COLOUR, REMOVED = "own", "another seed's", "plain colour", "removed"
# The sliders end here unless the configuration names a larger seed.
LARGEST_SEED = 999
# `seed_latent` doubles a seed, and torch's generators take 64 bits.
MAXIMUM_SEED = 2**62 - 1

# Default of "Max res", the longer side of the picture when nothing moves, for direct rendering on a
# CPU.
CPU_MAX_RES = 256
# While training, the training waits as long as a picture takes.
CPU_TRAINING_MAX_RES = 160


class SceneControls(ViewerControl):
    """What a user can choose in the viewer, and its defaults where there is none.

    nerfstudio finds this object on the model by its type and calls `_setup` once, where the
    controls are put into one folder in their own order. It is not a module, so a checkpoint knows
    nothing of it. Without a viewer (ns-render, ns-export) the values are those of the model's
    configuration.

    Args:
        model: the model that shows the Scene; its configuration and the sizes of its generator are
        read.

    Raises:
        ValueError: If the configured seeds or truncation cannot be shown.
    """

    def __init__(self, model: GanModel) -> None:
        config = model.config
        _validate(config)
        self._config = config
        self._panel: ControlPanel | None = None
        self._training = False
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
        choices = [OWN, COLOUR, REMOVED]
        if config.background:
            choices.insert(1, OTHER_SEED)
        chosen = OWN if config.background_seed is None else OTHER_SEED
        self.background = ViewerDropdown[str](
            "Background", chosen, choices, hint="What is behind the object"
        )
        self.background_seed = ViewerSlider(
            "Background seed", config.background_seed or 0, 0, seeds, 1
        )
        self.colour = ViewerRGB(
            "Colour",
            (255, 255, 255),
            hint="Behind the output `foreground`, and with a plain colour behind `rgb`",
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

    def backdrop(self) -> Backdrop:
        """What stands behind the foreground; another seed's background is part of the `request`."""
        red, green, blue = (channel / 255 for channel in self.colour.value)
        if self.background.value == COLOUR:
            return Backdrop("colour", (red, green, blue))
        if self.background.value == REMOVED:
            return Backdrop("removed", (red, green, blue))
        return Backdrop("own", (red, green, blue))

    @property
    def watched(self) -> bool:
        """Whether a viewer shows what the controls name, while nothing trains."""
        return self._panel is not None and not self._training

    def shown_output(self) -> str | None:
        """The only output that is looked at; None without a viewer or where its screen is split.

        Without super-resolution the other outputs are complete but for normals, so then one of the
        two of a split screen stands for both.
        """
        if self._panel is None:
            return None
        if not self._panel.split:
            return self._panel.output_render
        if self._config.has_super_resolution:
            return None
        chosen = self._panel.output_render, self._panel.split_output_render
        return "normals" if "normals" in chosen else chosen[0]

    def _setup(self, viewer: Viewer) -> None:
        """Puts the controls into the viewer; nerfstudio calls it when the viewer starts."""
        super()._setup(viewer)
        self._panel = viewer.control_panel
        self._training = viewer.trainer is not None
        # nerfstudio learns the outputs from the first picture; the choice is known before it.
        shown = OUTPUTS if self.labels is None else (*OUTPUTS, LABELS)
        self._panel.update_output_options(list(shown))
        model = viewer.get_model()
        if model.device.type == "cpu" and not self._config.has_super_resolution:
            training = viewer.trainer is not None
            self._panel._max_res.value = CPU_TRAINING_MAX_RES if training else CPU_MAX_RES
        if viewer.trainer is None:
            viewer.pause_train.visible = False
        else:
            # nerfstudio uses it in `with` statements only.
            viewer.trainer.train_lock = viewer.train_lock = FairLock()  # type: ignore[assignment]
        if viewer.config.max_num_display_images == 0:
            viewer.hide_images.visible = False
        # Between nerfstudio's statistics and its tabs.
        order = viewer.stats_markdown.order + 0.5
        with viewer.viser_server.gui.add_folder("Scene", order=order):
            for element in self._elements():
                element.install(viewer.viser_server)
                # Called without the lock that a running render holds, so that a change interrupts
                # it.
                element.cb_hook = self._changed
            reset = viewer.viser_server.gui.add_button("Reset view")
            reset.on_click(lambda event: event.client and self._place_camera(event.client))
        self._show_what_applies()
        if self.labels is not None:
            # It reads data sets, which nothing that models import does.
            from nerfstudio_gan3d.viewer.label_panel import LabelPanel

            LabelPanel(self.labels, viewer, order + 0.25)
        viewer.viser_server.on_client_connect(self._greet)

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

    def _show_what_applies(self) -> None:
        """Hides the controls that the others switch off."""
        applies = {
            self.mix_seed: self.mix.value,
            self.mix_levels: self.mix.value,
            self.background_seed: self.background.value == OTHER_SEED,
            self.conditioning_azimuth: self.conditioning.value,
            self.conditioning_elevation: self.conditioning.value,
        }
        for element, shown in applies.items():
            if element.gui_handle is not None:
                element.set_visible(shown)

    def _changed(self, element: ViewerParameter) -> None:
        if element in (self.mix, self.background, self.conditioning):
            self._show_what_applies()
        # Training stops for a tenth of a second after a move of the camera; a slider deserves the
        # same.
        self.viewer.last_move_time = time.time()  # type: ignore[assignment]
        self.viewer._trigger_rerender()

    def _greet(self, client: ClientHandle) -> None:
        """Prepares a browser that has just connected."""
        keep_pace(self.viewer.render_statemachines[client.client_id])
        self._place_camera(client)

    def _place_camera(self, client: ClientHandle) -> None:
        config = self._config
        camera = first_camera(
            config.view_radius, config.view_pivot, config.view_focal, client.camera.aspect
        )
        with client.atomic():
            client.camera.up_direction = (0.0, 0.0, 1.0)
            client.camera.position = camera.position
            client.camera.look_at = camera.look_at
            client.camera.fov = camera.fov


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
