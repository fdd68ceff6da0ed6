"""Tensors, NumPy's numbers and containers: equal bit for bit, and refused where they claim more."""

import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nerfstudio_gan3d.snapshots.reader import read_snapshot
from tests.snapshots import unchecked
from tests.snapshots.official_pickle import write_snapshot
from tests.snapshots.opcodes import (
    FOUR,
    GIGA,
    as_bytes,
    attribute,
    buffer,
    module,
    number,
    root,
    storage_bytes,
    stored,
    tensor,
    text,
    written,
)
from tests.snapshots.unchecked import refusal, refusal_without_memory

TENSORS = {
    "bits of NaN": torch.tensor([0x7FC00001, 0x7F800001, -1], dtype=torch.int32).view(
        torch.float32
    ),
    "transposed": torch.arange(6.0).reshape(2, 3).t(),
    "part of a storage": torch.arange(20, dtype=torch.int16)[3:17:2],
    "scalar": torch.tensor(3.25, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "truth": torch.tensor([True, False, True]),
    "half": torch.randn(5).half(),
    "bfloat16": torch.randn(5).bfloat16(),
    "bytes": torch.arange(256, dtype=torch.uint8),
    "signed bytes": torch.arange(-5, 5, dtype=torch.int8),
    "long": torch.tensor([2**62, -(2**63)]),
    "int": torch.tensor([-(2**31)], dtype=torch.int32),
}


@pytest.mark.parametrize("cuda", [False, True], ids=["cpu", "cuda"])
@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_are_equal_bit_for_bit(tmp_path: Path, kind: str, cuda: bool) -> None:
    expected = TENSORS[kind]
    description = {"class_name": "Net", "buffers": {"x": expected}, "attributes": {"y": expected}}
    path = write_snapshot(tmp_path / "a.pkl", {"G": description}, cuda=cuda)
    assert (b"cuda:0" in path.read_bytes()) is cuda
    made = read_snapshot(path).networks["G"]
    for found in (made.buffers["x"], made.attributes["y"]):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.stride() == expected.stride()
        assert found.device.type == "cpu"
        assert (
            found.numpy(force=True).tobytes() == expected.numpy().tobytes()
            if (expected.dtype != torch.bfloat16)
            else torch.equal(found, expected)
        )
        found.clone().zero_()


def test_other_types_that_a_network_may_hold(tmp_path: Path) -> None:
    values = {
        "dtype": torch.float16,
        "device": torch.device("cuda", 1),
        "size": torch.Size([2, 3]),
        "ordered": [OrderedDict([("b", 1), ("a", 2)])],
        "f4": np.float32(0.1),
        "i1": np.int8(-3),
        "bool": np.bool_(True),
        "named": [nn.Softplus],
    }
    path = write_snapshot(tmp_path / "a.pkl", {"G": {"class_name": "Net", "attributes": values}})
    attributes = read_snapshot(path).networks["G"].attributes
    named = ["torch.nn.modules.activation.Softplus"]
    expected = {**values, "f4": float(np.float32(0.1)), "named": named, "training": False}
    assert attributes == expected
    assert list(attributes["ordered"][0]) == ["b", "a"]
    assert type(attributes["i1"]) is int
    assert attributes["bool"] is True


def test_the_small_files_of_these_tests_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, buffer(tensor(FOUR, 1, (3,), (1,))))
    made = unchecked.reader.read_snapshot(path).networks["G"]
    assert torch.equal(made.buffers["x"], torch.zeros(3))


CLAIMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "storage that claims": (
        lambda: attribute(stored(GIGA, b"\0" * 16)),
        "claims 1073741824 elements of torch.float32 has 16 bytes",
    ),
    "storage that claims below zero": (lambda: attribute(stored(-1, b"")), "claims -1 elements"),
    "storage that claims twice": (
        lambda: attribute(stored(4, b"\0" * 16, claimed=GIGA)),
        "its data 1073741824",
    ),
    "storage with a view": (
        lambda: attribute(
            stored(4, b"\0" * 16, view=text("v") + number(0) + number(GIGA) + b"\x87")
        ),
        "an unknown description",
    ),
    "tensor larger than its storage": (
        lambda: buffer(tensor(FOUR, 0, (GIGA,), (1,))),
        r"\(1073741824,\) reaches beyond its 4 stored elements",
    ),
    "tensor of repeated elements": (lambda: buffer(tensor(FOUR, 0, (GIGA,), (0,))), "reaches"),
    "tensor with an offset": (lambda: buffer(tensor(FOUR, 4, (1,), (1,))), "reaches beyond"),
    "tensor with a stride": (lambda: buffer(tensor(FOUR, 0, (2,), (4,))), "reaches beyond"),
    "tensor with a negative offset": (lambda: buffer(tensor(FOUR, -1, (1,), (1,))), "no number"),
    "tensor with a negative stride": (lambda: buffer(tensor(FOUR, 3, (2,), (-1,))), "no number"),
    "tensor with a negative size": (lambda: buffer(tensor(FOUR, 0, (-1,), (1,))), "no number"),
    "tensor without all strides": (lambda: buffer(tensor(FOUR, 0, (2, 2), (1,))), "do not fit"),
    "tensor of many dimensions": (
        lambda: buffer(tensor(FOUR, 0, (1,) * 65, (1,) * 65)),
        "more than 16 dimensions",
    ),
    "empty tensor of huge dimensions": (
        lambda: buffer(tensor(FOUR, 0, (0, 2**40, 2**40), (1, 1, 1))),
        "too large",
    ),
    "one storage claimed again and again": (
        lambda: attribute(
            b"ctorch.storage\n_load_from_bytes\nq\x00"
            + as_bytes(storage_bytes(10000, b"\0" * 40000))
            + b"q\x01\x85R0"
            + b"h\x00h\x01\x85R0" * 1000
            + b"N"
        ),
        "larger than the file together",
    ),
    "list copied again and again": (
        lambda: attribute(
            b"cbuiltins\nset\nq\x00](" + b"N" * 10000 + b"eq\x01\x85R0" + b"h\x00h\x01\x85R0" * 200
        ),
        "more than 20,000 opcodes",
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_are_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    monkeypatch.setattr(unchecked.contents, "MAX_OPCODES", 20_000)
    make, sentence = CLAIMS[claim]
    assert re.search(sentence, refusal_without_memory(written(tmp_path, make())))


MALFORMED = {
    "storage in a zip": (
        attribute(b"ctorch.storage\n_load_from_bytes\n" + as_bytes(b"PK\x03\x04") + b"\x85R"),
        "zip format",
    ),
    "storage of other bytes": (
        attribute(b"ctorch.storage\n_load_from_bytes\n" + as_bytes(b"\x80\x02N.") + b"\x85R"),
        "legacy format",
    ),
    "storage with a hostile name": (
        attribute(stored(4, b"\0" * 16, kind=b"cbuiltins\nvars\n")),
        r"asks for builtins\.vars",
    ),
    "truth values": (
        attribute(stored(4, b"\0\1\2\1", kind=b"ctorch\nBoolStorage\n")),
        "other than 0 and 1",
    ),
    "NumPy objects": (attribute(b"cnumpy\ndtype\n" + text("O8") + b"\x85R"), "dtype O8"),
    "big-endian": (
        attribute(b"cnumpy\ndtype\n" + text("f8") + b"\x85RK\x03" + text(">") + b"\x86b"),
        "byte order >",
    ),
    "short NumPy scalar": (
        attribute(
            b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n" + text("f8") + b"\x85RC\x01x\x86R"
        ),
        "damaged",
    ),
    "device": (attribute(b"ctorch\ndevice\n" + text("meta") + b"\x85R"), "the device"),
    "parameter without tensor": (
        attribute(b"ctorch._utils\n_rebuild_parameter\nN\x89}\x87R"),
        "without a tensor",
    ),
    "tensor without storage": (
        attribute(b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR"),
        "without a storage",
    ),
    "persistent function": (
        root(module().replace(text("class"), text("other"))),
        "type is not 'class'",
    ),
    "version 7": (root(module().replace(b"K\x06", b"K\x07")), "version 7"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_other_arguments_are_refused_with_a_reason(tmp_path: Path, case: str) -> None:
    content, sentence = MALFORMED[case]
    assert re.search(sentence, refusal(written(tmp_path, content)))
