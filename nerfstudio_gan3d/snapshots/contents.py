"""What a network pickle may contain: the limits, the names, and the records made of its content.

A record holds names and bytes of the file. Nothing is looked up by a name, and the tensors are made
when the whole file was read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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

STORAGES = {
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
"""Types of numbers by the names of torch's storages."""
DTYPES = {str(dtype): dtype for dtype in STORAGES.values()}
"""The same types by their own names, such as torch.float32."""
MAPPINGS = ("collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict")
"""Dictionaries, all of which become Python's own."""
CLASS_NAME = re.compile(r"(?:training|torch\.nn)(?:\.[A-Za-z_]\w*)+", re.ASCII)
"""Classes of the official repositories and of torch's modules. The names are never imported."""
KEY_TYPES = (str, int, float, bool, type(None))
"""Types of plain values, which may be keys; see `checked_key`."""


class Refused(Exception):
    """A file that is not read: a sentence without its name, which `read_snapshot` adds."""


@dataclass(eq=False)
class Budget:
    """What a file may still use."""

    storage: int
    """Bytes of tensor storages."""
    opcodes: int
    text: int
    """Bytes of text."""
    tensors: int

    @classmethod
    def of_file(cls, size: int) -> Budget:
        """All that a file of ``size`` bytes may use."""
        return cls(size, MAX_OPCODES, MAX_TEXT, MAX_TENSORS)

    def spend(self, kind: str, amount: int, sentence: str) -> None:
        """Takes from one of the fields. Raises Refused with the sentence if too little is left."""
        left = getattr(self, kind) - amount
        if left < 0:
            raise Refused(sentence)
        setattr(self, kind, left)

    def operate(self, amount: int = 1) -> None:
        """Takes opcodes. Raises Refused if too few are left."""
        self.opcodes -= amount
        if self.opcodes < 0:
            raise Refused(f"more than {MAX_OPCODES:,} opcodes; network pickles have far fewer")


@dataclass(eq=False, slots=True)
class Name:
    """A class or function that the file names; only the name, never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Object:
    """An instance of a class of the file: its class's name, source and state."""

    class_name: str
    source: str = ""
    state: dict[Any, Any] | None = None


@dataclass(eq=False, slots=True)
class Storage:
    """Numbers of one or more tensors, still in the file's bytes."""

    dtype: torch.dtype
    count: int
    data: memoryview
    made: Tensor | None = None

    def flat(self) -> Tensor:
        """All numbers [count], the same tensor at every call."""
        if self.made is None:
            # A copy, because torch writes to the memory of tensors and the file's bytes are fixed.
            own = bytearray(self.data)
            self.made = torch.frombuffer(own, dtype=self.dtype) if own else torch.empty(0)
            self.made = self.made.to(self.dtype)
        return self.made


@dataclass(eq=False, slots=True)
class View:
    """A tensor before it is built; its fields were checked against the storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    made: Tensor | None = None

    def tensor(self) -> Tensor:
        """The tensor of shape ``size``, the same one at every call."""
        if self.made is None:
            flat = self.storage.flat()
            self.made = torch.as_strided(flat, self.size, self.stride, self.offset)
        return self.made


@dataclass(eq=False, slots=True)
class NumpyType:
    """A NumPy dtype: its code, such as f8."""

    code: str


def checked_key(value: Any) -> Any:
    """The value, which is to be a key of a dictionary or a member of a set.

    Allowed types are hashed without recursion, and none can be made to collide in large numbers.
    Raises Refused for others, and for long text: comparing it again and again would take hours.
    """
    if type(value) not in KEY_TYPES:
        raise Refused("a dictionary or set whose keys are not plain text or numbers")
    if type(value) is str and len(value) > MAX_NAME:
        raise Refused(f"a key of {len(value)} characters; at most {MAX_NAME} are allowed")
    return value


def show(value: Any) -> str:
    """Text of a value of the file that is safe and short enough for an error's sentence."""
    if type(value) not in (str, *KEY_TYPES) and not (
        type(value) is tuple and all(type(item) in KEY_TYPES for item in value[:17])
    ):
        return f"a {type(value).__name__}"
    text = value[: MAX_NAME + 1] if type(value) is str else ascii(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else text[:80] + "..."
