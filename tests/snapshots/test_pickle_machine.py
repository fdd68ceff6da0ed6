"""The stack machine: plain values are Python's, and nothing is executed or taken on a claim."""

import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerfstudio_gan3d.snapshots import reader
from nerfstudio_gan3d.snapshots.calls import FUNCTIONS
from nerfstudio_gan3d.snapshots.contents import Budget
from nerfstudio_gan3d.snapshots.pickle_machine import Machine
from tests.snapshots import unchecked
from tests.snapshots.opcodes import (
    FOUR,
    GIGA,
    HEAD,
    OBJECT,
    attribute,
    tensor,
    text,
    written,
)
from tests.snapshots.unchecked import refusal, refusal_without_memory

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 99), inner, max_size=4)
        | st.sets(st.text(max_size=5))
        | st.frozensets(st.integers(-5, 5))
    ),
    max_leaves=20,
)


@settings(max_examples=200)
@given(PLAIN, st.sampled_from([3, 4, 5]))
def test_plain_values_are_those_that_python_reads(value: Any, protocol: int) -> None:
    content = pickle.dumps(value, protocol)
    budget = Budget(len(content), 10**6, 10**6, 0)
    root, end = Machine(memoryview(content), budget, FUNCTIONS).run(0)
    assert end == len(content)
    assert reader._Builder().value(root, "value", 0) == pickle.loads(content)


# Module, name and arguments; {mark} is a file that the call would create.
HOSTILE: list[tuple[str, str, list[str]]] = [
    ("os", "system", ["touch {mark}"]),
    ("posix", "system", ["touch {mark}"]),
    ("builtins", "eval", ["open('{mark}', 'w')"]),
    ("builtins", "exec", ["open('{mark}', 'w')"]),
    ("__builtin__", "eval", ["open('{mark}', 'w')"]),
    ("builtins", "getattr", ["os", "system"]),
    ("builtins", "open", ["{mark}", "w"]),
    ("builtins", "__import__", ["os"]),
    ("subprocess", "Popen", ["touch {mark}"]),
    ("subprocess", "call", ["touch {mark}"]),
    ("pathlib", "Path.touch", ["{mark}"]),
    ("functools", "partial", ["{mark}"]),
    ("operator", "attrgetter", ["{mark}"]),
    ("torch", "load", ["{mark}"]),
    ("torch.storage", "os.system", ["touch {mark}"]),
    ("torch.hub", "load", ["{mark}"]),
    ("torch._utils", "_rebuild_tensor_v3", []),
    ("torch.serialization", "load", ["{mark}"]),
    ("numpy", "load", ["{mark}"]),
    ("numpy", "save", ["{mark}", "x"]),
    ("pickle", "loads", ["x"]),
    ("collections", "defaultdict", []),
    ("copyreg", "_reconstructor", []),
    ("types", "CodeType", []),
    ("trainings.x", "Y", []),
    ("training.a-b", "Y", []),
    ("torch_utils.persistence", "os", []),
    ("nerfstudio_gan3d.snapshots.contents", "Object", []),
]


@pytest.mark.parametrize("stacked", [False, True], ids=["GLOBAL", "STACK_GLOBAL"])
@pytest.mark.parametrize(("module", "name", "arguments"), HOSTILE)
def test_other_names_are_refused_and_not_executed(
    tmp_path: Path, official: bytes, module: str, name: str, arguments: list[str], stacked: bool
) -> None:
    mark = tmp_path / "mark"
    asked = f"c{module}\n{name}\n".encode()
    if stacked:
        asked = text(module) + text(name) + b"\x93"
    given_texts = b"".join(text(argument.format(mark=mark)) for argument in arguments)
    calls = asked + b"(" + given_texts + b"tR0."
    told = refusal(written(tmp_path, official[:-1] + calls))
    assert f"network.pkl: it asks for {module}.{name}, which is not part of a network" in told
    assert not mark.exists()


def test_python_would_have_executed_such_a_call(tmp_path: Path, official: bytes) -> None:
    """The plain reader runs the call that the tests above send, so they send a real one."""
    mark = tmp_path / "mark"
    call = b"cbuiltins\nopen\n(" + text(str(mark)) + text("w") + b"tR0."
    assert "builtins.open" in refusal(written(tmp_path, official[:-1] + call))
    assert not mark.exists()
    pickle.loads(b"\x80\x04}" + call)
    assert mark.exists()


CLAIMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "BINBYTES": (lambda: attribute(b"B" + struct.pack("<I", GIGA)), "bytes are declared"),
    "BINBYTES8": (lambda: attribute(b"\x8e" + struct.pack("<Q", 2**62)), "bytes are declared"),
    "BINUNICODE": (lambda: attribute(b"X" + struct.pack("<I", GIGA)), "bytes are declared"),
    "BINUNICODE8": (lambda: attribute(b"\x8d" + struct.pack("<Q", 2**63)), "bytes are declared"),
    "BYTEARRAY8": (lambda: attribute(b"\x96" + struct.pack("<Q", GIGA)), "the opcode BYTEARRAY8"),
    "FRAME": (lambda: HEAD + b"\x95" + struct.pack("<Q", GIGA) + b"}.", "bytes are declared"),
    "LONG4": (lambda: attribute(b"\x8b" + struct.pack("<i", GIGA)), "the opcode LONG4"),
    "LONG1": (lambda: attribute(b"\x8a\xff" + b"\1" * 255), "an integer of 255 bytes"),
    "LONG": (lambda: attribute(b"L" + b"9" * 10**5 + b"L\n"), "the opcode LONG"),
    "INT": (lambda: attribute(b"I" + b"9" * 10**5 + b"\n"), "the opcode INT"),
    "LONG_BINPUT": (
        lambda: attribute(b"Nr" + struct.pack("<I", GIGA)),
        "memo index 1073741824 after",
    ),
    "PUT": (lambda: attribute(b"Np1073741824\n"), "the opcode PUT"),
    "opcodes": (lambda: attribute(b"N0" * 10_001 + b"N"), "more than 20,000 opcodes"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_are_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    monkeypatch.setattr(unchecked.contents, "MAX_OPCODES", 20_000)
    make, sentence = CLAIMS[claim]
    assert re.search(sentence, refusal_without_memory(written(tmp_path, make())))


def test_more_text_than_any_network_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchecked.contents, "MAX_TEXT", 1000)
    assert "bytes of text" in refusal(written(tmp_path, attribute(text("x" * 1000))))


ENDLESS: dict[str, tuple[Callable[[], bytes], str]] = {
    "deep tuple as a key": (
        lambda: attribute(b"}N" + b"\x85" * 100_000 + b"Ns"),
        "keys are not plain",
    ),
    "deep tuple in a set": (
        lambda: attribute(b"\x8f(N" + b"\x85" * 100_000 + b"\x90"),
        "keys are not plain",
    ),
    "long keys": (lambda: attribute(b"}" + text("k" * 10**6) + b"Ns"), "a key of 1000000"),
    "long names": (
        lambda: attribute(text("training." + "x" * 10**6) + text("Y") + b"\x93"),
        "more than 256 characters",
    ),
    "marks": (lambda: HEAD + b"(" * 100_000 + b".", "exactly one value"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_keys_names_and_marks_without_end_are_refused(tmp_path: Path, case: str) -> None:
    make, sentence = ENDLESS[case]
    assert re.search(sentence, refusal(written(tmp_path, make())))


MALFORMED = {
    "EXT1": (attribute(b"\x82\x01"), "the opcode EXT1"),
    "EXT2": (attribute(b"\x83\x01\x00"), "the opcode EXT2"),
    "EXT4": (attribute(b"\x84\x01\x00\x00\x00"), "the opcode EXT4"),
    "INST": (attribute(b"(ios\nsystem\n"), "the opcode INST"),
    "OBJ": (attribute(b"(" + OBJECT + b"o"), "the opcode OBJ"),
    "NEWOBJ_EX": (attribute(OBJECT + b")}\x92"), "the opcode NEWOBJ_EX"),
    "PERSID": (attribute(b"Pname\n"), "the opcode PERSID"),
    "BINPERSID": (attribute(b")Q"), "the opcode BINPERSID"),
    "DUP": (attribute(b"N2"), "the opcode DUP"),
    "NEXT_BUFFER": (attribute(b"\x97"), "the opcode NEXT_BUFFER"),
    "no opcode": (attribute(b"\xff"), "the opcode 0xff"),
    "class that is called": (attribute(OBJECT + b")R"), "never called"),
    "class with arguments": (attribute(OBJECT + b"N\x85\x81"), "with arguments"),
    "function as a class": (attribute(b"ctorch\ndevice\n)\x81"), "is not a class"),
    "state for a class": (attribute(OBJECT + b"}b"), "cannot be changed"),
    "state for a tensor": (attribute(tensor(FOUR, 0, (4,), (1,)) + b"}b"), "cannot be changed"),
    "state for a dictionary": (attribute(b"}}b"), "cannot be changed"),
    "state that is no dictionary": (attribute(OBJECT + b")\x81Nb"), "a state of another kind"),
    "second state": (attribute(OBJECT + b")\x81}b}b"), "a state of another kind"),
    "call of a list": (attribute(b"])R"), "a list is called"),
    "item for a list": (attribute(b"]K\x01K\x02s"), "a list cannot be changed"),
    "odd items": (attribute(b"}(Nu"), "a key without a value"),
    "no mark": (attribute(b"t")[:2] + b"t.", "there is no mark"),
    "nothing to pop": (HEAD + b"\x85.", "nothing is left"),
    "memo that was not set": (attribute(b"h\x07"), "memo entry 7"),
    "protocol 6": (b"\x80\x06}.", "of protocol 6"),
    "text that is not UTF-8": (attribute(b"X\x01\x00\x00\x00\xff"), "damaged"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_other_opcodes_are_refused_with_a_reason(tmp_path: Path, case: str) -> None:
    content, sentence = MALFORMED[case]
    assert re.search(sentence, refusal(written(tmp_path, content)))
