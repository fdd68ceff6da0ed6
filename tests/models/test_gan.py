"""The nerfstudio Model: refused settings, what is stored, what a user sees."""

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallbackAttributes

from nerfstudio_gan3d.cameras import labels_to_cameras, orbit_labels
from nerfstudio_gan3d.fields.triplane import TriPlane
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.ballgan import ballgan, ballgan_256, ballgan_tiny
from nerfstudio_gan3d.models.checks import check_labels, fit_to_cameras, validate, validate_batch
from nerfstudio_gan3d.models.eg3d import eg3d, eg3d_256, eg3d_tiny
from nerfstudio_gan3d.models.gan import GanModelConfig, convolution_dtype
from nerfstudio_gan3d.models.objective_config import AdaConfig
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from tests.models.tiny import images, labels, make_model, model_config, upsampled_config

PRESETS = (ballgan, ballgan_256, ballgan_tiny, eg3d, eg3d_256, eg3d_tiny)


def changed(start: GanModelConfig, path: str, value: object) -> GanModelConfig:
    """The configuration with one field, named as on the command line, set to a value."""
    owner: object = start
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    assert hasattr(owner, name)
    setattr(owner, name, value)
    return start


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_possible(preset: Callable[[], GanModelConfig]) -> None:
    config = preset()
    validate(config)
    assert config.background == preset.__name__.startswith("ballgan")
    if not config.background:
        assert config.losses.background == config.losses.foreground == 0


def without_cameras() -> GanModelConfig:
    return changed(model_config(), "discriminator.camera_conditioning", False)


def patchwise() -> GanModelConfig:
    return changed(without_cameras(), "discriminator.kind", "patch")


def coded_config() -> GanModelConfig:
    return changed(model_config(), "latent.separate", True)


def reference_config() -> GanModelConfig:
    return model_config(conventions="reference")


