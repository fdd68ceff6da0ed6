"""The first camera stands where the training cameras stand."""

import math

import pytest
import torch

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.viewer.camera import camera_at, first_camera


def test_position_by_hand() -> None:
    """Object world (sin a cos e, sin e, cos a cos e) r + pivot with a = 30, e = 15 degrees; then
    nerfstudio's (x, -z, y); then times ten.
    """
    camera = first_camera(2.0, (0.0, 0.5, 0.0), 1.5, 1.6)
    cosine = math.cos(math.radians(15))
    x, y, z = 2 * 0.5 * cosine, 2 * math.sin(math.radians(15)) + 0.5, 2 * math.sqrt(0.75) * cosine
    assert camera.position == pytest.approx((10 * x, -10 * z, 10 * y))
    assert camera.look_at == pytest.approx((0.0, 0.0, 5.0))


@pytest.mark.parametrize(("aspect", "half"), [(1.0, 1 / 3), (2.0, 1 / 3), (0.5, 2 / 3)])
def test_the_shorter_side_shows_what_a_training_image_shows(aspect: float, half: float) -> None:
    """Focal 1.5 sides: the tangent of half the shorter side's angle is 0.5 / 1.5."""
    assert math.tan(first_camera(1.9, (0.0, 0.0, 0.0), 1.5, aspect).fov / 2) == pytest.approx(half)


@pytest.mark.parametrize("wrong", [(0.0, 1.5, 1.0), (1.9, 0.0, 1.0), (1.9, 1.5, 0.0)])
def test_sizes_must_be_positive(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        first_camera(wrong[0], (0.0, 0.0, 0.0), *wrong[1:])


def test_a_camera_label_is_looked_from() -> None:
    """From +x, two units away, focal 2 sides: nerfstudio's world is (x, -z, y), times ten."""
    pose = orbit_labels(torch.tensor([math.pi / 2]), torch.zeros(1), 2.0, (0.0, 0.5, 0.0), 2.0)
    camera = camera_at(pose, (0.0, 0.5, 0.0), 0.5)
    assert camera.position == pytest.approx((20.0, 0.0, 5.0), abs=1e-5)
    assert camera.look_at == pytest.approx((0.0, 0.0, 5.0))
    # Twice as high as wide: the width shows 0.5 / 2 to each side, the height twice that.
    assert math.tan(camera.fov / 2) == pytest.approx(0.5)
