"""Choosing and loading images in a real viewer with a real websocket; only the page is missing."""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from viser import ClientHandle

from nerfstudio_gan3d.cameras import labels_to_cameras
from nerfstudio_gan3d.data import estimators
from nerfstudio_gan3d.data.datamanager import GanDataManager, GanDataManagerConfig
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data_parsers.images import Gan3dImagesDataParserConfig
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.models.g3dr import G3drModel
from nerfstudio_gan3d.viewer import image_panel
from nerfstudio_gan3d.viewer.image_controls import ImageControls
from nerfstudio_gan3d.viewer.image_files import WaitingFiles, view_picture
from nerfstudio_gan3d.viewer.image_panel import ESTIMATE, KEPT, OWN, ImagePanel
from tests.data.sets import encode, files, image, write_folder
from tests.models.tiny_g3dr import FAR, NEAR, SIDE, kept_images, make_g3dr
from tests.viewer.browser import Browser
from tests.viewer.session import Session, running_viewer, wait_until

NAMES = [f"00000/img{index:08d}.png" for index in range(6)]
# Of the three objects the last one is held out, which images 2 and 5 show.
OFFERED = [NAMES[index] for index in (2, 5, 0, 1, 3, 4)]
DAMAGED = NAMES[4]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GanDataManager:
    """Six images; image 2 has depth 1.5 in its right half alone, and one depth file is damaged."""
    content = files(6, SIDE)
    depth = np.zeros((SIDE, SIDE), np.uint16)
    depth[:, SIDE // 2 :] = 15000
    content["depth/" + NAMES[2]] = encode(depth)
    content["depth/" + DAMAGED] = content["depth/" + DAMAGED][:80]
    path = write_folder(tmp_path_factory.mktemp("data") / "set", content)
    parser = Gan3dImagesDataParserConfig(eval_objects=1)
    config = GanDataManagerConfig(data=path, dataparser=parser, resolution=SIDE)
    config.with_depth, config.depth_range = True, (NEAR, FAR)
    return config.setup(test_mode="test")


class Noted(ImagePanel):
    """The panel, and whether it is at work."""

    def __init__(self, *args: Any) -> None:
        self.working: set[int] = set()
        self.done = 0
        super().__init__(*args)
        panels.append(self)

    def do(self, client: ClientHandle, action: Callable[[], str | None]) -> None:
        self.working.add(threading.get_ident())
        super().do(client, action)
        self.working.discard(threading.get_ident())
        self.done += 1


panels: list[Noted] = []


@pytest.fixture(scope="module")
def session(
    tmp_path_factory: pytest.TempPathFactory, data: GanDataManager
) -> Iterator[tuple[Session, Browser, Noted]]:
    panels.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_panel, "ImagePanel", Noted)
        folder = tmp_path_factory.mktemp("viewer")
        with running_viewer(make_g3dr(), folder, 32, data) as running:
            browser = Browser(running.port)
            running.rest()
            yield running, browser, panels[0]
            browser.close()


@pytest.fixture
def live(
    session: tuple[Session, Browser, Noted],
) -> tuple[Session, Browser, Noted]:
    """The running viewer with the first kept image, and no file that waits."""
    running, browser, panel = session
    wait_until(lambda: not panel.working)
    panel._waiting, panel._own, panel._estimator = WaitingFiles(), None, None
    if panel._choice.value != "kept 0":
        # An answer that comes late would undo what a test does.
        before = panel.done
        browser.set("Image", "kept 0")
        wait_until(lambda: panel.done > before)
    controls_of(running).show(0)
    panel._refresh()
    wait_until(lambda: panel._choice.value == "kept 0" and not panel.working)
    browser.notes.clear()
    return session


def model_of(session: Session) -> G3drModel:
    model = session.viewer.get_model()
    assert isinstance(model, G3drModel)
    return model


def controls_of(session: Session) -> ImageControls:
    controls = model_of(session).controls
    assert isinstance(controls, ImageControls)
    return controls


def picture(session: Session) -> Tensor:
    label = model_of(session).generator_ema.canonical_labels(1)
    return model_of(session).get_outputs_for_camera(labels_to_cameras(label, 8, 8))["rgb"]


