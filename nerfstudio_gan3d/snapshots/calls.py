"""What the functions that network pickles name stand for here.

A file can only choose from `FUNCTIONS`, by the text of a name. Each takes the arguments that the
file gives, checks them and makes a plain value or a record of them.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import torch

from nerfstudio_gan3d.snapshots.contents import (
    MAPPINGS,
    MAX_TENSORS,
    STORAGES,
    Budget,
    Name,
    NumpyType,
    Object,
    Refused,
    Storage,
    View,
    checked_key,
    show,
)
from nerfstudio_gan3d.snapshots.pickle_machine import Function, Machine

# NumPy's codes and those of the struct module.
_NUMPY = {"f2": "e", "f4": "f", "f8": "d", "b1": "?"}
_NUMPY |= {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
"""First bytes of torch's legacy files: two pickles, the magic number and the protocol, 1001."""
ZIP = b"PK\x03\x04"
"""First bytes of torch's other files, which are zip archives."""


def _persistent(args: tuple[Any, ...], budget: Budget) -> Object:
    (meta,) = args
    if type(meta) is not dict or meta.get("type") != "class":
        raise Refused("a persistent object whose type is not 'class'")
    version = meta.get("version")
    if type(version) is not int or not 1 <= version <= 6:
        raise Refused(f"persistent objects of version {show(version)}; versions 1 to 6 are read")
    source, name, state = (meta.get(key) for key in ("module_src", "class_name", "state"))
    if type(source) is not str or type(name) is not str or type(state) is not dict:
        raise Refused("a persistent object without module_src, class_name or state")
    return Object(name, source, state)


def _storage(args: tuple[Any, ...], budget: Budget) -> Storage:
    (data,) = args
    if type(data) is not memoryview:
        raise Refused("a tensor storage that is not stored as bytes")
    if data[:4] == ZIP:
        raise Refused("a tensor storage in torch's zip format; official files have the legacy one")
    if data[: len(LEGACY)] != LEGACY:
        raise Refused("a tensor storage that is not in torch's legacy format")
    system, at = Machine(data, budget, {}).run(len(LEGACY))
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Refused("a tensor storage that is not little-endian")
    claim, at = Machine(data, budget, {}).run(at)
    keys, at = Machine(data, budget, {}).run(at)
    if type(claim) is not tuple or len(claim) != 6 or claim[0] != "storage":
        raise Refused("a tensor storage without a description")
    _, kind, key, _, count, view = claim
    if type(kind) is not Name or type(key) is not str or view is not None or keys != [key]:
        raise Refused("a tensor storage with an unknown description")
    dtype, rest = STORAGES[kind.name], data[at + 8 :]
    stored = int.from_bytes(data[at : at + 8], "little", signed=True)
    if type(count) is not int or count < 0 or stored != count or len(data) < at + 8:
        raise Refused(
            f"a tensor storage whose description claims {show(count)} elements, its data {stored}"
        )
    if count * dtype.itemsize != len(rest):
        raise Refused(
            f"a tensor storage that claims {count} elements of {dtype} has {len(rest)} bytes"
        )
    if dtype == torch.bool and rest.tobytes().strip(b"\0\1"):
        raise Refused("a storage of truth values with bytes other than 0 and 1")
    # Every storage has bytes of its own in an official file. Without this, one stretch of bytes
    # could be claimed again and again.
    budget.spend("storage", len(rest), "tensor storages that are larger than the file together")
    return Storage(dtype, count, rest)


def _tensor(args: tuple[Any, ...], budget: Budget) -> View:
    if len(args) not in (6, 7) or type(args[0]) is not Storage:
        raise Refused("a tensor without a storage")
    storage, offset, size, stride, _, *others = args
    if any(value not in (None, {}) for value in others):
        raise Refused("a tensor with hooks or metadata; both are unknown in networks")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise Refused("a tensor whose size and stride do not fit each other")
    if len(size) > 16 or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise Refused("a tensor with more than 16 dimensions or with one that is no number")
    count = math.prod(size)
    reach = sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if count else 0
    # torch would enlarge the storage to whatever the sizes claim.
    if count > storage.count or offset + reach > storage.count:
        raise Refused(
            f"a tensor of shape {show(size)} reaches beyond its {storage.count} stored elements"
        )
    if max((*size, *stride), default=0) >= 2**31 or math.prod(n or 1 for n in size) >= 2**31:
        raise Refused(f"a tensor of shape {show(size)} with too large a dimension or stride")
    budget.spend("tensors", 1, f"more than {MAX_TENSORS:,} tensors")
    return View(storage, offset, size, stride)


def _parameter(args: tuple[Any, ...], budget: Budget) -> View:
    data, _, hooks = args
    if type(data) is not View or hooks not in (None, {}):
        raise Refused("a parameter without a tensor or with hooks")
    return data


def _numpy_type(args: tuple[Any, ...], budget: Budget) -> NumpyType:
    code = args[0] if args else None
    if type(code) is not str or code not in _NUMPY:
        raise Refused(f"the NumPy dtype {show(code)}; allowed are {', '.join(_NUMPY)}")
    return NumpyType(code)


def _numpy_scalar(args: tuple[Any, ...], budget: Budget) -> Any:
    dtype, data = args
    if type(dtype) is not NumpyType or type(data) is not memoryview:
        raise Refused("a NumPy scalar without dtype or bytes")
    return struct.unpack("<" + _NUMPY[dtype.code], data)[0]


def _mapping(args: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key, value in _listed(args, budget):
        mapping[checked_key(key)] = value
    return mapping


def _set(args: tuple[Any, ...], budget: Budget) -> set[Any]:
    return {checked_key(value) for value in _listed(args, budget)}


def _frozenset(args: tuple[Any, ...], budget: Budget) -> frozenset[Any]:
    return frozenset(_set(args, budget))


def _size(args: tuple[Any, ...], budget: Budget) -> tuple[Any, ...]:
    (size,) = args
    if type(size) is not tuple:
        raise Refused("a torch.Size that is not made from a tuple")
    return size


def _device(args: tuple[Any, ...], budget: Budget) -> torch.device:
    if args[:1] not in (("cpu",), ("cuda",)) or not all(
        type(index) is int and 0 <= index < 128 for index in args[1:2]
    ):
        raise Refused(f"the device {show(args)}; allowed are cpu and cuda")
    return torch.device(*args)


def _listed(args: tuple[Any, ...], budget: Budget) -> list[Any]:
    """The one list or tuple of a call, or nothing. What it copies counts like opcodes."""
    if not args:
        return []
    (values,) = args
    if type(values) not in (list, tuple):
        raise Refused("a container that is not made from a list")
    budget.operate(len(values))
    return list(values)


FUNCTIONS: dict[str, Function] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    **dict.fromkeys(MAPPINGS, _mapping),
}
"""What a network pickle may call."""
