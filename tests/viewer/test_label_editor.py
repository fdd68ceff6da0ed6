"""Edits of one view are where they belong in another one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import make_intrinsics, make_labels, orbit_labels
from nerfstudio_gan3d.latents import Appearance, LabelStore, LabelView
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.label_images import label_ids
from nerfstudio_gan3d.models.pix2pix3d import pix2pix3d_tiny
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.scene import Scene
from nerfstudio_gan3d.viewer.label_editor import LabelEditor
from tests.models import tiny
from tests.viewer.painted_ball import RADIUS, ball_scene
from tests.viewer.session import build, fit_to_cars

SIDE, CLASSES = 64, 4
PIVOT = (0.0, 0.0, 0.0)


def pose_at(azimuth: float, elevation: float = 0.0, radius: float = 1.9) -> Tensor:
    angles = torch.deg2rad(torch.tensor([[azimuth], [elevation]]))
    return orbit_labels(angles[0], angles[1], radius, PIVOT, 1.5)


def user_at(azimuth: float, elevation: float = 0.0) -> Tensor:
    """A wide picture (3:2) from further away than label maps are seen from."""
    camera = pose_at(azimuth, elevation, radius=2.6)
    camera[:, 16], camera[:, 20] = 0.8, 1.2
    return camera


def on_ball(azimuth: float, elevation: float) -> np.ndarray:
    a, e = math.radians(azimuth), math.radians(elevation)
    cosine = math.cos(e)
    return RADIUS * np.array([math.sin(a) * cosine, math.sin(e), math.cos(a) * cosine])


def seen_at(point: np.ndarray, camera: Tensor) -> tuple[float, float]:
    """Where a camera's picture shows a point, written out on its own."""
    label = camera[0].double().numpy()
    matrix, intrinsics = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
    x, y, z = intrinsics @ (matrix[:3, :3].T @ (point - matrix[:3, 3]))
    return x / z, y / z


@pytest.fixture(scope="module")
def generator() -> Generator:
    """Renders Scenes that other networks made; its own are not used."""
    config = fit_to_cars(pix2pix3d_tiny())
    config.labels.classes = CLASSES
    config.labels.palette = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
    generator = build(config).generator_ema
    generator.settings = RenderSettings(64, 64)
    return generator


@pytest.fixture
def editor(generator: Generator) -> LabelEditor:
    """Editor of the ball as the camera in front sees it: a disc of class 1."""
    assert generator.labels is not None
    store = LabelStore(generator.labels, SIDE)
    front = pose_at(0)
    x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    # The outline's tangent rays: sin = radius / distance.
    outline = 1.5 * math.tan(math.asin(RADIUS / 1.9)) * SIDE
    disc = np.hypot(x - SIDE / 2, y - SIDE / 2) < outline
    store.fill(torch.from_numpy(disc.astype(np.uint8))[None, None], front)
    return LabelEditor(generator, store, 1.9, PIVOT, 1.5)


def scene_of(editor: LabelEditor) -> Scene:
    return ball_scene(editor.view, CLASSES)


def seen_ids(generator: Generator, scene: Scene, pose: Tensor) -> Tensor:
    with torch.no_grad():
        found = generator.render(scene, pose).labels
    assert found is not None
    assert generator.labels is not None
    return label_ids(found, generator.labels)[0, 0]


def test_a_dot_from_the_side_is_where_it_belongs_from_everywhere(
    generator: Generator, editor: LabelEditor
) -> None:
    spot = on_ball(100, 20)
    before = editor.canvas(scene_of(editor), user_at(75, 10))
    assert editor.dot(scene_of(editor), user_at(75, 10), seen_at(spot, user_at(75, 10)), 2, 6)
    view = editor.view
    torch.testing.assert_close(view.pose, pose_at(75, 10))
    # On the map: a disc of 6 pixels about the spot's place, the rest as the Scene looked before.
    x, y = (place * SIDE for place in seen_at(spot, view.pose))
    grid = np.arange(SIDE) + 0.5
    disc = np.hypot(grid[None] - x, grid[:, None] - y)
    ids = view.map[0, 0].numpy()
    assert (ids[disc < 2.7] == 2).all()
    assert np.array_equal(ids[disc > 3.3], before.map[0, 0].numpy()[disc > 3.3])
    # In the world: seen from both sides of where it was painted, and not from behind.
    scene = scene_of(editor)
    for azimuth in (60, 100, 130):
        other = pose_at(azimuth)
        found = seen_ids(generator, scene, other)
        column, row = (int(place * SIDE) for place in seen_at(spot, other))
        assert found[row, column] == 2
        rows, columns = (found == 2).nonzero().double().add(0.5).mean(0).tolist()
        assert (columns, rows) == pytest.approx((column + 0.5, row + 0.5), abs=2.5)
    assert not (seen_ids(generator, scene, pose_at(280)) == 2).any()