REFUSED = [
    (model_config, "neural_resolution", 16, "neural_resolution = 16 exceeds"),
    (upsampled_config, "patch_resolution", 8, "patch_resolution = 8.*direct rendering"),
    (model_config, "patch_resolution", 3, "patch_resolution = 3.*divisor"),
    (model_config, "patch_resolution", 16, "patch_resolution = 16.*divisor"),
    (model_config, "schedule.crop_share", 0.5, "crop_share = 0.5.*patch_resolution"),
    (model_config, "schedule.crop_share", -0.1, "crop_share = -0.1"),
    (model_config, "schedule.crop_share", 1.5, "crop_share = 1.5"),
    (model_config, "schedule.neural_resolution_final", 8, "neural_resolution_final = 8"),
    (upsampled_config, "schedule.neural_resolution_final", 4, "final = 4: give at least"),
    (upsampled_config, "schedule.neural_resolution_final", 32, "final = 32: .*at most"),
    (upsampled_config, "neural_resolution", 2, "2 px by 1, 2 or 4; .* to 4 or 8"),
    (upsampled_config, "neural_resolution", 6, "6 px by 1, 2 or 4"),
    (model_config, "neural_resolution", 0, "neural_resolution = 0: give 1 or more"),
    (model_config, "samples", 0, "samples = 0: give 1 or more"),
    (model_config, "importance_samples", -1, "importance_samples = -1: give 0 or more"),
    (model_config, "ema_kimg", -1.0, "ema_kimg = -1.0: give 0 or more"),
    (model_config, "discriminator.minibatch_group", 0, "minibatch_group = 0: give 1 or more"),
    (model_config, "schedule.scenes_per_batch", -2, "scenes_per_batch = -2: give 0 or more"),
    (model_config, "schedule.blur_sigma", -1.0, "blur_sigma = -1.0: give 0 or more"),
    (model_config, "schedule.style_mixing", 2.0, "style_mixing = 2.0: give between 0 and 1"),
    (model_config, "schedule.pose_swap_final", float("nan"), "pose_swap_final = nan"),
    (model_config, "ada.initial_p", 5.0, "ada.initial_p = 5.0: give between 0 and 1"),
    (model_config, "ada.interval", 0, "ada.interval = 0: give 1 or more"),
    (model_config, "ada", AdaConfig("fixed"), "ada.initial_p = 0: with mode = fixed"),
    (model_config, "ada", AdaConfig("adaptive", kimg=0.0), "ada.kimg = 0.0: give more than 0"),
    (model_config, "field.feature_dim", 32, "feature_dim = 32.*set it to 3"),
    (upsampled_config, "field.feature_dim", 2, "feature_dim = 2.*at least 3"),
    (model_config, "field.near", -1.0, "near = -1.0"),
    (model_config, "field.near", 3.0, "near = 3.0 and far = 3.0"),
    (model_config, "field.far", 0.0, "near = 1.0 and far = 0.0"),
    (model_config, "field.far", -2.0, "far = -2.0"),
    (model_config, "field.box", (1.0, 0.0, 1.0), "field.box = .*positive"),
    (model_config, "losses.r1_interval", 0, "intervals of lazy terms"),
    (model_config, "losses.density_variation_interval", 0, "intervals of lazy terms"),
    (model_config, "losses.r1_gamma", -1.0, "losses.r1_gamma = -1.0"),
    (model_config, "losses.background", -1.0, "losses.background = -1.0"),
    (model_config, "losses.foreground", -1.0, "losses.foreground = -1.0"),
    (model_config, "losses.camera", -1.0, "losses.camera = -1.0"),
    (model_config, "losses.density_variation", -1.0, "losses.density_variation = -1.0"),
    (model_config, "losses.wrong_camera", -1.0, "losses.wrong_camera = -1.0"),
    (without_cameras, "losses.wrong_camera", 0.5, "wrong_camera = 0.5.*camera_conditioning"),
    (patchwise, "convolutions", "bfloat16", "convolutions = bfloat16.*float32 alone"),
    (patchwise, "convolutions", "auto", "convolutions = auto.*set it to float32"),
    (model_config, "convolutions", "float16", "convolutions = float16: give auto, float32 or"),
    (model_config, "field.palette", 1, "palette = 1: give 2 colours or more"),
    (coded_config, "field.palette", 4, "palette = 4.*colours have a network of their own"),
    (reference_config, "field.palette", 4, "palette = 4.*corrected conventions"),
    (model_config, "latent.neutral_pose", (1.0, 2.0), "neutral_pose has 2 numbers: give 25"),
    (model_config, "field.white_back", True, "white_back.*sphere is the background"),
    (model_config, "sphere.version", "ver0", "ver0.*conventions = reference"),
    (upsampled_config, "super_resolution.noise", "const", "noise = const.*set it to none"),
]


@pytest.mark.parametrize(("start", "path", "value", "words"), REFUSED)
def test_impossible_settings_are_refused_by_name(start, path, value, words) -> None:
    validate(start())
    with pytest.raises(ValueError, match=words):
        validate(changed(start(), path, value))


def test_published_conventions_are_for_planes_only() -> None:
    config = model_config(conventions="reference")
    validate(config)
    config.representation = "hashgrid"
    with pytest.raises(ValueError, match=r"conventions = reference.*triplane"):
        make_model(config)


def test_near_and_far_are_chosen_so_that_every_camera_sees_the_whole_box() -> None:
    config = model_config(view_radius=0.0, view_focal=0.0)
    config.field.near = config.field.far = 0.0
    config.field.box = (1.0, 2.0, 2.0)
    azimuth, elevation = torch.tensor([0.0, 1.0, 2.0]), torch.zeros(3)
    cameras = orbit_labels(azimuth, elevation, torch.tensor([2.0, 2.5, 2.6]), focal=1.4)
    fit_to_cameras(config, cameras)
    # Half the diagonal of the box is 1.5.
    assert config.field.near == pytest.approx(0.5)
    assert config.field.far == pytest.approx(4.1)
    assert config.view_radius == pytest.approx(2.5)
    assert config.view_focal == pytest.approx(1.4)


