"""Painting in a real viewer with a real websocket; only the page is missing."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nerfstudio_gan3d.cameras import labels_to_cameras, orbit_labels
from nerfstudio_gan3d.data.datamanager import GanDataManager, GanDataManagerConfig
from nerfstudio_gan3d.data_parsers.images import Gan3dImagesDataParserConfig
from nerfstudio_gan3d.latents import LabelView
from nerfstudio_gan3d.models.gan import GanModel
from nerfstudio_gan3d.viewer import label_panel
from nerfstudio_gan3d.viewer.camera import first_camera
from nerfstudio_gan3d.viewer.label_editor import LabelEditor
from nerfstudio_gan3d.viewer.label_files import load_edit
from nerfstudio_gan3d.viewer.label_painting import BOX, box_from_inside, legend
from tests.data.sets import encode, files, write_folder
from tests.viewer.browser import Browser
from tests.viewer.session import (
    Session,
    build,
    running_viewer,
    small_config,
    small_labels_config,
    wait_until,
)

SIDE = 16
BODY, WHEEL = 1, 2
# The viewer's first camera.
AZIMUTH, ELEVATION = 30.0, 15.0


def pose_at(azimuth: float, elevation: float) -> Tensor:
    angles = torch.deg2rad(torch.tensor([[azimuth], [elevation]]))
    return orbit_labels(angles[0], angles[1], 1.9)


def labelled_model() -> GanModel:
    """Its kept maps are stripes, seen from all around."""
    torch.manual_seed(0)
    model = build(small_labels_config())
    assert model.label_store is not None
    rows = torch.arange(SIDE).view(1, 1, -1, 1) + torch.arange(16).view(-1, 1, 1, 1)
    maps = (rows // 4 % 3).to(torch.uint8).expand(-1, -1, -1, SIDE)
    poses = torch.cat([pose_at(20.0 * i, 5.0) for i in range(16)])
    model.label_store.fill(maps, poses)
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GanDataManager:
    """A data set of six images with class ids."""
    path = write_folder(tmp_path_factory.mktemp("data") / "set", files(size=SIDE))
    config = GanDataManagerConfig(data=path, dataparser=Gan3dImagesDataParserConfig())
    config.label_kind, config.num_classes = "seg", 3
    return config.setup(test_mode="test")


@pytest.fixture(scope="module")
def session(
    tmp_path_factory: pytest.TempPathFactory, data: GanDataManager
) -> Iterator[tuple[Session, Browser]]:
    folder = tmp_path_factory.mktemp("viewer")
    with running_viewer(labelled_model(), folder, 64, data) as running:
        browser = Browser(running.port)
        running.rest()
        yield running, browser
        browser.close()


@pytest.fixture
def live(session: tuple[Session, Browser]) -> tuple[Session, Browser, LabelEditor]:
    """The running viewer at its first view with the first kept map, nothing armed."""
    running, browser = session
    editor = editor_of(running)
    if browser.elements["Paint by clicking"]["value"]:
        browser.set("Paint by clicking", False)
        wait_until(lambda: browser.elements["Brush size"]["visible"] is False)
    # Elsewhere, so that the answer is waited for: one that comes late would undo what a test does.
    browser.view.position = (9.0, 9.0, 9.0)
    browser.click("Reset view")
    first = first_camera(1.9, (0.0, 0.0, 0.0), 1.5, browser.view.aspect).position
    wait_until(lambda: np.allclose(browser.view.position, first))
    editor.wear(None)
    editor.choose(0)
    browser.notes.clear()
    return running, browser, editor


def model_of(session: Session) -> GanModel:
    model = session.viewer.get_model()
    assert isinstance(model, GanModel)
    return model


def editor_of(session: Session) -> LabelEditor:
    editor = model_of(session).controls.labels
    assert editor is not None
    return editor


def start_painting(browser: Browser, chosen: str = "wheel") -> None:
    browser.set("Class", chosen)
    browser.set("Paint by clicking", True)
    browser.set("Brush size", 4)
    wait_until(lambda: browser.elements["Brush size"]["visible"] is True)


def outputs(session: Session) -> dict[str, Tensor]:
    camera = labels_to_cameras(pose_at(-40, 10), 24, 24)
    return model_of(session).get_outputs_for_camera(camera)


def test_a_click_changes_map_scene_and_outputs_and_undo_restores_them(
    live: tuple[Session, Browser, LabelEditor],
) -> None:
    session, browser, editor = live
    start_painting(browser)
    before, scene = outputs(session), model_of(session).scene().scene
    pictures = len(browser.pictures)
    browser.click_scene(BOX, (0.5, 0.5))
    wait_until(lambda: editor.painted)
    # The map of the first view, whose middle is what was clicked on.
    view = editor.view
    torch.testing.assert_close(view.pose, pose_at(AZIMUTH, ELEVATION), atol=1e-4, rtol=0)
    assert (view.map[0, 0, 7:9, 7:9] == WHEEL).all()
    after = outputs(session)
    assert model_of(session).scene().scene is not scene
    for name in ("rgb", "labels"):
        assert not torch.equal(after[name], before[name])
    wait_until(lambda: len(browser.pictures) > pictures)
    browser.set("Strokes", "Undo")
    wait_until(lambda: not editor.painted)
    assert all(torch.equal(value, before[name]) for name, value in outputs(session).items())
    browser.set("Strokes", "Redo")
    wait_until(lambda: editor.painted)
    assert all(torch.equal(value, after[name]) for name, value in outputs(session).items())
    browser.set("Strokes", "Reset")
    wait_until(lambda: not editor.painted)
    assert torch.equal(outputs(session)["rgb"], before["rgb"])


def test_undo_can_be_pressed_again_and_again(
    live: tuple[Session, Browser, LabelEditor],
) -> None:
    _, browser, editor = live
    for index in (3, 4, 5):
        editor.choose(index)
    for expected in (4, 3, 0):
        browser.set("Strokes", "Undo")
        wait_until(lambda expected=expected: editor.now.label == expected)


def test_clicks_are_no_strokes_until_they_are_asked_for(
    live: tuple[Session, Browser, LabelEditor],
) -> None:
    _, browser, editor = live
    assert browser.elements["Brush size"]["visible"] is False
    assert list(browser.elements["Kept map"]["options"]) == [str(index) for index in range(16)]
    browser.click_scene(BOX, (0.5, 0.5))
    browser.set("Strokes", "Reset")
    # The answer to what came after the click.
    wait_until(lambda: "nothing was painted on this label map" in browser.notes)
    assert not editor.painted


def test_painting_never_takes_dragging_from_the_camera(
    live: tuple[Session, Browser, LabelEditor],
) -> None:
    _, browser, editor = live
    start_painting(browser)
    browser.click_scene(BOX, (0.5, 0.5))
    wait_until(lambda: editor.painted)
    assert browser.pointer is None


def test_a_rectangle_is_one_gesture(live: tuple[Session, Browser, LabelEditor]) -> None:
    _, browser, editor = live
    browser.set("Class", "body")
    browser.click("Paint rectangle")
    wait_until(lambda: browser.pointer == "rect-select")
    browser.draw_rectangle((0.45, 0.4), (0.55, 0.6))
    wait_until(lambda: editor.painted)
    assert browser.pointer is None
    # The picture's height shows what a label map does; its width is 1.5 times that.
    inside = editor.view.map[0, 0, 7:9, 7:9]
    assert (inside == BODY).all()


def test_a_rectangle_without_size_is_explained(live: tuple[Session, Browser, LabelEditor]) -> None:
    _, browser, editor = live
    browser.click("Paint rectangle")
    wait_until(lambda: browser.pointer == "rect-select")
    browser.draw_rectangle((0.5, 0.5), (0.5, 0.5))
    wait_until(lambda: any("no rectangle was drawn" in note for note in browser.notes))
    assert browser.pointer is None
    assert not editor.painted


def test_strokes_from_two_sides_build_on_each_other(
    live: tuple[Session, Browser, LabelEditor],
) -> None:
    _, browser, editor = live
    start_painting(browser)
    browser.click_scene(BOX, (0.5, 0.5))
    wait_until(lambda: editor.painted)
    first = editor.now
    browser.orbit(90)
    browser.click_scene(BOX, (0.5, 0.5))
    wait_until(lambda: editor.now is not first)
    # nerfstudio's z is up, so that turning about it adds to the azimuth.
    expected = pose_at(AZIMUTH + 90, ELEVATION)
    torch.testing.assert_close(editor.view.pose, expected, atol=1e-3, rtol=0)


def test_files_become_label_maps_of_the_present_view(
    live: tuple[Session, Browser, LabelEditor],
) -> None:
    _, browser, editor = live
    ids = np.random.default_rng(0).integers(0, 3, (SIDE, SIDE)).astype(np.uint8)
    palette = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
    for name, pixels in (("ids.png", ids), ("{colours}.png", palette[ids])):
        browser.upload("Load a file", name, encode(pixels))
        wait_until(lambda name=name: editor.now.name == name)
        assert np.array_equal(editor.view.map[0, 0].numpy(), ids)
        first = pose_at(AZIMUTH, ELEVATION)
        torch.testing.assert_close(editor.view.pose, first, atol=1e-4, rtol=0)
    wait_until(lambda: browser.elements["Kept map"]["value"] == label_panel.OWN)
    # In Markdown braces would be code.
    shown = r"Label map: \{colours\}.png  " + "\nAppearance: the seed"
    wait_until(lambda: shown in browser.texts)
    browser.set("Kept map", "2")
    wait_until(lambda: label_panel.OWN not in browser.elements["Kept map"]["options"])
    assert editor.now.label == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("big.png", encode(np.zeros((32, 32), np.uint8)), "big.png: 32 x 32 pixels"),
        ("odd.png", encode(np.full((SIDE, SIDE), 3, np.uint8)), "class id 3 is out of range"),
        ("text.png", b"no image", "text.png: not a readable image"),
    ],
    ids=["size", "class", "format"],
)
def test_unusable_files_are_explained_in_the_browser(
    live: tuple[Session, Browser, LabelEditor], name: str, content: bytes, sentence: str
) -> None:
    _, browser, editor = live
    browser.upload("Load a file", name, content)
    wait_until(lambda: any(sentence in note for note in browser.notes))
    assert editor.now.label == 0


def test_an_edit_is_saved_beside_the_run_and_loaded_again(
    live: tuple[Session, Browser, LabelEditor],
) -> None:
    session, browser, editor = live
    start_painting(browser)
    browser.set("Seed", 3)
    browser.click_scene(BOX, (0.5, 0.5))
    wait_until(lambda: editor.painted)
    saved, before = editor.view, outputs(session)
    browser.click("Save")
    wait_until(lambda: any(note.startswith("saved in ") for note in browser.notes))
    folder = Path(browser.notes[-1].removeprefix("saved in "))
    assert folder.parent == session.viewer.log_filename.parent / "label_edits"
    found, worn = load_edit(folder, editor.labels, SIDE, 128)
    assert torch.equal(found.map, saved.map)
    browser.set("Kept map", "5")
    wait_until(lambda: editor.now.label == 5)
    browser.set("Seed", 4)
    wait_until(lambda: folder.name in browser.elements["Saved edit"]["options"])
    browser.set("Saved edit", folder.name)
    browser.click("Load saved edit")
    wait_until(lambda: editor.now.name == f"saved edit {folder.name}")
    assert torch.equal(editor.view.map, saved.map)
    assert editor.now.appearance is not None
    assert torch.equal(editor.now.appearance.w, worn.w)
    # The background is another seed's, the thing and its colours are the same.
    after = outputs(session)
    for name in ("foreground", "labels", "depth"):
        torch.testing.assert_close(after[name], before[name])
    browser.set("Seed", 0)


def test_the_camera_goes_to_where_a_map_is_seen_from(
    live: tuple[Session, Browser, LabelEditor],
) -> None:
    _, browser, editor = live
    browser.set("Kept map", "7")
    wait_until(lambda: editor.now.label == 7)
    browser.click("Go to its view")
    x, y, z = pose_at(140, 5)[0, [3, 7, 11]].tolist()
    wait_until(lambda: np.allclose(browser.view.position, (10 * x, -10 * z, 10 * y), atol=1e-4))


def test_labels_beside_the_image(live: tuple[Session, Browser, LabelEditor]) -> None:
    session, browser, _ = live
    browser.click("Labels beside image")
    wait_until(lambda: session.viewer.control_panel.split)
    panel = session.viewer.control_panel
    assert (panel.output_render, panel.split_output_render) == ("rgb", "labels")

    def halves() -> bool:
        pixels = browser.pictures[-1].pixels
        right = pixels[:, pixels.shape[1] // 2 + 2 :].reshape(-1, 3)
        colours = {tuple(colour) for colour in np.unique(right, axis=0).tolist()}
        return colours <= {(0, 0, 0), (255, 0, 0), (0, 0, 255)}

    wait_until(halves)
    # Neither of them needs normals, which take as long as everything else.
    assert model_of(session).controls.shown_output() == "rgb"
    browser.set("Output render split", "normals")
    wait_until(lambda: model_of(session).controls.shown_output() == "normals")
    browser.click("Labels beside image")
    wait_until(lambda: model_of(session).controls.shown_output() == "rgb")
    browser.click("Labels beside image")
    wait_until(lambda: not panel.split)


def test_an_image_of_the_data_set_gives_its_map_or_its_appearance(
    live: tuple[Session, Browser, LabelEditor],
    data: GanDataManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session, browser, editor = live
    monkeypatch.setattr(label_panel, "STEPS", 6)
    browser.set("Image number", 4)
    browser.click("Appearance of this image")
    wait_until(lambda: editor.now.appearance is not None)
    assert editor.now.label == 0
    request = model_of(session).request()[0]
    assert request.appearance is editor.now.appearance
    wait_until(lambda: any("step 5 of 6" in note for note in browser.notes))
    wait_until(lambda: any("is found" in note for note in browser.notes))
    wait_until(lambda: browser.elements["Appearance of the seed"]["visible"] is True)
    browser.click("Label map of this image")
    wait_until(lambda: editor.now.name == "image 4")
    assert torch.equal(editor.view.map, data.label_maps([4]))
    assert data.image_set.labels is not None
    assert torch.equal(editor.view.pose, data.image_set.labels[4:5])
    browser.click("Appearance of the seed")
    wait_until(lambda: editor.now.appearance is None)
    assert editor.now.name == "image 4"


def test_pictures_of_the_panel_are_enlarged_without_smoothing() -> None:
    url = label_panel.data_url(np.array([[[255, 0, 0], [0, 0, 255]]] * 2, np.uint8))
    image = Image.open(BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert image.size == (256, 256)
    pixels = np.asarray(image)
    assert (pixels[:, :128] == (255, 0, 0)).all()
    assert (pixels[:, 128:] == (0, 0, 255)).all()


def test_edges_have_pen_and_eraser(tmp_path: Path) -> None:
    model = build(small_labels_config("edge"))
    assert model.label_store is not None
    model.label_store.fill(
        torch.full((1, 1, SIDE, SIDE), 255, dtype=torch.uint8), pose_at(AZIMUTH, ELEVATION)
    )
    editor = model.controls.labels
    assert editor is not None
    with running_viewer(model, tmp_path, 64) as session:
        browser = Browser(session.port)
        session.rest()
        assert "Class" not in browser.elements
        # Without its data set nothing can be taken from an image.
        assert "Image number" not in browser.elements
        browser.set("Paint by clicking", True)
        browser.set("Brush size", 2)
        wait_until(lambda: browser.elements["Brush size"]["visible"] is True)
        browser.click_scene(BOX, (0.5, 0.5))
        wait_until(lambda: editor.painted)
        drawn = editor.now
        # The first view is that of the map, so all else stays as it was.
        assert sorted(set(editor.view.map.flatten().tolist())) == [0, 255]
        browser.set("Tool", "eraser")
        browser.click_scene(BOX, (0.5, 0.5))
        wait_until(lambda: editor.now is not drawn)
        assert (editor.view.map == 255).all()
        browser.close()


def test_models_without_labels_have_none_of_it(tmp_path: Path) -> None:
    model = build(small_config())
    assert model.controls.labels is None
    with running_viewer(model, tmp_path, 64) as session:
        browser = Browser(session.port)
        session.rest()
        shown = {"Kept map", "Class", "Tool", "Paint by clicking", "Save", "Load a file"}
        assert not shown & set(browser.elements)
        assert "labels" not in session.viewer.control_panel._output_render.options
        browser.close()


def test_controls_that_mean_nothing_with_label_maps_are_left_out() -> None:
    config = small_labels_config()
    config.latent.pose_conditioning = True
    controls = build(config).controls
    shown = controls._elements()
    # The generator is told the label map's own camera, and the first two of four levels are the
    # map's whatever the seed.
    assert controls.conditioning not in shown
    assert controls.mix_levels in shown
    assert controls.mix_levels.levels == (2, 3)
    config.labels.geometry_layers = 3
    assert not {controls.mix, controls.mix_levels} & set(build(config).controls._elements())


def test_without_a_viewer_the_first_kept_map_is_shown() -> None:
    model = labelled_model()
    editor = model.controls.labels
    assert editor is not None
    assert model.request()[0].label == 0
    own = LabelView(torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8), pose_at(0, 0))
    editor.load(own, "own")
    assert model.request()[0].label is own


def test_the_box_is_seen_from_its_inside() -> None:
    """Each triangle's front, from where its corners go round counterclockwise, is to the middle."""
    corners, triangles = box_from_inside(2.0)
    a, b, c = (corners[triangles[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    assert ((normals * a).sum(1) < 0).all()
    # 12 triangles of area 2 are all six sides.
    assert np.linalg.norm(normals, axis=1).sum() / 2 == pytest.approx(24)
    assert len({tuple(sorted(map(tuple, corners[t].tolist()))) for t in triangles}) == 12


def test_the_legend_names_each_colour() -> None:
    text = legend(["sky", "car"], ((255, 0, 16), (0, 10, 255)))
    assert text == "`#ff0010` sky  \n`#000aff` car"