def test_strokes_of_one_view_are_made_on_one_map(editor: LabelEditor) -> None:
    camera = user_at(75)
    editor.dot(scene_of(editor), camera, seen_at(on_ball(70, 30), camera), 2, 4)
    first = editor.view
    # A little further round, where rendering anew would change pixels at the outline.
    near = user_at(76, 1)
    editor.dot(scene_of(editor), near, seen_at(on_ball(90, -30), near), 3, 4)
    second = editor.view
    assert torch.equal(second.pose, first.pose)
    changed = second.map != first.map
    assert changed.any()
    assert (second.map[changed] == 3).all()
    # From another side a new map is begun; it shows both strokes.
    far = user_at(85)
    editor.dot(scene_of(editor), far, seen_at(on_ball(60, 0), far), 2, 1)
    third = editor.view
    torch.testing.assert_close(third.pose, pose_at(85))
    assert {2, 3} <= set(third.map.flatten().tolist())


def test_a_kept_map_is_painted_on_itself_from_its_own_view(editor: LabelEditor) -> None:
    kept = editor.view
    camera = user_at(0)
    editor.dot(scene_of(editor), camera, seen_at(on_ball(10, 10), camera), 3, 3)
    assert torch.equal(editor.view.pose, kept.pose)
    changed = editor.view.map != kept.map
    # 3 pixels wide: at most the 9 of a square.
    assert 5 <= int(changed.sum()) <= 9


def test_background_is_painted_on_the_plane_through_the_pivot(editor: LabelEditor) -> None:
    # Beside the ball; the plane's point (0.5, 0.1, 0) is at these places of both pictures.
    point = np.array([0.5, 0.1, 0.0])
    editor.dot(scene_of(editor), user_at(0), seen_at(point, user_at(0)), 2, 1)
    column, row = (int(place * SIDE) for place in seen_at(point, pose_at(0)))
    assert (editor.view.map == 2).nonzero().tolist() == [[0, 0, row, column]]


def test_clicks_are_connected_only_on_one_map_and_one_after_the_other(editor: LabelEditor) -> None:
    camera = user_at(0)
    ends = [np.array([x, 0.02, 0.0]) for x in (-0.55, -0.4)]
    places = [seen_at(end, camera) for end in ends]

    def click(index: int, value: int = 2) -> int:
        editor.dot(scene_of(editor), camera, places[index], value, 1, connect=True)
        return int((editor.view.map == value).sum())

    assert click(0) == 1
    # From -0.55 to -0.4 in pixels: 0.15 * 1.5 / 1.9 * 64 = 7.6 further.
    assert click(1) in (8, 9)
    assert editor.undo()
    # What was undone is not the click before.
    assert click(1, value=3) == 1
    side = user_at(90)
    place = seen_at(on_ball(90, 0), side)
    editor.dot(scene_of(editor), side, place, 2, 1, connect=True)
    canvas = editor.view
    editor.undo()
    begun = editor.canvas(scene_of(editor), side)
    assert int((canvas.map != begun.map).sum()) == 1


def test_a_rectangle_of_the_picture_is_one_of_the_map(generator: Generator) -> None:
    """Nothing is there, so all of it lies on the plane through the pivot."""
    assert generator.labels is not None
    store = LabelStore(generator.labels, SIDE)
    store.fill(torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8), pose_at(0))
    editor = LabelEditor(generator, store, 1.9, PIVOT, 1.5)
    empty = ball_scene(editor.view, CLASSES)
    empty = replace(empty, bounds=replace(empty.bounds, box=(1e-6, 1e-6, 1e-6)))
    # From 3.8 units a picture of focal 1.5 shows half of what it does from 1.9: places 0.4 to 0.6
    # are 0.3 to 0.7 on the map, and 0.45 to 0.5 are 0.4 to 0.5.
    camera = pose_at(0, radius=3.8)
    assert editor.rectangle(empty, camera, (0.4, 0.45), (0.6, 0.5), 3)
    expected = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    middles = (torch.arange(SIDE) + 0.5) / SIDE
    rows, columns = (middles - 0.45).abs() < 0.05, (middles - 0.5).abs() < 0.2
    expected[rows[:, None] & columns] = 3
    assert torch.equal(editor.view.map[0, 0], expected)


