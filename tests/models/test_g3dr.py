"""The model of G3DR: published sizes, refusals, cameras of a data set, kept images, the average."""

import copy
import math
import re
from typing import Any

import pytest
import torch

from nerfstudio_gan3d.cameras import cameras_to_labels, make_labels, orbit_labels, split_labels
from nerfstudio_gan3d.data_parsers.images import Gan3dImagesDataParserConfig
from nerfstudio_gan3d.fields.triplane import PLANE_AXES
from nerfstudio_gan3d.image_views import STORED_IMAGES, ImageStore, ImageView, as_condition
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.method_configs.g3dr import gan3d_g3dr, gan3d_g3dr_tiny
from nerfstudio_gan3d.models.g3dr import fit_to_cameras, g3dr, g3dr_tiny, make_image_generator
from nerfstudio_gan3d.models.g3dr_config import DetailConfig
from nerfstudio_gan3d.models.reconstruction_config import ReconstructionLossConfig
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.rendering.samplers import box_interval
from nerfstudio_gan3d.training.optimizers import GanAdamConfig
from nerfstudio_gan3d.training.trainer import GanTrainerConfig
from tests.models.small_g3dr import SIDE, make_model, small_config, small_model


def test_the_presets_hold_the_published_settings() -> None:
    config = g3dr()
    assert (config.view_radius, config.box_side, config.image_resolution) == (5.0, 2.0, 128)
    assert config.depth_range == (4.0, 6.0)
    assert math.degrees(2 * math.atan(0.5 / config.view_focal)) == pytest.approx(18)
    assert (config.samples, config.importance_samples, config.planes.resolutions) == (32, 32, 3)
    losses = ReconstructionLossConfig()
    assert config.losses == losses
    assert (losses.rgb, losses.depth, losses.depth_variation) == (1.0, 2.0, 0.1)
    own = losses.canonical_factor
    assert (losses.lpips, losses.lpips * own) == (2.0, 1.0)
    assert (losses.clip, losses.clip * own) == (0.35, 0.175)
    trainer = gan3d_g3dr.config
    assert isinstance(trainer, GanTrainerConfig)
    assert (trainer.max_num_iterations, trainer.lr_warmup) == (300_000, 0.02)
    optimizer = trainer.optimizers["generator"]["optimizer"]
    assert isinstance(optimizer, GanAdamConfig)
    assert optimizer.lr == 5e-5
    assert optimizer.lr * trainer.lr_warmup_factor == pytest.approx(2e-6)
    assert optimizer.lr * trainer.lr_final_factor == pytest.approx(2e-10)
    assert trainer.beta1_cycle == (0.95, 0.85)


@pytest.mark.parametrize(
    ("conventions", "axes"), [("corrected", "xy_xz_zy"), ("reference", "xy_xz_zx")]
)
def test_what_conventions_decide(conventions: str, axes: str) -> None:
    """By the published rules rays start where they enter the box."""
    config = small_config(conventions=conventions)
    generator = make_image_generator(config)
    assert generator.field.axes == PLANE_AXES[axes]
    settings = RenderSettings(8, 6, conventions, "box")  # type: ignore[arg-type]
    assert generator.settings == settings
    # The box's corners are sqrt(3) from the origin.
    assert generator.bounds.near == pytest.approx(5 - math.sqrt(3))
    assert generator.bounds.far == pytest.approx(5 + math.sqrt(3))
    config.planes.axes = "xy_xz_zy"
    config.sampling = "corrected"
    generator = make_image_generator(config)
    assert generator.field.axes == PLANE_AXES["xy_xz_zy"]
    assert generator.settings.conventions == "corrected"
    assert generator.conventions == conventions


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("box_side", 0.0, "model.box_side = 0.0"),
        ("view_radius", 0.0, "model.view_radius = 0.0"),
        ("view_focal", -1.0, "model.view_focal = -1.0"),
        ("view_radius", 0.9, "model.view_radius = 0.9: the camera stands inside of the box"),
        ("wall", 1.0, "model.wall = 1.0"),
        ("planes.density_scale", 0.0, "model.planes.density_scale = 0.0"),
        ("planes.resolutions", 6, "model.planes.resolutions = 6"),
        ("image", STORED_IMAGES, f"model.image = {STORED_IMAGES}"),
        ("losses.rgb", -1.0, "model.losses.rgb = -1.0"),
        ("losses.clip", -0.1, "model.losses.clip = -0.1"),
        ("losses.depth_spread", -2.0, "model.losses.depth_spread = -2.0"),
        ("losses.warp", -1.0, "model.losses.warp = -1.0"),
        ("box_width", -1.0, "model.box_width = -1.0"),
        ("detail.levels", -1, "levels is -1"),
        ("losses.guided", 1.5, "model.losses.guided = 1.5"),
        ("importance_samples", 0, "no fine samples to be guided"),
        ("losses.opacity_share", -0.5, "model.losses.opacity_share = -0.5"),
        ("losses.canonical_factor", -1.0, "model.losses.canonical_factor = -1.0"),
        ("losses.guide_half_width", 0.0, "guide_half_width = 0.0"),
        ("losses.ray_stride", 0, "model.losses.ray_stride = 0"),
        ("novel.share", 1.1, "model.novel.share = 1.1"),
        ("novel.azimuth_reached", 2.0, "model.novel.azimuth_reached = 2.0"),
        ("novel.azimuth_start_deg", 0.0, "model.novel.azimuth_start_deg = 0.0"),
        ("novel.elevation_deg", 90.0, "model.novel.elevation_deg = 90.0"),
    ],
)
def test_impossible_settings_are_named(place: str, value: Any, words: str) -> None:
    config = small_config()
    *path, last = place.split(".")
    target: Any = config
    for part in path:
        target = getattr(target, part)
    setattr(target, last, value)
    with pytest.raises(ValueError, match=re.escape(words)):
        make_model(config)


