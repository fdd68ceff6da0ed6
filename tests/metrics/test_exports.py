"""Colours of meshes and edges of layers whose differences are known by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.export.transparency import to_bytes
from nerfstudio_gan3d.metrics.exports import MeshPictures, colour_error, halo, mesh_pictures

SIDE, DISTANCE, FOCAL = 24, 2.0, 1.5
FRONT = orbit_labels(torch.zeros(1), torch.zeros(1), DISTANCE, focal=FOCAL)
OTHERS = (0.0, 0.6, 0.2)
"""A colour that the painted square has nowhere: its red and green are the place."""


def square(
    depth: float = 0.0, half: float = 0.5, colour: Sequence[float] | None = None
) -> trimesh.Trimesh:
    """A square across the z axis whose red and green are x + 0.5 and y + 0.5, or of one colour."""
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    rgb = np.concatenate([corners + 0.5, np.full((4, 1), 0.2)], 1)
    if colour is not None:
        rgb[:] = colour
    vertices = np.concatenate([corners, np.full((4, 1), depth)], 1)
    bytes_of = np.rint(rgb * 255).astype(np.uint8)
    return trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], vertex_colors=bytes_of, process=False)


def places(depth: float = 0.0) -> np.ndarray:
    """Where the rays of the front camera's pixels meet a plane across the z axis, [S, S, 2]."""
    origins, directions = (part[0].double().numpy() for part in pixel_rays(FRONT, SIDE, SIDE))
    reach = (depth - origins[:, 2:]) / directions[:, 2:]
    return (origins + reach * directions)[:, :2].reshape(SIDE, SIDE, 2)


def test_a_square_shows_the_colours_of_its_places() -> None:
    shown = mesh_pictures(square(), FRONT, SIDE)
    at = places()
    inside = (np.abs(at) < 0.5).all(-1)
    # 0.5 * 1.5 / 2 * 24 = 9 pixels to either side of the middle.
    assert inside.sum() == 18 * 18
    np.testing.assert_array_equal(shown.hit[0], inside)
    expected = np.concatenate([at + 0.5, np.full((SIDE, SIDE, 1), 0.2)], -1)
    np.testing.assert_allclose(shown.rgb[0][inside], expected[inside], atol=1e-5)
    assert (shown.rgb[0][~inside] == 0).all()


def test_what_is_nearer_hides_what_is_behind() -> None:
    both = trimesh.util.concatenate([square(), square(0.3, 0.1, OTHERS)])
    assert isinstance(both, trimesh.Trimesh)
    shown = mesh_pictures(both, torch.cat([FRONT, FRONT]), SIDE)
    hidden = (np.abs(places(0.3)) < 0.1).all(-1)
    assert hidden.any()
    for rgb in shown.rgb:
        np.testing.assert_allclose(rgb[hidden], np.tile(OTHERS, (hidden.sum(), 1)), atol=1e-5)
        assert (np.abs(rgb[~hidden] - OTHERS).max(-1) > 0.01).all()


def test_colours_of_vertices_are_needed() -> None:
    with pytest.raises(ValueError, match="the mesh has no colours of vertices"):
        mesh_pictures(trimesh.creation.box(), FRONT, SIDE)


def pictures(shown: MeshPictures, opacity: float) -> torch.Tensor:
    """What a Scene with exactly the mesh's colours shows where it lets light through."""
    alpha = np.full((*shown.hit.shape, 1), opacity, np.float32)
    return torch.from_numpy(np.concatenate([opacity * shown.rgb, alpha], -1))


def test_colour_error_is_that_of_pixels_that_both_cover() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.uniform(0.2, 0.8, (2, SIDE, SIDE, 3)).astype(np.float32)
    hit = np.ones((2, SIDE, SIDE), bool)
    exact = MeshPictures(rgb, hit)
    for opacity in (1.0, 0.6):
        assert colour_error(exact, pictures(exact, opacity)) == pytest.approx(0, abs=1e-6)
    # One channel of three is off by 0.15 in every pixel: 0.05 in the mean.
    other = exact._replace(rgb=rgb + np.array([0.15, 0, 0], np.float32))
    assert colour_error(other, pictures(exact, 0.6)) == pytest.approx(0.05, abs=1e-6)
    # A half of the pixels is off by 0.1, and does not count if the mesh or the Scene is not there.
    half = rgb.copy()
    half[:, :, : SIDE // 2] += 0.1
    assert colour_error(MeshPictures(half, hit), pictures(exact, 1.0)) == pytest.approx(0.05, 1e-4)
    missed = hit.copy()
    missed[:, :, : SIDE // 2] = False
    assert colour_error(MeshPictures(half, missed), pictures(exact, 1.0)) == 0
    faint = pictures(exact, 1.0)
    faint[:, :, : SIDE // 2] *= 0.5
    assert colour_error(MeshPictures(half, hit), faint) == 0
    with pytest.raises(ValueError, match="no pixel shows both the mesh and the Scene"):
        colour_error(exact, 0.5 * pictures(exact, 1.0))


def test_a_square_against_a_render_with_the_same_colours() -> None:
    shown = mesh_pictures(square(), FRONT, SIDE)
    assert colour_error(shown, pictures(shown, 0.8)) == pytest.approx(0, abs=1e-6)
    # Pixels are 1 / 18 of the square apart. Shifted by one column, red differs by that, green and
    # blue do not; the border's column that is black now is left out with the pixels that miss.
    moved = pictures(shown, 1.0).roll(1, dims=2)
    moved[..., 3] = torch.from_numpy(shown.hit.copy()).roll(1, dims=2).float()
    assert colour_error(shown, moved) == pytest.approx(1 / 18 / 3, abs=1e-5)


def test_an_exact_layer_has_no_halo() -> None:
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0, 1, (5000, 1))
    colours = rng.uniform(0, 1, (5000, 3))
    stored = to_bytes(np.concatenate([colours, alpha], -1))
    found = halo(stored, alpha * colours, alpha * colours + 1 - alpha)
    assert found.largest <= 2
    # Opaque and empty pixels are kept to the bit.
    solid = np.array([[10, 20, 30, 255], [90, 90, 90, 0]], np.uint8)
    black = np.array([[10, 20, 30], [0, 0, 0]]) / 255
    white = np.array([[10, 20, 30], [255, 255, 255]]) / 255
    assert halo(solid, black, white) == (0, 0.0)


def test_white_in_the_colours_is_a_halo() -> None:
    # Black that covers a half, before white: 128. Kept as the colour it shows 128 * 128 / 255 = 64
    # before black in place of 0, and 64 + 127 = 191 before white in place of 128: 64 and 63 levels.
    stored = np.zeros((2, 2, 4), np.uint8)
    stored[..., 3] = 255
    stored[0, 1] = [128, 128, 128, 128]
    black = np.zeros((2, 2, 3))
    white = np.zeros((2, 2, 3))
    white[0, 1] = 0.5
    found = halo(stored, black, white)
    assert found.largest == 64
    assert found.above_one == 0.25
    # In one channel alone it counts as much; without it there is none.
    stored[0, 1] = [0, 128, 0, 128]
    assert halo(stored, black, white).largest == 64
    stored[0, 1] = [0, 0, 0, 128]
    assert halo(stored, black, white).largest <= 1
