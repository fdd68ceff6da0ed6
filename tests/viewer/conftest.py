"""A model that is small enough to be rendered many times in a test."""

import pytest

from nerfstudio_gan3d.models.ballgan import ballgan_tiny
from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig
from tests.viewer.session import build, fit_to_cars


@pytest.fixture
def config() -> GanModelConfig:
    """The tiny preset with fewer samples, and the bundled cars' cameras."""
    config = fit_to_cars(ballgan_tiny())
    config.samples = 3
    config.field.triplane.plane_size = 8
    return config


@pytest.fixture
def model(config: GanModelConfig) -> GanModel:
    """An untrained model of that configuration."""
    return build(config)
