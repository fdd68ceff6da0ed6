"""The nouns: density's activation, and Scenes with another background."""

import math

import pytest
import torch

from nerfstudio_gan3d.scene import Background, Bounds, Field, Scene, activate_density
from tests.rendering.scenes import Backdrop, Ball


def test_density_is_a_shifted_softplus_and_never_negative() -> None:
    raw = torch.tensor([-50.0, 1.0, 101.0])
    # ln(1 + e^-51) = 7e-23, ln 2, and 100 where softplus is linear.
    assert activate_density(raw).tolist() == pytest.approx([0, math.log(2), 100], abs=1e-6)
    assert activate_density(raw, 12.0).tolist() == pytest.approx(
        [0, 12 * math.log(2), 1200], abs=1e-5
    )


def test_density_of_a_scene_has_its_scale() -> None:
    scene = Scene(Ball(0.3, inside=1.0), Bounds(), 1, density_scale=5.0)
    found = scene.density(torch.tensor([[[0.0, 0.0, 0.0], [0.4, 0.0, 0.0]]]))
    assert found.flatten().tolist() == pytest.approx([5 * math.log(2), 0])


def test_another_background_leaves_the_rest() -> None:
    scene = Scene(Ball(), Bounds(), 1, Backdrop(), 5.0)
    plain = scene.with_background(None)
    assert plain.background is None
    assert scene.background == Backdrop()
    assert (plain.field, plain.density_scale) == (scene.field, 5.0)


def test_own_fields_and_backgrounds_are_recognised_by_their_methods() -> None:
    assert isinstance(Ball(), Field)
    assert isinstance(Backdrop(), Background)
    assert not isinstance(Bounds(), Field)