def test_published_weights_know_no_hash_grid() -> None:
    config = small_config(conventions="reference", detail=DetailConfig(levels=2))
    with pytest.raises(
        ValueError, match=r"model\.detail\.levels = 2 needs conventions = corrected"
    ):
        make_model(config)


def test_a_wider_box_holds_what_elsewhere_sees_of_the_background() -> None:
    """From 30 degrees aside, rays reach the wall beside the canonical view; in a cube they leave
    the box before."""
    reached = {}
    for width in (0.0, 12.0):
        config = small_config(box_width=width)
        generator = make_image_generator(config)
        assert generator.bounds.box == (width or 2.0, width or 2.0, 2.0)
        labels = orbit_labels(torch.tensor([math.pi / 6]), torch.zeros(1), 5.0, focal=1.2)
        origins, directions = generator.rays(labels, 8, 8)
        wall = (-0.95 - origins[..., 2:]) / directions[..., 2:]
        bounds = generator.bounds
        far = box_interval(origins, directions, bounds.box, bounds.near, bounds.far)[1]
        reached[width] = float((far >= wall).float().mean())
    assert reached[0.0] < 0.6
    assert reached[12.0] == 1.0


def test_images_too_small_for_lpips_are_refused() -> None:
    """LPIPS needs 16 pixels: a stride of 2 leaves 8 of these images."""
    losses = ReconstructionLossConfig(clip=0.0, lpips=1.0, ray_stride=2)
    with pytest.raises(ValueError, match=r"model\.losses\.ray_stride = 2.*LPIPS"):
        small_model(losses=losses)
    small_model(losses=ReconstructionLossConfig(clip=0.0, lpips=1.0))


def test_the_bundled_cars_are_seen_from_one_distance() -> None:
    outputs = Gan3dImagesDataParserConfig().setup().get_dataparser_outputs("train")
    labels = cameras_to_labels(outputs.cameras)
    config = g3dr_tiny()
    fit_to_cameras(config, labels)
    pose, intrinsics = split_labels(labels)
    assert config.view_radius == pytest.approx(float(pose[0, :3, 3].norm()), rel=1e-3)
    assert config.view_focal == pytest.approx(float(intrinsics[0, 0, 0]), rel=1e-3)
    assert len(labels) > 100
    # A box of 1.8 lies between the camera and what it sees.
    assert config.depth_range == (config.view_radius - 0.9, config.view_radius + 0.9)


def cameras(count: int = 5) -> torch.Tensor:
    azimuth = torch.linspace(-2, 2, count)
    return orbit_labels(azimuth, 0.3 * azimuth, 2.0, focal=1.5)


def test_distance_and_focal_length_are_taken_where_they_are_not_given() -> None:
    config = small_config(view_radius=0.0, view_focal=0.0)
    fit_to_cameras(config, cameras())
    assert (config.view_radius, config.view_focal) == pytest.approx((2.0, 1.5))
    given = small_config(view_radius=2.02, view_focal=1.5)
    fit_to_cameras(given, cameras())
    assert given.view_radius == 2.02


