"""What meta.json and labels.json say about a set's label maps and objects, checked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.labels import parse_json

MapKind = Literal["seg", "edge"]
"""seg: one class id a pixel. edge: a drawing of dark lines on white."""
META_KEYS = ("classes", "palette", "mirror_classes")
"""What meta.json may say about label maps; its other entries are free."""
LABEL_KEYS = ("kind", *META_KEYS)
"""All that labels.json may have."""
MAX_CLASSES = 256
"""Class ids are stored in 8 bits."""
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that names of classes may not use: control characters, which steer a terminal,
lone surrogates, which no encoding has, and line breaks."""


@dataclass(frozen=True)
class LabelInfo:
    """What is known about the label maps of a set; None is what no file says."""

    kind: MapKind | None = None
    """Whether the maps hold class ids or lines."""
    classes: list[str] | None = None
    """Names of the classes."""
    palette: list[list[int]] | None = None
    """An RGB colour, 0 to 255, for each class."""
    mirror_classes: list[tuple[int, int]] | None = None
    """Pairs of classes that change places in a mirrored image, such as left and right eye."""

    @property
    def count(self) -> int | None:
        """Number of classes, by their names or else by their colours; None when unknown."""
        known = self.classes or self.palette
        return len(known) if known else None


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """The JSON object in a file; raises DataError for anything else."""
    value = parse_json(content, where)
    if not isinstance(value, dict):
        raise DataError(f"{where}: {type(value).__name__}; expected a JSON object")
    return value


def label_info(sources: Sequence[tuple[str, dict[str, Any]]]) -> LabelInfo:
    """The entries of `LABEL_KEYS` in several files together.

    Args:
        sources: name and content of each file; what one leaves out another may say.

    Raises:
        DataError: two files contradict each other, or an entry is malformed.
    """
    found: dict[str, tuple[Any, str]] = {}
    for where, value in sources:
        for key in LABEL_KEYS:
            if value.get(key) is None:
                continue
            known, elsewhere = found.setdefault(key, (value[key], where))
            if known != value[key]:
                raise DataError(
                    f'{where}: "{key}" is {_shown(value[key])}, but {elsewhere} says '
                    f"{_shown(known)}; remove one of them"
                )
    nothing = (None, "")
    kind = _kind(*found.get("kind", nothing))
    classes = _classes(*found.get("classes", nothing))
    value, where = found.get("palette", nothing)
    palette = _palette(value, len(classes) if classes else None, where)
    count = len(classes or palette or ()) or MAX_CLASSES
    return LabelInfo(kind, classes, palette, _mirror(*found.get("mirror_classes", nothing), count))


def check_keys(value: dict[str, Any], where: str) -> None:
    """Raises DataError for an entry that labels.json does not have, such as a misspelt one."""
    for key in value:
        if key not in LABEL_KEYS:
            raise DataError(
                f"{where}: has an entry {key[:40]!r}; it may have {', '.join(LABEL_KEYS)}"
            )


def object_numbers(entries: Any, names: Sequence[str], where: str) -> list[int] | None:
    """The object that each image shows, from the "images" of meta.json; None when it says none.

    Raises:
        DataError: some images have a number and others have none.
    """
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("file"), str) and "object" in entry
        for entry in entries
    ):
        return None
    # The images may have been converted to another file type since meta.json was written.
    by_name = {re.sub(r"\.\w+$", "", entry["file"]): entry["object"] for entry in entries}
    objects = [by_name.get(re.sub(r"\.\w+$", "", name)) for name in names]
    for name, number in zip(names, objects, strict=True):
        if type(number) is not int:
            raise DataError(
                f"{where}: the object of the image {name!r} is {_shown(repr(number))}; "
                "give every image a number, or none"
            )
    return [number for number in objects if number is not None]


def _kind(value: Any, where: str) -> MapKind | None:
    if value is not None and value not in ("seg", "edge"):
        raise DataError(
            f'{where}: "kind" is {_shown(value)}; expected "seg" for class ids or "edge" for lines'
        )
    return value


def _classes(value: Any, where: str) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(n, str) for n in value):
        raise DataError(f'{where}: "classes" is {_shown(value)}; expected a list of names')
    if len(value) > MAX_CLASSES:
        raise DataError(
            f'{where}: "classes" has {len(value)} names; at most {MAX_CLASSES} fit into 8 bits'
        )
    for name in value:
        if any(unicodedata.category(character) in UNPRINTABLE for character in name):
            raise DataError(
                f'{where}: "classes" has the name {_shown(ascii(name))}, which cannot be printed; '
                "take out its control characters, line breaks and halves of surrogate pairs"
            )
    return value


def _palette(value: Any, count: int | None, where: str) -> list[list[int]] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(_is_colour(colour) for colour in value):
        raise DataError(
            f'{where}: "palette" is {_shown(value)}; expected one [r, g, b] a class, '
            "whole numbers of 0 to 255"
        )
    if len(value) != count and (count is not None or not 1 <= len(value) <= MAX_CLASSES):
        raise DataError(
            f'{where}: "palette" has {len(value)} colours; expected one [r, g, b] for each of '
            f"the {count or f'1 to {MAX_CLASSES}'} classes"
        )
    return value


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(channel) is int and 0 <= channel <= 255 for channel in value)
    )


def _mirror(value: Any, where: str, count: int) -> list[tuple[int, int]] | None:
    if value is None:
        return None
    expected = f"expected pairs [left, right] of class ids 0 to {count - 1}, each id at most once"
    if not isinstance(value, list) or not all(_is_pair(pair, count) for pair in value):
        raise DataError(f'{where}: "mirror_classes" is {_shown(value)}; {expected}')
    ids = [number for pair in value for number in pair]
    for number in ids:
        if ids.count(number) > 1:
            raise DataError(f'{where}: "mirror_classes" has class {number} twice; {expected}')
    return [(pair[0], pair[1]) for pair in value]


def _is_pair(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(number) is int and 0 <= number < count for number in value)
    )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