def test_chosen_near_far_and_view_are_left_alone() -> None:
    config = model_config()
    fit_to_cameras(config, labels(4))
    assert (config.field.near, config.field.far) == (1.0, 3.0)
    assert (config.view_radius, config.view_focal) == (1.9, 1.5)


def test_cameras_inside_the_box_start_at_zero() -> None:
    config = model_config()
    config.field.near = config.field.far = 0.0
    fit_to_cameras(config, orbit_labels(torch.zeros(1), torch.zeros(1), 0.2))
    assert config.field.near == 0


def test_camera_outside_of_the_sphere_is_refused() -> None:
    far_away = orbit_labels(torch.zeros(2), torch.zeros(2), torch.tensor([2.0, 3.5]))
    with pytest.raises(ValueError, match=r"sphere.radius = 3.0.*3.500"):
        fit_to_cameras(model_config(), far_away)
    config = model_config(background=False)
    config.field.far = 9.0
    fit_to_cameras(config, far_away)


def test_camera_that_sees_nothing_of_the_box_is_refused() -> None:
    cameras = labels(4)
    # The last one is turned around.
    cameras[3, [0, 4, 8, 2, 6, 10]] *= -1
    with pytest.raises(ValueError, match=r"field\.box = .*sees nothing"):
        fit_to_cameras(model_config(), cameras)


def test_all_that_needs_camera_labels_is_named_at_once() -> None:
    config = ballgan_tiny()
    check_labels(config, labelled=True)
    with pytest.raises(ValueError, match="no camera labels") as error:
        check_labels(config, labelled=False)
    told = str(error.value)
    assert "discriminator.camera-conditioning False, " in told
    assert "losses.camera 0 (it is 1.0), " in told
    assert "losses.wrong-camera 0 (it is 0.5)" in told
    config.discriminator.camera_conditioning = False
    config.losses.camera = config.losses.wrong_camera = 0.0
    check_labels(config, labelled=False)
    validate(config)


def test_batches_that_do_not_divide_are_refused() -> None:
    config = model_config()
    with pytest.raises(ValueError, match="batch_size = 0: give 1 image or more"):
        validate_batch(config, 0)
    config.discriminator.minibatch_group = 4
    for batch in (1, 2, 3, 4, 8):
        validate_batch(config, batch)
    with pytest.raises(ValueError, match=r"batch_size = 6.*minibatch_group = 4"):
        validate_batch(config, 6)
    config.schedule.scenes_per_batch = 3
    with pytest.raises(ValueError, match=r"batch_size = 4.*scenes_per_batch = 3"):
        validate_batch(config, 4)


def test_model_is_not_changed_by_its_own_average() -> None:
    model = make_model().train()
    assert model.generator.training
    assert not model.generator_ema.training
    assert not any(p.requires_grad for p in model.generator_ema.parameters())
    groups = model.get_param_groups()
    assert set(groups) == {"generator", "discriminator"}
    trained = {id(p) for group in groups.values() for p in group}
    assert len(trained) == sum(len(group) for group in groups.values())
    assert trained == {
        id(p)
        for name, p in model.named_parameters()
        if not name.startswith(("generator_ema.", "device_indicator_param"))
    }


def test_average_follows_the_generator_after_every_step() -> None:
    config = model_config(ema_kimg=0.004, ema_rampup=0.0)
    model = make_model(config)
    before = copy.deepcopy(model.generator_ema.state_dict())
    losses, _ = model.training_losses(images(4), labels(4), labels(4), 0, 1)
    sum(losses.values(), torch.zeros(())).backward()
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.add_(1.0)
    attributes = TrainingCallbackAttributes(None, None, None, None)  # type: ignore[arg-type]
    (callback,) = model.get_training_callbacks(attributes)
    callback.run_callback(0)
    # A batch of 4 images is one half-life of 0.004 kimg: the average moves half of the way.
    for name, parameter in model.generator_ema.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.5)
    mean = model.generator.mapping.w_avg
    assert mean.abs().max() > 0
    assert torch.equal(model.generator_ema.mapping.w_avg, mean)