def spoiled(kind: str) -> torch.Tensor:
    """Cameras of which the last one is another one."""
    labels = cameras()
    if kind == "distance from the origin":
        labels[-1, [3, 7, 11]] *= 1.05
    elif kind == "focal length":
        labels[-1, 16] *= 1.05
    elif kind == "focal length of the rows":
        labels[-1, 20] *= 0.95
    elif kind == "principal point":
        labels[-1, 21] = 0.55
    elif kind == "direction":
        labels[-1:] = orbit_labels(torch.ones(1), torch.ones(1), 2.0, (0.1, 0.0, 0.0), 1.5)
        labels[-1, [3, 7, 11]] *= 2.0 / labels[-1, [3, 7, 11]].norm()
    else:
        # It looks away from the origin, which is behind it.
        pose, intrinsics = split_labels(labels[-1:])
        pose = pose @ torch.diag(torch.tensor([-1.0, 1, -1, 1]))
        labels[-1:] = make_labels(pose, intrinsics)
    return labels


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("distance from the origin", "distance from the origin by 0.05"),
        ("focal length", "focal length by 0.05"),
        ("focal length of the rows", "focal length by 0.05"),
        ("principal point", "principal point by 0.05"),
        ("direction", "direction by 0.0"),
        ("away", "direction by 2.0"),
    ],
)
def test_cameras_that_are_not_alike_are_refused(kind: str, words: str) -> None:
    config = small_config(view_radius=0.0, view_focal=0.0, box_side=1.0)
    with pytest.raises(ValueError, match=re.escape(words)):
        fit_to_cameras(config, spoiled(kind))


def views(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and distances that differ."""
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=source).to(torch.uint8)
    return images, 4 + 2 * torch.rand(count, 1, SIDE, SIDE, generator=source)


def test_a_store_is_filled_repeated_and_asked() -> None:
    store = ImageStore(SIDE, 5.0)
    assert (store.view(0).distance == 5).all()
    assert (store.view(0).image == 128).all()
    images, distances = views(3)
    store.fill(images, distances)
    for index in (0, 2, 3, STORED_IMAGES - 1):
        view = store.view(index)
        assert torch.equal(view.image, images[index % 3 : index % 3 + 1])
        assert torch.equal(view.distance, distances[index % 3 : index % 3 + 1])
    for index in (-1, STORED_IMAGES):
        with pytest.raises(ValueError, match=f"image {index}: a checkpoint keeps 16"):
            store.view(index)
    more = views(STORED_IMAGES + 2)
    store.fill(*more)
    assert torch.equal(store.images, more[0][:STORED_IMAGES])
    assert set(store.state_dict()) == {"images", "distances"}


def test_pixels_as_networks_take_them() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)[None, :, None, None]
    found = as_condition(pixels, torch.full((1, 1, 1, 1), 4.5))
    torch.testing.assert_close(found.image.flatten(), torch.tensor([-1, -0.6, 1]))
    assert found.distance.item() == 4.5


def test_a_scene_of_a_kept_image_or_of_ones_own() -> None:
    model = small_model()
    images, distances = views(3)
    model.images.fill(images, distances)
    place = torch.rand(1, 5, 3) - 0.5
    with torch.no_grad():
        expected = [
            model.generator_ema.scene(as_condition(images[i : i + 1], distances[i : i + 1]))
            .field.query(place)
            .features
            for i in range(2)
        ]
    kept = [model.make_scene(SceneRequest(image=i)).field.query(place).features for i in range(2)]
    own = model.make_scene(SceneRequest(image=ImageView(images[1:2], distances[1:2])))
    assert torch.equal(kept[0], expected[0])
    assert torch.equal(kept[1], expected[1])
    assert torch.equal(own.field.query(place).features, expected[1])
    assert not torch.equal(kept[0], kept[1])
    with pytest.raises(ValueError, match="image 16"):
        model.make_scene(SceneRequest(image=16))
    # The shown Scene is kept until another one is asked for.
    first = model.scene().scene
    assert model.scene().scene is first
    model.controls.show(ImageView(images[1:2], distances[1:2]))
    assert model.scene().scene is not first


def test_without_a_half_life_the_average_is_the_generator() -> None:
    """ema_kimg = 0, as published; with one the average trails behind."""
    images, distances = views(2)
    for half_life, equal in ((0.0, True), (2.0, False)):
        model = small_model(ema_kimg=half_life, ema_rampup=0.0)
        before = copy.deepcopy(model.generator_ema.state_dict())
        model.set_training_share(0.5)
        losses, _ = model.training_losses(images.float() / 127.5 - 1, distances, 0, 0, 1)
        sum(losses.values()).backward()  # type: ignore[union-attr]
        with torch.no_grad():
            for parameter in model.generator.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad.sign()
        model.after_step(0)
        pairs = list(
            zip(model.generator_ema.parameters(), model.generator.parameters(), strict=True)
        )
        assert all(torch.equal(*pair) for pair in pairs) == equal
        assert any(
            not torch.equal(value, model.generator_ema.state_dict()[name])
            for name, value in before.items()
        )


def test_methods_train_by_their_own_player_alone() -> None:
    model = small_model()
    assert set(model.get_param_groups()) == {"generator"}
    assert all(not p.requires_grad for p in model.generator_ema.parameters())
    for method in (gan3d_g3dr, gan3d_g3dr_tiny):
        assert set(method.config.optimizers) == {"generator"}
