"""A model that is small enough to be rendered many times in a test."""

import pytest

from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig
from tests.viewer.session import build, small_config


@pytest.fixture
def config() -> GanModelConfig:
    """A small configuration that a test may change."""
    return small_config()


@pytest.fixture
def model(config: GanModelConfig) -> GanModel:
    """An untrained model of that configuration."""
    return build(config)
