"""3DGEN and GRAF: presets, what training moves, the shell's schedule, and settings that cannot
work."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.fields.coded import UnisurfField
from nerfstudio_gan3d.losses.surface import normal_smoothness
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.models.checks import validate
from nerfstudio_gan3d.models.config import (
    DiscriminatorConfig,
    FieldConfig,
    LabelConfig,
    LatentConfig,
    MlpConfig,
    SurfaceConfig,
)
from nerfstudio_gan3d.models.gan import GanModelConfig, make_generator, make_objective
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.objective_config import LossConfig, ScheduleConfig
from nerfstudio_gan3d.models.outputs import surface_normals
from nerfstudio_gan3d.models.threedgen import (
    graf,
    graf_tiny,
    threedgen,
    threedgen_mlp,
    threedgen_tiny,
)
from nerfstudio_gan3d.networks.patch_discriminator import PatchDiscriminator
from nerfstudio_gan3d.networks.weight_norm import WeightNormLinear
from nerfstudio_gan3d.scene import Condition
from nerfstudio_gan3d.training.ema import update_ema
from tests.models.tiny import field_config, images, labels, make_model, model_config

MLP = MlpConfig(hidden_dim=16, layers=3, octaves=2, view_octaves=1, skip=1, colour_layers=1)


def surface_config(representation: str = "triplane", **changes: Any) -> GanModelConfig:
    """A surface at 8 px, narrow from the start, whatever it is made of."""
    graf_like = representation == "graf"
    field = field_config()
    field.volume = "density" if graf_like else "occupancy"
    field.mlp = MLP
    field.surface = SurfaceConfig(shell_start=0.5, march_steps=16, secant_steps=4)
    mapped = representation not in ("unisurf", "graf")
    given: dict[str, Any] = {
        "representation": representation,
        "field": field,
        "latent": LatentConfig(16, 8, 2 if mapped else 0, 0.1, separate=True),
        "losses": LossConfig(
            density_variation_points=16,
            normal_smoothness=0.0 if graf_like else 1.0,
            normal_points=20,
        ),
        **changes,
    }
    return model_config(**given)


def step(config: GanModelConfig, generator: Generator, size: int = 8) -> dict[str, Tensor]:
    torch.manual_seed(0)
    objective = make_objective(config)
    poses = labels(4)
    return objective(generator, images(4, size), poses, labels(4, 1), 0)[0]


@pytest.mark.parametrize("preset", [threedgen, threedgen_mlp, threedgen_tiny, graf, graf_tiny])
def test_presets_are_possible(preset) -> None:
    validate(preset())


@pytest.mark.parametrize("representation", ["hashgrid", "triplane", "unisurf", "graf"])
def test_every_weight_of_the_generator_learns(representation: str) -> None:
    """Of geometry, colours and mappings, and the code columns that start at zero."""
    config = surface_config(representation)
    validate(config)
    torch.manual_seed(1)
    generator = make_generator(config)
    for parameter in generator.parameters():
        with torch.no_grad():
            parameter += 0.05 * torch.randn_like(parameter)
    sum(step(config, generator).values()).backward()  # type: ignore[union-attr]
    still = [
        name
        for name, parameter in generator.named_parameters()
        if parameter.grad is None or not bool((parameter.grad != 0).any())
    ]
    assert still == []
    assert all(bool(p.grad.isfinite().all()) for p in generator.parameters() if p.grad is not None)


def test_codes_learn_from_zero_columns() -> None:
    """The sphere is independent of the code at first; the first step's gradient is not."""
    config = surface_config("unisurf")
    torch.manual_seed(2)
    generator = make_generator(config)
    sum(step(config, generator).values()).backward()  # type: ignore[union-attr]
    assert isinstance(generator.field, UnisurfField)
    layer = generator.field.geometry.lin0
    assert isinstance(layer, WeightNormLinear)
    first = layer.weight_v
    assert first.grad is not None
    assert first[:, -8:].abs().max() == 0
    assert first.grad[:, -8:].abs().max() > 0


def test_the_schedule_of_slope_and_shell() -> None:
    """From 1, the whole ray, to 0.05 at three quarters: half way there sqrt(0.05); in object-world
    units half of the box's longest side, 1."""
    config = surface_config()
    config.field.surface = SurfaceConfig(slope=10.0, slope_final=30.0)
    generator = make_generator(config)
    expected = {
        0.0: (10.0, math.inf),
        0.375: (17.5, math.sqrt(0.05) / 2),
        0.75: (25.0, 0.025),
        1.0: (30.0, 0.025),
    }
    z = torch.randn(1, 16)
    for share, (slope, shell) in expected.items():
        generator.set_training_share(share)
        scene = generator.scene(generator.map(Condition(z, z)))
        assert scene.shell == pytest.approx(shell)
        assert isinstance(scene.field, BoundField)
        assert scene.field.slope == pytest.approx(slope)
        assert scene.volume == "occupancy"