@pytest.mark.parametrize("start", [model_config, upsampled_config])
def test_state_dict_holds_both_generators_and_all_of_training_and_loads_back(start) -> None:
    model = make_model(start())
    state = model.state_dict()
    parts = {name.split(".")[0] for name in state}
    assert parts == {"generator", "generator_ema", "objective", "device_indicator_param"}
    assert "objective.images_seen" in state
    other = make_model(start())
    camera = labels_to_cameras(labels(1), 8, 8)
    first, second = (m.get_outputs_for_camera(camera)["rgb"] for m in (model, other))
    assert not torch.allclose(first, second)
    other.load_state_dict(state, strict=True)
    # Another number of images seen makes another Scene.
    other.objective.images_seen += 1
    torch.testing.assert_close(other.get_outputs_for_camera(camera)["rgb"], first)


def test_scene_is_kept_until_weights_or_controls_change() -> None:
    model = make_model()
    first = model.scene().scene
    assert model.scene().scene is first
    model.controls.seed.value = 3
    second = model.scene().scene
    assert second is not first
    model.objective.images_seen += 4
    assert model.scene().scene is not second


def test_a_viewer_knows_empty_space_from_the_third_picture_of_a_scene_on() -> None:
    config = model_config(samples=20, importance_samples=20)
    model = make_model(config)
    for _ in range(4):
        assert model.scene().occupancy is None, "without a viewer every sample is looked up"
    model.controls._panel = SimpleNamespace(split=False, output_render="rgb")  # type: ignore[assignment]
    model.controls.seed.value = 3
    # A still view takes two pictures.
    assert [model.scene().occupancy for _ in range(2)] == [None, None]
    third = model.scene().occupancy
    assert third is not None
    assert model.scene().occupancy is third
    model.controls.seed.value = 4
    assert model.scene().occupancy is None
    model.controls._training = True
    assert [model.scene().occupancy for _ in range(4)] == [None] * 4
    few = make_model(model_config(samples=6, importance_samples=4))
    few.controls._panel = model.controls._panel
    assert [few.scene().occupancy for _ in range(4)] == [None] * 4
    published = make_model(model_config(samples=20, importance_samples=20, conventions="reference"))
    published.controls._panel = model.controls._panel
    assert [published.scene().occupancy for _ in range(4)] == [None] * 4


def test_configuration_names_the_scene_that_is_shown() -> None:
    config = model_config(seed=5, background_seed=6, truncation=0.5)
    request, _ = make_model(config).request()
    assert (request.seed, request.background_seed, request.truncation) == (5, 6, 0.5)


@pytest.mark.parametrize("start", [model_config, upsampled_config])
def test_outputs_of_a_camera(start) -> None:
    outputs = make_model(start()).get_outputs_for_camera(labels_to_cameras(labels(1), 12, 10))
    channels = {
        "rgb": 3,
        "foreground": 3,
        "background": 3,
        "depth": 1,
        "accumulation": 1,
        "normals": 3,
    }
    assert {name: value.shape for name, value in outputs.items()} == {
        name: (10, 12, count) for name, count in channels.items()
    }
    for name in ("rgb", "foreground", "background", "accumulation", "normals"):
        assert outputs[name].min() >= 0
        assert outputs[name].max() <= 1 + 1e-6


def test_outputs_of_rays_are_those_of_the_image() -> None:
    model = make_model()
    camera = labels_to_cameras(labels(1), 8, 8)
    image = model.get_outputs_for_camera(camera)
    bundle: RayBundle = camera.generate_rays(0).flatten()
    rays = model.get_outputs(bundle)
    for name, value in rays.items():
        torch.testing.assert_close(value, image[name].flatten(0, 1))


