"""The viewer's folder "Label map": choose a label map, paint, undo, take an appearance, save."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from viser import ClientHandle, GuiEvent

from nerfstudio_gan3d.data.datamanager import GanDataManager
from nerfstudio_gan3d.data.label_maps import decode_label_file
from nerfstudio_gan3d.data.palettes import class_colours
from nerfstudio_gan3d.latents import STORED_MAPS, Appearance, LabelView, request_latents
from nerfstudio_gan3d.models.appearance import STEPS, fit_appearance
from nerfstudio_gan3d.viewer.camera import camera_at
from nerfstudio_gan3d.viewer.label_editor import LabelEditor
from nerfstudio_gan3d.viewer.label_files import (
    class_names,
    load_edit,
    map_pixels,
    save_edit,
    saved_edits,
)
from nerfstudio_gan3d.viewer.label_painting import LabelBrush, legend
from nerfstudio_gan3d.viewer.panel import Panel, as_text, data_url, look_from, set_choices

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from nerfstudio_gan3d.models.gan import GanModel

TITLE = "Label map"
KEPT, OWN = [str(index) for index in range(STORED_MAPS)], "my own"
UNDO, REDO, RESET = "Undo", "Redo", "Reset"
STEPS_BACK: list[str] = [UNDO, REDO, RESET]
FOLDER = "label_edits"
"""Where edits are saved, beside the run's config.yml."""


