"""Camera angles and pose errors with hand-worked answers, across the wrap at 180 degrees."""

import math

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.metrics.alignment import PoseErrors, camera_angles, shuffled_partners


def label_at(*position: float) -> torch.Tensor:
    """A 25-float label whose camera is at `position`; its rotation plays no part here."""
    matrix = torch.eye(4)
    matrix[:3, 3] = torch.tensor(position)
    return torch.cat([matrix.flatten(), torch.eye(3).flatten()])


def labels_at_azimuth(*degrees: float, elevation: float = 0.0) -> torch.Tensor:
    rows = []
    for d in degrees:
        a, e = math.radians(d), math.radians(elevation)
        x, y, z = math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)
        rows.append(label_at(1.9 * x, 1.9 * y, 1.9 * z))
    return torch.stack(rows)


def reading(*degrees: float) -> torch.Tensor:
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack([radians.sin(), radians.cos()], dim=1)


def test_angles_of_cameras_on_the_axes():
    labels = torch.stack(
        [label_at(0, 0, 2), label_at(2, 0, 0), label_at(-2, 0, 0), label_at(0, 1, 1)]
    )
    azimuth, elevation = camera_angles(labels)
    assert azimuth.rad2deg().tolist() == pytest.approx([0, 90, -90, 0])
    assert elevation.rad2deg().tolist() == pytest.approx([0, 0, 0, 45])
    # From a pivot at (2, 0, 0) the first camera stands at (-2, 0, 2).
    azimuth, _ = camera_angles(labels[:1], pivot=(2.0, 0.0, 0.0))
    assert azimuth.rad2deg().tolist() == pytest.approx([-45])


def test_angles_refuse_bad_labels():
    with pytest.raises(ValueError, match=r"\(1, 24\).*\[B, 25\]"):
        camera_angles(torch.zeros(1, 24))
    with pytest.raises(ValueError, match="NaN"):
        camera_angles(torch.full((1, 25), math.nan))
    with pytest.raises(ValueError, match="sits on the pivot"):
        camera_angles(label_at(0, 0, 0)[None])


def test_errors_wrap_and_are_counted():
    errors = PoseErrors()
    # Signed errors: 175 -> -175 is +10; -170 -> 170 is -20; 0 -> 100 is +100; 10 -> 170 is +160.
    cameras = labels_at_azimuth(175, -170, 0, 10, elevation=20)
    elevation = torch.tensor([21.0, 18.0, 23.0, 16.0]).deg2rad()[:, None]
    errors.update(reading(-175, 170), elevation[:2], cameras[:2])
    errors.update(reading(100, 170), elevation[2:], cameras[2:])
    figures = errors.figures(seed=0)
    assert figures["azimuth_error_median_deg"] == pytest.approx(60, abs=1e-3)
    assert figures["azimuth_within_15_percent"] == 25
    assert figures["azimuth_over_90_percent"] == 50
    assert figures["azimuth_flip_over_135_percent"] == 25
    # |1|, |-2|, |3|, |-4|
    assert figures["elevation_error_median_deg"] == pytest.approx(2.5, abs=1e-3)


def test_a_constant_turn_is_found_across_the_wrap():
    cameras = [-170, -80, 0, 60, 100, 179]
    errors = PoseErrors()
    turn = [c + 170 + wobble for c, wobble in zip(cameras, [1, -1, 2, -2, 3, -3], strict=True)]
    errors.update(reading(*turn), torch.zeros(6, 1), labels_at_azimuth(*cameras))
    figures = errors.figures(seed=0)
    assert figures["azimuth_offset_deg"] == pytest.approx(170, abs=1e-3)
    assert figures["azimuth_error_median_deg"] == pytest.approx(170, abs=1e-3)
    assert figures["azimuth_error_median_after_offset_deg"] == pytest.approx(2, abs=1e-3)


def test_control_is_near_chance_for_images_that_follow_their_cameras():
    azimuths = torch.rand(2000).mul(360).sub(180).tolist()
    errors = PoseErrors()
    errors.update(reading(*azimuths), torch.zeros(2000, 1), labels_at_azimuth(*azimuths))
    figures = errors.figures(seed=3)
    assert figures["azimuth_error_median_deg"] < 1e-3
    # Differences of uniform angles are uniform: median 90, and 15 / 180 = 8.3 % within 15 degrees.
    assert figures["azimuth_control_median_deg"] == pytest.approx(90, abs=8)
    assert figures["azimuth_control_within_15_percent"] == pytest.approx(8.33, abs=3)
    assert figures == errors.figures(seed=3)
    assert figures != errors.figures(seed=4)


def test_no_image_gives_no_figures_and_one_gives_no_control():
    errors = PoseErrors()
    assert errors.figures(0) == {}
    errors.update(reading(30), torch.zeros(1, 1), labels_at_azimuth(35))
    figures = errors.figures(0)
    assert figures["azimuth_error_median_deg"] == pytest.approx(5, abs=1e-3)
    assert not [name for name in figures if "control" in name]


def test_nan_of_the_evaluator_is_refused():
    with pytest.raises(ValueError, match="azimuth or elevation is NaN"):
        PoseErrors().update(reading(math.nan), torch.zeros(1, 1), labels_at_azimuth(0))


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_partners_are_a_permutation_without_fixed_points(count: int):
    for seed in range(20):
        partners = shuffled_partners(count, seed)
        assert sorted(partners.tolist()) == list(range(count))
        assert (partners != np.arange(count)).all()