def test_rgba_has_the_opacity_of_the_foreground() -> None:
    model = make_model()
    outputs = model.get_outputs_for_camera(labels_to_cameras(labels(1), 8, 8))
    rgba = model.get_rgba_image(outputs)
    assert torch.equal(rgba[..., :3], outputs["rgb"])
    assert torch.equal(rgba[..., 3:], outputs["accumulation"])


def test_what_is_shown_follows_the_schedule_of_the_rendered_size() -> None:
    config = changed(upsampled_config(), "schedule.neural_resolution_final", 16)
    config.schedule.neural_resolution_fade_kimg = 1.0
    config.super_resolution.channels = (8, 8)
    model = make_model(config)
    assert model.generator.superresolution is not None
    assert model.generator.superresolution.input_size == 16
    sizes = []
    for seen in (0, 500, 2000):
        model.images_seen.fill_(seen)
        model._last_batch = 4
        model.after_step(0)
        images = model.generator_ema.render(model.make_scene(SceneRequest()), labels(1))
        assert images.image.shape[2:] == (16, 16)
        sizes.append(images.raw.shape[2])
    assert sizes == [8, 12, 16]
    # A checkpoint that is opened shows the same.
    opened = make_model(copy.deepcopy(config))
    opened.load_state_dict(model.state_dict())
    assert (opened.generator_ema.neural_resolution, opened.generator.neural_resolution) == (16, 8)


def test_losses_need_the_gan_pipeline() -> None:
    with pytest.raises(ValueError, match="GanPipeline"):
        make_model().get_loss_dict({}, {})


def test_camera_noise_and_clamp_reach_the_discriminator() -> None:
    config = model_config()
    config.discriminator.camera_noise = 0.25
    config.discriminator.clamp = None
    config.losses.camera = 1.0
    critic = make_model(config).objective.discriminator
    assert isinstance(critic, DualDiscriminator)
    assert critic.disc_c_noise == 0.25
    assert critic.b4.camera is not None
    assert math.isclose(critic.mbstd_group, config.discriminator.minibatch_group)


def test_a_batch_of_one_has_no_wrong_camera() -> None:
    config = changed(model_config(), "losses.wrong_camera", 0.5)
    with pytest.raises(ValueError, match=r"batch_size = 1: .*wrong_camera = 0.5 needs another"):
        validate_batch(config, 1)
    validate_batch(model_config(), 1)


@pytest.mark.parametrize(("bf16", "amx"), [(False, False), (True, False), (False, True)])
def test_bfloat16_is_chosen_where_the_processor_computes_with_it(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, amx: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    cpu = torch.device("cpu")
    chosen = torch.bfloat16 if bf16 or amx else torch.float32
    assert convolution_dtype("auto", cpu) == chosen
    assert convolution_dtype("auto", torch.device("cuda")) == torch.float32
    assert convolution_dtype("float32", cpu) == torch.float32
    assert convolution_dtype("bfloat16", cpu) == torch.bfloat16


def test_precision_reaches_the_player_that_learns_and_not_what_is_shown() -> None:
    model = make_model(model_config(convolutions="bfloat16"))
    model.prepare_training()
    assert model.objective.dtype == torch.bfloat16
    assert isinstance(model.generator.field, TriPlane)
    assert isinstance(model.generator_ema.field, TriPlane)
    assert model.generator.field.synthesis.training_dtype == torch.bfloat16
    assert model.generator_ema.field.synthesis.training_dtype == torch.float32
    upsampled = changed(upsampled_config(), "convolutions", "bfloat16")
    model = make_model(upsampled)
    model.prepare_training()
    found = (model.generator.superresolution, model.generator_ema.superresolution)
    assert [part and part.training_dtype for part in found] == [torch.bfloat16, torch.float32]
