"""Seeds to latents: repeatable, and each part of a request changes what it names."""

from dataclasses import replace

import pytest
import torch

from nerfstudio_gan3d.latents import SceneRequest, make_condition, request_latents, seed_latent
from nerfstudio_gan3d.models.generator import Generator, Latents
from tests.models.tiny import make_generator


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(3)
    generator = make_generator(pose_conditioning=True)
    generator.mapping.w_avg.normal_()
    return generator


def found(generator: Generator, request: SceneRequest) -> Latents:
    with torch.no_grad():
        return request_latents(generator, request)


def test_a_seed_always_gives_the_same_latent() -> None:
    # Stored values: seeds are shared between people, so they must survive updates.
    expected = torch.tensor([[-1.1258398, -1.1523602, -0.2505787, -0.4338788]])
    torch.testing.assert_close(seed_latent(0, 512)[:, :4], expected)
    torch.manual_seed(99)
    assert torch.equal(seed_latent(0, 512), seed_latent(0, 512))


def test_streams_of_neighbouring_seeds_are_all_different() -> None:
    latents = [seed_latent(seed, 64, stream) for seed in range(8) for stream in range(2)]
    assert len({tuple(latent[0].tolist()) for latent in latents}) == 16


def test_condition_draws_foreground_and_background_of_each_seed(generator: Generator) -> None:
    size = generator.latent.z_dim
    condition = make_condition(generator, [4, 5])
    assert condition.z_background is not None
    assert torch.equal(condition.z[1:], seed_latent(5, size))
    assert torch.equal(condition.z_background[:1], seed_latent(4, size, stream=1))
    other = make_condition(generator, [4, 5], [6, 6])
    assert other.z_background is not None
    assert torch.equal(other.z, condition.z)
    assert torch.equal(other.z_background[:1], seed_latent(6, size, stream=1))


def test_generator_without_sphere_gets_no_background_latent() -> None:
    assert make_condition(make_generator(background=False), [0]).z_background is None


def test_interpolation_runs_from_seed_to_other_seed_in_a_straight_line(
    generator: Generator,
) -> None:
    start, end = (found(generator, SceneRequest(seed)) for seed in (1, 2))
    for place in (0.0, 0.25, 1.0):
        between = found(generator, SceneRequest(1, other_seed=2, interpolation=place))
        for name in ("foreground", "background"):
            expected = (1 - place) * getattr(start, name) + place * getattr(end, name)
            torch.testing.assert_close(getattr(between, name), expected)


def test_a_chosen_background_stays_while_the_foreground_moves(generator: Generator) -> None:
    still = SceneRequest(1, background_seed=7)
    moved = replace(still, other_seed=2, interpolation=0.5)
    first, second = found(generator, still), found(generator, moved)
    assert torch.equal(first.background, second.background)  # type: ignore[arg-type]
    assert not torch.allclose(first.foreground, second.foreground)


def test_truncation_pulls_towards_the_mean(generator: Generator) -> None:
    full = found(generator, SceneRequest(1)).foreground
    half = found(generator, SceneRequest(1, truncation=0.5)).foreground
    none = found(generator, SceneRequest(1, truncation=0.0)).foreground
    mean = generator.mapping.w_avg.expand_as(full)
    torch.testing.assert_close(half, (full + mean) / 2)
    torch.testing.assert_close(none, mean)


def test_truncation_can_be_limited_to_the_coarsest_levels(generator: Generator) -> None:
    full = found(generator, SceneRequest(1)).foreground
    some = found(generator, SceneRequest(1, truncation=0.5, truncation_cutoff=2)).foreground
    mean = generator.mapping.w_avg.expand_as(full)
    torch.testing.assert_close(some[:, :2], (full[:, :2] + mean[:, :2]) / 2)
    assert torch.equal(some[:, 2:], full[:, 2:])


def test_mixed_levels_come_from_the_mixing_seed(generator: Generator) -> None:
    own, other = (found(generator, SceneRequest(seed)).foreground for seed in (1, 2))
    levels = (0, 3)
    mixed = found(generator, SceneRequest(1, mix_seed=2, mix_levels=levels)).foreground
    for level in range(own.shape[1]):
        source = other if level in levels else own
        assert torch.equal(mixed[:, level], source[:, level])


@pytest.mark.parametrize("level", [-1, 99])
def test_levels_that_do_not_exist_are_refused(generator: Generator, level: int) -> None:
    with pytest.raises(ValueError, match=rf"{level}.*levels 0 to"):
        found(generator, SceneRequest(mix_seed=2, mix_levels=(level,)))


def test_conditioning_pose_of_a_request_reaches_the_mapping(generator: Generator) -> None:
    label = tuple(torch.arange(25.0).div(25).tolist())
    posed = found(generator, SceneRequest(1, camera_label=label)).foreground
    z = seed_latent(1, generator.latent.z_dim)
    with torch.no_grad():
        expected = generator.mapping(z, torch.tensor([label]))
        neutral = generator.mapping(z, torch.zeros(1, 25))
    torch.testing.assert_close(posed, expected)
    torch.testing.assert_close(found(generator, SceneRequest(1)).foreground, neutral)
