"""Files of splats: bytes by hand, read back by another reader, axes, and what is refused."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from nerfstudio_gan3d.export.splat_files import PROPERTIES, Up, read_splats, write_splats
from nerfstudio_gan3d.rendering.splatting import Splats, rotations

HARMONIC = 0.5 / math.sqrt(math.pi)
"""The spherical harmonic of degree 0."""


def pair() -> Splats:
    """Two splats; the second one is larger and denser."""
    return Splats(
        torch.tensor([[0.1, 0.2, 0.3], [-1.0, 2.0, -3.0]]),
        torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 4.0, 0.0]]),
        torch.tensor([[0.01, 0.02, 0.03], [0.5, 1.0, 2.0]]),
        torch.tensor([0.25, 1.0]),
        torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.4, 0.6]]),
    )


def test_the_bytes_of_a_ply_file(tmp_path: Path):
    path = tmp_path / "pair.PLY"
    write_splats(pair(), path, comments=["seed\n3", "Stra\u00dfe"])
    header, body = path.read_bytes().split(b"end_header\n")
    assert header.decode("ascii").splitlines() == [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex 2",
        "comment Vertical Axis: y",
        "comment seed 3",
        "comment Stra\\xdfe",
        *(f"property float {name}" for name in PROPERTIES),
    ]
    assert len(body) == 2 * 17 * 4
    first, second = struct.unpack("<17f", body[:68]), struct.unpack("<17f", body[68:])
    # Half of white is stored as 0; logit(1/4) = -log 3.
    expected = [0.1, 0.2, 0.3, 0, 0, 0, -0.5 / HARMONIC, 0, 0.5 / HARMONIC, -math.log(3)]
    expected += [math.log(0.01), math.log(0.02), math.log(0.03), 1, 0, 0, 0]
    assert first == pytest.approx(expected, abs=1e-5)
    assert second[:3] == (-1, 2, -3)
    # An opacity of 1 has no logit: 0.9999 stands for it.
    assert second[9] == pytest.approx(math.log(9999), abs=1e-3)
    assert second[13:] == pytest.approx([0, 0.6, 0.8, 0])


def test_another_reader_finds_the_same(tmp_path: Path):
    write_splats(pair(), tmp_path / "pair.ply", comments=["by hand"])
    found = PlyData.read(tmp_path / "pair.ply")
    assert [element.name for element in found.elements] == ["vertex"]
    vertex = found["vertex"]
    assert tuple(item.name for item in vertex.properties) == PROPERTIES
    assert vertex.comments == ["Vertical Axis: y", "by hand"]
    np.testing.assert_allclose(vertex["z"], [0.3, -3.0], rtol=1e-6)
    np.testing.assert_allclose(np.exp(vertex["scale_2"]), [0.03, 2.0], rtol=1e-6)
    np.testing.assert_allclose(0.5 + HARMONIC * vertex["f_dc_0"], [0.0, 0.2], atol=1e-6)


def test_the_bytes_of_a_splat_file(tmp_path: Path):
    path = tmp_path / "pair.splat"
    write_splats(pair(), path)
    content = path.read_bytes()
    assert len(content) == 64
    # The larger one comes first.
    row = struct.unpack("<3f3f4B4B", content[:32])
    assert row[:6] == (-1, 2, -3, 0.5, 1, 2)
    assert row[6:10] == (51, 102, 153, 255)
    # 128 + 128 * (0, 0.6, 0.8, 0).
    assert row[10:] == (128, 205, 230, 128)
    # A whole 1 does not fit into a byte: 255 stands for it.
    assert struct.unpack("<4B", content[60:]) == (255, 128, 128, 128)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".ply", 1e-4), (".splat", 0.01)])
def test_splats_come_back(tmp_path: Path, suffix: str, tolerance: float):
    path = tmp_path / f"pair{suffix}"
    write_splats(pair(), path)
    found, expected = read_splats(path), pair()
    if suffix == ".splat":
        expected = expected.rows(torch.tensor([1, 0]))
    for name in ("means", "scales", "opacities", "colours"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=tolerance, rtol=1e-5
        )
    turns = [rotations(splats.quaternions) for splats in (found, expected)]
    torch.testing.assert_close(*turns, atol=2 * tolerance, rtol=0)


@pytest.mark.parametrize(
    ("up", "top", "front"),
    [("y", (0, 1, 0), (0, 0, 1)), ("z", (0, 0, 1), (0, -1, 0)), ("y-down", (0, -1, 0), (0, 0, -1))],
)
def test_axes(tmp_path: Path, up: Up, top: tuple[int, ...], front: tuple[int, ...]):
    # Places above and in front of the origin; the splats are long upwards and forwards.
    splats = Splats(
        torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        # No turn, and a quarter turn about x, which takes y to z.
        torch.tensor([[1.0, 0, 0, 0], [0.5**0.5, 0.5**0.5, 0, 0]]),
        torch.tensor([[0.1, 1.0, 0.1]]).expand(2, 3),
        torch.full((2,), 0.5),
        torch.full((2, 3), 0.5),
    )
    write_splats(splats, tmp_path / "axes.ply", up)
    found = read_splats(tmp_path / "axes.ply")
    ends = torch.tensor([top, front]).float()
    torch.testing.assert_close(found.means, ends, atol=1e-6, rtol=0)
    long = rotations(found.quaternions)[:, :, 1]
    torch.testing.assert_close((long * ends).sum(-1).abs(), torch.ones(2), atol=1e-6, rtol=0)


def test_impossible_files_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"a\.obj: a file of splats must end in \.ply or \.splat"):
        write_splats(pair(), tmp_path / "a.obj")
    assert not list(tmp_path.iterdir())
    write_splats(pair(), tmp_path / "a.ply")
    whole = (tmp_path / "a.ply").read_bytes()
    broken = {
        b"not a PLY file in the format": b"plx" + whole[3:],
        b"2 splats are announced": whole[:-1],
        b"it lacks rot_3": whole.replace(b"rot_3", b"rot_x"),
        b"not a PLY file of splats": whole.replace(b"element vertex", b"element corner"),
        b"must be of the type float": whole.replace(b"property float nx", b"property uchar nx"),
    }
    for told, content in broken.items():
        (tmp_path / "a.ply").write_bytes(content)
        with pytest.raises(ValueError, match=told.decode()):
            read_splats(tmp_path / "a.ply")
    (tmp_path / "a.splat").write_bytes(b"0" * 33)
    with pytest.raises(ValueError, match=r"33 bytes; a \.splat file has 32 a splat"):
        read_splats(tmp_path / "a.splat")
