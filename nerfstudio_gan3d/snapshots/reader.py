"""Official network pickles (.pkl) read as data: nothing in the file is executed or imported.

The machine of `pickle_machine` makes plain values and inert records of the file's content. Here is
the layout that they must have; modules and tensors are built after the machine has stopped.
"""

from __future__ import annotations

import pickle
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nerfstudio_gan3d.snapshots.calls import FUNCTIONS, LEGACY, ZIP
from nerfstudio_gan3d.snapshots.contents import (
    DTYPES,
    KEY_TYPES,
    MAX_DEPTH,
    MAX_FILE,
    MAX_VALUES,
    Budget,
    Name,
    Object,
    Refused,
    View,
    show,
)
from nerfstudio_gan3d.snapshots.pickle_machine import Machine

NETWORKS = ("G", "D", "G_ema", "D_semantic", "augment_pipe")
"""Names under which a file holds networks; which of them are there differs."""


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
    anything that is not part of a network, exceeds one of the limits of `snapshots.contents`, or
    has another layout. Then nothing of it is returned.
    """
    try:
        return _snapshot(_content(path))
    except Refused as error:
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


def _content(path: Path) -> memoryview:
    if not path.exists():
        raise Refused("there is no such file")
    if not path.is_file():
        raise Refused("not a file; give the .pkl itself")
    size = path.stat().st_size
    if size > MAX_FILE:
        raise Refused(f"a file of {size:,} bytes; at most {MAX_FILE:,} are read")
    with open(path, "rb") as file:
        content = file.read(size)
    if not content:
        raise Refused("empty; download it again")
    if content.startswith(ZIP):
        raise Refused("a zip archive, as torch checkpoints and data sets are; give a .pkl")
    if content.startswith(LEGACY):
        raise Refused("a checkpoint of torch.save; give a network pickle (.pkl)")
    if content[:1] != pickle.PROTO:
        raise Refused("not a pickle of protocol 2 to 5; give a network pickle (.pkl)")
    return memoryview(content)


def _snapshot(content: memoryview) -> Snapshot:
    budget = Budget.of_file(len(content))
    root, end = Machine(content, budget, FUNCTIONS).run(0)
    if end != len(content):
        raise Refused(f"{len(content) - end} bytes follow the end of the pickle")
    if type(root) is not dict:
        raise Refused(f"it holds {show(root)}; a dictionary with G_ema or G is expected")
    if root.get("G_ema") is None and root.get("G") is None:
        raise Refused("it has no generator; a dictionary with G_ema or G is expected")
    builder, made, networks = _Builder(), {}, {}
    for name in NETWORKS:
        value = root.get(name)
        if value is None:
            continue
        if type(value) is not Object:
            raise Refused(f"{name} is {show(value)}; a network is expected")
        if id(value) not in made:
            made[id(value)] = builder.module(value, name, 0)
        networks[name] = made[id(value)]
    options = root.get("training_set_kwargs")
    if options is not None and type(options) is not dict:
        raise Refused(f"training_set_kwargs is {show(options)}; a dictionary is expected")
    training_set = builder.value(options or {}, "training_set_kwargs", 0)
    if not all(type(name) is str for name in training_set):
        raise Refused("training_set_kwargs has a name that is not text")
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
        if kind is View:
            return value.tensor()
        if kind is Object:
            return self.module(value, where, depth + 1, strict=False)
        if kind is memoryview:
            if id(value) not in self.made:
                self.made[id(value)] = bytes(value)
            return self.made[id(value)]
        if kind is Name:
            return DTYPES.get(str(value), str(value))
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
        if kind in KEY_TYPES or kind is torch.device:
            return value
        raise Refused(f"{where} holds a {kind.__name__}, which is no plain value")

    def module(self, record: Object, where: str, depth: int, strict: bool = True) -> SnapshotModule:
        """The module of a record; one that is not ``strict`` may be an object of another kind."""
        self._enter(where, depth)
        state = record.state if record.state is not None or strict else {}
        if state is None or not all(type(key) is str for key in state):
            raise Refused(f"{where} ({show(record.class_name)}) has no state")
        if not strict and not any(part in state for part in _PARTS):
            state = {**{part: {} for part in _PARTS}, **state}
        for part in _PARTS:
            if type(state.get(part)) is not dict:
                raise Refused(f"{where} ({show(record.class_name)}) has no dictionary {part}")
        transient = state.get("_non_persistent_buffers_set", set())
        if type(transient) is not set or not all(type(name) is str for name in transient):
            raise Refused(f"{where} has a _non_persistent_buffers_set that is no set of names")
        # What is looked at below counts before it is looked at.
        self._enter(where, depth, len(state) + len(transient))
        names = [name for part in _PARTS for name in state[part]]
        if not all(type(name) is str and name and "." not in name for name in names):
            raise Refused(f"{where} has a part whose name is empty, dotted or no text")
        if len(set(names)) < len(names):
            raise Refused(f"{where} has two parts of the same name")
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
            if type(value) is View:
                tensors[name] = value.tensor()
            elif value is not None:
                raise Refused(f"{where}.{show(name)} is {show(value)}; a tensor is expected")
        return tensors

    def _children(
        self, values: dict[str, Any], where: str, depth: int
    ) -> dict[str, SnapshotModule]:
        modules = {}
        for name, value in values.items():
            path = f"{where}.{show(name)}"
            if type(value) is Object:
                modules[name] = self.module(value, path, depth + 1)
            elif value is not None:
                raise Refused(f"{path} is {show(value)}; a module is expected")
        return modules

    def _attributes(self, state: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        attributes = {}
        for name, value in state.items():
            if _HOOKS.fullmatch(name):
                if value not in (None, {}):
                    raise Refused(f"{where} has hooks ({show(name)}), which are code")
            elif name not in (*_PARTS, "_non_persistent_buffers_set", "_is_full_backward_hook"):
                attributes[name] = self.value(value, f"{where}.{show(name)}", depth + 1)
        return attributes

    def _enter(self, where: str, depth: int, count: int = 1) -> None:
        self.values += count
        if self.values > MAX_VALUES:
            raise Refused(f"its networks hold more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise Refused(
                f"{where[:80]} is nested more than {MAX_DEPTH} levels deep or contains itself"
            )
