"""The generator: latents to Scenes to images, several cameras, super-resolution."""

from dataclasses import fields, replace

import pytest
import torch

from nerfstudio_gan3d.cameras import axis_cosine, pixel_rays
from nerfstudio_gan3d.fields.triplane import PLANE_AXES, TriPlane
from nerfstudio_gan3d.models.config import BackgroundConfig, LatentConfig, SuperResolutionConfig
from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.models.scene_generator import alpha_map, z_depth
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.scene import Condition
from tests.models.tiny import LATENT, field_config, labels, make_generator


def condition(count: int, seed: int = 0) -> Condition:
    source = torch.Generator().manual_seed(seed)
    z, behind = torch.randn(2, count, LATENT, generator=source)
    return Condition(z, behind)


@pytest.fixture(params=["triplane", "hashgrid"])
def generator(request: pytest.FixtureRequest) -> Generator:
    return make_generator(request.param)


def test_rendered_image_is_the_features_between_minus_one_and_one(generator: Generator) -> None:
    images = generator(condition(2), labels(2))
    assert images.image.shape == (2, 3, 8, 8)
    pixels = images.rendering.features * 2 - 1
    for row, column in ((0, 0), (3, 5), (7, 2)):
        torch.testing.assert_close(images.raw[:, :, row, column], pixels[:, row * 8 + column])
    assert images.image is images.raw


def test_super_resolution_sees_all_features_and_the_last_latent() -> None:
    generator = make_generator(super_resolution=True)
    assert generator.superresolution is not None
    latents = generator.map(condition(2))
    images = generator.render(generator.scene(latents), labels(2))
    assert images.image.shape == (2, 3, 16, 16)
    assert images.raw.shape == (2, 3, 8, 8)
    features = images.rendering.features.mT.unflatten(2, (8, 8)) * 2 - 1
    assert features.shape[1] == 5
    expected = generator.superresolution(features, features[:, :3], latents.foreground[:, -1:])
    torch.testing.assert_close(images.image, expected.image)


@pytest.mark.parametrize("conventions", ["corrected", "reference"])
def test_published_raw_image_is_changed_by_super_resolution_only_there(conventions) -> None:
    # 8 px in, 16 px out: the first stage keeps the size, where official code writes into its input.
    generator = make_generator(super_resolution=True, conventions=conventions)
    scene = generator.scene(generator.map(condition(1)))
    for size in (8, 6):
        images = generator.render(scene, labels(1), size)
        plain = images.rendering.features[..., :3].mT.unflatten(2, (size, size)) * 2 - 1
        same = torch.allclose(images.raw, plain)
        assert same == (conventions == "corrected" or size == 6)


def test_rendering_twice_gives_the_same_image(generator: Generator) -> None:
    first, second = (generator(condition(1), labels(1)).image for _ in range(2))
    assert torch.equal(first, second)


def test_several_cameras_of_each_scene_equal_one_at_a_time(generator: Generator) -> None:
    scene = generator.scene(generator.map(condition(2)))
    cameras = labels(6)
    together = generator.render(scene, cameras)
    for start in range(0, 6, 2):
        alone = generator.render(scene, cameras[start : start + 2])
        rows = slice(start, start + 2)
        torch.testing.assert_close(together.image[rows], alone.image)
        for field in fields(Rendering):
            found, expected = (getattr(x.rendering, field.name) for x in (together, alone))
            if field.name in ("labels", "surface"):
                assert found is expected is None
                continue
            torch.testing.assert_close(found[rows], expected)


def test_several_cameras_with_super_resolution_take_the_style_of_their_scene() -> None:
    generator = make_generator(super_resolution=True)
    scene = generator.scene(generator.map(condition(2)))
    cameras = labels(4)
    together = generator.render(scene, cameras).image
    torch.testing.assert_close(together[2:], generator.render(scene, cameras[2:]).image)


def test_cameras_must_divide_among_the_scenes(generator: Generator) -> None:
    scene = generator.scene(generator.map(condition(2)))
    with pytest.raises(ValueError, match="3 cameras for 2 Scenes"):
        generator.render(scene, labels(3))


