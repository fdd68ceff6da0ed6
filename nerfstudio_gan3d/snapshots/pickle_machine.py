"""A stack machine that reads pickles as data: nothing in them is executed or imported.

A pickle is a program for a stack machine. Python's own machine is not safe with a list of allowed
names alone: hashing a tuple that is nested deeply enough overflows the stack of the process, a
state is written into any object, also into a class, and a memo index reserves an array of its size.
The machine here knows only the opcodes that protocols 2 to 5 need for networks, spends from a
budget, and makes plain values and inert records.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from nerfstudio_gan3d.snapshots.contents import (
    CLASS_NAME,
    DTYPES,
    MAPPINGS,
    MAX_NAME,
    MAX_TEXT,
    STORAGES,
    Budget,
    Name,
    NumpyType,
    Object,
    Refused,
    checked_key,
    show,
)

Function = Callable[[tuple[Any, ...], Budget], Any]
"""What a function that a pickle calls makes of its arguments, within what is left of a budget."""

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


class Machine:
    """Runs one pickle, which may call ``functions``, by their dotted names.

    Without any it is for the pickles inside of a storage, which call nothing and name storages.
    """

    def __init__(
        self, content: memoryview, budget: Budget, functions: Mapping[str, Function]
    ) -> None:
        self.content, self.budget, self.functions = content, budget, functions
        self.inner = not functions
        self.at = self.count = 0
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, start: int) -> tuple[Any, int]:
        """The value of the pickle that begins at a byte, and the byte behind it."""
        self.at = start
        if self.content[start : start + 1] != pickle.PROTO:
            raise Refused("not a pickle of protocol 2 to 5")
        while True:
            code = self._read(1)[0]
            self.budget.operate()
            self.count += 1
            if code == _STOP:
                break
            self._step(code)
        if self.marked or len(self.stack) != 1:
            raise Refused("damaged: its pickle stops without exactly one value")
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
            raise Refused(f"{what} at byte {self.at - 1} is not used by network pickles")

    def _read(self, count: int) -> memoryview:
        left = len(self.content) - self.at
        if count > left:
            raise Refused(
                f"truncated or damaged: {count} bytes are declared at byte {self.at}, {left} follow"
            )
        self.at += count
        return self.content[self.at - count : self.at]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._read(size), "little")

    def _pop(self) -> Any:
        if not self.stack:
            raise Refused(f"damaged: nothing is left to take at byte {self.at - 1}")
        return self.stack.pop()

    def _top(self, *kinds: type) -> Any:
        value = self._pop()
        if type(value) not in kinds:
            raise Refused(f"damaged: {show(value)} cannot be changed at byte {self.at - 1}")
        self.stack.append(value)
        return value

    def _items(self) -> list[Any]:
        if not self.marked:
            raise Refused(f"damaged: there is no mark at byte {self.at - 1}")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _remembered(self, index: int) -> Any:
        if index not in self.memo:
            raise Refused(f"damaged: memo entry {index} is used at byte {self.at} but not set")
        return self.memo[index]

    def _remember(self, index: int) -> None:
        if index > self.count:
            raise Refused(f"damaged: memo index {index} after {self.count} opcodes")
        value = self._pop()
        self.memo[index] = value
        self.stack.append(value)

    def _protocol(self) -> None:
        version = self._number(1)
        if not 2 <= version <= 5:
            raise Refused(f"a pickle of protocol {version}; protocols 2 to 5 are read")

    def _frame(self) -> None:
        # Only the length is checked: frames tell a file's reader how much to fetch.
        size = self._number(8)
        self._read(size)
        self.at -= size

    def _integer(self) -> None:
        size = self._number(1)
        if size > 8:
            raise Refused(f"an integer of {size} bytes; at most 8 are allowed")
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
        items = frozenset(checked_key(value) for value in self._items())
        self.stack.append(items)

    def _append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self) -> None:
        items = self._items()
        self._top(list).extend(items)

    def _add(self) -> None:
        items = self._items()
        self._top(set).update(checked_key(value) for value in items)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._top(dict)[checked_key(key)] = value

    def _set_items(self) -> None:
        items = self._items()
        target = self._top(dict)
        if len(items) % 2:
            raise Refused(f"damaged: a key without a value at byte {self.at - 1}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _global(self) -> None:
        self._named(self._line(), self._line())

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise Refused(f"damaged: a name that is not text at byte {self.at - 1}")
        self._named(module, name)

    def _line(self) -> str:
        head = bytes(self.content[self.at : self.at + MAX_NAME + 1])
        line, end, _ = head.partition(b"\n")
        if not end:
            raise Refused(f"damaged: a name without an end at byte {self.at}")
        self.at += len(line) + 1
        return str(line, "utf-8")

    def _named(self, module: str, name: str) -> None:
        if max(len(module), len(name)) > MAX_NAME:
            raise Refused(f"a name of more than {MAX_NAME} characters: {show(name)}")
        full = f"{module}.{name}"
        if self.inner:
            allowed = module == "torch" and name in STORAGES
        else:
            allowed = full in self.functions or full in DTYPES or bool(CLASS_NAME.fullmatch(full))
        if not allowed:
            raise Refused(
                f"it asks for {show(full)}, which is not part of a network; allowed are tensors, "
                "plain values and classes of training and torch.nn"
            )
        self.stack.append(Name(module, name))

    def _persistent_id(self) -> None:
        # What the identity describes is checked by the storage; on the stack it stays a tuple.
        if not self.inner:
            raise Refused("the opcode BINPERSID is not used by network pickles")
        self._top(tuple)

    def _called(self) -> tuple[Name, tuple[Any, ...]]:
        args, callee = self._pop(), self._pop()
        if type(callee) is not Name or type(args) is not tuple or self.inner:
            raise Refused(f"damaged: {show(callee)} is called at byte {self.at - 1}")
        return callee, args

    def _reduce(self) -> None:
        callee, args = self._called()
        function = self.functions.get(str(callee))
        if function is None:
            raise Refused(f"it calls {show(str(callee))}; classes of modules are never called")
        self.stack.append(function(args, self.budget))

    def _new_object(self) -> None:
        callee, args = self._called()
        if args:
            raise Refused(f"it makes {show(str(callee))} with arguments; a state is expected")
        if str(callee) in MAPPINGS:
            self.stack.append({})
        elif CLASS_NAME.fullmatch(str(callee)):
            self.stack.append(Object(callee.name.rpartition(".")[2]))
        else:
            raise Refused(f"it makes an object of {show(str(callee))}, which is not a class")

    def _build(self) -> None:
        state = self._pop()
        target = self._top(Object, NumpyType)
        if type(target) is Object and target.state is None and type(state) is dict:
            target.state = state
        elif type(target) is NumpyType and type(state) is tuple and len(state) >= 2:
            if state[1] not in ("<", "|", "="):
                raise Refused(f"a NumPy dtype of byte order {show(state[1])}; allowed are < | =")
        else:
            raise Refused(f"damaged: a state of another kind at byte {self.at - 1}")


_ACTIONS: dict[int, Callable[[Machine], None]] = {
    pickle.PROTO[0]: Machine._protocol,
    pickle.FRAME[0]: Machine._frame,
    pickle.LONG1[0]: Machine._integer,
    pickle.MARK[0]: Machine._mark,
    pickle.POP[0]: Machine._drop,
    pickle.POP_MARK[0]: lambda machine: machine._items().clear(),
    pickle.MEMOIZE[0]: lambda machine: machine._remember(len(machine.memo)),
    pickle.TUPLE[0]: Machine._tuple,
    pickle.FROZENSET[0]: Machine._frozen,
    pickle.APPEND[0]: Machine._append,
    pickle.APPENDS[0]: Machine._appends,
    pickle.ADDITEMS[0]: Machine._add,
    pickle.SETITEM[0]: Machine._set_item,
    pickle.SETITEMS[0]: Machine._set_items,
    pickle.GLOBAL[0]: Machine._global,
    pickle.STACK_GLOBAL[0]: Machine._stack_global,
    pickle.BINPERSID[0]: Machine._persistent_id,
    pickle.REDUCE[0]: Machine._reduce,
    pickle.NEWOBJ[0]: Machine._new_object,
    pickle.BUILD[0]: Machine._build,
}
