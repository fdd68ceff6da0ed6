"""nerfstudio's viewer settings as GANs need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from nerfstudio.configs.base_config import ViewerConfig


def gan_viewer_config() -> ViewerConfig:
    """Settings that every preset starts with; each can be changed on the command line.

    The viewer answers this machine only. No training cameras are drawn, since each would be read from the
    data set and would hide the object. Images are lossless: JPEG shows its blocks where a small picture
    is stretched over the window while the camera moves. Depth is not sent along, as nothing that the
    browser draws needs to be hidden behind the object.
    """
    return ViewerConfig(
        websocket_host="127.0.0.1",
        max_num_display_images=0,
        image_format="png",
        default_composite_depth=False,
    )


def keep_settings(
    kept: ViewerConfig, replacement: ViewerConfig, arguments: Sequence[str]
) -> ViewerConfig:
    """``kept``, with those settings of ``replacement`` that the command line names.

    ns-viewer replaces all viewer settings of a loaded configuration by its own defaults, which listen on
    every network interface. Only options that were really given (``--viewer.websocket-host 0.0.0.0``) are
    meant to change what the configuration says.

    Args:
        kept: settings of the loaded configuration.
        replacement: settings that the command wants to put in their place.
        arguments: the command line, without the command's name.
    """
    given = {argument.split("=", 1)[0].replace("_", "-") for argument in arguments}
    changed = {
        item.name: getattr(replacement, item.name)
        for item in fields(ViewerConfig)
        if f"--viewer.{item.name.replace('_', '-')}" in given
    }
    return replace(kept, **changed)
