"""Viewer settings of the presets, and what ns-viewer may change of them."""

from nerfstudio.configs.base_config import ViewerConfig

from nerfstudio_gan3d.viewer.settings import gan_viewer_config, keep_settings


def test_presets_listen_on_this_machine_only() -> None:
    assert ViewerConfig().websocket_host == "0.0.0.0"
    assert gan_viewer_config().websocket_host == "127.0.0.1"


def test_settings_that_are_not_named_are_kept() -> None:
    kept = gan_viewer_config()
    kept.jpeg_quality = 33
    assert keep_settings(kept, ViewerConfig(), ["--load-config", "config.yml"]) == kept


def test_settings_that_are_named_change() -> None:
    replacement = ViewerConfig(websocket_port=8123, jpeg_quality=10)
    arguments = ["--viewer.websocket-host", "0.0.0.0", "--viewer.websocket_port=8123"]
    found = keep_settings(gan_viewer_config(), replacement, arguments)
    expected = gan_viewer_config()
    expected.websocket_host, expected.websocket_port = "0.0.0.0", 8123
    assert found == expected
