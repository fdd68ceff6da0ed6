"""The viewer's folder "Input image": choose an image, or load one's own with its depth."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from viser import ClientHandle, GuiEvent

from nerfstudio_gan3d.data.datamanager import GanDataManager
from nerfstudio_gan3d.data.depth import check_depth
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.image_views import STORED_IMAGES, ImageView
from nerfstudio_gan3d.models.reconstruction import with_wall
from nerfstudio_gan3d.viewer.camera import camera_at
from nerfstudio_gan3d.viewer.image_controls import ImageControls
from nerfstudio_gan3d.viewer.image_files import (
    DepthMap,
    Photo,
    WaitingFiles,
    estimate_depth,
    make_view,
    read_depth,
    read_photo,
    view_picture,
)
from nerfstudio_gan3d.viewer.panel import Panel, as_text, data_url, look_from, set_choices

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from nerfstudio_gan3d.data.prepare import DepthFunction
    from nerfstudio_gan3d.models.g3dr import G3drModel

TITLE = "Input image"
KEPT, OWN = [f"kept {index}" for index in range(STORED_IMAGES)], "my own"
MAX_NAMES = 500
"""Images of a data set that a list offers by name; a number chooses among all."""
ESTIMATE = "Estimate depth"
REPEAT_S = 0.1
"""How long the list waits for viser after a refused choice."""


class ImagePanel(Panel):
    """All controls that choose the image of a Scene, and what they do.

    Args:
        controls: what they change.
        viewer: nerfstudio's viewer, which is just being built.
        order: place of the folder among the others.
    """

    def __init__(self, controls: ImageControls, viewer: Viewer, order: float) -> None:
        super().__init__(TITLE, viewer)
        self._controls = controls
        self._data = images_with_depth(viewer.pipeline.datamanager)
        self._places = {} if self._data is None else offered(self._data)
        self._waiting = WaitingFiles()
        self._estimating = threading.Lock()
        self._estimator: DepthFunction | None = None
        self._lock = threading.Lock()
        # How the list calls an image that is not kept, and the last one of the user's own with the
        # names of its files.
        self._named: tuple[ImageView, str] | None = None
        self._own: tuple[ImageView, str] | None = None
        with self._gui.add_folder(TITLE, order=order):
            self._add_choice()
            self._add_files()
            # Without a folder viser warns of pictures that are read from its own; none is read.
            root = viewer.log_filename.parent
            self._picture = self._gui.add_markdown("", image_root=root)
            self._status = self._gui.add_markdown("", image_root=root)
        self._refresh()

    def _add_choice(self) -> None:
        self._choice = self._gui.add_dropdown(
            "Image",
            KEPT,
            hint="What the Scene is made of: images that the checkpoint carries, and those of the "
            "data set where it is on this machine, held-out ones first",
        )
        self._choice.on_update(self._on_choice)
        self._button("Go to its view", self._go_to_view, "Look from where the image is seen from")
        if self._data is None or len(self._data.image_set) <= MAX_NAMES:
            return
        last = len(self._data.image_set) - 1
        self._number = self._gui.add_number(
            "Image number", 0, 0, last, 1, hint="Which image of the data set"
        )
        self._button("Show this image", self._choose_number)

    def _add_files(self) -> None:
        image = self._gui.add_upload_button(
            "Load an image",
            mime_type="image/*",
            hint="PNG, JPEG or WebP; its middle square is taken",
        )
        image.on_upload(self._event(self._load_photo))
        depth = self._gui.add_upload_button(
            "Load its depth",
            mime_type="image/png",
            hint="16-bit grey PNG of the same picture, small is near; before the image or after it",
        )
        depth.on_upload(self._event(self._load_depth))
        self._button(ESTIMATE, self._estimate, "Let a network guess the depth of the loaded image")

    def _on_choice(self, event: GuiEvent[Any]) -> None:
        client, name = event.client, event.target.value
        if client is None:
            return
        self.do(client, lambda: self._choose(name))
        if self._choice.value != name:
            # Refused. viser is about to pass on to other browsers what was chosen, and that takes
            # the place of what was set since; so the list says once more what it shows.
            threading.Timer(REPEAT_S, self._repeat_choice).start()

    def _repeat_choice(self) -> None:
        self._choice.value = self._choice.value

    def _choose(self, name: str) -> None:
        if name in KEPT:
            self._controls.show(KEPT.index(name))
        elif name in self._places:
            self._show(self._from_data(self._places[name]), name)
        elif name == OWN and self._own is not None:
            self._show(self._own[0], OWN)

    def _choose_number(self, _: GuiEvent[Any], __: ClientHandle) -> None:
        assert self._data is not None
        index = int(self._number.value)
        view, name = self._from_data(index), self._data.image_set.names[index]
        # From now on the list offers it, too.
        self._places = {**self._places, name: index}
        self._show(view, name)

    def _go_to_view(self, _: GuiEvent[Any], client: ClientHandle) -> None:
        pose = self._model.generator_ema.canonical_labels(1).cpu()
        look_from(client, camera_at(pose, (0.0, 0.0, 0.0), client.camera.aspect))

    def _load_photo(self, event: GuiEvent[Any], _: ClientHandle) -> str:
        file = event.target.value
        return self._add(read_photo(file.content, file.name))

    def _load_depth(self, event: GuiEvent[Any], _: ClientHandle) -> str:
        file = event.target.value
        return self._add(read_depth(file.content, file.name))

    def _add(self, file: Photo | DepthMap) -> str:
        pair = self._waiting.add(file)
        if pair is not None:
            return self._show_own(*pair)
        if isinstance(file, Photo):
            return (
                f"{file.name} has no depth yet: load its depth map as well (16-bit grey PNG, small "
                f"is near), or press {ESTIMATE}"
            )
        return f"{file.name} waits for its image: load that as well"

    def _show_own(self, photo: Photo, depth: DepthMap) -> str:
        config = self._model.config
        view = make_view(photo, depth, config.image_resolution, config.depth_range)
        with self._lock:
            self._own = view, f"{photo.name}, depth {depth.name}"
        self._show(view, OWN)
        return f"the Scene is made of {photo.name} now"

    def _show(self, view: ImageView, name: str) -> None:
        with self._lock:
            self._named = view, name
            self._controls.show(view)

    def _estimate(self, _: GuiEvent[Any], client: ClientHandle) -> str | None:
        photo = self._waiting.photo
        if photo is None:
            raise ValueError("no image waits for its depth; load an image first")
        if not self._estimating.acquire(blocking=False):
            return "depth is being estimated already; wait until it is there"
        note = client.add_notification(
            TITLE, f"looking for the depth of {photo.name}", loading=True
        )

        def estimate() -> str:
            try:
                if self._estimator is None:
                    self._estimator = load_estimator()
                found = estimate_depth(photo, self._estimator)
            # torch tells so of a GPU that training has filled.
            except RuntimeError as error:
                raise DataError(
                    f"{photo.name}: its depth cannot be estimated ({str(error)[:200]}); load its "
                    "depth map"
                ) from error
            self._waiting.forget(photo)
            return self._show_own(*found)

        def run() -> None:
            try:
                self.do(client, estimate)
            finally:
                note.remove()
                self._estimating.release()

        # Not in viser's thread, and without nerfstudio's lock: pictures go on meanwhile.
        threading.Thread(target=run, daemon=True).start()
        return None

    def _from_data(self, index: int) -> ImageView:
        assert self._data is not None
        images, distances, _ = self._data.rgbd([index])
        generator = self._model.generator_ema
        behind = with_wall(generator, distances.to(generator.device), self._model.config.wall)
        return ImageView(images, behind.cpu())

    @property
    def _model(self) -> G3drModel:
        return self._viewer.get_model()  # pyright: ignore[reportReturnType]

    def _refresh(self) -> None:
        """Makes the panel show what the Scene is made of, and which file waits for another."""
        # Several threads of viser may be here; the last one shows what is true.
        with self._lock:
            image = self._controls.image
            name = self._name(image)
            own = self._own
            options = [*KEPT, *self._places] + ([] if own is None else [OWN])
            set_choices(self._choice, options, name)
            view = self._model.images.view(image) if isinstance(image, int) else image
            picture = view_picture(view, self._model.config.depth_range)
            self._picture.content = f"![image and its depth]({data_url(picture)})"
            lines = [own[1] if name == OWN and own is not None else name]
            photo, depth = self._waiting.photo, self._waiting.depth
            if photo is not None:
                lines.append(f"{photo.name} waits for its depth")
            if depth is not None:
                lines.append(f"{depth.name} waits for its image")
            self._status.content = "  \n".join(as_text(line) for line in lines)

    def _name(self, image: int | ImageView) -> str:
        """How the list calls an image."""
        if isinstance(image, int):
            return KEPT[image]
        if self._named is not None and self._named[0] is image:
            return self._named[1]
        self._own = image, "given by a program"
        return OWN


def images_with_depth(data: object) -> GanDataManager | None:
    """The data manager, if its data set is there and has depth that the model can read."""
    if not isinstance(data, GanDataManager) or data.images_missing:
        return None
    try:
        check_depth(data.image_set, data.config.depth_range)
    except ValueError:
        return None
    return data


def offered(data: GanDataManager) -> dict[str, int]:
    """Names of at most `MAX_NAMES` images of a data set and their positions in it: those of the
    evaluation split, then the others."""
    names = data.image_set.names
    order = dict.fromkeys([*data.split_indices("test"), *range(len(names))])
    return {names[index]: index for index in list(order)[:MAX_NAMES]}


def load_estimator() -> DepthFunction:
    """The depth model of `gan3d prepare`; raises DataError where it is not within reach. There are
    no options here that would choose another one."""
    # Its packages take a while to import.
    from nerfstudio_gan3d.data.estimators import DepthEstimator

    return DepthEstimator(instead="load the depth map of the image")
