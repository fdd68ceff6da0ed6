"""Files damaged at random end in an error or in a snapshot, and never take much memory."""

import pickletools
import resource
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerfstudio_gan3d.snapshots.calls import LEGACY
from tests.snapshots import unchecked
from tests.snapshots.opcodes import (
    FOUR,
    GIGA,
    module,
    number,
    root,
    stored,
    tensor,
    text,
)

SNIPPETS = [
    b"cos\nsystem\n",
    text("os") + text("system") + b"\x93",
    b"cbuiltins\neval\n" + text("1") + b"\x85R",
    b"B" + struct.pack("<I", GIGA),
    b"X" + struct.pack("<I", 2 * GIGA),
    b"\x8d" + struct.pack("<Q", 2**60),
    b"\x95" + struct.pack("<Q", 2**60),
    b"r" + struct.pack("<I", 2**31),
    b"\x8b" + struct.pack("<i", GIGA),
    b"I" + b"9" * 5000 + b"\n",
    b"h\x00a",
    b"h\x00h\x00\x86",
    b"]q\x00h\x00a",
    b"\x85" * 200,
    b"\x82\x01",
    b"Q",
    b"(",
    b"0",
    b"1",
    b"2",
    b"}b",
    b")R",
    b")\x81",
    b".",
    b"N",
    b"(NNt",
    number(GIGA),
    number(-1),
    tensor(FOUR, 0, (GIGA,), (1,)),
    stored(GIGA, b"\0" * 16),
]
PLACES = st.integers(0, 2**20)
CHANGES = st.one_of(
    st.tuples(st.just("cut"), PLACES, st.just(b"")),
    st.tuples(st.just("flip"), PLACES, st.integers(0, 7).map(lambda bit: bytes([1 << bit]))),
    st.tuples(st.just("byte"), PLACES, st.binary(min_size=1, max_size=4)),
    st.tuples(
        st.just("opcode"),
        PLACES,
        st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes]),
    ),
    st.tuples(st.just("insert"), PLACES, st.sampled_from(SNIPPETS)),
    st.tuples(st.just("delete"), PLACES, st.binary(min_size=1, max_size=9)),
)
CASES = st.lists(CHANGES, min_size=1, max_size=3)


@pytest.fixture(scope="module")
def bases(official: bytes) -> list[tuple[bytes, list[int]]]:
    """Whole files and the places of their opcodes, of those in storages too."""
    small = root(
        module(text("x") + number(7), b"}" + text("x") + tensor(FOUR, 0, (2, 2), (2, 1)) + b"s")
    )
    bases = []
    for content in (official, small):
        places = [place for _, _, place in pickletools.genops(content) if place is not None]
        start = content.find(LEGACY)
        while start >= 0:
            places.extend(range(start + len(LEGACY), start + 240))
            start = content.find(LEGACY, start + 1)
        bases.append((content, sorted(place for place in places if place < len(content))))
    return bases


def changed(content: bytes, places: list[int], kind: str, place: int, data: bytes) -> bytes:
    at = places[place % len(places)]
    if kind == "flip":
        at = place % len(content)
        return content[:at] + bytes([content[at] ^ data[0]]) + content[at + 1 :]
    if kind == "cut":
        return content[: place % len(content)]
    if kind == "insert":
        return content[:at] + data + content[at:]
    if kind == "delete":
        return content[:at] + content[at + len(data) :]
    return content[:at] + data + content[at + len(data) :]


def test_damaged_files_end_in_an_error_or_a_snapshot(
    tmp_path: Path, bases: list[tuple[bytes, list[int]]]
) -> None:
    path = tmp_path / "network.pkl"
    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=2500)
    @given(st.integers(0, 1), CASES)
    def check(base: int, changes: list[tuple[str, int, bytes]]) -> None:
        content, places = bases[base]
        for kind, place, data in changes:
            content = changed(content, places, kind, place, data) if content else content
        path.write_bytes(content)
        try:
            snapshot = unchecked.reader.read_snapshot(path)
        except unchecked.reader.SnapshotError:
            outcomes["refused"] += 1
            return
        assert isinstance(snapshot, unchecked.reader.Snapshot)
        for made in snapshot.networks.values():
            total = sum(value.numel() for value in made.state_dict().values())
            assert total < len(content)
        outcomes["read"] += 1

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17
    # Both happen, so the cases are neither all harmless nor all broken at their first byte.
    assert outcomes["refused"] > 1000
    assert outcomes["read"] > 50