def test_foreground_and_background_have_latents_of_their_own(generator: Generator) -> None:
    with torch.no_grad():
        first, second = generator.map(condition(1, 0)), generator.map(condition(1, 1))
        # An untrained density is the same for all latents, so make it depend on them.
        decoder_out = [p for n, p in generator.field.named_parameters() if n.endswith("out.weight")]
        decoder_out[0][0].normal_()
    cameras = labels(1)

    def show(foreground: Latents, background: Latents) -> Rendering:
        latents = Latents(foreground.foreground, background.background)
        return generator.render(generator.scene(latents), cameras).rendering

    own, other_behind, other_front = (
        show(first, first),
        show(first, second),
        show(second, first),
    )
    assert torch.equal(own.foreground, other_behind.foreground)
    assert torch.equal(own.transmittance, other_behind.transmittance)
    assert own.background is not None
    assert other_behind.background is not None
    assert other_front.background is not None
    assert (own.background - other_behind.background).abs().max() > 1e-3
    assert torch.equal(own.background, other_front.background)
    assert (own.transmittance - other_front.transmittance).abs().max() > 1e-3


def test_condition_without_background_latent_is_refused(generator: Generator) -> None:
    with pytest.raises(ValueError, match="z_background"):
        generator.map(replace(condition(1), z_background=None))


def test_generator_without_sphere_ends_in_black() -> None:
    generator = make_generator(background=False)
    images = generator(Condition(condition(1).z), labels(1))
    assert images.rendering.background is None
    alpha = alpha_map(images.rendering, 8, 8)
    assert alpha.min() < 1e-6
    empty = (alpha < 1e-6).expand(-1, 3, -1, -1)
    torch.testing.assert_close(images.image[empty], torch.full_like(images.image[empty], -1.0))


def test_no_pose_is_the_zero_pose() -> None:
    generator = make_generator(pose_conditioning=True)
    neutral = generator.map(condition(2))
    zeros = generator.map(replace(condition(2), camera_label=torch.zeros(2, 25)))
    posed = generator.map(replace(condition(2), camera_label=labels(2)))
    torch.testing.assert_close(neutral.foreground, zeros.foreground)
    assert (neutral.foreground - posed.foreground).abs().max() > 1e-3


def test_truncation_of_foreground_and_background(generator: Generator) -> None:
    assert generator.background_mapping is not None
    generator.mapping.w_avg.fill_(0.5)
    generator.background_mapping.w_avg.fill_(-0.5)
    full = generator.map(condition(1))
    half = generator.map(condition(1), 0.5, cutoff=1, background_truncation=0.0)
    torch.testing.assert_close(half.foreground[:, :1], (full.foreground[:, :1] + 0.5) / 2)
    assert torch.equal(half.foreground[:, 1:], full.foreground[:, 1:])
    assert half.background is not None
    assert full.background is not None
    # The cutoff is that of both.
    torch.testing.assert_close(half.background[:, :1], torch.full((1, 1, LATENT), -0.5))
    assert torch.equal(half.background[:, 1:], full.background[:, 1:])
    shared = generator.map(condition(1), 0.5)
    assert shared.background is not None
    torch.testing.assert_close(shared.background, (full.background - 0.5) / 2)


def test_running_means_move_towards_the_batch(generator: Generator) -> None:
    latents = generator.map(condition(4))
    generator.update_averages(latents)
    # w_avg <- 0.998 * 0 + 0.002 * mean
    expected = latents.foreground[:, 0].mean(0) * 0.002
    torch.testing.assert_close(generator.mapping.w_avg, expected.detach())
    assert generator.background_mapping is not None
    assert latents.background is not None
    expected = latents.background[:, 0].mean(0) * 0.002
    torch.testing.assert_close(generator.background_mapping.w_avg, expected.detach())


def test_other_resolutions_see_the_same_scene(generator: Generator) -> None:
    scene = generator.scene(generator.map(condition(1)))
    wide = generator.render(scene, labels(1), 24)
    assert wide.raw.shape == (1, 3, 24, 24)
    # The ray through the middle pixel of each 3 x 3 block is the ray of the small image's pixel.
    small = generator.render(scene, labels(1), 8)
    torch.testing.assert_close(wide.raw[:, :, 1::3, 1::3], small.raw, atol=1e-4, rtol=1e-4)
    assert generator.render(scene, labels(1), 6, height=4).raw.shape == (1, 3, 4, 6)


def test_jitter_moves_samples(generator: Generator) -> None:
    scene = generator.scene(generator.map(condition(1)))
    first, second = (generator.render(scene, labels(1), jitter=True).image for _ in range(2))
    assert not torch.equal(first, second)


def test_depth_map_is_measured_along_the_optical_axis(generator: Generator) -> None:
    cameras = labels(2)
    rendering = generator(condition(2), cameras).rendering
    depth, alpha = z_depth(rendering, cameras, 8, 8), alpha_map(rendering, 8, 8)
    directions = pixel_rays(cameras, 8, 8)[1]
    expected = (rendering.foreground_distance * axis_cosine(cameras, directions))[..., 0]
    torch.testing.assert_close(depth, expected.view(2, 1, 8, 8))
    torch.testing.assert_close(alpha.flatten(1), rendering.accumulation[..., 0])
    # A ball of radius 0.5 about the origin, seen from a distance of 1.9.
    seen = depth[alpha > 0.3]
    assert len(seen) > 10
    assert ((seen > 1.2) & (seen < 2.5)).all()


