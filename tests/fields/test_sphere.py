"""The background sphere: distances, angles, continuity, and the published seam."""

import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.fields.sphere import (
    BoundSphere,
    SphereBackground,
    StyledLayer,
    fourier_features,
    sphere_angles,
    sphere_distance,
)
from nerfstudio_gan3d.rendering.renderer import Conventions

W = 8


def sphere(conventions: Conventions = "corrected") -> SphereBackground:
    return SphereBackground(W, 3, 8, 2, 3.0, 4, conventions)


def test_earlier_network_takes_the_latent_beside_the_code() -> None:
    """ver0, ray by ray: relu(W0 [code, z] + b0), relu(W1 . + b1), then the colours of W2 . + b2."""
    network = SphereBackground(W, 3, 8, 2, 3.0, 4, "reference", z_dim=5)
    assert [tuple(value.shape) for value in network.parameters()] == [
        (8, 45), (8,), (8, 8), (8,), (3, 8), (3,),
    ]  # fmt: skip
    z, origins = torch.randn(2, 5), torch.randn(1, 4, 3) * 0.3
    directions = torch.nn.functional.normalize(torch.randn(1, 4, 3), dim=-1)
    found = network(z, origins.expand(2, -1, -1), directions.expand(2, -1, -1))
    code = network.encode(origins, directions)[0]
    first, second = network.layers
    for scene in range(2):
        for ray in range(4):
            x = torch.cat([code[ray], z[scene]])
            for layer in (first, second):
                assert isinstance(layer, torch.nn.Linear)
                x = (layer.weight @ x + layer.bias).clamp(min=0)
            assert isinstance(network.out, torch.nn.Linear)
            x = torch.sigmoid(network.out.weight @ x + network.out.bias) * 1.002 - 0.001
            torch.testing.assert_close(found[scene, ray], x)


def around(angles: Tensor) -> Tensor:
    """Horizontal unit directions at azimuths from +z towards +x, [1, R, 3]."""
    return torch.stack([angles.sin(), torch.zeros_like(angles), angles.cos()], dim=-1)[None]


@pytest.mark.parametrize(
    ("origin", "direction", "distance"),
    [
        ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0), 3),
        ((0.0, 0.0, 2.0), (0.0, 0.0, -1.0), 5),
        ((0.0, 0.0, 2.0), (0.0, 0.0, 1.0), 1),
        ((0.0, 0.0, 2.0), (1.0, 0.0, 0.0), 5**0.5),
        # From outside: through the sphere to its far side, or past it at the nearest point.
        ((0.0, 0.0, 5.0), (0.0, 0.0, -1.0), 8),
        ((4.0, 0.0, 5.0), (0.0, 0.0, -1.0), 5),
    ],
)
def test_distance_to_the_far_side(origin, direction, distance: float) -> None:
    found = sphere_distance(torch.tensor([[origin]]), torch.tensor([[direction]]), 3.0)
    assert found.item() == pytest.approx(distance)


@pytest.mark.parametrize(
    ("point", "theta", "phi"),
    [
        ((0.0, 1.0, 0.0), 0, 0),
        ((0.0, -1.0, 0.0), math.pi, 0),
        ((0.0, 0.0, 1.0), math.pi / 2, 0),
        ((1.0, 0.0, 0.0), math.pi / 2, math.pi / 2),
        ((0.0, 0.0, -1.0), math.pi / 2, math.pi),
        ((-1.0, 0.0, 0.0), math.pi / 2, 3 * math.pi / 2),
    ],
)
def test_angles_of_the_axes(point, theta: float, phi: float) -> None:
    found = sphere_angles(torch.tensor([[point]]))[0, 0]
    assert found.tolist() == pytest.approx([theta, phi], abs=1e-6)


def test_angles_survive_rounding_beyond_one() -> None:
    assert sphere_angles(torch.tensor([[[0.0, 1.0 + 1e-6, 0.0]]])).isfinite().all()


