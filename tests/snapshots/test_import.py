"""`gan3d import`: an official file's weights, settings and rules arrive in a run that works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nerfstudio_gan3d.cameras import labels_to_cameras, orbit_labels, pixel_rays
from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from nerfstudio_gan3d.rendering.renderer import Jitter, RenderSettings, render
from nerfstudio_gan3d.run import Run, load_run
from nerfstudio_gan3d.scene import Condition
from nerfstudio_gan3d.snapshots.describe import plane_axes
from nerfstudio_gan3d.snapshots.official_names import generator_state, official_state
from nerfstudio_gan3d.snapshots.reader import SnapshotError
from tests.snapshots.networks import (
    LATENT,
    MENDED_PLANES,
    NEURAL,
    PUBLISHED_PLANES,
    SIZE,
    discriminator,
    discriminator_description,
    generator,
    generator_description,
    snapshot,
)
from tests.snapshots.official_pickle import write_snapshot

LABELS = orbit_labels(torch.tensor([0.2, 2.5]), torch.tensor([0.1, 0.6]), 1.9, focal=1.6)


def imported(source: Path, output: Path, *options: str) -> Run:
    assert main(["import", str(source), "--output", str(output), *options]) == 0
    return load_run(output, device="cpu")


@torch.no_grad()
def image(made: Generator) -> torch.Tensor:
    """Two Scenes by the published rules, with draws that a seed repeats."""
    source = torch.Generator().manual_seed(3)
    z, behind = torch.randn(2, 2, LATENT, generator=source)
    scene = made.scene(made.map(Condition(z, behind, LABELS.flip(0)), 0.7, 3))
    origins, directions = pixel_rays(LABELS, NEURAL, NEURAL)
    torch.manual_seed(4)
    jitter = Jitter.draw(2, NEURAL**2, made.settings, torch.device("cpu"))
    found = render(scene, origins, directions, made.settings, jitter)
    images = made.finish(scene, found, NEURAL, NEURAL)
    return torch.cat([images.image.flatten(), images.raw.flatten(), found.distance.flatten()])


@pytest.mark.parametrize(
    ("kind", "options", "rendering"),
    [
        ("eg3d", {}, {}),
        ("eg3d", {"white_back": True}, {"white_back": True}),
        ("eg3d", {"box_bounds": True}, {"ray_start": "auto", "ray_end": "auto"}),
        ("eg3d", {"axes": "xy_xz_zy"}, {"planes": MENDED_PLANES}),
        ("ballgan", {"background": "ver1"}, {}),
        ("ballgan", {"background": "ver0"}, {}),
    ],
)
def test_an_imported_generator_renders_what_the_original_does(
    kind: str, options: dict[str, Any], rendering: dict[str, Any], tmp_path: Path
) -> None:
    original = generator(**options)
    file = tmp_path / "network-snapshot-000512.pkl"
    write_snapshot(file, {"G_ema": generator_description(original, **rendering)})
    run = imported(file, tmp_path / "run", "--sampling", "reference")
    assert run.config.method_name == f"gan3d-{kind}"
    assert run.images_seen == 512_000
    expected, found = image(original), image(run.generator)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_both_generators_and_the_discriminator_arrive(tmp_path: Path) -> None:
    averaged, trained, judge = generator(seed=0), generator(seed=5), discriminator()
    file = write_snapshot(
        tmp_path / "s.pkl",
        {
            "G": generator_description(trained),
            "G_ema": generator_description(averaged),
            "D": discriminator_description(judge),
        },
    )
    run = imported(file, tmp_path / "run")
    model = run.model
    for own, given in ((model.generator_ema, averaged), (model.generator, trained)):
        for name, value in given.state_dict().items():
            if name != "superresolution.resample_filter":
                assert torch.equal(own.state_dict()[name], value), name
    own = model.objective.discriminator
    assert isinstance(own, DualDiscriminator)
    assert own.b4.group_size == 2
    pair = torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 3, NEURAL, NEURAL)
    judge.b4.group_size = 2
    with torch.no_grad():
        torch.testing.assert_close(own(*pair, LABELS), judge(*pair, LABELS))
    assert run.settings.discriminator.mapping_layers == 2
    assert int(model.objective.images_seen) == 25_000_000


def test_settings_of_the_file_arrive(tmp_path: Path) -> None:
    file = snapshot(
        tmp_path / "s.pkl",
        generator("ver1"),
        c_gen_conditioning_zero=True,
        superresolution_noise_mode="const",
        sr_antialias=False,
    )
    settings = imported(file, tmp_path / "run", "--focal", "1.5").settings
    assert settings.sampling == "corrected"
    assert settings.conventions == "reference"
    assert settings.field.box == (1.1, 1.1, 1.1)
    assert (settings.field.near, settings.field.far) == (1.0, 2.8)
    assert (settings.samples, settings.importance_samples) == (6, 5)
    assert (settings.neural_resolution, settings.image_resolution) == (NEURAL, SIZE)
    assert settings.super_resolution.input_resolution == 64
    assert settings.super_resolution.channels == (8, 4)
    assert settings.super_resolution.noise == "const"
    assert not settings.super_resolution.antialias
    assert settings.latent.pose_scale == 0
    assert (settings.latent.z_dim, settings.latent.w_dim) == (LATENT, LATENT)
    assert settings.sphere.mapping_layers == 3
    assert (settings.view_radius, settings.view_focal) == (1.9, 1.5)
    assert settings.view_pivot == (0, pytest.approx(0.1), 0)


def test_corrected_sampling_shows_the_same_thing_without_flicker(tmp_path: Path) -> None:
    """Between entry into and exit from the box both rules approach one integral; with few samples
    only one of them is steady."""
    described = generator_description(generator(box_bounds=True), ray_start="auto", ray_end="auto")
    run = imported(write_snapshot(tmp_path / "s.pkl", {"G_ema": described}), tmp_path / "run")
    scene = run.scene()
    first, second = (run.generator.render(scene, LABELS[:1], 8).raw for _ in range(2))
    assert torch.equal(first, second)
    seen = []
    for rules in ("corrected", "reference"):
        run.generator.settings = RenderSettings(512, 0, rules, "box")
        # The middle of the picture; rays beside the box are treated differently.
        found = run.generator.render(scene, LABELS[:1], 8).rendering.features
        seen.append(found.unflatten(1, (8, 8))[:, 2:6, 2:6])
    assert seen[0].std() > 0.05
    torch.testing.assert_close(*seen, atol=0.01, rtol=0)


def test_tensors_are_written_under_their_official_names(tmp_path: Path) -> None:
    original = generator("ver1")
    file = snapshot(tmp_path / "s.pkl", original)
    imported(file, tmp_path / "run")
    for source in (file, tmp_path / "run"):
        output = tmp_path / f"{source.stem}.safetensors"
        assert main(["import", str(source), "--output", str(output)]) == 0
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("s", "run"))
    assert first == second
    tensors = safetensors.torch.load(first)
    assert tensors.keys() == official_state(original.state_dict()).keys()
    assert tensors["BG_Net.fc_in.weight"].shape == (8, 40, 1, 1)
    assert tensors["decoder.sigma_out.weight"].shape == (1, 8)
    again = generator_state(tensors)
    for name, value in original.state_dict().items():
        if name != "superresolution.resample_filter":
            assert torch.equal(again[name], value), name


@pytest.mark.parametrize("background", ["none", "ver0", "ver1"])
def test_official_names_and_own_names_are_inverse(background: Any) -> None:
    own = generator(background).state_dict()
    again = generator_state(official_state(own))
    assert {n: tuple(v.shape) for n, v in again.items()} == {
        n: tuple(v.shape) for n, v in own.items()
    }


def test_plane_axes_are_recognised_or_refused() -> None:
    assert plane_axes(PUBLISHED_PLANES) == "xy_xz_zx"
    assert plane_axes(MENDED_PLANES) == "xy_xz_zy"
    third = PUBLISHED_PLANES.clone()
    third[2] = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert plane_axes(third) == "xy_xz_yz"
    for wrong in (PUBLISHED_PLANES * 2, torch.zeros(3, 3, 3), PUBLISHED_PLANES[:2]):
        with pytest.raises(SnapshotError, match="plane_axes"):
            plane_axes(wrong)


def changed(**rendering: Any) -> dict[str, Any]:
    return generator_description(generator(), **rendering)


def without(name: str) -> dict[str, Any]:
    described = changed()
    *path, leaf = name.split(".")
    module = described
    for part in path:
        module = module["modules"][part]
    del module["parameters"][leaf]
    return described


def with_tensor(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    described = changed()
    *path, leaf = name.split(".")
    module = described
    for part in path:
        module = module.setdefault("modules", {}).setdefault(part, {"class_name": "Layer"})
    module.setdefault("parameters", {})[leaf] = torch.zeros(shape)
    return described


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        (lambda: changed(superresolution_module="training.sr.Mine"), "superresolution_module"),
        (lambda: changed(clamp_mode="relu"), "clamp_mode"),
        (lambda: changed(disparity_space_sampling=True), "disparity_space_sampling"),
        (lambda: changed(box_warp=-1), "box_warp"),
        (lambda: changed(box_warp="wide"), "box_warp"),
        (lambda: changed(depth_resolution=2), "depth_resolution"),
        (lambda: changed(ray_start=3.0), "ray_start"),
        (lambda: changed(planes=torch.eye(3).repeat(3, 1, 1)), "plane_axes"),
        (lambda: without("decoder.net.0.weight"), "decoder.net.0.weight"),
        (lambda: without("backbone.synthesis.b8.conv0.bias"), "synthesis.b8.conv0.bias"),
        (lambda: with_tensor("decoder.net_semantic.2.weight", (3, 3)), "pix2pix3D"),
        (lambda: with_tensor("encoder.weight", (3, 3)), "encoder.weight"),
        (lambda: with_tensor("superresolution.block0.extra", (3,)), "block0.extra"),
        (lambda: with_tensor("decoder.net.0.weight", (3,)), "decoder.net.0.weight"),
    ],
)
def test_what_cannot_be_imported_is_named(
    described: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_snapshot(tmp_path / "s.pkl", {"G_ema": described()})
    assert main(["import", str(file), "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert str(file) in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def attributed(path: str, **values: Any) -> dict[str, Any]:
    """A generator with attributes at a module that are not what they should be."""
    described = generator_description(generator("ver1"))
    module = described
    for part in filter(None, path.split(".")):
        module = module["modules"][part]
    module.setdefault("attributes", {}).update(values)
    return described


def enlarged(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """A generator of which one tensor claims a size that would need gigabytes of others."""
    described = changed()
    *path, leaf = name.split(".")
    module = described
    for part in path:
        module = module["modules"][part]
    kind = "buffers" if leaf == "w_avg" else "parameters"
    module[kind][leaf] = torch.zeros(shape)
    return described


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        (lambda: changed(avg_camera_pivot=None), "avg_camera_pivot"),
        (lambda: changed(avg_camera_pivot=[0, 0]), "avg_camera_pivot"),
        (lambda: changed(avg_camera_pivot=[0, 0, float("nan")]), "avg_camera_pivot"),
        (lambda: changed(avg_camera_radius=-1), "avg_camera_radius"),
        (lambda: changed(white_back=torch.ones(2)), "white_back"),
        (lambda: changed(ray_start=torch.ones(2)), "ray_start"),
        (lambda: changed(density_noise="much"), "density_noise"),
        (lambda: changed(superresolution_noise_mode=["const"]), "superresolution_noise_mode"),
        (lambda: attributed("", BG_kwargs={"R": float("nan")}), "R = nan"),
        (lambda: attributed("", BG_kwargs={"R": -1}), "R = -1"),
        (lambda: attributed("", BG_kwargs={"downscale_p_by": 1.0}), "downscale_p_by"),
        (lambda: attributed("", neural_rendering_resolution=True), "neural_rendering_resolution"),
        (lambda: attributed("superresolution.block0.conv1", conv_clamp="x"), "conv_clamp"),
        (lambda: enlarged("backbone.mapping.w_avg", (60_000,)), "does not fit"),
        (
            lambda: enlarged("backbone.synthesis.b4.conv1.weight", (90_000, 1, 1, 1)),
            "90000 channels",
        ),
        (lambda: without("backbone.synthesis.b8.conv0.bias"), "synthesis.b8.conv0.bias"),
    ],
)
def test_settings_of_a_wrong_kind_are_named(
    described: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_snapshot(tmp_path / "s.pkl", {"G_ema": described()})
    for target in ("run", "s.safetensors"):
        assert main(["import", str(file), "--output", str(tmp_path / target)]) == 2
        told = capsys.readouterr().err
        assert sentence in told
        assert str(file) in told
        assert not (tmp_path / target).exists()


def test_options_of_a_run_are_refused_for_a_file_of_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "s.safetensors"
    for option in (("--focal", "2"), ("--kimg", "5"), ("--sampling", "reference")):
        assert main(["import", "s.pkl", "--output", str(output), *option]) == 2
        assert option[0] in capsys.readouterr().err


def test_a_model_that_was_last_called_at_full_size_keeps_its_super_resolution(
    tmp_path: Path,
) -> None:
    described = changed()
    described["attributes"]["neural_rendering_resolution"] = SIZE
    file = write_snapshot(tmp_path / "s.pkl", {"G_ema": described})
    run = imported(file, tmp_path / "run")
    assert run.generator.superresolution is not None
    assert run.generator.neural_resolution == SIZE


def test_the_frontal_pose_is_told_unless_the_model_never_was(tmp_path: Path) -> None:
    original = generator()
    file = snapshot(tmp_path / "a.pkl", original)
    neutral = imported(file, tmp_path / "a", "--focal", "1.5").settings.latent.neutral_pose
    expected = orbit_labels(torch.zeros(1), torch.zeros(1), 1.9, (0.0, 0.1, 0.0), 1.5)
    torch.testing.assert_close(torch.tensor([neutral]), expected)
    file = snapshot(tmp_path / "b.pkl", original, c_gen_conditioning_zero=True)
    assert imported(file, tmp_path / "b").settings.latent.neutral_pose == ()


def test_wide_pictures_of_a_model_with_constant_noise(tmp_path: Path) -> None:
    """The stored pattern fits square pictures; others go without."""
    described = changed(superresolution_noise_mode="const")
    run = imported(write_snapshot(tmp_path / "s.pkl", {"G_ema": described}), tmp_path / "run")
    camera = labels_to_cameras(run.orbit([0.0]), 96, 48)
    image = run.model.get_outputs_for_camera(camera)["rgb"]
    assert image.shape == (48, 96, 3)


def test_a_folder_that_is_not_empty_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = snapshot(tmp_path / "s.pkl", generator())
    kept = tmp_path / "run" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert main(["import", str(file), "--output", str(kept.parent)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in kept.parent.iterdir()] == ["mine.txt"]
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("option", [("--focal", "-1"), ("--kimg", "-3")])
def test_impossible_options_are_refused(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "s.pkl", "--output", str(tmp_path / "run"), *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_licence_and_assumptions_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = generator_description(generator(), planes=None)
    file = write_snapshot(tmp_path / "s.pkl", {"G": described})
    imported(file, tmp_path / "run")
    told = capsys.readouterr().out
    assert "non-commercial" in told
    assert "focal length" in told
    assert "plane axes" in told
    assert "no discriminator" in told