def shown(session: Session) -> ImageView:
    """The image of the user's own that the request names."""
    view = controls_of(session).request().image
    assert isinstance(view, ImageView)
    return view


def told(browser: Browser, words: str) -> bool:
    return any(words in note for note in list(browser.notes))


def own_files() -> tuple[bytes, bytes]:
    """A photograph of 32 x 16 pixels, and its depth: from 0 at the left to 31/32 at the right."""
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, 2 * SIDE, 3), dtype=np.uint8)
    values = np.tile(np.arange(32, dtype=np.uint16) * 2048, (SIDE, 1))
    return encode(pixels), encode(values)


def own_view() -> tuple[Tensor, Tensor]:
    """What they are to a model of 16 px that sees from 1 to 3: columns 8 to 23 as they are."""
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, 2 * SIDE, 3), dtype=np.uint8)
    middle = torch.from_numpy(pixels[:, 8:24].copy()).permute(2, 0, 1)[None]
    distance = 1 + 2 * torch.arange(8, 24) / 32
    return middle, distance.expand(1, 1, SIDE, SIDE)


def load_own(session: Session, browser: Browser) -> ImageView:
    photo, depth = own_files()
    browser.upload("Load an image", "photo.png", photo)
    wait_until(lambda: told(browser, "photo.png has no depth yet"))
    browser.upload("Load its depth", "depth.png", depth)
    wait_until(lambda: told(browser, "the Scene is made of photo.png now"))
    return shown(session)


def test_a_kept_image_is_shown_at_once(live: tuple[Session, Browser, Noted]) -> None:
    session, browser, panel = live
    before, pictures = picture(session), len(browser.pictures)
    browser.set("Image", "kept 5")
    wait_until(lambda: controls_of(session).request().image == 5)
    wait_until(lambda: len(browser.pictures) > pictures)
    assert (picture(session) - before).abs().max() > 1e-3
    images, distances = kept_images()
    wait_until(lambda: panel._status.content == "kept 5")
    view = ImageView(images[5:6], distances[5:6])
    assert np.array_equal(pixels_in(panel), view_picture(view, (NEAR, FAR)))


def pixels_in(panel: ImagePanel) -> np.ndarray:
    """The picture in the panel, at the size that it had before it was enlarged eight times."""
    found = re.fullmatch(r"!\[.*\]\(data:image/png;base64,(.*)\)", panel._picture.content)
    assert found is not None
    return np.asarray(Image.open(BytesIO(base64.b64decode(found[1]))))[::8, ::8]


