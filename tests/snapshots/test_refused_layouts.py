"""Layouts that no network has, and modules nested without end, are refused with a reason."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.snapshots import unchecked
from tests.snapshots.opcodes import (
    FOUR,
    HEAD,
    OBJECT,
    attribute,
    buffer,
    module,
    root,
    text,
    written,
)
from tests.snapshots.unchecked import refusal


def shared(levels: int, opened: bytes, closed: bytes) -> bytes:
    """Containers of which each holds the one before it twice."""
    body = b"Nq\x00"
    for level in range(levels):
        get = b"h" + bytes([level])
        body += b"0" + opened + get + get + closed + b"q" + bytes([level + 1])
    return body


NESTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "list in itself": (lambda: attribute(b"]q\x00h\x00a"), "contains itself"),
    "dictionary in itself": (
        lambda: attribute(b"}q\x00" + text("a") + b"h\x00s"),
        "contains itself",
    ),
    "tuple in itself": (lambda: attribute(b"]q\x00h\x00\x85aN0"), "contains itself"),
    "module in itself": (
        lambda: root(module(modules=b"}q\x00" + module(modules=b"h\x00").join([text("a"), b"s"]))),
        "contains itself",
    ),
    "deep lists": (lambda: attribute(b"]" * 10**4 + b"a" * (10**4 - 1)), "levels deep"),
    "deep tuples": (lambda: attribute(b"N" + b"\x85" * 10**4), "levels deep"),
    "lists that share": (
        lambda: attribute(shared(60, b"](", b"e")),
        "hold more than 20,000 values",
    ),
    "tuples that share": (
        lambda: attribute(shared(60, b"", b"\x86")),
        "hold more than 20,000 values",
    ),
    "modules that share": (
        lambda: root(sharing_modules(40)),
        "hold more than 20,000 values",
    ),
    "deep modules": (lambda: root(deep_modules(500)), "levels deep"),
}


def sharing_modules(levels: int) -> bytes:
    body = module()
    for level in range(levels):
        put, get = b"q" + bytes([level]), b"h" + bytes([level])
        body = module(modules=b"}(" + text("a") + body + put + text("b") + get + b"u")
    return body


def deep_modules(levels: int) -> bytes:
    body = module()
    for _ in range(levels):
        body = module(modules=b"}" + text("a") + body + b"s")
    return body


@pytest.mark.parametrize("case", NESTED)
def test_nesting_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(unchecked.reader, "MAX_VALUES", 20_000)
    make, sentence = NESTED[case]
    assert re.search(sentence, refusal(written(tmp_path, make())))


MALFORMED = {
    "storage as a value": (attribute(FOUR), "holds a Storage"),
    "dtype as a value": (
        attribute(b"cnumpy\ndtype\n" + text("f8") + b"\x85R"),
        "holds a NumpyType",
    ),
    "bytes behind the end": (root(module()) + b"xx", "2 bytes follow the end"),
    "list": (HEAD + b"].", "it holds a list"),
    "no generator": (root(module(), "D"), "it has no generator"),
    "generator that is None": (root(b"N"), "it has no generator"),
    "generator that is text": (root(text("abc")), "G is abc; a network is expected"),
    "training set that is text": (
        HEAD + b"}(" + text("G") + module() + text("training_set_kwargs") + text("x") + b"u.",
        "training_set_kwargs is x",
    ),
    "no _parameters": (
        root(module().replace(text("_parameters"), text("_parameterz"))),
        r"G \(Net\) has no dictionary _parameters",
    ),
    "no state": (root(OBJECT + b")\x81"), r"G \(B\) has no state"),
    "child without state": (
        root(module(modules=b"}" + text("sub") + OBJECT + b")\x81s")),
        r"G\.sub \(B\) has no state",
    ),
    "child that is a number": (root(module(modules=b"}" + text("a") + b"K\x05s")), r"G\.a is 5"),
    "buffer that is a number": (buffer(b"K\x05"), r"G\.x is 5; a tensor is expected"),
    "dotted name": (root(module(modules=b"}" + text("a.b") + b"Ns")), "empty, dotted"),
    "name that is a number": (root(module(modules=b"}K\x05Ns")), "no text"),
    "one name twice": (
        root(module(buffers=b"}" + text("a") + b"Ns", modules=b"}" + text("a") + b"Ns")),
        "two parts of the same name",
    ),
    "hooks": (root(module(text("_forward_hooks") + b"}K\x01K\x02s")), "has hooks"),
    "names of buffers": (
        root(module(text("_non_persistent_buffers_set") + b"]")),
        "no set of names",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_other_layouts_are_refused_with_a_reason(tmp_path: Path, case: str) -> None:
    content, sentence = MALFORMED[case]
    assert re.search(sentence, refusal(written(tmp_path, content)))
