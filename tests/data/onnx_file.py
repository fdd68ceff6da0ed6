"""A tiny ONNX network written byte by byte, so that no further package is needed."""


def bright_is_foreground() -> bytes:
    """A network whose answer is the mean of the three channels: ``[1, 3, h, w] -> [1, 1, h, w]``.

    An ONNX file is a protocol buffer (onnx.proto): ModelProto has ir_version (1), graph (7) and
    opset_import (8); GraphProto node (1), name (2), input (11) and output (12).
    """
    axes = _text(1, "axes") + _number(8, 1) + _number(20, 7)  # type 7: list of integers
    keep = _text(1, "keepdims") + _number(3, 1) + _number(20, 2)  # type 2: integer
    node = _text(1, "image") + _text(2, "mask") + _text(4, "ReduceMean")
    node += _field(5, axes) + _field(5, keep)
    graph = _field(1, node) + _text(2, "bright")
    graph += _field(11, _tensor("image", 3)) + _field(12, _tensor("mask", 1))
    return _number(1, 7) + _field(7, graph) + _field(8, _text(1, "") + _number(2, 13))


def _tensor(name: str, channels: int) -> bytes:
    dims = [_number(1, 1), _number(1, channels), _text(2, "height"), _text(2, "width")]
    shape = b"".join(_field(1, dim) for dim in dims)
    kind = _field(1, _number(1, 1) + _field(2, shape))  # element type 1: float32
    return _text(1, name) + _field(2, kind)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _field(field, value.encode())


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = []
    while value >= 128:
        groups.append(value % 128 + 128)
        value //= 128
    return bytes([*groups, value])
