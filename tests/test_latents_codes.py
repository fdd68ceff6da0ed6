"""Requests to generators with a shape code and an appearance code: each seed moves its own half."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nerfstudio_gan3d.latents import (
    SceneRequest,
    has_codes,
    make_condition,
    request_latents,
    seed_latent,
)
from nerfstudio_gan3d.models.config import BackgroundConfig, LatentConfig
from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from tests.models.tiny import LATENT, field_config, make_generator


@pytest.fixture(params=["triplane", "hashgrid"])
def generator(request: pytest.FixtureRequest) -> Generator:
    """With a mean of w away from 0, so that truncation moves both codes."""
    made = Generator(
        request.param,
        LatentConfig(LATENT, LATENT, lr_multiplier=0.1, separate=True),
        field_config(),
        BackgroundConfig(hidden_dim=8, layers=2, octaves=3, mapping_layers=2),
        None,
        RenderSettings(6, 4),
        8,
        8,
    )
    made.mapping.w_avg.normal_()
    return made


def found(generator: Generator, request: SceneRequest) -> Latents:
    with torch.no_grad():
        return request_latents(generator, request)


def density_and_colour(generator: Generator, request: SceneRequest) -> tuple[torch.Tensor, ...]:
    """What the field is made of at eight places."""
    places = torch.linspace(-0.4, 0.4, 24).reshape(1, 8, 3)
    with torch.no_grad():
        scene = generator.scene(found(generator, request))
        samples = scene.field.query(places)
    return samples.raw_density, samples.features


def test_generators_with_codes_are_known(generator: Generator) -> None:
    assert has_codes(generator)
    assert not has_codes(make_generator())


def test_the_halves_of_z_come_from_their_own_seeds(generator: Generator) -> None:
    half = LATENT // 2
    joined = make_condition(generator, [4, 5], appearance_seeds=[7, 4]).z
    for row, (shape, appearance) in enumerate([(4, 7), (5, 4)]):
        assert torch.equal(joined[row, :half], seed_latent(shape, LATENT)[0, :half])
        assert torch.equal(joined[row, half:], seed_latent(appearance, LATENT)[0, half:])


@pytest.mark.parametrize("truncation", [1.0, 0.5])
def test_an_appearance_seed_leaves_the_geometry_as_it_is(
    generator: Generator, truncation: float
) -> None:
    plain = SceneRequest(1, truncation=truncation)
    recoloured = SceneRequest(1, truncation=truncation, appearance_seed=2)
    before, after = found(generator, plain), found(generator, recoloured)
    assert torch.equal(before.foreground[:, :-1], after.foreground[:, :-1])
    assert torch.equal(before.background, after.background)  # type: ignore[arg-type]
    other = found(generator, SceneRequest(2, truncation=truncation)).foreground
    assert torch.equal(after.foreground[:, -1], other[:, -1])
    density, colour = density_and_colour(generator, plain)
    same, changed = density_and_colour(generator, recoloured)
    assert torch.equal(density, same)
    assert not torch.allclose(colour, changed)


def test_a_shape_seed_leaves_the_appearance_as_it_is(generator: Generator) -> None:
    before = found(generator, SceneRequest(1)).foreground
    after = found(generator, SceneRequest(2, appearance_seed=1)).foreground
    assert torch.equal(before[:, -1], after[:, -1])
    assert torch.equal(after[:, :-1], found(generator, SceneRequest(2)).foreground[:, :-1])
    assert not torch.allclose(before[:, :-1], after[:, :-1])


def test_without_an_appearance_seed_both_codes_are_the_seeds(generator: Generator) -> None:
    plain = found(generator, SceneRequest(3)).foreground
    named = found(generator, SceneRequest(3, appearance_seed=3)).foreground
    assert torch.equal(plain, named)


@pytest.mark.parametrize(
    ("place", "look", "shape_share", "look_share"),
    [
        (0.0, None, 0.0, 0.0),
        (0.5, None, 0.5, 0.5),
        (1.0, None, 1.0, 1.0),
        (0.5, 0.0, 0.5, 0.0),
        (1.0, 0.0, 1.0, 0.0),
        (0.0, 0.5, 0.0, 0.5),
        (0.0, 1.0, 0.0, 1.0),
        (0.25, 0.75, 0.25, 0.75),
    ],
)
@pytest.mark.parametrize("appearance_seed", [None, 6])
def test_each_place_moves_its_own_half(
    generator: Generator,
    place: float,
    look: float | None,
    shape_share: float,
    look_share: float,
    appearance_seed: int | None,
) -> None:
    """A straight line from the own seeds' w to the other seed's, each half at its own place."""
    request = SceneRequest(
        1,
        other_seed=2,
        interpolation=place,
        appearance_seed=appearance_seed,
        appearance_interpolation=look,
    )
    near = found(generator, SceneRequest(1, appearance_seed=appearance_seed)).foreground
    far = found(generator, SceneRequest(2)).foreground
    made = found(generator, request).foreground
    for half, share in ((slice(0, -1), shape_share), (slice(-1, None), look_share)):
        if share in (0.0, 1.0):
            assert torch.equal(made[:, half], (far if share else near)[:, half])
        else:
            expected = (1 - share) * near[:, half] + share * far[:, half]
            torch.testing.assert_close(made[:, half], expected)


def test_the_background_follows_the_shape(generator: Generator) -> None:
    still = found(generator, SceneRequest(1)).background
    looks = SceneRequest(1, other_seed=2, appearance_interpolation=1.0)
    assert torch.equal(still, found(generator, looks).background)  # type: ignore[arg-type]
    shapes = SceneRequest(1, other_seed=2, interpolation=1.0, appearance_interpolation=0.0)
    far = found(generator, SceneRequest(2)).background
    assert torch.equal(far, found(generator, shapes).background)  # type: ignore[arg-type]


def test_appearance_alone_can_go_to_a_seed_of_its_own(generator: Generator) -> None:
    made = found(
        generator,
        SceneRequest(1, appearance_seed=3, other_appearance_seed=4, interpolation=0.5),
    ).foreground
    ends = [found(generator, SceneRequest(seed)).foreground for seed in (1, 3, 4)]
    assert torch.equal(made[:, :-1], ends[0][:, :-1])
    torch.testing.assert_close(made[:, -1], (ends[1][:, -1] + ends[2][:, -1]) / 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"appearance_seed": 3}, "appearance_seed = 3: this generator has no appearance code"),
        ({"other_appearance_seed": 4}, "other_appearance_seed = 4: this generator has no"),
        ({"appearance_interpolation": 0.0}, "appearance_interpolation = 0.0: this generator"),
    ],
)
def test_other_generators_refuse_them(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        found(make_generator(), SceneRequest(1, **changes))
    with pytest.raises(ValueError, match=r"appearance seeds \[3\]: this generator has no"):
        make_condition(make_generator(), [1], appearance_seeds=[3])
