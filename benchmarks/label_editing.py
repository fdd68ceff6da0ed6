"""Times the editing of label maps: ``python -m benchmarks.label_editing [--load-config FILE]``.

Prints JSON. A client with viser's protocol stands for the browser, so that everything but its
drawing is in the figures. ``stroke`` clicks on the picture, each time at another place, and waits
for the picture that shows the new Scene: meeting the click with the surface, painting, encoding the
map, preparing the Scene, rendering, and sending. ``stroke_from_another_side`` turns the camera
before each click, so that the label map is rendered first. ``undo`` waits for the Scene before.
``parts_ms`` are the parts of a stroke, each by itself; pictures are height by width. ``orbit``
turns the camera for some seconds with labels beside the image. ``appearance_s`` is the search for
an image's appearance. Without --load-config the preset gan3d-pix2pix3d-tiny is timed untrained,
which takes as long as trained.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nerfstudio.viewer.utils import get_camera

from benchmarks.viewer import arrival, milliseconds_per_picture, orbit
from nerfstudio_gan3d.cameras import cameras_to_labels, labels_to_cameras, orbit_labels
from nerfstudio_gan3d.latents import request_latents
from nerfstudio_gan3d.models.appearance import fit_appearance
from nerfstudio_gan3d.models.gan import GanModel
from nerfstudio_gan3d.models.pix2pix3d import pix2pix3d_tiny
from nerfstudio_gan3d.run import load_run
from nerfstudio_gan3d.viewer.label_editor import LabelEditor
from nerfstudio_gan3d.viewer.label_painting import BOX, ERASER, PAPER, PEN
from nerfstudio_gan3d.viewer.label_panel import UNDO
from tests.viewer.browser import Browser
from tests.viewer.session import Session, build, fit_to_cars, running_viewer, wait_until

MOVING, SHARP = (96, 144), (171, 256)
PLACES = ((0.5, 0.5), (0.45, 0.45), (0.55, 0.5), (0.5, 0.45), (0.45, 0.55), (0.55, 0.45))


def load(path: Path | None) -> GanModel:
    """The model of a training run, or an untrained one with two halves as its label maps."""
    if path is not None:
        model = load_run(path).model
        assert isinstance(model, GanModel)
        return model
    config = fit_to_cars(pix2pix3d_tiny())
    config.labels.classes = 6
    config.labels.palette = tuple((40 * i, 0, 0) for i in range(6))
    model = build(config)
    assert model.label_store is not None
    halves = torch.zeros(1, 1, config.image_resolution, config.image_resolution, dtype=torch.uint8)
    halves[..., config.image_resolution // 2 :, :] = 1
    model.label_store.fill(halves, orbit_labels(torch.zeros(1), torch.zeros(1), 1.9))
    return model


def editor_of(model: GanModel) -> LabelEditor:
    """What the viewer edits this model's label maps with."""
    editor = model.controls.labels
    if editor is None:
        raise SystemExit("this run's model has no label maps; give one of a gan3d-pix2pix3d method")
    return editor


