"""UNISURF's field, root finding, sampling and compositing, with the weights that a fixture stores.

`GAN3D_FIXTURES` names another folder with fixtures; without it the copy beside this file serves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.fields.coded import PreparedCodes, UnisurfField
from nerfstudio_gan3d.fields.surface_mlp import ColourMlp, GeometryMlp
from nerfstudio_gan3d.losses.surface import density_gradient, normal_smoothness
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.rendering.compositing import occupancy_weights, weighted_sum
from nerfstudio_gan3d.rendering.surface import find_surface, reference_shell_samples, shell_width
from nerfstudio_gan3d.scene import Bounds, Scene
from tests.parity.fill import Fixture
from tests.parity.official import fixtures_with

FIXTURES = fixtures_with("pts", "a_surface_depth", models=("unisurf",))
LOOSE = (2e-4, 1e-4)
SLOPE = 10.0


def close(actual: Tensor, expected: Tensor, tolerance: tuple[float, float] = LOOSE) -> None:
    """Compares within (absolute, relative) tolerances."""
    atol, rtol = tolerance
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


class Official(NamedTuple):
    """The field of a fixture, without codes, bound to no latents."""

    fixture: Fixture
    field: UnisurfField
    scene: Scene

    @property
    def prepared(self) -> PreparedCodes:
        empty = torch.zeros(1, 2, 0)
        return self.field.prepare(empty)


@pytest.fixture(params=FIXTURES, scope="module")
def official(request: pytest.FixtureRequest) -> Official:
    """The networks with the stored weights; the box is [-1, 1]^3, so that positions stay as they
    are."""
    fixture = Fixture(request.param)
    network: dict[str, Any] = fixture.config["network"]
    geometry = GeometryMlp(
        0,
        network["hidden_dim"],
        network["num_layers"],
        network["feat_size"],
        network["octaves_pe"],
        tuple(network["skips"]),
    )
    colour = ColourMlp(
        0, network["feat_size"], network["hidden_dim"], 4, network["octaves_pe_views"]
    )
    weights = {name: fixture["weight/" + name] for name in fixture.config["param_names"]}
    colours = {name: value for name, value in weights.items() if name.startswith("lina")}
    geometry.load_state_dict({n: value for n, value in weights.items() if n not in colours})
    colour.load_state_dict(colours)
    field = UnisurfField(geometry, colour)
    box = (2.0, 2.0, 2.0)
    bound = BoundField(field, field.prepare(torch.zeros(1, 2, 0)), box, SLOPE)
    return Official(fixture, field, Scene(bound, Bounds(box), 1, volume="occupancy"))


def test_the_field_at_points(official: Official) -> None:
    fixture, field = official.fixture, official.field
    points = fixture["pts"][None]
    views = torch.nn.functional.normalize(fixture["view_dirs"], dim=-1)[None]
    found = official.scene.field.query(points, -views)
    close(found.features[0], fixture["pts_rgb"])
    close(found.raw_density[0].sigmoid(), fixture["pts_occupancy"])
    close(official.scene.raw_density(points)[0] / SLOPE, fixture["pts_logits"])
    close(-density_gradient(official.scene, points, None)[0] / SLOPE, fixture["pts_gradient"])
    # Softplus with beta 100 bends within 1e-2, so differences over 2e-3 are near the derivative.
    numeric = density_gradient(official.scene, points, 1e-3)[0]
    close(-numeric / SLOPE, fixture["pts_gradient"], (2e-2, 2e-2))
    outputs = torch.cat(field.geometry(official.prepared.shape, points), dim=-1)[0]
    stride = slice(1, None, 16)
    close(outputs[:, stride], fixture["pts_feature_sub"])


def test_gradients_of_the_parameters(official: Official) -> None:
    """The loss of the fixture is ``mean(f^2) + mean(rgb^2)``; colours see the normal, so this is a
    second derivative."""
    fixture = official.fixture
    official.field.zero_grad()
    views = torch.nn.functional.normalize(fixture["view_dirs"], dim=-1)[None]
    field = official.scene.field
    assert isinstance(field, BoundField)
    bound = BoundField(field.representation, official.prepared, field.box)
    found = bound.query(fixture["pts"][None], -views)
    (found.raw_density.square().mean() + found.features.square().mean()).backward()
    parts = dict(official.field.geometry.named_parameters())
    parts |= dict(official.field.colour.named_parameters())
    norms = []
    for name in fixture.config["param_names"]:
        gradient = parts[name].grad
        norms.append(torch.zeros(()) if gradient is None else gradient.norm())
    close(torch.stack(norms), fixture["gradnorm_field"], (1e-6, 5e-3))


def test_the_schedule_of_the_shell(official: Official) -> None:
    schedule = official.fixture.config["schedule"]
    widths = [
        shell_width(
            float(iteration),
            schedule["interval_start"],
            schedule["interval_end"],
            schedule["interval_decay"],
        )
        for iteration in official.fixture["schedule_it"]
    ]
    close(torch.tensor(widths), official.fixture["schedule_delta"], (1e-5, 1e-5))


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_rays_of_a_renderer(official: Official, name: str) -> None:
    """Surface, samples, compositing and smoothness, each from the fixture's own inputs."""
    fixture, scene = official.fixture, official.scene
    settings = fixture.config["renderers"][name]
    origins, directions = fixture[f"{name}_ray_o"][None], fixture[f"{name}_ray_d"][None]
    far = fixture[f"{name}_sphere_near_far"][None, :, 1:]
    near = torch.zeros_like(far)
    steps = settings["ray_marching_steps"]
    found = find_surface(scene.raw_density, origins, directions, near, far, steps, 8, "reference")[
        0, :, 0
    ]
    expected = fixture[f"{name}_surface_depth"]
    hit = fixture[f"{name}_surface_kind"] == 1
    agree = found.isfinite() == hit
    assert agree.float().mean() >= 0.99
    close(found[hit & agree], expected[hit & agree], (1e-4, 0.0))

    surface = torch.where(hit, expected, torch.inf)[None, :, None]
    width = shell_width(
        float(settings["it"]),
        settings["interval_start"],
        settings["interval_end"],
        settings["interval_decay"],
    )
    outside = settings["num_points_out"] if settings["it"] > 5000 else 0
    inside = settings["num_points_in"]
    distances = reference_shell_samples(far, surface, width, inside, outside)
    assert distances.shape[-1] == settings["samples_per_ray"]
    stride = fixture.config["strides"]["sample_t"]
    close(distances[0, ::stride], fixture[f"{name}_sample_t"], (1e-5, 1e-5))

    positions = origins.unsqueeze(2) + directions.unsqueeze(2) * distances.unsqueeze(-1)
    along = directions.unsqueeze(2).expand_as(positions)
    samples = scene.field.query(positions.flatten(1, 2), along.flatten(1, 2))
    composed = occupancy_weights(samples.raw_density.view(distances.shape).sigmoid())
    total = composed.weights.sum(-1, keepdim=True)
    colour = weighted_sum(composed.weights, samples.features.unflatten(1, distances.shape[1:]))
    if settings["white_background"]:
        colour = colour + (1 - total)
    close(colour[0], fixture[f"{name}_rgb"])
    close(total[0, :, 0], fixture[f"{name}_weight_sum"])

    points = (origins + directions * surface)[0][hit][None]
    gradient = -density_gradient(scene, points, None)
    normals = gradient / (gradient.norm(dim=-1, keepdim=True) + 1e-5)
    close(normals[0], fixture[f"{name}_normals"])
    everywhere = torch.ones(points.shape[:2], dtype=torch.bool)
    smoothness = normal_smoothness(
        scene, points, everywhere, 0.005, None, fixture[f"{name}_neighbours"][None]
    )
    close(smoothness, fixture[f"{name}_normal_diff"].mean())