def test_the_average_follows_the_schedule_and_a_checkpoint_keeps_it() -> None:
    config = surface_config()
    first, second = make_generator(config), make_generator(config)
    first.set_training_share(0.5)
    update_ema(second, first, 0.9)
    assert float(second.training_share) == 0.5  # type: ignore[arg-type]
    assert "training_share" in first.state_dict()
    # Runs without surfaces have no such entry, so that older checkpoints fit.
    assert "training_share" not in make_generator(model_config()).state_dict()


def test_levels_of_the_hash_grid_come_with_time() -> None:
    config = surface_config("hashgrid")
    config.field.surface.grow_share = 0.5
    generator = make_generator(config)
    for share, expected in ((0.0, [1.0, 0.0]), (0.25, [1.0, 0.5]), (0.6, [1.0, 1.0])):
        generator.set_training_share(share)
        torch.testing.assert_close(generator.field.level_weights, torch.tensor(expected))


def test_smoothness_in_the_objective() -> None:
    """With all rays of the image chosen and neighbours in place, the loss is that of the points
    that rays hit."""
    config = surface_config()
    config.losses.normal_points, config.losses.normal_distance = 64, 0.0
    generator = make_generator(config)
    for parameter in generator.field.parameters():
        with torch.no_grad():
            parameter += 0.1 * torch.randn_like(parameter)
    found = step(config, generator)["normal_smoothness"]
    # Equal places have equal normals.
    assert float(found.detach()) == pytest.approx(0.0, abs=1e-6)

    objective, poses = make_objective(config), labels(4, 1)
    config.losses.normal_distance = 0.05
    z = torch.randn(4, 16)
    scene = generator.scene(generator.map(Condition(z, z)))
    fakes = generator.render(scene, poses)
    torch.manual_seed(3)
    found = objective._normal_smoothness(scene, fakes, poses)
    surface = fakes.rendering.surface
    assert surface is not None
    origins, directions = pixel_rays(poses, 8, 8)
    valid = surface.isfinite()
    assert 20 < valid.sum() < 256
    points = origins + directions * torch.where(valid, surface, 0)
    torch.manual_seed(4)
    step_width = config.losses.normal_step / 2
    twin = normal_smoothness(scene, points, valid.squeeze(-1), 0.025, step_width)
    # Other neighbours are drawn, so the two means agree as far as 100 draws do.
    assert float(found.detach()) == pytest.approx(float(twin.detach()), rel=0.3)
    assert float(twin.detach()) > 0.01


@pytest.mark.parametrize("representation", ["hashgrid", "triplane", "unisurf"])
def test_normals_point_out_of_the_initial_sphere(representation: str) -> None:
    torch.manual_seed(5)
    config = surface_config(representation)
    config.field.box = (1.0, 1.0, 1.0)
    generator = make_generator(config)
    z = torch.randn(1, 16)
    scene = generator.scene(generator.map(Condition(z, z)))
    points = 0.3 * torch.nn.functional.normalize(torch.randn(1, 50, 3), dim=-1)
    normals = surface_normals(scene, points)
    cosine = (normals * points).sum(-1) / 0.3
    # UNISURF's initial sphere has bumps, which are larger the narrower its layers are.
    assert cosine.min() > (0 if representation == "unisurf" else 0.99)


def test_a_model_shows_all_outputs() -> None:
    """The initial ball, whose half side is 0.3 of each side of the box, in the middle of an image:
    opaque there, empty at the corners, 0.3 in front of the centre along z."""
    config = surface_config()
    config.field.box = (1.0, 1.0, 1.0)
    config.field.surface = SurfaceConfig(slope=200.0, slope_final=200.0)
    config.samples, config.importance_samples = 64, 0
    model = make_model(config)
    model.generator_ema.set_training_share(1.0)
    pose = orbit_labels(torch.zeros(1), torch.zeros(1), 1.9, focal=1.5)
    scene = model.scene()
    seen = model.generator_ema.render(scene.scene, pose, 9)
    alpha = seen.rendering.accumulation.view(9, 9)
    assert alpha[4, 4] > 0.99
    assert alpha[0, 0] < 0.01
    distance = seen.rendering.foreground_distance.view(9, 9)
    assert float(distance[4, 4]) == pytest.approx(1.6, abs=0.01)
    assert float(seen.rendering.surface.view(9, 9)[4, 4]) == pytest.approx(1.6, abs=1e-4)  # type: ignore[union-attr]


