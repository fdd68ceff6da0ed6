"""Official network pickles (.pkl) read as data: nothing in the file is executed or imported.

A pickle is a program for a stack machine. Python's own machine is not safe with a list of allowed
names alone: hashing a tuple that is nested deeply enough overflows the stack of the process, a
state is written into any object, also into a class, and a memo index reserves an array of its size.
The machine here knows only the opcodes that protocols 2 to 5 need for networks, spends from a
budget, and makes plain values and the inert records below. Tensors are built after it has stopped.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NETWORKS = ("G", "D", "G_ema", "augment_pipe")
"""Names under which a file holds networks; which of them are there differs."""
MAX_FILE = 2**31
"""Bytes of a file; official ones have 0.2 to 0.4 billion."""
MAX_OPCODES = 1_000_000
"""Opcodes of a file, those in its storages included; official ones have tens of thousands."""
MAX_TEXT = 2**26
"""Bytes of all text in a file, the embedded sources included."""
MAX_TENSORS = 20_000
"""Tensors of a file; official ones have below two thousand."""
MAX_VALUES = 1_000_000
"""Values that the networks hold, where one that is shared counts as often as it is met."""
MAX_DEPTH = 64
"""Levels of modules and containers inside of each other."""
MAX_NAME = 256
"""Characters of a name of a class or part, and of the key of a dictionary."""


class SnapshotError(ValueError):
    """A network pickle that cannot be used: one sentence with the file and what is wrong."""


@dataclass(frozen=True, eq=False)
class SnapshotModule:
    """A module of a network as its file describes it."""

    class_name: str
    """Name of its class, without the path of the class's module."""
    source: str
    """Python source that the file carries for the class, inert text; "" where there is none."""
    parameters: dict[str, Tensor]
    """Own parameters, on the CPU and without gradient; those that are None are left out."""
    buffers: dict[str, Tensor]
    """Own buffers, on the CPU; those that are None are left out."""
    modules: dict[str, SnapshotModule]
    """Child modules; those that are None are left out."""
    attributes: dict[str, Any]
    """The rest of its state without torch's hooks: numbers, text, containers, tensors.

    NumPy scalars are Python numbers, and a class or function that is only named is its dotted name.
    """
    non_persistent: frozenset[str] = frozenset()
    """Names of own buffers that are no part of the state dict."""

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of the whole tree, named and ordered as torch does."""
        state: dict[str, Tensor] = {}
        self._collect("", state)
        return state

    def at(self, path: str) -> SnapshotModule | None:
        """The module at a dotted path such as ``backbone.mapping``; None where there is none.

        The empty path is the module itself.
        """
        module: SnapshotModule | None = self
        for name in path.split(".") if path else ():
            module = module.modules.get(name) if module is not None else None
        return module

    def _collect(self, prefix: str, state: dict[str, Tensor]) -> None:
        for name, tensor in self.parameters.items():
            state[prefix + name] = tensor
        for name, tensor in self.buffers.items():
            if name not in self.non_persistent:
                state[prefix + name] = tensor
        for name, module in self.modules.items():
            module._collect(f"{prefix}{name}.", state)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Content of a network pickle."""

    networks: dict[str, SnapshotModule]
    """Those of `NETWORKS` that the file holds; one object under two names stays one object."""
    training_set: dict[str, Any]
    """Options of the training set; empty where the file has none."""


def read_snapshot(path: Path) -> Snapshot:
    """Reads a network pickle of EG3D's layout, with all tensors on the CPU.

    The file is a dictionary with networks under the names `NETWORKS`, at least ``G_ema`` or ``G``,
    and ``training_set_kwargs``; its other entries are left out. Numbers of tensors are those of the
    file bit for bit, whatever device they were saved from. Memory stays within twice the file's
    size and half a GiB, which `MAX_OPCODES` small objects take at most.

    Raises SnapshotError when the file is missing, not a pickle or damaged, when it asks for
    anything that is not part of a network, exceeds one of the limits of this module, or has another
    layout. Then nothing of it is returned.
    """
    try:
        return _snapshot(_content(path))
    except _Refused as error:
        raise SnapshotError(f"{path}: {error}") from error
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        EOFError,
        MemoryError,
        RuntimeError,
        struct.error,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise SnapshotError(f"{path}: damaged or not a network pickle ({reason})") from error