def test_fourier_features_in_both_orders() -> None:
    x, y = 0.3, -0.2
    values = torch.tensor([[[x, y]]], dtype=torch.float64)
    waves = []
    for octave in (1, 2):
        phases = [octave * math.pi * x, octave * math.pi * y]
        waves += [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
    assert fourier_features(values, 2, interleave=True).flatten().tolist() == pytest.approx(waves)
    assert fourier_features(values, 2).flatten().tolist() == pytest.approx([x, y, *waves])


@pytest.mark.parametrize("demodulate", [True, False])
def test_styled_layer_equals_its_formula_image_by_image(demodulate: bool) -> None:
    layer = StyledLayer(5, 4, W, demodulate).double()
    with torch.no_grad():
        layer.bias.normal_()
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, W, dtype=torch.float64, requires_grad=True)
    rows = []
    for sample in range(2):
        style = layer.affine(w[sample : sample + 1])[0]
        weight = layer.weight * (style if demodulate else style / math.sqrt(5))
        if demodulate:
            weight = torch.stack([row / (row.square().sum() + 1e-8).sqrt() for row in weight])
        rows.append(x[sample] @ weight.T + layer.bias)
    twin, found = torch.stack(rows), layer(x, w)
    torch.testing.assert_close(found, twin)
    cotangent, inputs = torch.randn_like(twin), (x, w, layer.weight)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, cotangent), torch.autograd.grad(twin, inputs, cotangent)
    )


def steps_around(background: SphereBackground, ws: Tensor, count: int) -> Tensor:
    """Largest change of the colours between neighbours on a full turn, [R]."""
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    directions = around(angles)
    colours = background(ws, torch.zeros_like(directions), directions)[0]
    return (colours - colours.roll(1, 0)).abs().amax(-1)


def test_corrected_background_is_continuous_all_around() -> None:
    background = sphere().double()
    ws = torch.randn(1, background.num_ws, W, dtype=torch.float64)
    coarse, fine = steps_around(background, ws, 2000), steps_around(background, ws, 4000)
    # Half the step, half the change, across phi = 0 (index 0) as everywhere.
    assert fine.max() < 0.6 * coarse.max()
    assert coarse[0] <= coarse.max()
    assert coarse.max() > 1e-4


def test_published_background_has_its_seam_at_plus_z() -> None:
    background = sphere("reference").double()
    ws = torch.randn(1, background.num_ws, W, dtype=torch.float64)
    directions = around(torch.tensor([-1e-7, 1e-7, 1.0, 1.0 + 2e-7], dtype=torch.float64))
    colours = background(ws, torch.zeros_like(directions), directions)[0]
    assert (colours[0] - colours[1]).abs().max() > 0.01
    assert (colours[2] - colours[3]).abs().max() < 1e-3
    smooth = sphere().double()
    colours = smooth(ws, torch.zeros_like(directions), directions)[0]
    assert (colours[0] - colours[1]).abs().max() < 1e-5


def test_colour_depends_on_the_point_that_is_hit_not_on_the_camera() -> None:
    background = sphere()
    ws = torch.randn(1, background.num_ws, W)
    point = torch.nn.functional.normalize(torch.tensor([1.0, 0.5, -0.3]), dim=0) * 3
    origins = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [-0.5, 1.0, 0.2]]])
    directions = torch.nn.functional.normalize(point - origins, dim=-1)
    colours = background(ws, origins, directions)[0]
    torch.testing.assert_close(colours[1:], colours[:1].expand(2, -1), atol=1e-4, rtol=0)
    bound = BoundSphere(background, ws)
    torch.testing.assert_close(bound.query(origins, directions)[0], colours)
    distance = (point - origins).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(bound.distance(origins, directions), distance)


def test_every_latent_of_the_background_changes_it() -> None:
    background = sphere()
    ws = torch.randn(1, background.num_ws, W)
    directions = torch.nn.functional.normalize(torch.randn(1, 20, 3), dim=-1)
    origins = torch.zeros_like(directions)
    plain = background(ws, origins, directions)
    for layer in range(background.num_ws):
        changed = ws.clone()
        changed[:, layer] += 1
        assert (background(changed, origins, directions) - plain).abs().max() > 1e-3
