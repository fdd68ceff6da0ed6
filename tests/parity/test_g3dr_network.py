"""The U-Net of G3DR against what the official network makes of one image with depth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.parity.fill import Fixture
from tests.parity.g3dr import filled_unet
from tests.parity.official import fixtures_with

FIXTURES = fixtures_with("rgb", "depth", "planes_sub", "planes_row", models=("g3dr",))


@pytest.fixture(params=FIXTURES, scope="module")
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return Fixture(request.param)


@pytest.fixture(scope="module")
def planes(fixture: Fixture) -> Tensor:
    """Planes of the fixture's image; colours in [-1, 1], distances as they are."""
    assert fixture.config["salt"] == 0
    with torch.no_grad():
        return filled_unet()(torch.cat([fixture["rgb"], fixture["depth"]], dim=1))


def test_the_fixture_is_here() -> None:
    assert FIXTURES


@pytest.mark.slow
def test_planes(fixture: Fixture, planes: Tensor) -> None:
    assert planes.shape == (1, 3, 64, 128, 128)
    stride = fixture.config["strides"]["planes_sub"]
    for actual, expected in (
        (planes[..., ::stride, ::stride], fixture["planes_sub"]),
        (planes[:, :, ::16, 64], fixture["planes_row"]),
    ):
        torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)
