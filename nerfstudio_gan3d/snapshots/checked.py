"""Numbers, shapes and layers of a snapshot, checked before they become settings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nerfstudio_gan3d.snapshots.reader import SnapshotError, SnapshotModule


def clamp(layer: SnapshotModule | None) -> float | None:
    """The limit of a layer's activations; 256 where it is not stored."""
    value = None if layer is None else layer.attributes.get("conv_clamp", 256)
    return None if value is None else number({"conv_clamp": value}, "conv_clamp")


def lr_multiplier(layer: SnapshotModule | None, inputs: int) -> float:
    """From a layer's stored gain, lr / sqrt(in); 0.01 where it is not stored."""
    if layer is None or "weight_gain" not in layer.attributes:
        return 0.01
    gain = number(layer.attributes, "weight_gain")
    if gain <= 0:
        raise SnapshotError(f"weight_gain = {gain}: it must be positive")
    # Six digits take the square root's rounding away.
    return float(f"{gain * inputs**0.5:.6g}")


def channels(state: Mapping[str, Tensor], pattern: str, dimension: int) -> dict[int, int]:
    """Sizes along a dimension of the 4-dimensional tensors whose names match, by their number.

    Args:
        state: all tensors of a network.
        pattern: of whole names; its first group is the number, a size in pixels.
        dimension: 0 are a convolution's output channels.
    """
    found = {}
    for name, value in state.items():
        if match := re.fullmatch(pattern, name):
            if value.ndim != 4:
                raise SnapshotError(
                    f"tensor {name} has shape {list(value.shape)}; 4 sizes are needed"
                )
            found[int(match[1])] = int(value.shape[dimension])
    return found


def channel_rule(widths: Mapping[int, int], where: str) -> tuple[int, int]:
    """channel_base and channel_max of ``min(base / size, max)`` channels at every size.

    Raises SnapshotError if there is a size missing between 4 px and the largest one, or the
    channels follow no such rule.
    """
    sizes = sorted(widths)
    expected = [2**k for k in range(2, 2 + max(len(sizes), 1))]
    if sizes != expected:
        raise SnapshotError(f"{where} has blocks of {sizes} px, not of {expected} px")
    largest, last = widths[4], sizes[-1]
    base = widths[last] * last
    for size in sizes:
        if widths[size] != min(base // size, largest):
            raise SnapshotError(
                f"{where} has {widths[size]} channels at {size} px, which no channel_base and "
                "channel_max give"
            )
    return base, largest


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Number of layers whose tensors' names match; the pattern's first group counts from 0."""
    numbers = {int(match[1]) for name in state if (match := re.fullmatch(pattern, name))}
    if numbers != set(range(len(numbers))):
        raise SnapshotError(f"layers {pattern!r} have numbers {sorted(numbers)}, with gaps")
    return len(numbers)


def shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """Shape of a tensor that has to be there, with so many dimensions, none of them empty."""
    if name not in state:
        raise SnapshotError(f"the network has no tensor {name}")
    sizes = tuple(state[name].shape)
    if len(sizes) != dimensions or 0 in sizes:
        raise SnapshotError(f"tensor {name} has shape {list(sizes)}; {dimensions} sizes are needed")
    return sizes


def number(options: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A finite number among options."""
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SnapshotError(f"{name} = {short(value)}: a number is needed")
    return float(value)


def whole(options: Mapping[str, Any], name: str, least: int, default: int | None = None) -> int:
    """A whole number among options, not below ``least``."""
    value = number(options, name, None if default is None else float(default))
    if value != int(value) or value < least:
        raise SnapshotError(f"{name} = {value:g}: a whole number of at least {least} is needed")
    return int(value)


def flag(options: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """A switch among options; None is off."""
    value = options.get(name, default)
    if value is not None and not isinstance(value, bool | int):
        raise SnapshotError(f"{name} = {short(value)}: True or False is needed")
    return bool(value)


def short(value: Any) -> str:
    """A value as a sentence shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
