"""Network pickles put together opcode by opcode, for content that no pickler would write."""

import struct
from pathlib import Path
from typing import Any

from nerfstudio_gan3d.snapshots.calls import LEGACY

HEAD = b"\x80\x04"
OBJECT = b"ctraining.a\nB\n"
GIGA = 2**30


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def stored(count: int, data: bytes, **claims: Any) -> bytes:
    """A call of _load_from_bytes with a storage in torch's legacy format; see `storage_bytes`."""
    content = storage_bytes(count, data, **claims)
    return b"ctorch.storage\n_load_from_bytes\n" + as_bytes(content) + b"\x85R"


def storage_bytes(
    count: int,
    data: bytes,
    claimed: int | None = None,
    view: bytes = b"N",
    kind: bytes = b"ctorch\nFloatStorage\n",
) -> bytes:
    """A storage of ``count`` elements, or so it says; ``claimed`` stands before its ``data``."""
    described = number(count)
    return (
        LEGACY
        + b"\x80\x02}"
        + text("little_endian")
        + b"\x88s."
        + b"\x80\x02("
        + text("storage")
        + kind
        + text("k")
        + text("cpu")
        + described
        + view
        + b"tQ."
        + b"\x80\x02]"
        + text("k")
        + b"a."
        + struct.pack("<q", count if claimed is None else claimed)
        + data
    )


def as_bytes(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(storage: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A call of _rebuild_tensor_v2."""
    parts = [b"(" + b"".join(number(n) for n in values) + b"t" for values in (size, stride)]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(offset)
        + b"".join(parts)
        + b"\x89}tR"
    )


def module(parts: bytes = b"", buffers: bytes = b"}", modules: bytes = b"}") -> bytes:
    """A persistent module; ``parts`` are further keys and values of its state."""
    state = b"}(" + text("_parameters") + b"}" + text("_buffers") + buffers
    state += text("_modules") + modules + parts + b"u"
    return (
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}("
        + text("type")
        + text("class")
        + text("version")
        + b"K\x06"
        + text("module_src")
        + text("")
        + text("class_name")
        + text("Net")
        + text("state")
        + state
        + b"u\x85R"
    )


def root(value: bytes, name: str = "G") -> bytes:
    return HEAD + b"}" + text(name) + value + b"s."


def attribute(value: bytes) -> bytes:
    return root(module(text("x") + value))


def buffer(value: bytes) -> bytes:
    return root(module(buffers=b"}" + text("x") + value + b"s"))


FOUR = stored(4, b"\0" * 16)
"""A storage of four zeros."""
