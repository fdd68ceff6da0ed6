"""Strokes, cameras and history by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import make_intrinsics, make_labels, orbit_labels
from nerfstudio_gan3d.networks.label_encoder import encode_labels
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.viewer.label_edits import (
    History,
    angle_between,
    edit_pose,
    inside_rectangle,
    line_mask,
    paint,
    surface_distance,
    unblurred,
)

PIVOT = (0.0, 0.1, 0.0)


def orbit(
    azimuth: float, elevation: float = 0.0, radius: float = 1.9, focal: float = 1.5
) -> Tensor:
    angles = torch.deg2rad(torch.tensor([[azimuth], [elevation]]))
    return orbit_labels(angles[0], angles[1], radius, PIVOT, focal)


def picture(mask: Tensor) -> str:
    return " ".join("".join("#" if pixel else "." for pixel in row) for row in mask.tolist())


def test_of_a_users_camera_only_the_direction_from_the_pivot_is_kept() -> None:
    # Nearer, wider, rolled, and looking past the object.
    position = orbit(70, 25, radius=0.8)[:, [3, 7, 11]]
    turned = torch.linalg.qr(torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0)))[0]
    matrix = torch.eye(4)[None].clone()
    matrix[:, :3, :3], matrix[:, :3, 3] = turned, position
    camera = make_labels(matrix, make_intrinsics(0.7, 1))
    torch.testing.assert_close(edit_pose(camera, 1.9, PIVOT, 1.5), orbit(70, 25))


def test_a_camera_at_the_pivot_has_no_direction() -> None:
    camera = orbit(0)
    camera[:, [3, 7, 11]] = torch.tensor([PIVOT])
    with pytest.raises(ValueError, match="inside of the point that it turns about; move it back"):
        edit_pose(camera, 1.9, PIVOT, 1.5)


@pytest.mark.parametrize(
    ("first", "second", "degrees"),
    [
        ((10, 0), (40, 0), 30),
        ((0, 10), (0, -15), 25),
        # cos = sin 60 sin 60 + cos 60 cos 60 cos 180 = 3/4 - 1/4.
        ((0, 60), (180, 60), 60),
        ((20, 20), (20, 20.001), 0.001),
    ],
)
def test_angles_between_cameras(
    first: tuple[float, float], second: tuple[float, float], degrees: float
) -> None:
    # How far away they are does not matter.
    angle = angle_between(orbit(*first), orbit(*second, radius=4.0), PIVOT)
    assert angle == pytest.approx(degrees, abs=2e-5)


def test_a_camera_at_the_pivot_is_far_from_every_other() -> None:
    blank = torch.eye(4).flatten()[None]
    blank = torch.cat([blank, torch.eye(3).flatten()[None]], dim=1)
    assert angle_between(blank, orbit(0), (0.0, 0.0, 0.0)) == 180


def test_rays_end_on_the_thing_or_on_the_plane_through_the_pivot() -> None:
    # From (0, 0, 2): straight ahead, 45 degrees to the side, and backwards.
    origins = torch.tensor([[[0.0, 0.0, 2.0]] * 4])
    half = math.sqrt(0.5)
    directions = torch.tensor([[[0, 0, -1.0], [0, 0, -1.0], [half, 0, -half], [0, 0, 1.0]]])
    transmittance = torch.tensor([[[0.4], [0.6], [1.0], [1.0]]])
    nothing = torch.zeros(1, 4, 3)
    found = Rendering(
        nothing,
        nothing,
        None,
        transmittance,
        nothing[..., :1],
        torch.tensor([[[1.3], [1.4], [9.0], [9.0]]]),
        nothing,
        torch.zeros(1, 4, 4),
    )
    reach = surface_distance(found, origins, directions, (0.0, 0.0, 0.0))
    # The second ray is covered by less than half; the third meets z = 0 after 2 / cos 45.
    torch.testing.assert_close(reach, torch.tensor([1.3, 2.0, 2 / half, math.nan]), equal_nan=True)


def test_points_in_a_rectangle_of_the_picture() -> None:
    camera = orbit_labels(torch.zeros(1), torch.zeros(1), 2.0, (0.0, 0.0, 0.0), 1.0)
    # At z = 0 a picture's half is one unit: u = 1/2 + x / 2, v = 1/2 - y / 2.
    points = torch.tensor(
        [[0.1, 0.1, 0], [0.3, 0.1, 0], [0.1, -0.1, 0], [-0.1, -0.1, 4.0], [math.nan, 0, 0]]
    )
    inside = inside_rectangle(points, camera, (0.5, 0.4), (0.6, 0.5))
    # Right of it, below it, behind the camera (where it would mirror into it), nowhere.
    assert inside.tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("start", "end", "width", "expected"),
    [
        ((2.5, 2.5), (2.5, 2.5), 1, "..... ..... ..#.. ..... ....."),
        ((2.5, 2.5), (2.5, 2.5), 2, "..... ..#.. .###. ..#.. ....."),
        ((2.5, 2.5), (2.5, 2.5), 3, "..... .###. .###. .###. ....."),
        # Between four pixels: two wide is a square, one wide the pixel that holds the place.
        ((2.0, 2.0), (2.0, 2.0), 2, "..... .##.. .##.. ..... ....."),
        ((2.0, 2.0), (2.0, 2.0), 1, "..... ..... ..#.. ..... ....."),
        ((0.5, 1.5), (3.5, 1.5), 1, "..... ####. ..... ..... ....."),
        ((0.5, 0.5), (4.5, 4.5), 1, "#.... .#... ..#.. ...#. ....#"),
        # The brush reaches in from outside.
        ((-0.5, 2.5), (-0.5, 2.5), 3, "..... #.... #.... #.... ....."),
        ((-9.0, 2.5), (-9.0, 2.5), 3, "..... ..... ..... ..... ....."),
    ],
)
def test_brushes_by_hand(
    start: tuple[float, float], end: tuple[float, float], width: int, expected: str
) -> None:
    assert picture(line_mask(5, start, end, width)) == expected


def test_thin_lines_have_no_gaps() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        ends = random.uniform(0, 24, (2, 2))
        mask = line_mask(24, tuple(ends[0]), tuple(ends[1]), 1)
        if abs(ends[1] - ends[0])[0] < abs(ends[1] - ends[0])[1]:
            mask, ends = mask.T, ends[:, ::-1]
        low, high = sorted(int(x) for x in ends[:, 0])
        rows = [set(mask[:, column].nonzero()[:, 0].tolist()) for column in range(low, high + 1)]
        for here, after in itertools.pairwise(rows):
            assert any(abs(a - b) <= 1 for a in here for b in after)


def test_painting_leaves_the_given_map_as_it_is() -> None:
    before = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    mask = torch.tensor([[True, False], [False, True]])
    after = paint(before, mask, 9)
    assert after.flatten().tolist() == [9, 1, 2, 9]
    assert after.dtype == torch.uint8
    assert before.flatten().tolist() == [0, 1, 2, 3]


def test_a_blurred_drawing_is_found_again() -> None:
    """Crossing lines of one pixel, a thick one, and a dot; the darkest blurred value is 85 of 255
    below paper where a line is one pixel wide."""
    drawing = torch.full((1, 1, 24, 24), 255, dtype=torch.uint8)
    drawing[0, 0, 5, 2:20] = 0
    drawing[0, 0, 2:20, 9] = 0
    drawing[0, 0, torch.arange(10, 20), torch.arange(12, 22)] = 0
    drawing[0, 0, 14:18, 2:6] = 0
    drawing[0, 0, 21, 15] = 0
    blurred = encode_labels(drawing, "edge", 1)
    found = unblurred(blurred)
    # To the networks both are alike, and lines are lines again.
    assert (encode_labels(found, "edge", 1) - blurred).abs().max() < 0.06
    assert ((found < 128) == (drawing < 128)).float().mean() > 0.995
    # Without it lines get paler and wider each time.
    again = encode_labels(((blurred + 1) * 127.5).to(torch.uint8), "edge", 1)
    assert (again - blurred).abs().max() > 0.3


def test_history_undoes_and_redoes() -> None:
    history = History("a")
    assert not history.undo()
    history.push("b")
    history.push("c")
    assert history.undo()
    assert history.undo()
    assert not history.undo()
    assert history.now == "a"
    assert history.redo()
    assert history.now == "b"
    # A new step takes the place of what was undone.
    history.push("d")
    assert not history.redo()
    assert history.undo()
    assert history.now == "b"


def test_history_forgets_the_oldest_states() -> None:
    history = History(0, limit=3)
    for state in range(1, 6):
        history.push(state)
    states = []
    while history.undo():
        states.append(history.now)
    assert states == [4, 3, 2]