class LabelPanel(Panel):
    """All controls for label maps, and what they do.

    Args:
        editor: what they show and change.
        viewer: nerfstudio's viewer, which is just being built.
        order: place of the folder among the others.
    """

    def __init__(self, editor: LabelEditor, viewer: Viewer, order: float) -> None:
        super().__init__(TITLE, viewer)
        self._editor = editor
        self._folder = viewer.log_filename.parent / FOLDER
        self._data = labelled_images(viewer.pipeline.datamanager)
        self._searching = threading.Lock()
        with self._gui.add_folder(TITLE, order=order):
            self._add_sources()
            # Without a folder viser warns of pictures that are read from its own; none is read.
            self._picture = self._gui.add_markdown("", image_root=self._folder)
            self.brush = LabelBrush(editor, viewer, lambda: self._model.scene().scene, self.do)
            self._add_steps()
            self._add_appearance()
            if editor.labels.kind != "edge":
                names = [as_text(name) for name in class_names(editor.labels)]
                self._gui.add_markdown(legend(names, class_colours(editor.labels)))
        self._refresh()

    def _add_sources(self) -> None:
        self._kept = self._gui.add_dropdown(
            "Kept map",
            KEPT,
            hint="Label maps of the data set that the checkpoint carries",
        )
        self._kept.on_update(self._event(self._choose))
        upload = self._gui.add_upload_button(
            "Load a file",
            mime_type="image/*",
            hint="An image of class ids or of the classes' colours (edge maps: grey); it counts as "
            "seen from where you stand now",
        )
        upload.on_upload(self._event(self._upload))
        self._saved = self._gui.add_dropdown("Saved edit", [""], hint="What Save wrote")
        self._load_saved = self._button(
            "Load saved edit", self._load, "Label map, its view and its appearance"
        )
        self._button("Go to its view", self._go_to_view, "Look from where the map is seen from")

    def _add_steps(self) -> None:
        self._steps = self._gui.add_button_group(
            "Strokes", STEPS_BACK, hint="Reset returns to the map as it was chosen"
        )
        self._steps.on_click(self._event(self._step))
        self._no_step()
        self._button(
            "Labels beside image",
            self._beside,
            "Split screen: image on the left, labels on the right; press again to end it",
        )
        self._button("Save", self._save, f"Label map, its view and appearance, into {FOLDER}/")

    def _no_step(self) -> None:
        # viser tells of a button of a group only if it is not the one that was pressed before.
        self._steps.value = ""

    def _add_appearance(self) -> None:
        self._status = self._gui.add_markdown("")
        self._seeds = self._button(
            "Appearance of the seed",
            lambda _, __: self._editor.wear(None),
            "Let Seed, Other seed and Interpolation choose it again",
        )
        if self._data is None:
            return
        last = len(self._data.image_set) - 1
        self._number = self._gui.add_number(
            "Image number", 0, 0, last, 1, hint="Which image of the data set"
        )
        self._button("Label map of this image", self._take_map)
        self._button(
            "Appearance of this image",
            self._take_appearance,
            "Search for the latent with which the image's own label map looks most like it",
        )

    def _step(self, event: GuiEvent[Any], _: ClientHandle) -> str | None:
        step = event.target.value
        self._no_step()
        taken = {UNDO: self._editor.undo, REDO: self._editor.redo, RESET: self._editor.reset}
        nothing = {
            UNDO: "there is nothing to undo",
            REDO: "there is nothing to redo",
            RESET: "nothing was painted on this label map",
        }
        return None if taken[step]() else nothing[step]

    def _choose(self, event: GuiEvent[Any], _: ClientHandle) -> None:
        if event.target.value in KEPT:
            self._editor.choose(int(event.target.value))

    def _upload(self, event: GuiEvent[Any], client: ClientHandle) -> str:
        labels, file = self._editor.labels, event.target.value
        assert labels.kind != "none"
        palette = () if labels.kind == "edge" else class_colours(labels)
        ids = decode_label_file(
            file.content, file.name, labels.kind, labels.classes, palette, self._editor.side
        )
        pose = self._editor.pose_for(self.brush.camera(client))
        self._editor.load(LabelView(torch.from_numpy(ids)[None, None], pose), file.name)
        return f"{file.name} is the label map now, as if seen from where you stand"

    def _load(self, _: GuiEvent[Any], __: ClientHandle) -> str:
        name = self._saved.value
        size = self._model.generator_ema.latent.w_dim
        path = self._folder / name
        view, appearance = load_edit(path, self._editor.labels, self._editor.side, size)
        self._editor.load(view, f"saved edit {name}", appearance)
        return f"{path} is shown; Go to its view leads to where it is seen from"

    def _go_to_view(self, _: GuiEvent[Any], client: ClientHandle) -> None:
        pivot = self._model.config.view_pivot
        pose = self._editor.view.pose
        if float((pose[0, [3, 7, 11]] - torch.tensor(pivot)).norm()) == 0:
            raise ValueError("this label map is seen from no place; choose or load another one")
        look_from(client, camera_at(pose, pivot, client.camera.aspect))

    def _beside(self, _: GuiEvent[Any], __: ClientHandle) -> None:
        panel = self._viewer.control_panel
        if panel.split and panel.output_render == "rgb" and panel.split_output_render == "labels":
            panel._split.value = False
            return
        panel._output_render.value = "rgb"
        panel._split_output_render.value = "labels"
        panel._split.value = True

    def _save(self, _: GuiEvent[Any], __: ClientHandle) -> str:
        model = self._model
        with torch.no_grad():
            latents = request_latents(model.generator_ema, model.request()[0], model.label_store)
        worn = Appearance(latents.foreground[:, -1].cpu())
        path = save_edit(self._folder, self._editor.view, worn, self._editor.labels)
        return f"saved in {path}"

    def _take_map(self, _: GuiEvent[Any], __: ClientHandle) -> None:
        index = int(self._number.value)
        self._editor.load(self._labelled(index), f"image {index}")

    def _take_appearance(self, _: GuiEvent[Any], client: ClientHandle) -> str | None:
        index = int(self._number.value)
        assert self._data is not None
        view, pixels = self._labelled(index), self._data.image_set.image(index)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        if not self._searching.acquire(blocking=False):
            return "an appearance is being searched for already; wait until it is found"
        what = f"appearance of image {index}"
        note = client.add_notification(TITLE, f"looking for the {what}", loading=True)

        def progress(step: int, error: float) -> None:
            if step % 5 == 0:
                note.body = f"{what}: step {step} of {STEPS}, squared error {error:.4f}"

        def search() -> str:
            found = fit_appearance(self._model.generator_ema, view, image, STEPS, progress)
            self._editor.wear(found, f"image {index}")
            return f"the {what} is found; Undo takes it back"

        def run() -> None:
            try:
                self.do(client, search)
            finally:
                note.remove()
                self._searching.release()

        # Not in viser's thread, and without nerfstudio's lock: pictures go on meanwhile.
        threading.Thread(target=run, daemon=True).start()
        return None

    def _labelled(self, index: int) -> LabelView:
        data = self._data
        assert data is not None
        assert data.image_set.labels is not None
        return LabelView(data.label_maps([index]), data.image_set.labels[index : index + 1])

    @property
    def _model(self) -> GanModel:
        return self._viewer.get_model()  # pyright: ignore[reportReturnType]

    def _refresh(self) -> None:
        """Makes the panel show what the editor holds."""
        now, view = self._editor.now, self._editor.view
        self._picture.content = (
            f"![label map]({data_url(map_pixels(view.map, self._editor.labels))})"
        )
        own = not isinstance(now.source, int)
        set_choices(self._kept, [*KEPT, OWN] if own else KEPT, OWN if own else str(now.source))
        names = saved_edits(self._folder)
        if names:
            known = self._saved.value if self._saved.value in names else names[-1]
            set_choices(self._saved, names, known)
        self._saved.visible = self._load_saved.visible = bool(names)
        self._seeds.visible = now.appearance is not None
        painted = ", painted" if self._editor.painted else ""
        name, appearance = as_text(now.name), as_text(now.appearance_name or "the seed")
        self._status.content = f"Label map: {name}{painted}  \nAppearance: {appearance}"


def labelled_images(data: object) -> GanDataManager | None:
    """The data manager, if its data set is there and its label maps say where they are seen
    from."""
    if not isinstance(data, GanDataManager) or data.images_missing:
        return None
    return None if data.image_set.labels is None else data
