"""nerfstudio's viewer settings as GANs need them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nerfstudio.configs.base_config import ViewerConfig


def gan_viewer_config() -> ViewerConfig:
    """Settings that every preset starts with; each can be changed on the command line.

    The viewer answers this machine only. No training cameras are drawn, since each would be read
    from the data set and would hide the object. Images are lossless: JPEG shows its blocks where a
    small picture is stretched over the window while the camera moves. Depth is not sent along, as
    nothing that the browser draws needs to be hidden behind the object.
    """
    return ViewerConfig(
        websocket_host="127.0.0.1",
        max_num_display_images=0,
        image_format="png",
        default_composite_depth=False,
    )


def keep_settings(
    kept: ViewerConfig, replacement: ViewerConfig, command: Sequence[str]
) -> ViewerConfig:
    """What a configuration's viewer settings become when ``command`` replaces them.

    ns-viewer replaces all viewer settings of a loaded configuration by its own defaults, which
    listen on every network interface and draw hundreds of training images. Under ns-viewer only
    options that were really given (``--viewer.websocket-host 0.0.0.0``) change what the
    configuration says.

    Args:
        kept: settings of the loaded configuration.
        replacement: settings that are to take their place.
        command: the running command and its arguments, as in `sys.argv`.
    """
    if not command or Path(command[0]).stem not in ("ns-viewer", "run_viewer"):
        return replacement
    given = {argument.split("=", 1)[0].replace("_", "-") for argument in command[1:]}
    changed = {
        item.name: getattr(replacement, item.name)
        for item in fields(ViewerConfig)
        if f"--viewer.{item.name.replace('_', '-')}" in given
    }
    return replace(kept, **changed)


class KeepsViewerSettings:
    """Base of trainer configurations that keep ``viewer`` under ns-viewer; see `keep_settings`."""

    def __setattr__(self, name: str, value: Any) -> None:
        kept = self.__dict__.get(name)
        if name == "viewer" and isinstance(kept, ViewerConfig):
            value = keep_settings(kept, value, sys.argv)
        super().__setattr__(name, value)
