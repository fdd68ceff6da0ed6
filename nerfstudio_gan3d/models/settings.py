"""Configurations as plain values, for headers of files and checkpoints, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


class FillsDefaults:
    """A configuration that takes the defaults of settings which it was stored without.

    config.yml holds configurations as Python objects, and reading one calls no constructor: a
    setting that came later, and whose default is made anew for each object, would be missing in
    runs of an older version.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            made = item.default_factory
            if item.name not in state and made is not dataclasses.MISSING:
                setattr(self, item.name, made())


def plain_settings(settings: Any) -> dict[str, Any]:
    """A configuration as JSON values, without the classes that it is made of."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        if item.name == "_target":
            continue
        value = getattr(settings, item.name)
        found[item.name] = plain_settings(value) if dataclasses.is_dataclass(value) else value
    return found


def apply_settings(settings: Any, values: Mapping[str, Any], place: str = "model") -> None:
    """Sets a configuration's fields to what `plain_settings` gave.

    Raises:
        ValueError: If a field does not exist.
    """
    names = {item.name for item in dataclasses.fields(settings)}
    for name, value in values.items():
        if name not in names:
            raise ValueError(
                f"this version has no setting {place}.{name}; the file was made by another one"
            )
        current = getattr(settings, name)
        if dataclasses.is_dataclass(current) and isinstance(value, dict):
            apply_settings(current, value, f"{place}.{name}")
        else:
            setattr(settings, name, _tuples(value))


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that configurations hold."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
