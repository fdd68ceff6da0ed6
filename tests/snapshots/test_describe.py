"""Settings found in a snapshot: those of its layers arrive, and each of a wrong kind is named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.snapshots.describe import describe
from nerfstudio_gan3d.snapshots.reader import SnapshotError, SnapshotModule, read_snapshot
from tests.snapshots.networks import (
    LATENT,
    discriminator,
    discriminator_description,
    generator,
    generator_description,
    snapshot,
)
from tests.snapshots.official_pickle import write_snapshot

Networks = dict[str, SnapshotModule]
# Places of attributes: the network's name and the dotted path of a module, or the options.
STATISTICS = "D.b4.mbstd"
JUDGE = "D"
JUDGE_LAYER = "D.mapping.fc0"
LAYER = "G_ema.backbone.mapping.fc0"
OPTIONS = "G_ema.rendering_kwargs"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """A generator and a discriminator as official files hold them."""
    path = tmp_path_factory.mktemp("official") / "network.pkl"
    return read_snapshot(snapshot(path, generator())).networks


def attributes(networks: Networks, place: str) -> dict[str, Any]:
    name, _, path = place.partition(".")
    if place == OPTIONS:
        return networks[name].attributes[path]
    module = networks[name].at(path)
    assert module is not None
    return module.attributes


def settings(networks: Networks) -> GanModelConfig:
    return describe(networks["G_ema"], networks["D"]).settings


def test_settings_of_layers_arrive(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    # A layer's gain is its multiplier over the root of its inputs: latent and pose, 16 each. The
    # discriminator's mapping network takes its own 8 channels.
    for place, name, value in (
        (LAYER, "weight_gain", 0.02 / math.sqrt(2 * LATENT)),
        (JUDGE_LAYER, "weight_gain", 0.5 / math.sqrt(8)),
        (STATISTICS, "group_size", 8),
        (JUDGE, "disc_c_noise", 0.25),
    ):
        monkeypatch.setitem(attributes(networks, place), name, value)
    found = settings(networks)
    assert found.latent.lr_multiplier == 0.02
    assert found.discriminator.lr_multiplier == 0.5
    assert found.discriminator.minibatch_group == 8
    assert found.discriminator.camera_noise == 0.25


def test_what_the_layers_do_not_say_is_as_published(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(attributes(networks, STATISTICS), "group_size")
    monkeypatch.delitem(attributes(networks, JUDGE), "disc_c_noise")
    found = settings(networks)
    assert found.latent.lr_multiplier == 0.01
    assert found.discriminator.lr_multiplier == 0.01
    assert found.discriminator.minibatch_group == 4
    assert found.discriminator.camera_noise == 0
    assert found.discriminator.clamp == 256


@pytest.mark.parametrize(
    ("place", "name", "value", "told"),
    [
        (STATISTICS, "group_size", "four", "'four': a number is needed"),
        (STATISTICS, "group_size", None, "None: a number is needed"),
        (STATISTICS, "group_size", True, "True: a number is needed"),
        (STATISTICS, "group_size", [4], "[4]: a number is needed"),
        (STATISTICS, "group_size", 0, "0: a whole number of at least 1 is needed"),
        (STATISTICS, "group_size", 2.5, "2.5: a whole number of at least 1 is needed"),
        (JUDGE, "disc_c_noise", "much", "'much': a number is needed"),
        (JUDGE, "disc_c_noise", False, "False: a number is needed"),
        (JUDGE, "disc_c_noise", math.nan, "nan: a number is needed"),
        (JUDGE, "disc_c_noise", torch.tensor(0.5), "tensor(0.5000): a number is needed"),
        ("D.b128.conv0", "conv_clamp", "high", "'high': a number is needed"),
        (JUDGE_LAYER, "weight_gain", "x" * 99, f"'{'x' * 56}...: a number is needed"),
        (JUDGE_LAYER, "weight_gain", 0, "0.0: it must be positive"),
        (LAYER, "weight_gain", None, "None: a number is needed"),
        (LAYER, "weight_gain", math.inf, "inf: a number is needed"),
        (LAYER, "weight_gain", -0.5, "-0.5: it must be positive"),
        (OPTIONS, "depth_resolution", "many", "'many': a number is needed"),
        (OPTIONS, "depth_resolution", True, "True: a number is needed"),
        (OPTIONS, "depth_resolution", 6.5, "6.5: a whole number of at least 4 is needed"),
        (OPTIONS, "depth_resolution", 3, "3: a whole number of at least 4 is needed"),
        (OPTIONS, "depth_resolution_importance", -1, "-1: a whole number of at least 0 is needed"),
        (OPTIONS, "depth_resolution_importance", {}, "{}: a number is needed"),
        (OPTIONS, "decoder_lr_mul", 0.5, "0.5: only 1 exists here"),
    ],
)
def test_a_setting_of_a_wrong_kind_is_named(
    place: str,
    name: str,
    value: Any,
    told: str,
    networks: Networks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(attributes(networks, place), name, value)
    with pytest.raises(SnapshotError) as caught:
        settings(networks)
    assert str(caught.value) == f"{name} = {told}"


def test_the_number_of_samples_has_to_be_told(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(attributes(networks, OPTIONS), "depth_resolution")
    with pytest.raises(SnapshotError, match=r"^depth_resolution = None: a number is needed$"):
        settings(networks)


@pytest.mark.parametrize(
    ("name", "value"), [("group_size", "four"), ("disc_c_noise", "much"), ("disc_c_noise", -1)]
)
def test_the_command_names_file_and_setting_and_writes_nothing(
    name: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = discriminator_description(discriminator())
    place = judge if name == "disc_c_noise" else judge["modules"]["b4"]["modules"]["mbstd"]
    place["attributes"][name] = value
    networks = {"G_ema": generator_description(generator()), "D": judge}
    file = write_snapshot(tmp_path / "s.pkl", networks)
    assert main(["import", str(file), "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert str(file) in told
    assert name in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()
