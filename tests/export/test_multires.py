"""Refined surfaces are those of the whole grid, and cost much less."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.export.mesh import density_grid, extract_mesh
from nerfstudio_gan3d.export.multires import coarse_stride
from nerfstudio_gan3d.scene import Bounds, Field, FieldSamples, Scene
from tests.export.analytic import Balls, Full
from tests.export.shapes import Bumpy, Counting, Needle, Torus

CUBE = (1.0, 1.0, 1.0)
# Raw density 1.
SURFACE = math.log(2)


def both(shape: Field, resolution: int, box: tuple[float, float, float] = CUBE, **options):
    """The refined mesh, the one of the whole grid, and how often either looked at the field."""
    found = []
    options = {"level": SURFACE, "color": "none", "normals": "faces"} | options
    for extraction in ("multires", "dense"):
        counted = Counting(shape)
        scene = Scene(counted, Bounds(box), 1)
        mesh = extract_mesh(scene, resolution, extraction=extraction, **options)
        found.append((mesh, counted.asked))
    (refined, few), (dense, many) = found
    np.testing.assert_allclose(refined.vertices, dense.vertices, atol=1e-6)
    np.testing.assert_array_equal(refined.faces, dense.faces)
    assert refined.metadata == dense.metadata
    assert refined.is_watertight
    return refined, few, many


def test_strides_are_powers_of_two():
    assert [coarse_stride(cells, 64) for cells in (8, 64, 65, 128, 129, 512, 1024)] == [
        1, 1, 2, 2, 4, 8, 16,
    ]  # fmt: skip


@pytest.mark.parametrize("resolution", [98, 130])
@pytest.mark.parametrize(
    "shape",
    [Balls(centers=((0.03, -0.05, 0.11),)), Torus(), Bumpy()],
    ids=["ball", "torus", "bumpy"],
)
def test_the_surface_is_that_of_the_whole_grid(shape, resolution):
    mesh, few, many = both(shape, resolution)
    assert many == (resolution + 1) ** 3
    # The surface passes about 1.5 cells for each square of their side. They are looked at with
    # their neighbours of twice their side, which are three deep: 1.5 / 4 * 3 * 2^3 corners, and a
    # third of it in coarser grids.
    squares = mesh.area * resolution**2
    assert few < 65**3 + 1.5 / 4 * 3 * 8 * 4 / 3 * squares


def test_boxes_that_the_stride_does_not_divide():
    # 91, 84 and 130 cells; the stride is 4.
    mesh, few, many = both(Torus(0.2, 0.08), 130, (0.7, 0.65, 1.0))
    assert few < 0.25 * many
    assert (np.abs(mesh.vertices) < 0.5).all()


def test_what_leaves_the_box_has_flat_lids():
    box = (0.4, 0.63, 1.0)
    mesh, few, many = both(Balls(radii=(0.45,)), 130, box)
    np.testing.assert_allclose(mesh.bounds, [[-0.2, -0.315, -0.45], [0.2, 0.315, 0.45]], atol=1e-3)
    assert few < 0.7 * many
    both(Bumpy(), 100, (0.5, 0.45, 0.41))


def test_a_full_box_becomes_the_box():
    mesh, few, many = both(Full(), 130, (0.4, 0.6, 1.0))
    assert mesh.volume == pytest.approx(0.24, rel=1e-5)
    assert few < 0.7 * many


def test_thin_parts_are_followed_to_their_end():
    # 0.022 thick: less than a cell of the coarse grid (1 / 40), and three and a half of the fine.
    mesh, few, many = both(Needle(), 160)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.431, abs=0.004)
    assert few < 0.1 * many


def test_only_parts_between_the_coarse_corners_are_lost():
    # Coarse corners are 1 / 40 apart: one ball contains a corner, the other stands between them.
    near = (0.2 + 0.004, 0.2, 0.2)
    between = (0.2 + 0.0125, -0.2 + 0.0125, 0.2 + 0.0125)
    balls = Balls(centers=((0.0, 0.0, 0.0), near, between), radii=(0.15, 0.012, 0.012))
    options = {"level": SURFACE, "color": "none"}
    scene = Scene(balls, Bounds(), 1)
    assert extract_mesh(scene, 160, extraction="dense", **options).body_count == 3
    assert extract_mesh(scene, 160, **options).body_count == 2


def test_the_automatic_level_is_that_of_the_whole_grid():
    mesh, few, many = both(Balls(slope=200.0, radii=(0.35,)), 160, level="auto")
    assert 0.25 < np.linalg.norm(mesh.vertices, axis=1).mean() < 0.35
    assert few < 0.3 * many
    # No more than 128 cells a side are compared, and here all of them.
    _, few, many = both(Balls(slope=200.0, radii=(0.35,)), 100, level="auto")
    assert few == many == 101**3


def test_a_stride_keeps_the_corners_of_the_whole_grid():
    scene = Scene(Bumpy(), Bounds((0.7, 0.65, 1.0)), 1)
    whole, coarse = density_grid(scene, 50), density_grid(scene, 50, stride=4)
    assert tuple(whole.raw.shape) == (36, 33, 51)
    # The last cells of 35 and 50 are smaller ones; 32 is divided.
    rows = [[*range(0, 35, 4), 35], [*range(0, 33, 4)], [*range(0, 50, 4), 50]]
    for axis, kept in enumerate(rows):
        torch.testing.assert_close(coarse.axes[axis], whole.axes[axis][kept], rtol=0, atol=0)
    expected = whole.raw[rows[0]][:, rows[1]][:, :, rows[2]]
    torch.testing.assert_close(coarse.raw, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(coarse.even, expected[:9, :9, :13], rtol=0, atol=1e-5)
    assert coarse.cell == pytest.approx([4 * side for side in whole.cell], rel=1e-5)


def test_what_has_no_surface_or_no_number_is_refused():
    class Holed(Balls):
        def query(self, positions, directions=None):
            raw = super().query(positions).raw_density
            # Coarse corners lie at multiples of 1 / 40.
            odd = ((positions[..., :1] * 40).frac().abs() - 0.5).abs() < 0.1
            return FieldSamples(raw.masked_fill(odd, float("nan")), positions)

    cases: tuple[tuple[Field, float | Literal["auto"], str], ...] = (
        (Holed(), SURFACE, "not finite everywhere"),
        (Balls(slope=10), 1e6, r"reaches the level 1e\+06; the highest is 3\.049"),
        (Full(raw=-5.0), "auto", "no ray through it becomes half opaque"),
    )
    for shape, level, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            extract_mesh(Scene(shape, Bounds(), 1), 160, level)
