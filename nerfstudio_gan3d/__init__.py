"""3D-aware generative adversarial networks as nerfstudio methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nerfstudio_gan3d.api import Gan, Images, load

__all__ = ["Gan", "Images", "load"]


def __getattr__(name: str) -> Any:
    """Imports the Python interface when it is asked for: ns-train --help imports this package, too,
    and has no use for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nerfstudio_gan3d import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """What is defined here, with the names that are imported when they are asked for."""
    return sorted({*globals(), *__all__})