class _Refused(Exception):
    """A sentence without the file's name, which `read_snapshot` adds."""


@dataclass(eq=False)
class _Budget:
    """What a file may still use."""

    storage: int
    opcodes: int
    text: int
    tensors: int

    def spend(self, kind: str, amount: int, sentence: str) -> None:
        left = getattr(self, kind) - amount
        if left < 0:
            raise _Refused(sentence)
        setattr(self, kind, left)

    def operate(self, amount: int = 1) -> None:
        self.opcodes -= amount
        if self.opcodes < 0:
            raise _Refused(f"more than {MAX_OPCODES:,} opcodes; network pickles have far fewer")


@dataclass(eq=False, slots=True)
class _Name:
    """A class or function that the file names; only the name, never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class _Object:
    """An instance of a class of the file: its class's name, source and state."""

    class_name: str
    source: str = ""
    state: dict[Any, Any] | None = None


@dataclass(eq=False, slots=True)
class _Storage:
    """Numbers of one or more tensors, still in the file's bytes."""

    dtype: torch.dtype
    count: int
    data: memoryview
    made: Tensor | None = None

    def flat(self) -> Tensor:
        if self.made is None:
            # A copy, because torch writes to the memory of tensors and the file's bytes are fixed.
            own = bytearray(self.data)
            self.made = torch.frombuffer(own, dtype=self.dtype) if own else torch.empty(0)
            self.made = self.made.to(self.dtype)
        return self.made


