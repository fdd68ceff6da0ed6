"""Viewer settings of the presets, and what ns-viewer may change of them."""

from dataclasses import dataclass, field

import pytest
from nerfstudio.configs.base_config import ViewerConfig

from nerfstudio_gan3d.viewer.settings import KeepsViewerSettings, gan_viewer_config


def test_presets_listen_on_this_machine_only() -> None:
    assert ViewerConfig().websocket_host == "0.0.0.0"
    assert gan_viewer_config().websocket_host == "127.0.0.1"


@dataclass
class Configuration(KeepsViewerSettings):
    """Stands for a trainer's configuration."""

    viewer: ViewerConfig = field(default_factory=gan_viewer_config)


def test_ns_viewer_keeps_what_it_is_not_asked_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/ns-viewer", "--load-config", "config.yml"])
    config = Configuration()
    config.viewer.jpeg_quality = 33
    config.viewer = ViewerConfig()
    expected = gan_viewer_config()
    expected.jpeg_quality = 33
    assert config.viewer == expected


def test_ns_viewer_changes_what_it_is_asked_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--viewer.websocket-host", "0.0.0.0", "--viewer.websocket_port=8123"]
    monkeypatch.setattr("sys.argv", ["ns-viewer", *options])
    config = Configuration()
    config.viewer = ViewerConfig(websocket_port=8123, jpeg_quality=10)
    expected = gan_viewer_config()
    expected.websocket_host, expected.websocket_port = "0.0.0.0", 8123
    assert config.viewer == expected


def test_other_programs_replace_settings_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["notebook"])
    config = Configuration()
    config.viewer = ViewerConfig()
    assert config.viewer == ViewerConfig()
