"""Controls of models with a shape code and an appearance code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerElement

from nerfstudio_gan3d.cameras import labels_to_cameras, orbit_labels
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.gan import GanModel, GanModelConfig
from nerfstudio_gan3d.models.threedgen import threedgen_tiny
from nerfstudio_gan3d.viewer.controls import SceneControls
from tests.models.coded import with_shapes
from tests.viewer.browser import Browser
from tests.viewer.session import ModelPipeline, build, fit_to_cars, running_viewer, wait_until


@pytest.fixture
def config() -> GanModelConfig:
    """The tiny preset of 3DGEN with small planes."""
    config = fit_to_cars(threedgen_tiny())
    config.field.triplane.plane_size = 8
    return config


@pytest.fixture
def model(config: GanModelConfig) -> GanModel:
    """An untrained model of that configuration."""
    return with_shapes(build(config))


def names(controls: SceneControls) -> list[str]:
    return [element.name for element in controls._elements()]


def test_both_codes_start_at_the_configured_seed(config: GanModelConfig) -> None:
    config.seed, config.background_seed, config.truncation = 12345, 7, 0.6
    controls = build(config).controls
    assert controls.request() == SceneRequest(12345, 7, 0.6, appearance_seed=12345)


def test_each_code_has_a_seed_and_a_path(model: GanModel) -> None:
    controls = model.controls
    assert controls.codes is not None
    controls.seed.value = 3
    controls.codes.seed.value = 4
    alone = SceneRequest(3, appearance_seed=4)
    assert controls.request() == alone
    controls.other_seed.value = 9
    # Equal requests let the model keep its Scene instead of making it again.
    assert controls.request() == alone
    controls.interpolation.value = 0.75
    assert controls.request() == SceneRequest(
        3, other_seed=9, interpolation=0.75, appearance_seed=4, appearance_interpolation=0.0
    )
    controls.interpolation.value = 0.0
    controls.codes.interpolation.value = 0.25
    assert controls.request() == SceneRequest(
        3, other_seed=9, appearance_seed=4, appearance_interpolation=0.25
    )
    controls.interpolation.value = 1.0
    assert controls.request() == SceneRequest(
        3, other_seed=9, interpolation=1.0, appearance_seed=4, appearance_interpolation=0.25
    )


def test_the_appearance_sliders_leave_the_surface_where_it_is(model: GanModel) -> None:
    camera = labels_to_cameras(orbit_labels(torch.zeros(1), torch.zeros(1), 1.9), 8, 8)
    controls = model.controls
    assert controls.codes is not None
    controls.background.value = "removed"
    first = model.get_outputs_for_camera(camera)
    for seed, place in ((5, 0.0), (0, 0.5)):
        controls.codes.seed.value, controls.codes.interpolation.value = seed, place
        found = model.get_outputs_for_camera(camera)
        for name in ("accumulation", "depth"):
            assert torch.equal(found[name], first[name])
        assert not torch.allclose(found["rgb"], first["rgb"])
    controls.seed.value = 5
    assert not torch.allclose(model.get_outputs_for_camera(camera)["depth"], first["depth"])


def test_the_folder_has_both_codes_side_by_side(model: GanModel) -> None:
    found = names(model.controls)
    assert found[:7] == [
        "Shape seed",
        "Appearance seed",
        "Truncation",
        "Truncated levels",
        "Other seed",
        "Shape: towards other seed",
        "Appearance: towards other seed",
    ]
    assert "Mix styles" in found
    assert not {"Seed", "Interpolation"} & set(found)


def test_two_latents_are_not_mixed(config: GanModelConfig) -> None:
    config.representation = "unisurf"
    controls = build(config).controls
    assert "Appearance seed" in names(controls)
    assert "Mix styles" not in names(controls)


def test_nerfstudio_finds_no_single_sliders(model: GanModel) -> None:
    """They are installed with the others, once, in the order of the folder."""
    assert parse_object(ModelPipeline(model), ViewerElement, "Custom Elements") == []


def test_a_browser_moves_the_appearance(model: GanModel, tmp_path: Path) -> None:
    with running_viewer(model, tmp_path, max_res=32) as session:
        browser = Browser(session.port)
        start = session.rest()
        browser.set("Appearance seed", 6)
        browser.set("Appearance: towards other seed", 0.5)
        wait_until(lambda: model.controls.request().appearance_interpolation == 0.5)
        session.answer(start)
        assert model.controls.request() == SceneRequest(
            0, other_seed=1, appearance_seed=6, appearance_interpolation=0.5
        )
        browser.close()