@dataclass(eq=False, slots=True)
class _View:
    """A tensor before it is built; its fields were checked against the storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    made: Tensor | None = None

    def tensor(self) -> Tensor:
        if self.made is None:
            flat = self.storage.flat()
            self.made = torch.as_strided(flat, self.size, self.stride, self.offset)
        return self.made


@dataclass(eq=False, slots=True)
class _NumpyType:
    """A NumPy dtype: its code, such as f8."""

    code: str


# NumPy's codes and those of the struct module.
_NUMPY = {"f2": "e", "f4": "f", "f8": "d", "b1": "?"}
_NUMPY |= {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = {str(dtype): dtype for dtype in _STORAGES.values()}
# Two pickles that begin each of torch's legacy files: its magic number and its protocol, 1001.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
_ZIP = b"PK\x03\x04"

_MAPPINGS = ("collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict")
# Classes of the official repositories and of torch's modules. The names are never imported.
_CLASS = re.compile(r"(?:training|torch\.nn)(?:\.[A-Za-z_]\w*)+", re.ASCII)


def _persistent(args: tuple[Any, ...], budget: _Budget) -> _Object:
    (meta,) = args
    if type(meta) is not dict or meta.get("type") != "class":
        raise _Refused("a persistent object whose type is not 'class'")
    version = meta.get("version")
    if type(version) is not int or not 1 <= version <= 6:
        raise _Refused(f"persistent objects of version {_show(version)}; versions 1 to 6 are read")
    source, name, state = (meta.get(key) for key in ("module_src", "class_name", "state"))
    if type(source) is not str or type(name) is not str or type(state) is not dict:
        raise _Refused("a persistent object without module_src, class_name or state")
    return _Object(name, source, state)


def _storage(args: tuple[Any, ...], budget: _Budget) -> _Storage:
    (data,) = args
    if type(data) is not memoryview:
        raise _Refused("a tensor storage that is not stored as bytes")
    if data[:4] == _ZIP:
        raise _Refused("a tensor storage in torch's zip format; official files have the legacy one")
    if data[: len(_LEGACY)] != _LEGACY:
        raise _Refused("a tensor storage that is not in torch's legacy format")
    system, at = _Machine(data, budget, inner=True).run(len(_LEGACY))
    if type(system) is not dict or system.get("little_endian") is not True:
        raise _Refused("a tensor storage that is not little-endian")
    claim, at = _Machine(data, budget, inner=True).run(at)
    keys, at = _Machine(data, budget, inner=True).run(at)
    if type(claim) is not tuple or len(claim) != 6 or claim[0] != "storage":
        raise _Refused("a tensor storage without a description")
    _, kind, key, _, count, view = claim
    if type(kind) is not _Name or type(key) is not str or view is not None or keys != [key]:
        raise _Refused("a tensor storage with an unknown description")
    dtype, rest = _STORAGES[kind.name], data[at + 8 :]
    stored = int.from_bytes(data[at : at + 8], "little", signed=True)
    if type(count) is not int or count < 0 or stored != count or len(data) < at + 8:
        raise _Refused(
            f"a tensor storage whose description claims {_show(count)} elements, its data {stored}"
        )
    if count * dtype.itemsize != len(rest):
        raise _Refused(
            f"a tensor storage that claims {count} elements of {dtype} has {len(rest)} bytes"
        )
    if dtype == torch.bool and rest.tobytes().strip(b"\0\1"):
        raise _Refused("a storage of truth values with bytes other than 0 and 1")
    # Every storage has bytes of its own in an official file. Without this, one stretch of bytes
    # could be claimed again and again.
    budget.spend("storage", len(rest), "tensor storages that are larger than the file together")
    return _Storage(dtype, count, rest)


def _tensor(args: tuple[Any, ...], budget: _Budget) -> _View:
    if len(args) not in (6, 7) or type(args[0]) is not _Storage:
        raise _Refused("a tensor without a storage")
    storage, offset, size, stride, _, *others = args
    if any(value not in (None, {}) for value in others):
        raise _Refused("a tensor with hooks or metadata; both are unknown in networks")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise _Refused("a tensor whose size and stride do not fit each other")
    if len(size) > 16 or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise _Refused("a tensor with more than 16 dimensions or with one that is no number")
    count = math.prod(size)
    reach = sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if count else 0
    # torch would enlarge the storage to whatever the sizes claim.
    if count > storage.count or offset + reach > storage.count:
        raise _Refused(
            f"a tensor of shape {_show(size)} reaches beyond its {storage.count} stored elements"
        )
    if max((*size, *stride), default=0) >= 2**31 or math.prod(n or 1 for n in size) >= 2**31:
        raise _Refused(f"a tensor of shape {_show(size)} with too large a dimension or stride")
    budget.spend("tensors", 1, f"more than {MAX_TENSORS:,} tensors")
    return _View(storage, offset, size, stride)


def _parameter(args: tuple[Any, ...], budget: _Budget) -> _View:
    data, _, hooks = args
    if type(data) is not _View or hooks not in (None, {}):
        raise _Refused("a parameter without a tensor or with hooks")
    return data


def _numpy_type(args: tuple[Any, ...], budget: _Budget) -> _NumpyType:
    code = args[0] if args else None
    if type(code) is not str or code not in _NUMPY:
        raise _Refused(f"the NumPy dtype {_show(code)}; allowed are {', '.join(_NUMPY)}")
    return _NumpyType(code)


def _numpy_scalar(args: tuple[Any, ...], budget: _Budget) -> Any:
    dtype, data = args
    if type(dtype) is not _NumpyType or type(data) is not memoryview:
        raise _Refused("a NumPy scalar without dtype or bytes")
    return struct.unpack("<" + _NUMPY[dtype.code], data)[0]


def _mapping(args: tuple[Any, ...], budget: _Budget) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key, value in _listed(args, budget):
        mapping[_key(key)] = value
    return mapping


def _set(args: tuple[Any, ...], budget: _Budget) -> set[Any]:
    return {_key(value) for value in _listed(args, budget)}


def _frozenset(args: tuple[Any, ...], budget: _Budget) -> frozenset[Any]:
    return frozenset(_set(args, budget))


def _size(args: tuple[Any, ...], budget: _Budget) -> tuple[Any, ...]:
    (size,) = args
    if type(size) is not tuple:
        raise _Refused("a torch.Size that is not made from a tuple")
    return size


def _device(args: tuple[Any, ...], budget: _Budget) -> torch.device:
    if args[:1] not in (("cpu",), ("cuda",)) or not all(
        type(index) is int and 0 <= index < 128 for index in args[1:2]
    ):
        raise _Refused(f"the device {_show(args)}; allowed are cpu and cuda")
    return torch.device(*args)


_FUNCTIONS: dict[str, Callable[[tuple[Any, ...], _Budget], Any]] = {
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
    **dict.fromkeys(_MAPPINGS, _mapping),
}
# Hashed without recursion, and none can be made to collide in large numbers. Long text is refused
# as well: comparing it again and again would take hours.
_KEYS = (str, int, float, bool, type(None))


def _key(value: Any) -> Any:
    if type(value) not in _KEYS:
        raise _Refused("a dictionary or set whose keys are not plain text or numbers")
    if type(value) is str and len(value) > MAX_NAME:
        raise _Refused(f"a key of {len(value)} characters; at most {MAX_NAME} are allowed")
    return value


def _listed(args: tuple[Any, ...], budget: _Budget) -> list[Any]:
    """The one list or tuple of a call, or nothing. What it copies counts like opcodes."""
    if not args:
        return []
    (values,) = args
    if type(values) not in (list, tuple):
        raise _Refused("a container that is not made from a list")
    budget.operate(len(values))
    return list(values)


def _show(value: Any) -> str:
    """Text of a value of the file that is safe and short enough for an error's sentence."""
    if type(value) not in (str, *_KEYS) and not (
        type(value) is tuple and all(type(item) in _KEYS for item in value[:17])
    ):
        return f"a {type(value).__name__.strip('_')}"
    text = value[: MAX_NAME + 1] if type(value) is str else ascii(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else text[:80] + "..."


_FRESH: dict[int, Callable[[], Any]] = {
    pickle.NONE[0]: lambda: None,
    pickle.NEWTRUE[0]: lambda: True,
    pickle.NEWFALSE[0]: lambda: False,
    pickle.EMPTY_TUPLE[0]: tuple,
    pickle.EMPTY_LIST[0]: list,
    pickle.EMPTY_DICT[0]: dict,
    pickle.EMPTY_SET[0]: set,
}
_NUMBERS = {
    pickle.BININT[0]: struct.Struct("<i"),
    pickle.BININT1[0]: struct.Struct("<B"),
    pickle.BININT2[0]: struct.Struct("<H"),
    pickle.BINFLOAT[0]: struct.Struct(">d"),
}
# Bytes of the length that stands before the value.
_TEXTS = {pickle.SHORT_BINUNICODE[0]: 1, pickle.BINUNICODE[0]: 4, pickle.BINUNICODE8[0]: 8}
_BYTES = {pickle.SHORT_BINBYTES[0]: 1, pickle.BINBYTES[0]: 4, pickle.BINBYTES8[0]: 8}
_GETS = {pickle.BINGET[0]: 1, pickle.LONG_BINGET[0]: 4}
_PUTS = {pickle.BINPUT[0]: 1, pickle.LONG_BINPUT[0]: 4}
_TUPLES = {pickle.TUPLE1[0]: 1, pickle.TUPLE2[0]: 2, pickle.TUPLE3[0]: 3}
_STOP = pickle.STOP[0]


class _Machine:
    """Runs one pickle. ``inner`` is for the pickles inside of a storage, which name storages."""

    def __init__(self, content: memoryview, budget: _Budget, inner: bool = False) -> None:
        self.content, self.budget, self.inner = content, budget, inner
        self.at = self.count = 0
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, start: int) -> tuple[Any, int]:
        """The value of the pickle that begins at a byte, and the byte behind it."""
        self.at = start
        if self.content[start : start + 1] != pickle.PROTO:
            raise _Refused("not a pickle of protocol 2 to 5")
        while True:
            code = self._read(1)[0]
            self.budget.operate()
            self.count += 1
            if code == _STOP:
                break
            self._step(code)
        if self.marked or len(self.stack) != 1:
            raise _Refused("damaged: its pickle stops without exactly one value")
        return self.stack[0], self.at

    def _step(self, code: int) -> None:
        if code in _FRESH:
            self.stack.append(_FRESH[code]())
        elif code in _NUMBERS:
            form = _NUMBERS[code]
            self.stack.append(form.unpack(self._read(form.size))[0])
        elif code in _TEXTS:
            data = self._read(self._number(_TEXTS[code]))
            self.budget.spend("text", len(data), f"more than {MAX_TEXT:,} bytes of text")
            self.stack.append(str(data, "utf-8"))
        elif code in _BYTES:
            self.stack.append(self._read(self._number(_BYTES[code])))
        elif code in _GETS:
            self.stack.append(self._remembered(self._number(_GETS[code])))
        elif code in _PUTS:
            self._remember(self._number(_PUTS[code]))
        elif code in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[code])]
            self.stack.append(tuple(reversed(items)))
        elif code in _ACTIONS:
            _ACTIONS[code](self)
        else:
            names = (opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code)
            what = f"the opcode {next(names, hex(code))}"
            raise _Refused(f"{what} at byte {self.at - 1} is not used by network pickles")

    def _read(self, count: int) -> memoryview:
        left = len(self.content) - self.at
        if count > left:
            raise _Refused(
                f"truncated or damaged: {count} bytes are declared at byte {self.at}, {left} follow"
            )
        self.at += count
        return self.content[self.at - count : self.at]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._read(size), "little")

    def _pop(self) -> Any:
        if not self.stack:
            raise _Refused(f"damaged: nothing is left to take at byte {self.at - 1}")
        return self.stack.pop()

    def _top(self, *kinds: type) -> Any:
        value = self._pop()
        if type(value) not in kinds:
            raise _Refused(f"damaged: {_show(value)} cannot be changed at byte {self.at - 1}")
        self.stack.append(value)
        return value

    def _items(self) -> list[Any]:
        if not self.marked:
            raise _Refused(f"damaged: there is no mark at byte {self.at - 1}")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _remembered(self, index: int) -> Any:
        if index not in self.memo:
            raise _Refused(f"damaged: memo entry {index} is used at byte {self.at} but not set")
        return self.memo[index]

    def _remember(self, index: int) -> None:
        if index > self.count:
            raise _Refused(f"damaged: memo index {index} after {self.count} opcodes")
        value = self._pop()
        self.memo[index] = value
        self.stack.append(value)

    def _protocol(self) -> None:
        version = self._number(1)
        if not 2 <= version <= 5:
            raise _Refused(f"a pickle of protocol {version}; protocols 2 to 5 are read")

    def _frame(self) -> None:
        # Only the length is checked: frames tell a file's reader how much to fetch.
        size = self._number(8)
        self._read(size)
        self.at -= size

    def _integer(self) -> None:
        size = self._number(1)
        if size > 8:
            raise _Refused(f"an integer of {size} bytes; at most 8 are allowed")
        self.stack.append(int.from_bytes(self._read(size), "little", signed=True))

    def _mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._items()

    def _tuple(self) -> None:
        items = tuple(self._items())
        self.stack.append(items)

    def _frozen(self) -> None:
        items = frozenset(_key(value) for value in self._items())
        self.stack.append(items)

    def _append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self) -> None:
        items = self._items()
        self._top(list).extend(items)

    def _add(self) -> None:
        items = self._items()
        self._top(set).update(_key(value) for value in items)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._top(dict)[_key(key)] = value

    def _set_items(self) -> None:
        items = self._items()
        target = self._top(dict)
        if len(items) % 2:
            raise _Refused(f"damaged: a key without a value at byte {self.at - 1}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _global(self) -> None:
        self._named(self._line(), self._line())

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise _Refused(f"damaged: a name that is not text at byte {self.at - 1}")
        self._named(module, name)

    def _line(self) -> str:
        head = bytes(self.content[self.at : self.at + MAX_NAME + 1])
        line, end, _ = head.partition(b"\n")
        if not end:
            raise _Refused(f"damaged: a name without an end at byte {self.at}")
        self.at += len(line) + 1
        return str(line, "utf-8")

    def _named(self, module: str, name: str) -> None:
        if max(len(module), len(name)) > MAX_NAME:
            raise _Refused(f"a name of more than {MAX_NAME} characters: {_show(name)}")
        full = f"{module}.{name}"
        if self.inner:
            allowed = module == "torch" and name in _STORAGES
        else:
            allowed = full in _FUNCTIONS or full in _DTYPES or bool(_CLASS.fullmatch(full))
        if not allowed:
            raise _Refused(
                f"it asks for {_show(full)}, which is not part of a network; allowed are tensors, "
                "plain values and classes of training and torch.nn"
            )
        self.stack.append(_Name(module, name))

    def _persistent_id(self) -> None:
        # What the identity describes is checked by the storage; on the stack it stays a tuple.
        if not self.inner:
            raise _Refused("the opcode BINPERSID is not used by network pickles")
        self._top(tuple)

    def _called(self) -> tuple[_Name, tuple[Any, ...]]:
        args, callee = self._pop(), self._pop()
        if type(callee) is not _Name or type(args) is not tuple or self.inner:
            raise _Refused(f"damaged: {_show(callee)} is called at byte {self.at - 1}")
        return callee, args

    def _reduce(self) -> None:
        callee, args = self._called()
        function = _FUNCTIONS.get(str(callee))
        if function is None:
            raise _Refused(f"it calls {_show(str(callee))}; classes of modules are never called")
        self.stack.append(function(args, self.budget))

    def _new_object(self) -> None:
        callee, args = self._called()
        if args:
            raise _Refused(f"it makes {_show(str(callee))} with arguments; a state is expected")
        if str(callee) in _MAPPINGS:
            self.stack.append({})
        elif _CLASS.fullmatch(str(callee)):
            self.stack.append(_Object(callee.name.rpartition(".")[2]))
        else:
            raise _Refused(f"it makes an object of {_show(str(callee))}, which is not a class")

    def _build(self) -> None:
        state = self._pop()
        target = self._top(_Object, _NumpyType)
        if type(target) is _Object and target.state is None and type(state) is dict:
            target.state = state
        elif type(target) is _NumpyType and type(state) is tuple and len(state) >= 2:
            if state[1] not in ("<", "|", "="):
                raise _Refused(f"a NumPy dtype of byte order {_show(state[1])}; allowed are < | =")
        else:
            raise _Refused(f"damaged: a state of another kind at byte {self.at - 1}")


_ACTIONS: dict[int, Callable[[_Machine], None]] = {
    pickle.PROTO[0]: _Machine._protocol,
    pickle.FRAME[0]: _Machine._frame,
    pickle.LONG1[0]: _Machine._integer,
    pickle.MARK[0]: _Machine._mark,
    pickle.POP[0]: _Machine._drop,
    pickle.POP_MARK[0]: lambda machine: machine._items().clear(),
    pickle.MEMOIZE[0]: lambda machine: machine._remember(len(machine.memo)),
    pickle.TUPLE[0]: _Machine._tuple,
    pickle.FROZENSET[0]: _Machine._frozen,
    pickle.APPEND[0]: _Machine._append,
    pickle.APPENDS[0]: _Machine._appends,
    pickle.ADDITEMS[0]: _Machine._add,
    pickle.SETITEM[0]: _Machine._set_item,
    pickle.SETITEMS[0]: _Machine._set_items,
    pickle.GLOBAL[0]: _Machine._global,
    pickle.STACK_GLOBAL[0]: _Machine._stack_global,
    pickle.BINPERSID[0]: _Machine._persistent_id,
    pickle.REDUCE[0]: _Machine._reduce,
    pickle.NEWOBJ[0]: _Machine._new_object,
    pickle.BUILD[0]: _Machine._build,
}


def _content(path: Path) -> memoryview:
    if not path.exists():
        raise _Refused("there is no such file")
    if not path.is_file():
        raise _Refused("not a file; give the .pkl itself")
    size = path.stat().st_size
    if size > MAX_FILE:
        raise _Refused(f"a file of {size:,} bytes; at most {MAX_FILE:,} are read")
    with open(path, "rb") as file:
        content = file.read(size)
    if not content:
        raise _Refused("empty; download it again")
    if content.startswith(_ZIP):
        raise _Refused("a zip archive, as torch checkpoints and data sets are; give a .pkl")
    if content.startswith(_LEGACY):
        raise _Refused("a checkpoint of torch.save; give a network pickle (.pkl)")
    if content[:1] != pickle.PROTO:
        raise _Refused("not a pickle of protocol 2 to 5; give a network pickle (.pkl)")
    return memoryview(content)


def _snapshot(content: memoryview) -> Snapshot:
    budget = _Budget(len(content), MAX_OPCODES, MAX_TEXT, MAX_TENSORS)
    root, end = _Machine(content, budget).run(0)
    if end != len(content):
        raise _Refused(f"{len(content) - end} bytes follow the end of the pickle")
    if type(root) is not dict:
        raise _Refused(f"it holds {_show(root)}; a dictionary with G_ema or G is expected")
    if root.get("G_ema") is None and root.get("G") is None:
        raise _Refused("it has no generator; a dictionary with G_ema or G is expected")
    builder, made, networks = _Builder(), {}, {}
    for name in NETWORKS:
        value = root.get(name)
        if value is None:
            continue
        if type(value) is not _Object:
            raise _Refused(f"{name} is {_show(value)}; a network is expected")
        if id(value) not in made:
            made[id(value)] = builder.module(value, name, 0)
        networks[name] = made[id(value)]
    options = root.get("training_set_kwargs")
    if options is not None and type(options) is not dict:
        raise _Refused(f"training_set_kwargs is {_show(options)}; a dictionary is expected")
    training_set = builder.value(options or {}, "training_set_kwargs", 0)
    if not all(type(name) is str for name in training_set):
        raise _Refused("training_set_kwargs has a name that is not text")
    return Snapshot(networks, training_set)


_PARTS = ("_parameters", "_buffers", "_modules")
_HOOKS = re.compile(r"_\w*hooks(?:_with_kwargs|_always_called)?")


@dataclass(eq=False)
class _Builder:
    """Turns the machine's records into modules and tensors.

    It walks a tree: what is shared is walked again, within `MAX_VALUES`, and what contains itself
    ends at `MAX_DEPTH`.
    """

    values: int = 0
    made: dict[int, bytes] = field(default_factory=dict)
    """Bytes of attributes by the identity of what they are copied from, each copied once."""

    def value(self, value: Any, where: str, depth: int) -> Any:
        self._enter(where, depth)
        kind = type(value)
        if kind is _View:
            return value.tensor()
        if kind is _Object:
            return self.module(value, where, depth + 1, strict=False)
        if kind is memoryview:
            if id(value) not in self.made:
                self.made[id(value)] = bytes(value)
            return self.made[id(value)]
        if kind is _Name:
            return _DTYPES.get(str(value), str(value))
        if kind is dict:
            return {key: self.value(item, where, depth + 1) for key, item in value.items()}
        if kind is list:
            return [self.value(item, where, depth + 1) for item in value]
        if kind is tuple:
            return tuple(self.value(item, where, depth + 1) for item in value)
        if kind in (set, frozenset):
            # Their members are plain, but a set that is shared is copied each time.
            self._enter(where, depth, len(value))
            return kind(value)
        if kind in _KEYS or kind is torch.device:
            return value
        raise _Refused(f"{where} holds a {kind.__name__.strip('_')}, which is no plain value")

    def module(
        self, record: _Object, where: str, depth: int, strict: bool = True
    ) -> SnapshotModule:
        """The module of a record; one that is not ``strict`` may be an object of another kind."""
        self._enter(where, depth)
        state = record.state if record.state is not None or strict else {}
        if state is None or not all(type(key) is str for key in state):
            raise _Refused(f"{where} ({_show(record.class_name)}) has no state")
        if not strict and not any(part in state for part in _PARTS):
            state = {**{part: {} for part in _PARTS}, **state}
        for part in _PARTS:
            if type(state.get(part)) is not dict:
                raise _Refused(f"{where} ({_show(record.class_name)}) has no dictionary {part}")
        transient = state.get("_non_persistent_buffers_set", set())
        if type(transient) is not set or not all(type(name) is str for name in transient):
            raise _Refused(f"{where} has a _non_persistent_buffers_set that is no set of names")
        # What is looked at below counts before it is looked at.
        self._enter(where, depth, len(state) + len(transient))
        names = [name for part in _PARTS for name in state[part]]
        if not all(type(name) is str and name and "." not in name for name in names):
            raise _Refused(f"{where} has a part whose name is empty, dotted or no text")
        if len(set(names)) < len(names):
            raise _Refused(f"{where} has two parts of the same name")
        return SnapshotModule(
            record.class_name,
            record.source,
            self._tensors(state["_parameters"], where, depth),
            self._tensors(state["_buffers"], where, depth),
            self._children(state["_modules"], where, depth),
            self._attributes(state, where, depth),
            frozenset(transient),
        )

    def _tensors(self, values: dict[str, Any], where: str, depth: int) -> dict[str, Tensor]:
        tensors = {}
        for name, value in values.items():
            self._enter(where, depth)
            if type(value) is _View:
                tensors[name] = value.tensor()
            elif value is not None:
                raise _Refused(f"{where}.{_show(name)} is {_show(value)}; a tensor is expected")
        return tensors

    def _children(
        self, values: dict[str, Any], where: str, depth: int
    ) -> dict[str, SnapshotModule]:
        modules = {}
        for name, value in values.items():
            path = f"{where}.{_show(name)}"
            if type(value) is _Object:
                modules[name] = self.module(value, path, depth + 1)
            elif value is not None:
                raise _Refused(f"{path} is {_show(value)}; a module is expected")
        return modules

    def _attributes(self, state: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        attributes = {}
        for name, value in state.items():
            if _HOOKS.fullmatch(name):
                if value not in (None, {}):
                    raise _Refused(f"{where} has hooks ({_show(name)}), which are code")
            elif name not in (*_PARTS, "_non_persistent_buffers_set", "_is_full_backward_hook"):
                attributes[name] = self.value(value, f"{where}.{_show(name)}", depth + 1)
        return attributes

    def _enter(self, where: str, depth: int, count: int = 1) -> None:
        self.values += count
        if self.values > MAX_VALUES:
            raise _Refused(f"its networks hold more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise _Refused(
                f"{where[:80]} is nested more than {MAX_DEPTH} levels deep or contains itself"
            )
