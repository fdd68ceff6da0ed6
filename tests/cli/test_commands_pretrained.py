"""Bundles: made from a run, unpacked to a run that commands open, and refused by training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nerfstudio.utils.eval_utils import eval_setup
from safetensors.torch import load_file, save_file

from nerfstudio_gan3d import pretrained
from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.models.settings import apply_settings, plain_settings
from nerfstudio_gan3d.pretrained import bundle, unpack_file
from nerfstudio_gan3d.run import Run, load_run
from tests.export.full_disk import full_disk
from tests.training.micro import data_set, micro_config, trainer


@pytest.fixture(scope="module")
def file(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "figures.json").write_text('{"distance": 3.5}')
    bundle(load_run(trained), folder / "micro.safetensors", folder / "figures.json", "Apache-2.0")
    return folder / "micro.safetensors"


def test_an_unpacked_run_shows_the_same(file: Path, run: Run, tmp_path: Path) -> None:
    header = unpack_file(file, tmp_path / "unpacked")
    assert header["figures"] == {"distance": 3.5}
    assert header["images_seen"] == 80
    assert header["licence"] == "Apache-2.0"
    opened = load_run(tmp_path / "unpacked")
    assert opened.settings == run.settings
    assert opened.images_seen == 80
    assert opened.step == run.step
    request, labels = SceneRequest(4, truncation=0.8), run.orbit([10.0, 200.0])
    expected = run.render(run.scene(request), labels, ["rgb", "depth"])
    found = opened.render(opened.scene(request), labels, ["rgb", "depth"])
    # Weights are kept in 16 bits; a colour step of a picture is 1 / 255.
    assert (found["rgb"] - expected["rgb"]).abs().max() < 0.5 / 255
    assert (found["depth"] - expected["depth"]).abs().median() < 1e-3
    # Training would go on from the same weights for both.
    for name, value in opened.model.generator.state_dict().items():
        torch.testing.assert_close(value, opened.generator.state_dict()[name], rtol=0, atol=0)


def test_a_labelled_run_brings_its_label_maps(
    labelled: Path, labelled_run: Run, tmp_path: Path
) -> None:
    bundle(load_run(labelled), tmp_path / "labelled.safetensors")
    unpack_file(tmp_path / "labelled.safetensors", tmp_path / "unpacked")
    opened = load_run(tmp_path / "unpacked")
    assert opened.settings == labelled_run.settings
    found, kept = opened.model.label_store, labelled_run.model.label_store
    assert found is not None
    assert kept is not None
    assert torch.equal(found.maps, kept.maps)
    assert torch.equal(found.poses, kept.poses)
    assert found.maps.unique().tolist() == [0, 1, 2]
    request, cameras = SceneRequest(2, label=9), labelled_run.label_view(9).pose
    pictures = [
        one.render(one.scene(request), cameras, ["rgb", "labels"]) for one in (opened, labelled_run)
    ]
    assert (pictures[0]["rgb"] - pictures[1]["rgb"]).abs().max() < 0.5 / 255
    # Weights are kept in 16 bits: where two scores are nearly equal, rounding decides.
    apart = (pictures[0]["labels"] != pictures[1]["labels"]).any(-1)
    assert apart.float().mean() < 0.02
    # Without them it is no bundle of such a model, and no other model takes them.
    header, tensors = pretrained.read_bundle(tmp_path / "labelled.safetensors")
    maps = tensors.pop("label_store.maps")
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, {"gan3d": json.dumps(header)})
    with pytest.raises(ValueError, match="1 missing: maps"):
        unpack_file(other, tmp_path / "a")
    assert maps.dtype == torch.uint8


def test_a_bundle_without_labels_takes_no_label_maps(file: Path, tmp_path: Path) -> None:
    header, tensors = pretrained.read_bundle(file)
    assert not any(name.startswith("label_store") for name in tensors)
    other = tmp_path / "other.safetensors"
    tensors["label_store.maps"] = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    save_file(tensors, other, {"gan3d": json.dumps(header)})
    with pytest.raises(ValueError, match="1 surplus: maps"):
        unpack_file(other, tmp_path / "a")


def test_a_setting_that_a_bundle_lacks_is_the_default_and_not_the_preset_s(tmp_path: Path) -> None:
    given = {"image_resolution": 32, "field": {"hidden_dim": 16}}
    source = tmp_path / "old.safetensors"
    config = pretrained.unpacked_config(source, "gan3d-ballgan-tiny", given, tmp_path)
    model = config.pipeline.model
    assert isinstance(model, GanModelConfig)
    assert (model.image_resolution, model.field.hidden_dim) == (32, 16)
    assert (model.field.palette, model.losses.wrong_camera, model.convolutions) == (
        0,
        0.0,
        "float32",
    )


def test_the_bundled_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "ballgan-cars64"
    folder = tmp_path / "my cars"
    assert main(["pretrained", name, str(folder)]) == 0
    assert f"ns-viewer --load-config '{folder}/config.yml'" in capsys.readouterr().out
    file = Path(pretrained.__file__).parent / "assets" / f"{name}.safetensors"
    assert file.stat().st_size <= 16e6
    opened = load_run(folder)
    scene = opened.scene(SceneRequest(0))
    opacity = opened.render(scene, opened.orbit([0.0, 90.0]), ["accumulation"])["accumulation"]
    # The cars of the data set cover 9 to 44 % of an image.
    share = (opacity > 0.5).float().mean((1, 2, 3))
    assert ((share > 0.05) & (share < 0.5)).all()
    # From the side a car is longer than from the front.
    assert share[1] > share[0]
    mesh = extract_mesh(scene, 48, largest_component=True)
    assert mesh.is_watertight
    assert mesh.extents[2] > mesh.extents[0]


def test_large_weights_are_halved_and_players_left_out(file: Path, run: Run) -> None:
    tensors = load_file(file)
    whole = sum(value.numel() * 4 for value in run.generator.state_dict().values())
    kept = sum(value.numel() * value.element_size() for value in tensors.values())
    labels = tensors["datamanager.export_labels"].numel() * 4
    # Small tensors stay whole, and this model has few others.
    assert kept - labels < 0.9 * whole
    assert not any("discriminator" in name for name in tensors)


def test_nerfstudio_opens_it(file: Path, tmp_path: Path) -> None:
    unpack_file(file, tmp_path / "unpacked")
    config, pipeline, checkpoint, step = eval_setup(tmp_path / "unpacked" / "config.yml")
    assert checkpoint.parent == tmp_path / "unpacked" / "nerfstudio_models"
    # The viewer writes its log to the run's folder, which has to exist.
    assert config.get_base_dir() == tmp_path / "unpacked"
    assert step == 19
    assert not pipeline.training


def test_training_does_not_continue_from_it(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unpack_file(file, tmp_path / "unpacked")
    config = micro_config(
        data_set(tmp_path / "data"),
        tmp_path / "outputs",
        load_dir=tmp_path / "unpacked" / "nerfstudio_models",
    )
    with pytest.raises(SystemExit) as stop:
        trainer(config)
    assert stop.value.code == 2
    assert "holds a generator for inference alone" in capsys.readouterr().err


def test_settings_survive_as_json() -> None:
    settings = GanModelConfig(view_radius=1.5)
    settings.field.box = (0.25, 0.5, 1.0)
    settings.super_resolution.channels = (12, 6)
    text = json.dumps(plain_settings(settings))
    again = GanModelConfig()
    apply_settings(again, json.loads(text))
    assert again == settings
    with pytest.raises(ValueError, match=r"no setting model\.field\.colour"):
        apply_settings(again, {"field": {"colour": 1}})


def test_what_cannot_be_unpacked_is_refused(file: Path, tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not an empty folder"):
        unpack_file(file, used)
    with pytest.raises(ValueError, match="not an empty folder"):
        unpack_file(file, used / "thesis.tex")
    other = tmp_path / "other.safetensors"
    with pytest.raises(ValueError, match="not a packed run"):
        unpack_file(other, tmp_path / "a")
    other.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a packed run"):
        unpack_file(other, tmp_path / "a")
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="not a packed run"):
        unpack_file(other, tmp_path / "a")

    header, tensors = pretrained.read_bundle(file)
    del tensors["generator.mapping.w_avg"]
    save_file(tensors, other, {"gan3d": json.dumps(header)})
    with pytest.raises(ValueError, match=r"1 missing: mapping\.w_avg"):
        unpack_file(other, tmp_path / "a")
    save_file(tensors, other, {"gan3d": json.dumps({**header, "method": "gan3d-none"})})
    with pytest.raises(ValueError, match="'gan3d-none', which is not installed"):
        unpack_file(other, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_full_disk_leaves_the_place_as_it_was(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "empty").mkdir()
    for folder in (elsewhere / "new" / "run", elsewhere / "empty"):
        with full_disk(bytes_left=1000):
            assert main(["pretrained", "ballgan-cars64", str(folder)]) == 2
        file = folder / "nerfstudio_models" / "step-000019074.ckpt"
        assert f"gan3d: {file}: could not be written (" in capsys.readouterr().err
    assert [path.name for path in elsewhere.rglob("*")] == ["empty"]


def test_an_interrupted_run_leaves_the_place_as_it_was(
    file: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    # The checkpoint is there then, and its config.yml is not.
    monkeypatch.setattr(pretrained, "replaced", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack_file(file, elsewhere / "new" / "run")
    assert not list(elsewhere.iterdir())


def test_places_that_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "file"
    taken.touch()
    for folder, sentence in (
        (taken, f"the folder to write to is {taken}, which is a file; give a folder."),
        (taken / "new", f"{taken} is a file and no folder."),
        (Path("/proc/new"), "nothing can be written to the folder /proc"),
    ):
        assert main(["pretrained", "ballgan-cars64", str(folder)]) == 2
        assert sentence in capsys.readouterr().err


def test_the_bundled_labelled_checkpoint(tmp_path: Path) -> None:
    name = "pix2pix3d-cars64"
    assert main(["pretrained", name, str(tmp_path / "cars")]) == 0
    file = Path(pretrained.__file__).parent / "assets" / f"{name}.safetensors"
    assert file.stat().st_size <= 16e6
    opened = load_run(tmp_path / "cars")
    store = opened.model.label_store
    assert store is not None
    assert store.labels.class_names == ("background", "body", "glass", "wheel", "trim", "light")
    right = torch.zeros(2)
    with torch.no_grad():
        for index in range(8):
            pose = store.poses[index : index + 1]
            found = opened.generator.render(opened.scene(SceneRequest(label=index)), pose)
            assert found.labels is not None
            same = found.labels.argmax(1)[0] == store.maps[index, 0]
            thing = store.maps[index, 0] > 0
            right += torch.stack([same.float().mean(), same[thing].float().mean()])
    # Held-out maps; all background would have 0.75 and 0.
    assert right[0] / 8 > 0.88
    assert right[1] / 8 > 0.65


def test_the_bundled_surface_checkpoint(tmp_path: Path) -> None:
    """Its figures are in the README: all of 100 meshes closed. Three seeds, on a coarse grid."""
    name = "3dgen-cars64"
    assert main(["pretrained", name, str(tmp_path / "cars")]) == 0
    file = Path(pretrained.__file__).parent / "assets" / f"{name}.safetensors"
    assert file.stat().st_size <= 16e6
    header, _ = pretrained.read_bundle(file)
    assert header["figures"]["mesh_watertight"] >= 0.8
    assert not any("/" in str(value) for value in header["figures"].values())
    opened = load_run(tmp_path / "cars", device="cpu")
    for seed in range(3):
        scene = opened.scene(SceneRequest(seed=seed))
        mesh = extract_mesh(scene, 48, color="none", largest_component=True)
        assert mesh.is_watertight
        # Cars stand on the ground plane's axes: longer (z) than wide (x), and wider than nothing.
        wide, high, long = mesh.extents
        assert 0.7 < long <= 1.04
        assert 0.25 < wide < long
        assert 0.15 < high < long


def test_the_bundled_reconstruction_checkpoint(tmp_path: Path) -> None:
    """Its figures are in the README: 36 dB from the own view of 200 held-out images. The kept ones
    are held out, too."""
    name = "g3dr-cars64"
    assert main(["pretrained", name, str(tmp_path / "cars")]) == 0
    file = Path(pretrained.__file__).parent / "assets" / f"{name}.safetensors"
    assert file.stat().st_size <= 16e6
    header, _ = pretrained.read_bundle(file)
    assert header["figures"]["canonical_psnr"] >= 24
    assert header["figures"]["novel_psnr"] > header["figures"]["novel_psnr_plane"]
    opened = load_run(tmp_path / "cars", device="cpu")
    store = opened.model.image_store
    assert store is not None
    own = opened.generator.canonical_labels(1)
    for index in range(4):
        view = store.view(index)
        scene = opened.scene(SceneRequest(image=view))
        found = opened.render(scene, own, ["rgb", "depth"])
        target = view.image.movedim(1, -1).float() / 255
        error = (found["rgb"] - target).square().mean()
        assert -10 * error.log10() > 28
        # A wall behind and a car before it: most of the depth is where it was said to be.
        assert (found["depth"][..., 0] - view.distance[:, 0]).abs().median() < 0.02