def milliseconds(action: Callable[[], Any], repeats: int) -> float:
    """Median time of calls after the first one."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times[1:]) * 1e3, 1)


@torch.no_grad()
def parts(model: GanModel, editor: LabelEditor, repeats: int) -> dict[str, float]:
    """What a stroke consists of, without viewer."""
    config, generator = model.config, model.generator_ema
    view = (config.view_radius, config.view_pivot, config.view_focal)
    camera = orbit_labels(torch.tensor([1.2]), torch.tensor([0.3]), *view)
    scene = model.scene().scene

    def dot() -> None:
        editor.dot(scene, camera, (0.5, 0.5), 2, 4)
        editor.undo()

    def remake() -> None:
        generator.scene(request_latents(generator, model.request()[0], model.label_store))

    found = {
        "label_map_from_here": milliseconds(lambda: editor.canvas(scene, camera), repeats),
        "first_dot_from_here": milliseconds(dot, repeats),
        "encode_and_prepare": milliseconds(remake, repeats),
    }
    for height, width in (MOVING, SHARP):
        pictured = labels_to_cameras(camera, width, height)
        found[f"picture_{height}x{width}"] = milliseconds_per_picture(model, pictured, repeats)
    return found


def answered(
    session: Session, browser: Browser, ask: Callable[[], None], change: Callable[[], bool]
) -> float:
    """Seconds from a request to the arrival of the first picture after its change.

    The viewer rests before, so that no other picture can come. Raises TimeoutError where nothing
    changes.
    """
    session.rest()
    time.sleep(0.3)
    start = time.perf_counter()
    ask()
    wait_until(change)
    return arrival(browser, session.answer(start)).time - start


def looks_from(session: Session) -> torch.Tensor:
    """Camera label [1, 25] of the only browser."""
    (client,) = session.viewer.viser_server.get_clients().values()
    state = session.viewer.get_camera_state(client)
    return cameras_to_labels(get_camera(state, 1000, round(1000 * state.aspect))).float()


def choose_the_rarest(model: GanModel, session: Session, browser: Browser) -> None:
    """Chooses what is rarest in the middle of the map that is painted on from here.

    What an untrained network shows from another side may be of one class all over, and painting
    with that one would change nothing.
    """
    editor = editor_of(model)
    canvas = editor.canvas(model.scene().scene, looks_from(session))
    middle = slice(editor.side // 4, -(editor.side // 4))
    found = canvas.map[0, 0, middle, middle]
    if editor.labels.kind == "edge":
        browser.set("Tool", PEN if float(found.float().mean()) > PAPER / 2 else ERASER)
        return
    counts = torch.bincount(found.flatten(), minlength=editor.labels.classes)
    browser.set("Class", browser.elements["Class"]["options"][int(counts.argmin())])


def strokes(
    model: GanModel, session: Session, browser: Browser, repeats: int, turn: float
) -> dict[str, Any]:
    """Clicks, each after the camera has turned by so many degrees; each one is undone."""
    editor = editor_of(model)
    times, undone = [], []
    for index in range(repeats):
        if turn:
            start = time.perf_counter()
            browser.orbit(turn)
            session.answer(start)
        choose_the_rarest(model, session, browser)
        before, place = editor.now, PLACES[index % len(PLACES)]
        times.append(
            answered(
                session,
                browser,
                lambda place=place: browser.click_scene(BOX, place),
                lambda before=before: editor.now is not before,
            )
        )
        undone.append(
            answered(
                session,
                browser,
                lambda: browser.set("Strokes", UNDO),
                lambda before=before: editor.now is before,
            )
        )
    return {
        "median_s": round(statistics.median(times), 3),
        "worst_s": round(max(times), 3),
        "undo_median_s": round(statistics.median(undone), 3),
    }


def measure(model: GanModel, seconds: float, repeats: int) -> dict[str, Any]:
    """All figures of one model."""
    editor = editor_of(model)
    found: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "map_side": editor.side,
        "parts_ms": parts(model, editor, repeats),
    }
    start = time.perf_counter()
    image = torch.zeros(1, 3, editor.side, editor.side)
    fit_appearance(model.generator_ema, editor.view, image)
    found["appearance_s"] = round(time.perf_counter() - start, 2)
    with tempfile.TemporaryDirectory() as folder, running_viewer(model, Path(folder)) as session:
        browser = Browser(session.port)
        session.rest()
        browser.set("Paint by clicking", True)
        wait_until(lambda: browser.elements["Brush size"]["visible"] is True)
        found["stroke"] = strokes(model, session, browser, repeats, turn=0.0)
        found["stroke_from_another_side"] = strokes(model, session, browser, repeats, turn=25.0)
        browser.click("Labels beside image")
        wait_until(lambda: session.viewer.control_panel.split)
        found["orbit"] = orbit(session, browser, seconds)
        browser.close()
    return found


def main() -> None:
    """Times one model and prints the figures."""
    parser = argparse.ArgumentParser(description="Times the editing of label maps")
    parser.add_argument("--load-config", type=Path, help="config.yml of a training run")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the orbit")
    parser.add_argument("--repeats", type=int, default=6, help="strokes of each kind")
    arguments = parser.parse_args()
    print(json.dumps(measure(load(arguments.load_config), arguments.seconds, arguments.repeats)))


if __name__ == "__main__":
    main()