def test_patches_of_all_scales() -> None:
    """GRAF's game: patches and their own discriminator, which is told no cameras."""
    config = surface_config(
        "unisurf",
        image_resolution=64,
        neural_resolution=64,
        patch_resolution=32,
        discriminator=DiscriminatorConfig(kind="patch", channel_max=16, camera_conditioning=False),
        schedule=ScheduleConfig(blur_sigma=0.0, patches="scales"),
    )
    validate(config)
    generator = make_generator(config)
    objective = make_objective(config)
    assert isinstance(objective.discriminator, PatchDiscriminator)
    losses = step(config, generator, 64)
    assert {"generator", "discriminator", "r1", "normal_smoothness"} <= set(losses)
    assert all(bool(value.isfinite()) for value in losses.values())


def test_labels_and_surfaces_together() -> None:
    """A labelled model can be made of a surface, and then has its smoothness, too."""
    config = surface_config(labels=LabelConfig("seg", 3), latent=LatentConfig(16, 16, 2, 0.1))
    config.label_losses.lpips = 0.0
    validate(config)
    generator, objective = make_generator(config), make_objective(config)
    maps = torch.randint(0, 3, (4, 1, 8, 8), dtype=torch.uint8)
    given = images(4), labels(4), labels(4, 1), 0, 1, maps
    losses = objective(generator, *given)[0]
    assert float(losses["normal_smoothness"].detach()) > 0
    assert all(bool(value.isfinite()) for value in losses.values())


def changed(**changes: Any) -> GanModelConfig:
    return surface_config(**changes)


def with_field(representation: str = "triplane", **changes: Any) -> GanModelConfig:
    config = surface_config(representation)
    config.field = replace(config.field, **changes)
    return config


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (with_field("unisurf", volume="density"), "volume = density: .* set it to occupancy"),
        (with_field("graf", volume="occupancy"), "volume = occupancy: .* set it to density"),
        (
            changed(conventions="reference", latent=LatentConfig(16, 16)),
            "volume = occupancy exists for conventions = corrected",
        ),
        (
            changed(representation="unisurf", latent=LatentConfig(16, 16)),
            "latent.separate: representation unisurf",
        ),
        (
            changed(latent=LatentConfig(16, 16, separate=True, pose_conditioning=True)),
            "latent.separate: codes take neither a pose",
        ),
        (with_field(mlp=replace(MLP, skip=3)), "mlp.skip = 3: .* layers 1 to 2"),
        (
            with_field(surface=SurfaceConfig(shell_start=0.1, shell_end=0.2)),
            "shell_start = 0.1 and shell_end = 0.2",
        ),
        (with_field(surface=SurfaceConfig(slope=0.0)), "slope = 0.0"),
        (changed(losses=LossConfig(normal_points=0)), "normal_points = 0"),
        (with_field("unisurf", mlp=replace(MLP, octaves=3)), "hidden_dim = 16: .* exceed 21"),
        (with_field(surface=SurfaceConfig(shell_share=1.5)), "shell_share = 1.5"),
        (with_field(surface=SurfaceConfig(grow_share=0.5)), "grow_share = 0.5: .* hashgrid alone"),
        (
            with_field("hashgrid", volume="density"),
            "normal_smoothness = 1.0: a density has no surface",
        ),
        (
            changed(schedule=ScheduleConfig(patches="scales")),
            "patch_resolution = 0: .* GRAF has 32",
        ),
        (
            changed(discriminator=DiscriminatorConfig(kind="patch")),
            "camera_conditioning to False",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(config: GanModelConfig, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        validate(config)


def test_a_stored_configuration_of_an_older_version_opens() -> None:
    """config.yml of a run from before surfaces: what it lacks takes its default."""
    config = model_config()
    config.field.white_back = True
    text = yaml.dump(config)
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  surface:"))
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith("    "))
    older = yaml.load("\n".join(lines[:start] + lines[end:]), Loader=yaml.Loader)
    assert older.field.surface == SurfaceConfig()
    assert older.field.white_back
    assert FieldConfig().surface is not FieldConfig().surface
