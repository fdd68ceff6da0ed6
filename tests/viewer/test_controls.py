"""Controls name a Scene exactly, and a checkpoint does not know them."""

import re
from typing import Any

import pytest
import torch
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerElement

from nerfstudio_gan3d.cameras import camera_angles, labels_to_cameras, orbit_labels
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig
from nerfstudio_gan3d.models.outputs import Backdrop
from nerfstudio_gan3d.viewer.controls import OUTPUTS
from tests.viewer.session import ModelPipeline, build


def test_defaults_are_those_of_the_configuration(config: GanModelConfig) -> None:
    config.seed, config.background_seed, config.truncation = 12345, 7, 0.6
    controls = build(config).controls
    assert controls.request() == SceneRequest(12345, 7, 0.6)
    assert controls.backdrop() == Backdrop("own", (1.0, 1.0, 1.0))
    assert controls.shown_output() is None


def test_every_control_reaches_the_request(model: GanModel) -> None:
    controls = model.controls
    controls.seed.value = 3
    controls.truncation.value = 0.25
    controls.other_seed.value = 9
    controls.interpolation.value = 0.75
    controls.mix.value = True
    controls.mix_seed.value = 5
    controls.mix_levels.value = (4, 2)
    controls.background.value = "another seed's"
    controls.background_seed.value = 8
    assert controls.request() == SceneRequest(3, 8, 0.25, 9, 0.75, 5, (2, 3, 4))


def test_truncated_levels_reach_the_request_where_they_mean_something(model: GanModel) -> None:
    controls = model.controls
    assert controls.request().truncation_cutoff is None
    controls.truncation_cutoff.value = 2
    assert controls.request().truncation_cutoff is None
    controls.truncation.value = 0.5
    assert controls.request().truncation_cutoff == 2
    controls.truncation_cutoff.value = model.generator.field.num_ws
    assert controls.request().truncation_cutoff is None


def test_controls_that_are_switched_off_change_nothing(model: GanModel) -> None:
    controls = model.controls
    before = controls.request()
    controls.other_seed.value = 9
    controls.mix_seed.value = 5
    controls.mix_levels.value = (1, 1)
    controls.background_seed.value = 8
    # Equal requests let the model keep its Scene instead of making it again.
    assert controls.request() == before


def test_controls_that_mean_nothing_now_are_known(model: GanModel) -> None:
    controls = model.controls

    def applying() -> set[str]:
        return {element.name for element, applies in controls._applies().items() if applies}

    assert len(controls._applies()) == 5
    assert applying() == set()
    controls.mix.value = True
    assert applying() == {"Mixing seed", "Mixed levels"}
    controls.background.value = "another seed's"
    controls.conditioning.value = True
    controls.mix.value = False
    assert applying() == {"Background seed", "Pose azimuth", "Pose elevation"}


@pytest.mark.parametrize(
    ("choice", "mode"),
    [("own", "own"), ("another seed's", "own"), ("plain colour", "colour"), ("removed", "removed")],
)
def test_background_choices(model: GanModel, choice: str, mode: Any) -> None:
    model.controls.background.value = choice
    model.controls.colour.value = (255, 51, 0)
    assert model.controls.backdrop() == Backdrop(mode, (1.0, 0.2, 0.0))


def test_rgb_shows_the_chosen_colour_and_leaves_the_foreground(model: GanModel) -> None:
    """rgb = foreground + (1 - accumulation) * colour, so colours c and 0 differ by (1 - a) c."""
    camera = labels_to_cameras(orbit_labels(torch.zeros(1), torch.zeros(1), 1.9), 12, 12)
    controls = model.controls
    controls.background.value = "removed"
    black = model.get_outputs_for_camera(camera)
    controls.background.value = "plain colour"
    controls.colour.value = (0, 255, 51)
    coloured = model.get_outputs_for_camera(camera)
    expected = (1 - black["accumulation"]) * torch.tensor([0.0, 1.0, 0.2])
    torch.testing.assert_close(coloured["rgb"] - black["rgb"], expected, atol=1e-5, rtol=0)
    assert expected.max() > 0.5


def test_outputs_have_the_names_that_the_viewer_offers(model: GanModel) -> None:
    camera = labels_to_cameras(orbit_labels(torch.zeros(1), torch.zeros(1), 1.9), 4, 4)
    assert set(model.get_outputs_for_camera(camera)) == set(OUTPUTS)


def test_a_model_without_background_offers_none_of_another_seed(config: GanModelConfig) -> None:
    config.background = False
    assert build(config).controls.background.options == ["own", "plain colour", "removed"]


def test_conditioning_pose_is_the_camera_of_its_sliders(config: GanModelConfig) -> None:
    config.latent.pose_conditioning = True
    config.view_pivot = (0.0, 0.1, 0.0)
    controls = build(config).controls
    assert controls.request().camera_label is None
    controls.conditioning.value = True
    controls.conditioning_azimuth.value = 90.0
    controls.conditioning_elevation.value = -30.0
    label = controls.request().camera_label
    assert label is not None
    azimuth, elevation, radius = camera_angles(torch.tensor([label]), config.view_pivot)
    found = torch.stack([azimuth.rad2deg(), elevation.rad2deg(), radius])[:, 0]
    torch.testing.assert_close(found, torch.tensor([90.0, -30.0, 1.9]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": -1}, "model.seed = -1: choose a seed from 0"),
        ({"background_seed": 2**62}, "model.background_seed = 4611686018427387904: choose a seed"),
        ({"truncation": -0.1}, "model.truncation = -0.1: choose psi from 0 to 2"),
        ({"truncation_cutoff": -1}, "model.truncation_cutoff = -1: choose 0 or more"),
        ({"background": False, "background_seed": 1}, "this model has no background"),
    ],
)
def test_impossible_defaults_are_refused(
    config: GanModelConfig, changes: dict[str, Any], sentence: str
) -> None:
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build(config)


def test_checkpoints_do_not_know_the_controls(model: GanModel) -> None:
    assert "controls" not in dict(model.named_modules())
    assert not [name for name in model.state_dict() if name.startswith("controls")]


def test_nerfstudio_finds_the_controls_once(model: GanModel) -> None:
    """One control, found by its type; its elements are installed by itself and by nobody else."""
    pipeline = ModelPipeline(model)
    found = parse_object(pipeline, ViewerControl, "Custom Elements")
    assert found == [("Custom Elements/model/controls", model.controls)]
    assert parse_object(pipeline, ViewerElement, "Custom Elements") == []