def test_images_of_the_data_set_follow_the_kept_ones_and_held_out_ones_come_first(
    live: tuple[Session, Browser, Noted],
) -> None:
    session, browser, panel = live
    assert list(browser.elements["Image"]["options"]) == [*KEPT, *OFFERED]
    # All of them have names here, so none needs a number.
    assert "Image number" not in browser.elements
    browser.set("Image", NAMES[2])
    wait_until(lambda: not isinstance(controls_of(session).image, int))
    view = shown(session)
    assert torch.equal(view.image, torch.from_numpy(image(2, SIDE)).permute(2, 0, 1)[None])
    # Rays of a focal length of 1.5: the right half at the depth of 1.5, the left half on the wall
    # 0.95 behind the origin, which is 2 away.
    x = ((torch.arange(SIDE) + 0.5) / SIDE - 0.5) / 1.5
    ray = (1 + x[None] ** 2 + x[:, None] ** 2).sqrt()
    depth = torch.where(torch.arange(SIDE) < SIDE // 2, 2.95, 1.5)
    torch.testing.assert_close(view.distance[0, 0], ray * depth, atol=1e-5, rtol=0)
    wait_until(lambda: panel._status.content == NAMES[2])


@pytest.mark.parametrize("image_first", [True, False])
def test_image_and_depth_are_loaded_in_either_order(
    live: tuple[Session, Browser, Noted], image_first: bool
) -> None:
    session, browser, panel = live
    before = picture(session)
    photo, depth = own_files()
    steps = [
        ("Load an image", "photo.png", photo, "photo.png has no depth yet: load its depth map"),
        ("Load its depth", "depth.png", depth, "depth.png waits for its image: load that as well"),
    ]
    label, name, content, words = steps[0 if image_first else 1]
    browser.upload(label, name, content)
    wait_until(lambda: told(browser, words))
    assert controls_of(session).image == 0
    wait_until(lambda: "waits for its" in panel._status.content)
    browser.upload(*steps[1 if image_first else 0][:3])
    wait_until(lambda: told(browser, "the Scene is made of photo.png now"))
    middle, distance = own_view()
    assert torch.equal(shown(session).image, middle)
    assert torch.equal(shown(session).distance, distance)
    assert (picture(session) - before).abs().max() > 1e-3
    wait_until(lambda: browser.elements["Image"]["value"] == OWN)
    assert panel._status.content == "photo.png, depth depth.png"


def test_ones_own_image_can_be_returned_to(live: tuple[Session, Browser, Noted]) -> None:
    session, browser, _ = live
    own = load_own(session, browser)
    browser.set("Image", "kept 2")
    wait_until(lambda: controls_of(session).image == 2)
    browser.set("Image", OWN)
    wait_until(lambda: controls_of(session).image is own)


def test_an_image_that_a_program_gives_is_in_the_list(
    live: tuple[Session, Browser, Noted],
) -> None:
    session, browser, panel = live
    images, distances = kept_images()
    given = ImageView(images[:1], distances[:1])
    controls_of(session).show(given)
    panel._refresh()
    wait_until(lambda: browser.elements["Image"]["value"] == OWN)
    assert controls_of(session).image is given


@pytest.mark.parametrize(
    ("label", "name", "content", "sentence"),
    [
        ("Load an image", "text.png", b"no image", "text.png: not a readable image"),
        ("Load an image", "deep.png", own_files()[1], "deep.png: an image of mode I"),
        ("Load its depth", "photo.png", own_files()[0], "photo.png: a depth map of mode RGB"),
        ("Load an image", "half.png", own_files()[0][:500], "half.png: truncated or damaged"),
    ],
    ids=["text", "depth-as-image", "image-as-depth", "damaged"],
)
def test_unusable_files_are_explained_and_the_scene_stays(
    live: tuple[Session, Browser, Noted],
    label: str,
    name: str,
    content: bytes,
    sentence: str,
) -> None:
    session, browser, panel = live
    browser.set("Image", "kept 3")
    wait_until(lambda: controls_of(session).image == 3)
    before = picture(session)
    browser.upload(label, name, content)
    wait_until(lambda: told(browser, sentence))
    assert controls_of(session).image == 3
    assert torch.equal(picture(session), before)
    assert (panel._waiting.photo, panel._waiting.depth) == (None, None)


def test_a_depth_map_of_another_shape_is_explained_and_the_image_waits_on(
    live: tuple[Session, Browser, Noted],
) -> None:
    session, browser, _ = live
    photo, depth = own_files()
    browser.upload("Load an image", "photo.png", photo)
    wait_until(lambda: told(browser, "photo.png has no depth yet"))
    browser.upload("Load its depth", "tall.png", encode(np.zeros((32, 16), np.uint16)))
    wait_until(lambda: told(browser, "tall.png: 16 x 32 pixels, but photo.png has 32 x 16"))
    assert controls_of(session).image == 0
    browser.upload("Load its depth", "depth.png", depth)
    wait_until(lambda: told(browser, "the Scene is made of photo.png now"))
    assert torch.equal(shown(session).distance, own_view()[1])


def test_a_damaged_image_of_the_data_set_is_explained_and_the_list_returns(
    live: tuple[Session, Browser, Noted],
) -> None:
    session, browser, _ = live
    browser.set("Image", "kept 1")
    wait_until(lambda: controls_of(session).image == 1)
    browser.set("Image", DAMAGED)
    wait_until(lambda: told(browser, f"depth/{DAMAGED}: truncated or damaged"))
    wait_until(lambda: browser.elements["Image"]["value"] == "kept 1")
    assert controls_of(session).image == 1


def test_depth_is_estimated_for_the_image_that_waits(
    live: tuple[Session, Browser, Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, browser, panel = live
    browser.click(ESTIMATE)
    wait_until(lambda: told(browser, "no image waits for its depth; load an image first"))

    # Estimated distance: 100 at the left and 200 at the right of the square.
    def estimate(pixels: np.ndarray) -> np.ndarray:
        assert pixels.shape == (SIDE, SIDE, 3)
        return np.tile(np.linspace(100, 200, SIDE, dtype=np.float32), (SIDE, 1))

    monkeypatch.setattr(image_panel, "load_estimator", lambda: estimate)
    browser.upload("Load an image", "photo.png", own_files()[0])
    wait_until(lambda: told(browser, "photo.png has no depth yet"))
    browser.click(ESTIMATE)
    wait_until(lambda: told(browser, "the Scene is made of photo.png now"))
    assert torch.equal(shown(session).image, own_view()[0])
    expected = torch.linspace(NEAR, FAR, SIDE).expand(SIDE, SIDE)
    torch.testing.assert_close(shown(session).distance[0, 0], expected, atol=1e-4, rtol=0)
    assert panel._waiting.photo is None


def test_the_camera_goes_to_where_images_are_seen_from(
    live: tuple[Session, Browser, Noted],
) -> None:
    """2 away on +z, which is -y and ten times as far in viser's world; half of the shorter side,
    the height of the canvas, is seen under the angle whose tangent is 0.5 / 1.5."""
    _, browser, _ = live
    browser.orbit(35)
    browser.click("Go to its view")
    wait_until(lambda: np.allclose(browser.view.position, (0, -20, 0), atol=1e-4))
    assert browser.view.look_at == pytest.approx((0, 0, 0), abs=1e-4)
    assert browser.view.fov == pytest.approx(2 * np.arctan(1 / 3))


def test_missing_weights_are_explained_where_there_are_no_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str, local: bool) -> None:
        raise ValueError("no network")

    monkeypatch.setattr(estimators, "_from_pretrained", missing)
    sentence = "cannot be loaded (no network); load the depth map of the image"
    with pytest.raises(DataError, match=rf"{re.escape(sentence)}$"):
        image_panel.load_estimator()


def test_missing_weights_are_explained_and_the_image_waits_on(
    live: tuple[Session, Browser, Noted], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, browser, panel = live

    def missing() -> None:
        raise DataError("depth model 'small': no such folder")

    monkeypatch.setattr(image_panel, "load_estimator", missing)
    browser.upload("Load an image", "photo.png", own_files()[0])
    wait_until(lambda: told(browser, "photo.png has no depth yet"))
    browser.click(ESTIMATE)
    wait_until(lambda: told(browser, "depth model 'small': no such folder"))
    assert controls_of(session).image == 0
    assert panel._waiting.photo is not None
    # A lock that was not given back would make this a message about patience.
    wait_until(lambda: not panel._estimating.locked())


def test_names_end_somewhere_and_numbers_reach_the_rest(
    tmp_path: Path, data: GanDataManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_panel, "MAX_NAMES", 3)
    assert image_panel.offered(data) == {NAMES[2]: 2, NAMES[5]: 5, NAMES[0]: 0}
    with running_viewer(make_g3dr(), tmp_path, 32, data) as session:
        browser = Browser(session.port)
        session.rest()
        assert list(browser.elements["Image"]["options"]) == [*KEPT, *OFFERED[:3]]
        browser.set("Image number", 3)
        browser.click("Show this image")
        wait_until(lambda: browser.elements["Image"]["value"] == NAMES[3])
        expected = torch.from_numpy(image(3, SIDE)).permute(2, 0, 1)[None]
        assert torch.equal(shown(session).image, expected)
        browser.close()


def test_without_its_data_set_the_kept_images_are_offered(tmp_path: Path) -> None:
    assert image_panel.images_with_depth(SimpleNamespace()) is None
    with running_viewer(make_g3dr(), tmp_path, 32) as session:
        browser = Browser(session.port)
        session.rest()
        assert list(browser.elements["Image"]["options"]) == KEPT
        browser.close()


def test_a_data_set_without_depth_is_not_offered(tmp_path: Path) -> None:
    content = {name: file for name, file in files(3).items() if not name.startswith("depth/")}
    parser = Gan3dImagesDataParserConfig()
    path = write_folder(tmp_path / "set", content)
    config = GanDataManagerConfig(data=path, dataparser=parser)
    assert image_panel.images_with_depth(config.setup(test_mode="test")) is None
