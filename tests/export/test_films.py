"""Ways from sample to sample."""

from __future__ import annotations

import pytest
import torch

from nerfstudio_gan3d.export.films import between
from nerfstudio_gan3d.latents import LabelView, SceneRequest, request_latents
from tests.models.tiny import make_generator

KEYS = [SceneRequest(3), SceneRequest(5), SceneRequest(4)]


@pytest.mark.parametrize(
    ("place", "seed", "other", "share"),
    [(0.0, 3, 5, 0), (0.25, 3, 5, 0.25), (1.0, 5, 4, 0), (1.75, 5, 4, 0.75), (2.0, 5, 4, 1)],
)
def test_keys_lie_at_whole_numbers(place: float, seed: int, other: int, share: float) -> None:
    found = between(KEYS, place)
    assert (found.seed, found.other_seed, found.interpolation) == (seed, other, share)


def test_the_way_passes_through_every_key_in_straight_lines() -> None:
    torch.manual_seed(2)
    generator = make_generator()
    with torch.no_grad():
        ends = [request_latents(generator, key) for key in KEYS]
        at_key = request_latents(generator, between(KEYS, 2.0))
        halfway = request_latents(generator, between(KEYS, 0.5))
    for name in ("foreground", "background"):
        first, second, third = (getattr(end, name) for end in ends)
        torch.testing.assert_close(getattr(at_key, name), third)
        torch.testing.assert_close(getattr(halfway, name), (first + second) / 2)


def test_label_maps_change_with_their_keys() -> None:
    pose = torch.zeros(1, 25)
    near, far = (
        LabelView(torch.full((1, 1, 8, 8), value, dtype=torch.uint8), pose) for value in (0, 1)
    )
    found = between([SceneRequest(3, label=near), SceneRequest(3, label=far)], 0.5)
    assert found.label is near
    assert found.other_label is far
    assert found.seed == found.other_seed == 3
