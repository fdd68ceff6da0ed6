"""The data set inside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def bundled_cars() -> Path:
    """Path of the zip of 2000 rendered cars at 64 px that a method uses when it gets no data."""
    return Path(str(files("nerfstudio_gan3d") / "assets" / "cars64.zip"))
