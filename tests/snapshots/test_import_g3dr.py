"""`gan3d import` of G3DR's checkpoints: torch's files, read as data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.g3dr import G3drModelConfig, g3dr, make_image_generator
from nerfstudio_gan3d.models.image_generator import ImageGenerator
from nerfstudio_gan3d.run import load_run
from nerfstudio_gan3d.snapshots.g3dr import describe, official_state, own_state, read_official
from tests.parity.fill import key_list


def settings() -> G3drModelConfig:
    """A small network of the published kind."""
    config = g3dr()
    config.conventions, config.ray_bounds = "reference", "box"
    config.image_resolution = 16
    config.unet.width, config.unet.multipliers = 8, (1, 2)
    config.unet.position_channels = 4
    config.planes.channels, config.planes.hidden_dim = 6, 10
    config.samples = config.importance_samples = 8
    return config


def network() -> ImageGenerator:
    torch.manual_seed(5)
    return make_image_generator(settings()).eval()


def official(made: ImageGenerator, prefix: str = "module.") -> dict[str, Tensor]:
    """The tensors as the published training stores them."""
    return {prefix + name: value for name, value in official_state(made.state_dict()).items()}


def write(path: Path, state: dict[str, Tensor], **others: object) -> Path:
    torch.save({"step": 300_000, "model": state, "opt": {"state": {}}, **others}, path)
    return path


def test_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        full = make_image_generator(g3dr())
    state = official_state(full.state_dict())
    published = {name: shape for name, shape, _ in key_list("g3dr_128")}
    assert {name: tuple(value.shape) for name, value in state.items()} == published
    assert len(published) == 279
    assert list(own_state(state)) == list(full.state_dict())


def test_settings_are_read_off_the_tensors() -> None:
    found = describe(official_state(network().state_dict()))
    wanted = settings()
    assert found.unet == wanted.unet
    assert found.planes == wanted.planes
    assert found.image_resolution == 16
    assert (found.conventions, found.ray_bounds) == ("reference", "box")
    with torch.device("meta"):
        full = make_image_generator(g3dr())
    assert describe(official_state(full.state_dict())).unet == g3dr().unet


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_an_imported_run_makes_the_same_scene(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    made = network()
    source = write(tmp_path / "checkpoint_generic.pt", official(made, prefix))
    output = tmp_path / "run"
    assert main(["import", str(source), "--output", str(output), "--sampling", "reference"]) == 0
    told = capsys.readouterr().out
    assert "gan3d-g3dr, 16 px" in told
    assert "licence" in told
    run = load_run(output, device="cpu")
    generator = torch.Generator().manual_seed(1)
    view = ImageView(
        torch.randint(0, 256, (1, 3, 16, 16), generator=generator, dtype=torch.uint8),
        4 + 2 * torch.rand(1, 1, 16, 16, generator=generator),
    )
    positions = torch.rand(1, 50, 3, generator=generator) * 2 - 1
    found = run.scene(SceneRequest(image=view)).field.query(positions)
    with torch.no_grad():
        wanted = made.scene(view.condition(torch.device("cpu"))).field.query(positions)
    torch.testing.assert_close(found.raw_density, wanted.raw_density)
    torch.testing.assert_close(found.features, wanted.features)
    # It can be trained further: the networks' settings travel with the weights.
    saved = torch.load(output / "nerfstudio_models" / "step-000000000.ckpt", weights_only=True)
    assert json.loads(saved["networks"])["unet"]["width"] == 8
    assert "inference_only" not in saved


def refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    output = tmp_path / "out"
    assert main(["import", str(source), "--output", str(output), *options]) == 2
    assert not output.exists()
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "whole.pt", official(network())).read_bytes()
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(whole[: len(whole) // 2])
    assert f"{damaged}: damaged" in refused(damaged, tmp_path, capsys)
    other = tmp_path / "other.pt"
    torch.save({"model": {"weight": torch.zeros(3)}}, other)
    assert "not the networks of G3DR" in refused(other, tmp_path, capsys)
    number = tmp_path / "number.pt"
    torch.save(3, number)
    assert "no dictionary `model`" in refused(number, tmp_path, capsys)
    code = tmp_path / "code.pt"
    torch.save({"model": official(network()), "hidden": LabelConfig()}, code)
    assert "more than tensors" in refused(code, tmp_path, capsys)
    state = official(network())
    del state["module.ups.0.0.block1.proj.weight"]
    lacking = write(tmp_path / "lacking.pt", state)
    assert "unet.ups.0.0.block1.proj.weight" in refused(lacking, tmp_path, capsys)
    source = write(tmp_path / "good.pt", official(network()))
    assert "--focal" in refused(source, tmp_path, capsys, "--focal", "3")


def test_a_wrapper_is_taken_away_only_where_all_have_it(tmp_path: Path) -> None:
    state = official(network(), "")
    state["module.surplus"] = torch.zeros(1)
    source = write(tmp_path / "mixed.pt", state)
    assert "module.surplus" in read_official(source)


def test_layers_that_do_not_fit_are_refused() -> None:
    state = official_state(network().state_dict())
    state["init_conv.weight"] = torch.zeros(8, 9, 7, 7)
    with pytest.raises(ValueError, match="do not fit"):
        describe(state)
    del state["pos_embed"]
    with pytest.raises(ValueError, match="pos_embed"):
        describe(state)