def test_a_rectangle_covers_what_the_user_sees_in_it(
    generator: Generator, editor: LabelEditor
) -> None:
    camera = user_at(50)
    low, high = (0.45, 0.4), (0.5, 0.6)
    assert editor.rectangle(scene_of(editor), camera, low, high, 2)
    # The user's own picture of the new Scene, 96 x 64 pixels.
    with torch.no_grad():
        found = generator.render(scene_of(editor), camera, 96, height=64).labels
    assert found is not None
    assert generator.labels is not None
    painted = (label_ids(found, generator.labels)[0, 0] == 2).numpy()
    y, x = np.meshgrid((np.arange(64) + 0.5) / 64, (np.arange(96) + 0.5) / 96, indexing="ij")
    inside = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    # One pixel of the map is 1.6 of this picture; edges may be off by that much.
    wrong = painted != inside
    edge = np.minimum.reduce(
        [abs(x - low[0]) * 96, abs(x - high[0]) * 96, abs(y - low[1]) * 64, abs(y - high[1]) * 64]
    )
    assert inside.sum() > 50
    assert not wrong[edge > 1.6].any()


def test_undo_redo_and_reset(editor: LabelEditor) -> None:
    assert not editor.undo()
    assert not editor.reset()
    editor.choose(3)
    camera = user_at(90)
    for height in (0.0, 0.1):
        place = seen_at(np.array([RADIUS, height, 0]), camera)
        editor.dot(scene_of(editor), camera, place, 2, 3)
    painted = editor.now
    assert editor.painted
    assert editor.reset()
    assert editor.now.label == 3
    assert editor.undo()
    assert editor.now is painted
    for _ in range(2):
        editor.undo()
    assert editor.now.label == 3
    editor.undo()
    assert editor.now.label == 0
    while editor.redo():
        pass
    assert editor.now.label == 3


def test_painting_what_is_there_already_is_no_step(editor: LabelEditor) -> None:
    camera = user_at(0)
    place = seen_at(on_ball(0, 0), camera)
    assert not editor.dot(scene_of(editor), camera, place, 1, 3)
    assert not editor.undo()


def test_a_loaded_map_is_what_reset_returns_to(editor: LabelEditor) -> None:
    own = LabelView(torch.full((1, 1, SIDE, SIDE), 2, dtype=torch.uint8), pose_at(30))
    worn = Appearance(torch.zeros(1, 128))
    editor.wear(worn, "image 5")
    editor.load(own, "own.png")
    assert editor.now.label is own
    assert editor.now.appearance is worn
    camera = user_at(30)
    editor.dot(scene_of(editor), camera, (0.5, 0.5), 3, 3)
    assert editor.reset()
    assert editor.now.label is own
    assert editor.now.name == "own.png"


@pytest.mark.parametrize("index", [-1, 16])
def test_maps_that_are_not_kept_are_refused(editor: LabelEditor, index: int) -> None:
    with pytest.raises(ValueError, match=f"label map {index}: a checkpoint keeps 16"):
        editor.choose(index)


def test_places_outside_of_the_map_are_refused(editor: LabelEditor) -> None:
    camera = user_at(0)
    with pytest.raises(ValueError, match="outside of the label map"):
        editor.dot(scene_of(editor), camera, seen_at(np.array([0.9, 0, 0]), camera), 2, 3)
    with pytest.raises(ValueError, match="holds no pixel of the label map"):
        editor.rectangle(scene_of(editor), camera, (0.99, 0.99), (1.0, 1.0), 2)
    # A camera that looks away from the pivot.
    away = torch.eye(4)[None].clone()
    away[:, 2, 3] = 2.0
    with pytest.raises(ValueError, match="nothing to paint on"):
        editor.dot(scene_of(editor), make_labels(away, make_intrinsics(1.5, 1)), (0.5, 0.5), 2, 3)
    assert not editor.undo()


def test_with_super_resolution_maps_have_the_final_images_size() -> None:
    """Rendered at 8 pixels, 16 after super-resolution."""
    config = tiny.upsampled_config()
    config.labels = LabelConfig(
        "seg", 2, encoder_base=64, encoder_max=8, palette=((0, 0, 0), (9, 9, 9))
    )
    model = tiny.make_model(config)
    editor = model.controls.labels
    assert editor is not None
    scene = model.scene().scene
    camera = orbit_labels(torch.tensor([0.7]), torch.tensor([0.2]), 1.9)
    assert editor.canvas(scene, camera).map.shape == (1, 1, 16, 16)
    empty = replace(scene, bounds=replace(scene.bounds, box=(1e-6, 1e-6, 1e-6)))
    before = editor.canvas(empty, camera).map
    value = 1 - int(before[0, 0, 5, 5])
    editor.rectangle(empty, camera, (0.25, 0.25), (0.5, 0.75), value)
    # A quarter to a half across, a quarter to three quarters down; 16 pixels are finer than 8 rays.
    changed = editor.view.map != before
    assert (editor.view.map[0, 0, 4:12, 4:8] == value).all()
    changed[0, 0, 4:12, 4:8] = False
    assert not changed.any()
