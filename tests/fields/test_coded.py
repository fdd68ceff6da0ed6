"""Fields with shape and appearance codes: UNISURF's surface and GRAF's density."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.measure import marching_cubes
from torch import Tensor
from trimesh import Trimesh

from nerfstudio_gan3d.fields.coded import GrafField, UnisurfField
from nerfstudio_gan3d.fields.decoder import initial_sphere
from nerfstudio_gan3d.fields.hashgrid import StyleHashGrid
from nerfstudio_gan3d.fields.surface_mlp import ColourMlp, GeometryMlp
from nerfstudio_gan3d.networks.weight_norm import WeightNormLinear

CODE = 8


def unisurf(seed: int = 0, view_octaves: int | None = 4, normals: bool = True) -> UnisurfField:
    torch.manual_seed(seed)
    geometry = GeometryMlp(CODE, 32, 4, 16, 3, (2,))
    return UnisurfField(geometry, ColourMlp(CODE, 16, 24, 2, view_octaves, normals)).double()


def graf(seed: int = 0) -> GrafField:
    torch.manual_seed(seed)
    return GrafField(CODE, 32, 6, 4, 2, skip=2).double()


def stir(field: torch.nn.Module, scale: float = 0.05) -> None:
    """Moves all weights, those of the codes from zero, too."""
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += scale * torch.randn_like(parameter)


def inputs(points: int = 20, scenes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    ws = torch.randn(scenes, 2, CODE, dtype=torch.float64)
    positions = torch.rand(scenes, points, 3, dtype=torch.float64) - 0.5
    directions = torch.nn.functional.normalize(torch.randn_like(positions), dim=-1)
    return ws, positions, directions


def mean_radius(raw: Tensor) -> float:
    """Of the closed surface on which a grid over [-1, 1]^3 of raw values is 0."""
    side = len(raw)
    vertices, faces, _, _ = marching_cubes(raw.numpy(), 0.0, gradient_direction="ascent")
    vertices = vertices / (side - 1) * 2 - 1
    mesh = Trimesh(vertices, faces)
    assert mesh.is_watertight
    assert mesh.body_count == 1
    assert abs(vertices).max() < 0.99
    return float(torch.from_numpy(vertices).norm(dim=-1).mean())


def grid(side: int) -> Tensor:
    axis = torch.linspace(-0.5, 0.5, side)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(1, -1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_every_seed_and_code_starts_with_a_sphere(seed: int) -> None:
    """UNISURF's full size with 128 numbers a code: closed, of mean radius 0.5 to 0.7, for four
    codes."""
    torch.manual_seed(seed)
    field = UnisurfField(GeometryMlp(128), ColourMlp(128))
    positions = grid(14)
    for _ in range(4):
        with torch.no_grad():
            raw = field.raw_density(field.prepare(torch.randn(1, 2, 128)), positions)
        assert 0.5 < mean_radius(raw.view(14, 14, 14)) < 0.7


@pytest.mark.parametrize("seed", range(20))
def test_hash_grids_start_with_a_sphere(seed: int) -> None:
    torch.manual_seed(seed)
    field = StyleHashGrid(16, 3, 3, 4, 16, bases=4, initial_density=initial_sphere, own_colour=True)
    for _ in range(4):
        with torch.no_grad():
            ws = torch.randn(1, field.num_ws, 16)
            raw = field.raw_density(field.prepare(ws), grid(16))
        assert 0.5 < mean_radius(raw.view(16, 16, 16)) < 0.7


def test_a_code_that_reaches_the_geometry_destroys_the_sphere() -> None:
    """The control of the tests above: with code columns like all others there is no surface left
    near the sphere."""
    torch.manual_seed(0)
    geometry = GeometryMlp(128, 64, 8, 16)
    encoded = 39
    for index in (0, 4):
        layer = getattr(geometry, f"lin{index}")
        with torch.no_grad():
            weight = layer.weight.clone()
            weight[:, -128:] = torch.randn(len(weight), 128) * math.sqrt(2 / 64)
            layer.weight_v.copy_(weight)
            layer.weight_g.copy_(weight.norm(dim=1, keepdim=True))
    assert isinstance(geometry.lin0, WeightNormLinear)
    assert geometry.lin0.weight.shape[1] == encoded + 128
    with torch.no_grad():
        added = geometry.prepare(torch.randn(1, 128))
        f = geometry(added, torch.zeros(1, 1, 3))[0]
    assert f.item() > 0


@pytest.mark.parametrize("make", [unisurf, graf])
def test_geometry_never_sees_the_appearance(make) -> None:
    field = make()
    stir(field)
    ws, positions, directions = inputs()
    other = ws.clone()
    other[:, 1] = torch.randn_like(other[:, 1])
    first = field.query(field.prepare(ws), positions, directions)
    second = field.query(field.prepare(other), positions, directions)
    torch.testing.assert_close(first.raw_density, second.raw_density, atol=0, rtol=0)
    assert (first.features - second.features).abs().max() > 1e-3
    other = ws.clone()
    other[:, 0] = torch.randn_like(other[:, 0])
    third = field.query(field.prepare(other), positions, directions)
    assert (first.raw_density - third.raw_density).abs().max() > 1e-3


@pytest.mark.parametrize("make", [unisurf, graf])
def test_raw_density_alone_is_the_same(make) -> None:
    field = make()
    stir(field)
    ws, positions, directions = inputs()
    prepared = field.prepare(ws)
    found = field.query(prepared, positions, directions).raw_density
    torch.testing.assert_close(field.raw_density(prepared, positions), found)


def test_codes_of_a_hash_grid_are_apart() -> None:
    torch.manual_seed(1)
    field = StyleHashGrid(8, 3, 2, 4, 8, bases=4, own_colour=True)
    stir(field, 0.3)
    ws, positions = torch.randn(1, field.num_ws, 8), torch.rand(1, 30, 3) - 0.5
    other = ws.clone()
    other[:, -1] = torch.randn(1, 8)
    first, second = (field.query(field.prepare(w), positions) for w in (ws, other))
    torch.testing.assert_close(first.raw_density, second.raw_density, atol=0, rtol=0)
    assert (first.features - second.features).abs().max() > 1e-3
    alone = field.raw_density(field.prepare(ws), positions)
    torch.testing.assert_close(alone, first.raw_density)


def test_levels_grow_from_coarse_to_fine() -> None:
    """Three levels: at share 0 the first alone, at 1/4 half of the second, at 1 all; and what does
    not count changes nothing."""
    torch.manual_seed(2)
    field = StyleHashGrid(8, 3, 3, 4, 16, bases=4, growing=True)
    expected = {0.0: [1.0, 0.0, 0.0], 0.25: [1.0, 0.5, 0.0], 1.0: [1.0, 1.0, 1.0]}
    for share, weights in expected.items():
        field.grow(share)
        torch.testing.assert_close(field.level_weights, torch.tensor(weights))
    ws, positions = torch.randn(1, field.num_ws, 8), torch.rand(1, 30, 3) - 0.5
    whole = field.encode(field.mix(ws, field.level_weights), positions + 0.5)
    field.grow(0.25)
    part = field.encode(field.mix(ws, field.level_weights), positions + 0.5)
    factors = torch.tensor([1.0, 0.5, 0.0])[:, None]
    torch.testing.assert_close(part, whole * factors)
    with pytest.raises(ValueError, match="film"):
        StyleHashGrid(8, 3, 3, 4, 16, bases=1, modulation="film", growing=True)


@pytest.mark.parametrize(
    ("view_octaves", "normals"), [(4, True), (None, True), (4, False), (None, False)]
)
def test_view_and_normal_are_seen_where_they_are_wanted(
    view_octaves: int | None, normals: bool
) -> None:
    field = unisurf(3, view_octaves, normals)
    stir(field)
    ws, positions, directions = inputs()
    prepared = field.prepare(ws)
    front = field.query(prepared, positions, directions).features
    back = field.query(prepared, positions, -directions).features
    assert torch.equal(front, back) == (view_octaves is None)
    # Without a direction: from straight above, which is against the normal.
    places = (positions * 2).requires_grad_()
    f, _ = field.geometry(prepared.shape, places)
    (gradient,) = torch.autograd.grad(f.sum(), places)
    above = -torch.nn.functional.normalize(gradient, dim=-1)
    expected = field.query(prepared, positions, above).features
    torch.testing.assert_close(field.query(prepared, positions).features, expected)
    with torch.no_grad():
        alone = field.query(prepared, positions, directions)
    torch.testing.assert_close(alone.features, front)
    assert not alone.features.requires_grad


@pytest.mark.parametrize("normals", [True, False])
def test_gradients_of_a_surface(normals: bool) -> None:
    """In codes and positions, against finite differences; the graph holds the normal's own
    derivative. Softplus with beta 100 is nearly a corner, so the step is small."""
    field = unisurf(4, 1, normals)
    stir(field)
    ws, positions, directions = inputs(points=3, scenes=1)
    positions.requires_grad_()
    ws.requires_grad_()

    def query(ws: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        found = field.query(field.prepare(ws), positions, directions)
        return found.raw_density, found.features

    assert torch.autograd.gradcheck(query, (ws, positions), eps=1e-8, atol=1e-4, rtol=1e-3)


def test_second_derivatives_of_the_geometry() -> None:
    field = unisurf(5)
    stir(field)
    ws, positions, _ = inputs(points=2, scenes=1)
    positions.requires_grad_()
    prepared = field.prepare(ws)

    def slope(positions: Tensor) -> Tensor:
        raw = field.raw_density(prepared, positions)
        return torch.autograd.grad(raw.sum(), positions, create_graph=True)[0]

    assert torch.autograd.gradcheck(slope, positions, eps=1e-7, atol=1e-3, rtol=1e-2)


def test_graf_has_the_size_of_the_published_network() -> None:
    """677,764 parameters with codes of 128."""
    field = GrafField(128)
    assert sum(p.numel() for p in field.parameters()) == 677_764


def test_unisurf_has_the_size_of_the_published_network() -> None:
    """802,490 parameters without codes, the lengths of rows included."""
    field = UnisurfField(GeometryMlp(0), ColourMlp(0))
    assert sum(p.numel() for p in field.parameters()) == 802_490
