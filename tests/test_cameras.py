"""Camera labels, rays and poses against hand-worked projections and nerfstudio's own cameras."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_gan3d.cameras import (
    PosePrior,
    axis_cosine,
    camera_angles,
    cameras_to_labels,
    focal_from_fov,
    labels_to_cameras,
    look_at,
    make_intrinsics,
    make_labels,
    mirror_labels,
    object_to_nerfstudio,
    orbit_labels,
    pixel_rays,
    project,
    split_labels,
)

ANGLES = st.floats(-3.1, 3.1)
ELEVATIONS = st.floats(-1.5, 1.5)


def project_plainly(labels: Tensor, points: Tensor) -> Tensor:
    """Image position (u, v) of one world point a camera, in image sides: K R^-1 (p - t) / z."""
    cam2world, intrinsics = split_labels(labels)
    local = torch.linalg.solve(cam2world[:, :3, :3], points - cam2world[:, :3, 3])
    pixel = (intrinsics @ local[..., None])[..., 0]
    return pixel[:, :2] / pixel[:, 2:]


def some_labels(count: int = 4, skew: float = 0.0) -> Tensor:
    """Cameras with different focal lengths in x and y and an off-centre principal point."""
    azimuth, elevation = torch.rand(2, count, dtype=torch.float64) * 2 - 1
    labels = orbit_labels(azimuth * 3, elevation, 2.0, (0.1, -0.2, 0.3))
    labels[:, 16:] = torch.tensor([1.4, skew, 0.45, 0, 1.6, 0.6, 0, 0, 1], dtype=torch.float64)
    return labels


def test_camera_in_front_looks_along_minus_z_with_image_down_along_minus_y() -> None:
    # Forward is -z; right is forward x up = (0,0,-1) x (0,1,0) = (1,0,0); down is -y.
    matrix = look_at(torch.tensor([[0.0, 0.0, 2.0]]), torch.zeros(1, 3))
    expected = [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2], [0, 0, 0, 1]]
    torch.testing.assert_close(matrix[0], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("height", [2.0, -2.0])
def test_camera_straight_above_or_below_has_world_x_to_the_right(height: float) -> None:
    rotation = look_at(torch.tensor([[0.0, height, 0.0]]), torch.zeros(1, 3))[0, :3, :3]
    torch.testing.assert_close(rotation[:, 0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3))
    assert torch.linalg.det(rotation) == pytest.approx(1)


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "centre"),
    [(0, 0, (0, 0, 2)), (90, 0, (2, 0, 0)), (180, 0, (0, 0, -2)), (0, 30, (0, 1, 3**0.5))],
)
def test_orbit_stands_where_the_angles_say(
    azimuth_deg: float, elevation_deg: float, centre: tuple[float, ...]
) -> None:
    angles = torch.deg2rad(torch.tensor([[float(azimuth_deg)], [float(elevation_deg)]]))
    label = orbit_labels(angles[0], angles[1], 2.0)
    expected = torch.tensor(centre, dtype=torch.float32)
    torch.testing.assert_close(label[0, [3, 7, 11]], expected, atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(ANGLES, ELEVATIONS, st.floats(0.5, 4))
def test_orbit_looks_at_its_pivot_upright_and_angles_come_back(
    azimuth: float, elevation: float, radius: float
) -> None:
    pivot = (0.3, -0.1, 0.2)
    place = torch.tensor([[azimuth], [elevation], [radius]], dtype=torch.float64)
    label = orbit_labels(place[0], place[1], place[2], pivot, focal=1.5)
    found = torch.stack(camera_angles(label, pivot))
    torch.testing.assert_close(found, place, atol=1e-9, rtol=1e-9)
    target = torch.tensor([pivot], dtype=torch.float64)
    centre = torch.full((1, 2), 0.5, dtype=torch.float64)
    torch.testing.assert_close(project_plainly(label, target), centre, atol=1e-9, rtol=0)
    # A point above the pivot appears straight above it: smaller v, same u.
    above = project_plainly(label, target + torch.tensor([[0.0, 0.1, 0.0]], dtype=torch.float64))
    assert above[0, 0] == pytest.approx(0.5)
    assert above[0, 1] < 0.5


def test_focal_length_of_known_fields_of_view() -> None:
    assert focal_from_fov(90.0) == pytest.approx(0.5)
    assert focal_from_fov(2 * math.degrees(math.atan(1 / 3))) == pytest.approx(1.5)


@pytest.mark.parametrize("fov_deg", [0.0, -10.0, 180.0])
def test_impossible_field_of_view_is_refused(fov_deg: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 180"):
        focal_from_fov(fov_deg)


def test_mirrored_camera_sees_mirrored_points_at_mirrored_places() -> None:
    labels = some_labels(skew=0.03)
    points = torch.rand(len(labels), 3, dtype=torch.float64) - 0.5
    u, v = project_plainly(labels, points).unbind(-1)
    flipped = points * torch.tensor([-1.0, 1.0, 1.0])
    expected = torch.stack([1 - u, v], dim=-1)
    torch.testing.assert_close(project_plainly(mirror_labels(labels), flipped), expected)
    torch.testing.assert_close(mirror_labels(mirror_labels(labels)), labels)
    assert (torch.linalg.det(split_labels(mirror_labels(labels))[0]) > 0).all()


def test_rays_pass_through_pixel_centres_row_by_row() -> None:
    labels = some_labels(skew=0.03)
    height, width = 3, 5
    origins, directions = pixel_rays(labels, height, width)
    norms = directions.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    for row in range(height):
        for column in range(width):
            ray = row * width + column
            seen = project_plainly(labels, origins[:, ray] + 1.7 * directions[:, ray])
            centre = torch.tensor([(column + 0.5) / width, (row + 0.5) / height]).to(seen)
            torch.testing.assert_close(seen, centre.expand_as(seen))


def test_projection_by_hand() -> None:
    cameras = orbit_labels(torch.tensor([0.0, math.pi / 2]), torch.zeros(2), 2.0, focal=1.5)
    cameras[1, 16:] = torch.tensor([1.5, 0.1, 0.45, 0, 1.8, 0.6, 0, 0, 1])
    points = torch.tensor([[0.4, 0.2, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 3.0]])
    places, depth = project(cameras, points.expand(2, 3, 3))
    # The first one stands at z = 2: right is +x, down is -y.
    # u = 1/2 + 1.5 * 0.4 / 2, v = 1/2 - 1.5 * 0.2 / 2; the last point is one behind it.
    torch.testing.assert_close(places[0, :2], torch.tensor([[0.8, 0.35], [0.5, 0.5]]))
    torch.testing.assert_close(depth[0], torch.tensor([2.0, 1.0, -1.0]))
    # The second one stands at x = 2: right is -z. The first point is 1.6 away and 0.2 above the
    # axis: u = 0.45 - 0.1 * 0.2 / 1.6, v = 0.6 - 1.8 * 0.2 / 1.6; the second one 1 to the left.
    expected = torch.tensor([[0.4375, 0.375], [0.45 - 1.5 / 2, 0.6], [0.45 - 1.5 * 3 / 2, 0.6]])
    torch.testing.assert_close(places[1], expected)
    torch.testing.assert_close(depth[1], torch.tensor([1.6, 2.0, 2.0]))


def test_projection_returns_to_the_pixels_of_rays() -> None:
    labels = some_labels(skew=0.03)
    origins, directions = pixel_rays(labels, 3, 4)
    points = origins + 1.7 * directions
    places, depth = project(labels, points)
    expected = [[(x + 0.5) / 4, (y + 0.5) / 3] for y in range(3) for x in range(4)]
    expected = torch.tensor(expected, dtype=torch.float64).expand_as(places)
    torch.testing.assert_close(places, expected)
    torch.testing.assert_close(depth, 1.7 * axis_cosine(labels, directions)[..., 0])
    torch.testing.assert_close(places[:, 5], project_plainly(labels, points[:, 5]))


def test_axis_cosine_turns_distance_into_z_depth() -> None:
    labels = some_labels()
    origins, directions = pixel_rays(labels, 4, 4)
    points = origins + 1.3 * directions
    forward = split_labels(labels)[0][:, :3, 2]
    depth = ((points - origins) * forward[:, None]).sum(-1, keepdim=True)
    torch.testing.assert_close(1.3 * axis_cosine(labels, directions), depth)


def test_nerfstudio_cameras_cast_the_same_rays() -> None:
    labels = some_labels().float()
    height, width = 3, 5
    origins, directions = pixel_rays(labels, height, width)
    rotation = object_to_nerfstudio()
    cameras = labels_to_cameras(labels, width, height)
    for index in range(len(labels)):
        bundle = cameras.generate_rays(camera_indices=index)
        theirs = torch.nn.functional.normalize(bundle.directions, dim=-1).reshape(-1, 3)
        torch.testing.assert_close(theirs, directions[index] @ rotation.T, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(bundle.origins.reshape(-1, 3), origins[index] @ rotation.T)


def test_up_is_y_here_and_z_in_nerfstudio() -> None:
    rotation = object_to_nerfstudio()
    assert (rotation @ torch.tensor([0.0, 1.0, 0.0])).tolist() == [0, 0, 1]
    assert torch.linalg.det(rotation) == pytest.approx(1)


def test_cameras_to_labels_inverts_labels_to_cameras() -> None:
    labels = some_labels().float()
    back = cameras_to_labels(labels_to_cameras(labels, 48, 64))
    torch.testing.assert_close(back, labels, atol=1e-6, rtol=1e-6)


def test_labels_of_a_hand_made_nerfstudio_camera() -> None:
    # z up and OpenGL: it stands at (0, -2, 1) and looks along +y, which is -z in the object world.
    pose = torch.tensor([[[1.0, 0, 0, 0], [0, 0, -1, -2], [0, 1, 0, 1]]])
    cameras = Cameras(pose, fx=30.0, fy=40.0, cx=9.0, cy=12.0, width=20, height=25)
    cam2world, intrinsics = split_labels(cameras_to_labels(cameras))
    torch.testing.assert_close(cam2world[0, :3, 3], torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(cam2world[0, :3, 2], torch.tensor([0.0, 0.0, -1.0]))
    expected = torch.tensor([[1.5, 0, 0.45], [0, 1.6, 0.48], [0, 0, 1]])
    torch.testing.assert_close(intrinsics[0], expected)


def test_labels_hold_pose_then_intrinsics_row_by_row() -> None:
    pose = torch.arange(16.0).view(1, 4, 4)
    intrinsics = make_intrinsics(1.5, 1)
    label = make_labels(pose, intrinsics)
    assert label[0, :16].tolist() == list(range(16))
    assert label[0, 16:].tolist() == [1.5, 0, 0.5, 0, 1.5, 0.5, 0, 0, 1]


def test_uniform_prior_fills_its_section_evenly_over_the_sphere() -> None:
    prior = PosePrior("uniform", (-30.0, 90.0), (10.0, 60.0), 2.0, (0.1, 0.0, 0.0), 40.0)
    labels = prior.sample(4000, torch.Generator().manual_seed(1))
    azimuth, elevation, radius = camera_angles(labels, prior.pivot)
    assert radius.min() == pytest.approx(2, abs=1e-5)
    assert radius.max() == pytest.approx(2, abs=1e-5)
    torch.testing.assert_close(labels[:, 16], torch.full((4000,), focal_from_fov(40.0)))
    # Equal areas of the section are equal steps of azimuth and of the elevation's sine.
    low, high = math.sin(math.radians(10)), math.sin(math.radians(60))
    for value in (torch.rad2deg(azimuth).add(30) / 120, (elevation.sin() - low) / (high - low)):
        assert value.min() >= -1e-5
        assert value.max() <= 1 + 1e-5
        counts = torch.histc(value, 10, 0, 1)
        # Chi-square with 9 degrees of freedom: 27.9 is its 99.9th percentile.
        assert ((counts - 400).square() / 400).sum() < 27.9


def test_gaussian_prior_has_its_section_within_two_deviations() -> None:
    prior = PosePrior("gaussian", (-40.0, 40.0), (0.0, 20.0))
    labels = prior.sample(4000, torch.Generator().manual_seed(1))
    azimuth, elevation = (torch.rad2deg(angle) for angle in camera_angles(labels)[:2])
    # Standard errors are 20 / sqrt(4000) = 0.32 and 5 / sqrt(4000) = 0.08 degrees.
    assert azimuth.mean() == pytest.approx(0, abs=1.2)
    assert azimuth.std() == pytest.approx(20, abs=1)
    assert elevation.mean() == pytest.approx(10, abs=0.3)
    assert elevation.std() == pytest.approx(5, abs=0.25)


def test_prior_repeats_with_its_generator() -> None:
    first, second = (PosePrior().sample(3, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("azimuth_deg", (10.0, -10.0)),
        ("elevation_deg", (40.0, 3.0)),
        ("elevation_deg", (-90.0, 0.0)),
        ("elevation_deg", (0.0, 95.0)),
        ("radius", 0.0),
        ("fov_deg", 180.0),
    ],
)
def test_impossible_priors_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        PosePrior(**{field: value})  # type: ignore[arg-type]
