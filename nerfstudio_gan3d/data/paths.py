"""Paths in configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar


class AbsoluteData:
    """Mixin for a config whose field ``data`` is made absolute whenever it is set.

    config.yml is written with what the field holds, and has to be usable from any folder;
    ``ns-train --data X`` sets the field after the config was built.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("data",)
    """Fields that are paths."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.PATHS and isinstance(value, (str, Path)):
            value = Path(value).expanduser().absolute()
        super().__setattr__(name, value)
