"""Times the viewer: ``python -m benchmarks.viewer [--representation NAME] [--load-config FILE]``.

Prints JSON. A client with viser's protocol stands for the browser, so that everything but its
drawing is in the figures: websocket, nerfstudio's render thread, rendering, image encoding.
``orbit`` turns the camera by 2 degrees 30 times a second for a few seconds and counts the pictures
that arrive; ``slider`` moves the seed while the viewer rests, and (``slider_while_sharpening``)
while it renders a sharp picture, and waits for the next picture. ``cpu_ms`` is the processor time
that this took, of all threads: on a busy machine it tells more than the seconds. Without
--load-config the preset gan3d-ballgan-tiny is timed untrained, which takes as long as trained:
nothing in rendering depends on the weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras

from nerfstudio_gan3d.cameras import labels_to_cameras, orbit_labels
from nerfstudio_gan3d.models.ballgan import ballgan_tiny
from nerfstudio_gan3d.models.gan import GanModel
from tests.viewer.browser import Browser, Picture
from tests.viewer.session import Session, build, fit_to_cars, running_viewer, wait_until

SIZES = ((96, 144), (128, 192), (171, 256))


def load(arguments: argparse.Namespace) -> GanModel:
    """The model of a training run, or an untrained one."""
    if arguments.load_config is not None:
        from nerfstudio_gan3d.training.opening import open_pipeline

        pipeline = open_pipeline(arguments.load_config, "inference")[1]
        assert isinstance(pipeline.model, GanModel)
        return pipeline.model
    config = fit_to_cars(ballgan_tiny())
    if arguments.representation is not None:
        config.representation = arguments.representation
    return build(config)


def milliseconds_per_picture(model: GanModel, camera: Cameras, repeats: int = 5) -> float:
    """Median time of `get_outputs_for_camera` with the outputs that the viewer computes for rgb."""
    model.controls.shown_output = lambda: "rgb"  # type: ignore[method-assign]
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model.get_outputs_for_camera(camera)
        times.append(time.perf_counter() - start)
    del model.controls.shown_output
    return round(statistics.median(times[1:]) * 1e3, 1)


def arrival(browser: Browser, sent: float) -> Picture:
    """Waits until a picture that was sent at this time has come; the last one."""
    wait_until(lambda: bool(browser.pictures) and browser.pictures[-1].time >= sent)
    return browser.pictures[-1]


def orbit(session: Session, browser: Browser, seconds: float) -> dict[str, float | list[int]]:
    """Pictures a second while the camera turns, and the time that it then takes to sharpen."""
    arrival(browser, session.rest())
    first = len(browser.pictures)
    start, spent = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        browser.orbit(2)
        time.sleep(1 / 30)
    stop, spent = time.perf_counter(), time.process_time() - spent
    pictures = browser.pictures[first:]
    gaps = [b.time - a.time for a, b in pairwise(pictures)]
    return {
        "frames_per_second": round(len(pictures) / (stop - start), 2),
        "longest_gap_s": round(max(gaps), 3),
        "cpu_ms_per_picture": round(spent * 1e3 / len(pictures), 1),
        "smallest_picture": list(min(p.pixels.shape[:2] for p in pictures)),
        "largest_picture": list(max(p.pixels.shape[:2] for p in pictures)),
        "sharp_after_s": round(session.rest() - stop, 3),
    }


def slider(session: Session, browser: Browser, repeats: int, resting: bool) -> dict[str, float]:
    """Seconds from moving the seed's slider to the next small picture's arrival."""
    times, spent = [], 0.0
    for value in range(1, repeats + 1):
        session.rest()
        time.sleep(0.3)
        if not resting:
            # The picture of the turned camera, then one of the camera at rest, then the sharp one,
            # which has begun a tenth of a second after this.
            start = time.perf_counter()
            browser.orbit(5)
            session.answer(session.answer(start))
            time.sleep(0.3)
        start, used = time.perf_counter(), time.process_time()
        browser.set("Seed", value)
        times.append(arrival(browser, session.answer(start)).time - start)
        spent += time.process_time() - used
    return {
        "median_s": round(statistics.median(times), 3),
        "worst_s": round(max(times), 3),
        "cpu_ms": round(spent * 1e3 / repeats, 1),
    }


def main() -> None:
    """Times one model and prints the figures."""
    parser = argparse.ArgumentParser(description="Times the viewer of a GAN")
    parser.add_argument("--load-config", type=Path, help="config.yml of a training run")
    parser.add_argument("--representation", choices=("hashgrid", "triplane"))
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the orbit")
    parser.add_argument("--repeats", type=int, default=6, help="slider moves")
    arguments = parser.parse_args()
    model = load(arguments)
    view = (model.config.view_radius, model.config.view_pivot, model.config.view_focal)
    label = orbit_labels(torch.tensor([0.5]), torch.tensor([0.3]), *view)
    rendering = {
        f"{width}x{height}": milliseconds_per_picture(
            model, labels_to_cameras(label, width, height)
        )
        for height, width in SIZES
    }
    with tempfile.TemporaryDirectory() as folder, running_viewer(model, Path(folder)) as session:
        browser = Browser(session.port)
        found = {
            "representation": model.config.representation,
            "threads": torch.get_num_threads(),
            "render_ms": rendering,
            "orbit": orbit(session, browser, arguments.seconds),
            "slider": slider(session, browser, arguments.repeats, resting=True),
            "slider_while_sharpening": slider(session, browser, arguments.repeats, resting=False),
        }
        found["sharp_picture"] = list(arrival(browser, session.rest()).pixels.shape[:2])
        browser.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