def test_every_parameter_of_the_generator_is_trained(generator: Generator) -> None:
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("out.weight", "noise_strength")):
                parameter.normal_()
    images = generator(condition(2), labels(2))
    (images.image * torch.randn_like(images.image)).sum().backward()
    idle = [
        name
        for name, parameter in generator.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert not idle


def test_official_poses_are_scaled_and_neutral_at_scale_zero() -> None:
    generator = make_generator(pose_conditioning=True)
    base = condition(2)
    told = replace(base, camera_label=labels(2))
    neutral, posed = generator.map(base).foreground, generator.map(told).foreground
    assert not torch.allclose(neutral, posed)
    generator.latent.pose_scale = 0.0
    torch.testing.assert_close(generator.map(told).foreground, neutral)
    generator.latent.pose_scale = 0.5
    halved = replace(base, camera_label=labels(2) * 0.5)
    found = generator.map(told).foreground
    generator.latent.pose_scale = 1.0
    torch.testing.assert_close(found, generator.map(halved).foreground)


def test_networks_and_sampling_can_follow_different_rules() -> None:
    """Official weights under corrected sampling: same planes and background, other samples."""
    sphere = BackgroundConfig(hidden_dim=8, layers=2, octaves=3, mapping_layers=2)
    made = []
    for sampling in ("corrected", "reference"):
        torch.manual_seed(0)
        made.append(
            Generator(
                "triplane", LatentConfig(LATENT, LATENT), field_config(), sphere, None,
                RenderSettings(6, 4, sampling), 8, 8, "reference",
            )
        )  # fmt: skip
    ours, published = made
    assert {n: tuple(v.shape) for n, v in ours.state_dict().items()} == {
        n: tuple(v.shape) for n, v in published.state_dict().items()
    }
    assert isinstance(ours.field, TriPlane)
    assert ours.field.axes == PLANE_AXES["xy_xz_zx"]
    assert ours.field.noise_mode == "const"
    for generator in made:
        assert generator.background is not None
        assert generator.background.reference
    assert ours.settings.conventions == "corrected"
    images = [generator(condition(1), labels(1)).image for generator in made]
    assert not torch.allclose(*images)


def test_background_of_the_earlier_version_takes_z_unmapped() -> None:
    generator = Generator(
        "triplane", LatentConfig(LATENT, LATENT), field_config(),
        BackgroundConfig(hidden_dim=8, layers=2, version="ver0"), None,
        RenderSettings(6, 4, "reference"), 8, 8,
    )  # fmt: skip
    assert generator.background_mapping is None
    given = condition(2)
    latents = generator.map(given, truncation=0.5)
    assert latents.background is not None
    assert latents.background is given.z_background
    rendered = generator.render(generator.scene(latents), labels(2)).rendering.background
    other = generator.map(replace(given, z_background=-latents.background))
    changed = generator.render(generator.scene(other), labels(2)).rendering.background
    assert rendered is not None
    assert changed is not None
    assert not torch.allclose(rendered, changed)
    with pytest.raises(ValueError, match="no z_background"):
        generator.map(replace(given, z_background=None))


def test_rendered_images_of_another_size_reach_super_resolution_resized() -> None:
    """A model trained at 8 px whose super-resolution takes 16 px, as official 64 px models do."""
    settings = SuperResolutionConfig(channels=(8, 8), input_resolution=16)
    generator = Generator(
        "triplane", LatentConfig(LATENT, LATENT), field_config(5), None, settings,
        RenderSettings(6, 4), 8, 32,
    )  # fmt: skip
    images = generator(condition(1), labels(1))
    assert images.raw.shape == (1, 3, 8, 8)
    assert images.image.shape == (1, 3, 32, 32)


def test_models_that_know_poses_are_told_the_neutral_one_where_nobody_names_one() -> None:
    generator = make_generator(pose_conditioning=True)
    base = condition(2)
    zeros = generator.map(base).foreground
    frontal = labels(1)
    generator.latent.neutral_pose = tuple(frontal[0].tolist())
    told = generator.map(replace(base, camera_label=frontal.expand(2, -1))).foreground
    found = generator.map(base).foreground
    generator.latent.neutral_pose = ()
    torch.testing.assert_close(found, told)
    assert not torch.allclose(found, zeros)
