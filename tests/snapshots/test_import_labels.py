"""`gan3d import` of pix2pix3D: generator with labels, label encoder and both discriminators."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, pixel_rays
from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.data.palettes import OFFICIAL_COLOURS, SEG2CAT_CLASSES
from nerfstudio_gan3d.latents import STORED_MAPS
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.label_objective import LabelObjective
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from nerfstudio_gan3d.networks.label_encoder import encode_labels
from nerfstudio_gan3d.rendering.renderer import Jitter, render
from nerfstudio_gan3d.run import Run, load_run
from nerfstudio_gan3d.scene import Condition
from nerfstudio_gan3d.snapshots import commands
from nerfstudio_gan3d.snapshots.describe import describe
from nerfstudio_gan3d.snapshots.official_names import UNUSED, generator_state, official_state
from nerfstudio_gan3d.snapshots.reader import Snapshot, SnapshotModule, read_snapshot
from tests.snapshots.networks import (
    LATENT,
    NEURAL,
    SIZE,
    discriminator,
    discriminator_description,
    generator,
    generator_description,
    label_config,
    snapshot,
)
from tests.snapshots.official_pickle import write_snapshot

LABELS = orbit_labels(torch.tensor([0.2, 2.5]), torch.tensor([0.1, 0.6]), 1.9, focal=1.6)
NEVER_TOLD: dict[str, Any] = {"white_back": True, "c_gen_conditioning_zero": True}


def imported(source: Path, output: Path, *options: str) -> Run:
    assert main(["import", str(source), "--output", str(output), *options]) == 0
    return load_run(output, device="cpu")


@torch.no_grad()
def image(made: Generator, side: int = NEURAL) -> Tensor:
    """Images and labels of two Scenes by the published rules, with draws that a seed repeats."""
    assert made.labels is not None
    source = torch.Generator().manual_seed(3)
    z = torch.randn(2, LATENT, generator=source)
    highest = max(made.labels.classes, 2)
    maps = torch.randint(0, highest, (2, 1, SIZE, SIZE), generator=source, dtype=torch.uint8)
    if made.labels.kind == "edge":
        maps = maps * 255
    given = encode_labels(maps, made.labels.kind, made.labels.classes)
    scene = made.scene(made.map(Condition(z, None, LABELS.flip(0), given), 0.7))
    torch.manual_seed(4)
    jitter = Jitter.draw(2, side**2, made.settings, torch.device("cpu"))
    found = render(scene, *pixel_rays(LABELS, side, side), made.settings, jitter)
    images = made.finish(scene, found, side, side)
    assert images.labels is not None
    assert images.raw_labels is not None
    parts = images.image, images.raw, images.labels, images.raw_labels, found.distance
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize(
    ("classes", "method", "told", "side"),
    [
        (3, "gan3d-pix2pix3d-128", True, NEURAL),
        (1, "gan3d-pix2pix3d-edge-128", False, NEURAL),
        # Of the side that super-resolution takes, where its first block writes into its input.
        (1, "gan3d-pix2pix3d-edge-128", False, 64),
    ],
)
def test_an_imported_generator_renders_what_the_original_does(
    classes: int, method: str, told: bool, side: int, tmp_path: Path
) -> None:
    original = generator(white_back=not told, labels=label_config(classes), pose_scale=float(told))
    described = generator_description(original, **({} if told else NEVER_TOLD))
    file = write_snapshot(tmp_path / "s.pkl", {"G_ema": described})
    run = imported(file, tmp_path / "run", "--sampling", "reference")
    assert run.config.method_name == method
    expected, found = image(original, side), image(run.generator, side)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_settings_of_the_labels_arrive(tmp_path: Path) -> None:
    original = generator(labels=label_config(6, geometry_layers=1))
    run = imported(snapshot(tmp_path / "s.pkl", original), tmp_path / "run", "--focal", "1.5")
    labels = run.settings.labels
    assert (labels.kind, labels.classes, labels.geometry_layers) == ("seg", 6, 1)
    assert (labels.encoder_base, labels.encoder_max, labels.feature_dim) == (512, 8, 7)
    assert labels.class_names == SEG2CAT_CLASSES
    assert labels.palette == OFFICIAL_COLOURS[:6]
    assert run.settings.latent.pose_scale == 1
    # What belongs to training is the preset's.
    assert run.settings.label_losses.cross_view == 1e-6
    # Blank maps that are looked at from the front.
    store = run.model.label_store
    assert store is not None
    assert int(store.maps.max()) == 0
    front = orbit_labels(torch.zeros(1), torch.zeros(1), 1.9, (0.0, 0.1, 0.0), 1.5)
    torch.testing.assert_close(store.poses, front.expand(STORED_MAPS, -1))


def test_edge_maps_start_as_paper_and_their_model_never_hears_of_poses(tmp_path: Path) -> None:
    original = generator(white_back=True, labels=label_config(1), pose_scale=0.0)
    run = imported(snapshot(tmp_path / "s.pkl", original, **NEVER_TOLD), tmp_path / "run")
    assert (run.settings.labels.kind, run.settings.labels.channels) == ("edge", 1)
    assert run.settings.latent.pose_scale == 0
    store = run.model.label_store
    assert store is not None
    assert int(store.maps.min()) == 255
    scenes = [run.scene().style, run.scene().style]
    store.poses.copy_(LABELS[:1].expand(STORED_MAPS, -1))
    scenes.append(run.scene().style)
    assert scenes[0] is not None
    assert scenes[2] is not None
    assert torch.equal(scenes[0], scenes[2])


def test_both_generators_and_both_discriminators_arrive(tmp_path: Path) -> None:
    labels = label_config(3)
    averaged, trained = generator(labels=labels), generator(seed=5, labels=labels)
    judges = discriminator(1), discriminator(2, classes=3)
    file = write_snapshot(
        tmp_path / "s.pkl",
        {
            "G": generator_description(trained),
            "G_ema": generator_description(averaged),
            "D": discriminator_description(judges[0]),
            "D_semantic": discriminator_description(judges[1]),
        },
    )
    model = imported(file, tmp_path / "run").model
    for own, given in ((model.generator_ema, averaged), (model.generator, trained)):
        for name, value in given.state_dict().items():
            if not name.startswith("superresolution") or name.count(".") > 1:
                assert torch.equal(own.state_dict()[name], value), name
    assert isinstance(model.objective, LabelObjective)
    found = model.objective.discriminator, model.objective.label_discriminator
    for own, given, channels in zip(found, judges, (3, 6), strict=True):
        assert isinstance(own, DualDiscriminator)
        assert own.b4.group_size == 2
        given.b4.group_size = 2
        pair = torch.randn(2, channels, SIZE, SIZE), torch.randn(2, channels, NEURAL, NEURAL)
        with torch.no_grad():
            torch.testing.assert_close(own(*pair, LABELS), given(*pair, LABELS))


def test_without_the_label_discriminator_it_is_for_inference_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = generator(labels=label_config(3))
    networks = {
        "G_ema": generator_description(original),
        "D": discriminator_description(discriminator()),
    }
    run = imported(write_snapshot(tmp_path / "s.pkl", networks), tmp_path / "run")
    told = capsys.readouterr().out
    assert "no discriminator of labels (D_semantic)" in told
    assert "ns-train" not in told
    assert torch.load(run.checkpoint, weights_only=True)["inference_only"] is True


def test_what_the_file_does_not_say_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(snapshot(tmp_path / "s.pkl", generator(labels=label_config(5))), tmp_path / "run")
    told = capsys.readouterr().out
    assert "does not name its 5 classes" in told
    assert "holds no label maps" in told
    assert "--input-file" in told
    assert "pix2pix3D" in told
    assert "ns-train gan3d-pix2pix3d-128" in told


def test_tensors_are_written_under_their_official_names(tmp_path: Path) -> None:
    original = generator(labels=label_config(3))
    file = snapshot(tmp_path / "s.pkl", original)
    imported(file, tmp_path / "run")
    for source in (file, tmp_path / "run"):
        output = tmp_path / f"{source.stem}.safetensors"
        assert main(["import", str(source), "--output", str(output)]) == 0
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("s", "run"))
    assert first == second
    tensors = safetensors.torch.load(first)
    assert tensors["decoder.net.2.weight"].shape == (7, 8)
    assert tensors["decoder.net_semantic.2.weight"].shape == (8, 8)
    assert tensors["superresolution_semantic.block1.torgb.weight"].shape == (3, 4, 1, 1)
    assert tensors["backbone.mapping.embed_mask.projector.weight"].shape == (3 * LATENT, 8, 4, 4)
    assert tensors["backbone.mapping.w_avg"].shape == (4, LATENT)
    assert not tensors.keys() & set(UNUSED)
    assert tensors.keys() == official_state(original.state_dict()).keys()
    with safetensors.safe_open(tmp_path / "s.safetensors", "pt") as opened:
        header = json.loads(opened.metadata()["gan3d-official"])
    assert header["labels"]["classes"] == 3
    again = generator_state(tensors)
    for name, value in original.state_dict().items():
        if not name.startswith("superresolution") or name.count(".") > 1:
            assert torch.equal(again[name], value), name


Networks = dict[str, SnapshotModule]
Change = Callable[[Networks], None]
ENCODER = "backbone.mapping.embed_mask"
STAGE = "superresolution_semantic"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """A whole file of a model with three classes."""
    path = tmp_path_factory.mktemp("official") / "s.pkl"
    return read_snapshot(snapshot(path, generator(labels=label_config(3)))).networks


def tensor(name: str, value: Tensor | None) -> Change:
    """Another tensor of the generator, or a missing one; modules that lack are made."""

    def change(networks: Networks) -> None:
        *path, leaf = name.split(".")
        module = networks["G_ema"]
        for part in path:
            empty = SnapshotModule("Layer", "", {}, {}, {}, {})
            module = module.modules.setdefault(part, empty)
        for kind in (module.parameters, module.buffers):
            kind.pop(leaf, None)
        if value is not None:
            module.parameters[leaf] = value

    return change


def renamed(path: str, class_name: str) -> Change:
    """Another class for a module of the generator."""

    def change(networks: Networks) -> None:
        above, _, name = path.rpartition(".")
        parent = networks["G_ema"].at(above)
        assert parent is not None
        parent.modules[name] = replace(parent.modules[name], class_name=class_name)

    return change


def judged(classes: int, channel_max: int = 8) -> Change:
    """A label discriminator for other labels, or of another size."""

    def change(networks: Networks) -> None:
        state = discriminator(2, classes, channel_max).state_dict()
        root = SnapshotModule("DualDiscriminator", "", {}, {}, {}, {})
        for name, value in state.items():
            *path, leaf = name.split(".")
            module = root
            for part in path:
                empty = SnapshotModule("Layer", "", {}, {}, {}, {})
                module = module.modules.setdefault(part, empty)
            module.parameters[leaf] = value
        statistics = networks["D"].at("b4.mbstd")
        assert statistics is not None
        root.modules["b4"].modules["mbstd"] = statistics
        networks["D_semantic"] = root

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (tensor(f"{ENCODER}.projector.weight", None), "no tensor"),
        (tensor("decoder.net_semantic.2.weight", None), "net_semantic.2.weight"),
        (tensor(f"{ENCODER}.b64.conv1.weight", None), "embed_mask.b64.conv1.weight"),
        (tensor(f"{ENCODER}.projector.weight", torch.ones(40, 8, 4, 4)), "40 numbers"),
        (tensor(f"{ENCODER}.projector.weight", torch.ones(64, 8, 4, 4)), "geometry_layers"),
        (tensor(f"{ENCODER}.b128.conv0.weight", torch.ones(3, 4, 3, 3)), "label encoder"),
        (tensor(f"{ENCODER}.b128.extra", torch.ones(3)), "embed_mask.b128.extra"),
        (tensor(f"{STAGE}.block0.torgb.weight", torch.ones(4, 8, 1, 1)), "block0.torgb"),
        (tensor(f"{STAGE}.block1.torgb.weight", torch.ones(9, 4, 1, 1)), "9 classes"),
        (tensor("backbone.mapping.w_avg", torch.ones(LATENT)), "w_avg"),
        (tensor("backbone.mapping.w_avg", torch.ones(5, LATENT)), "w_avg"),
        (tensor(f"{ENCODER}.alpha", torch.ones(2)), "embed_mask.alpha"),
        (tensor("dataset_label_std", torch.ones(3)), "dataset_label_std"),
        (tensor("backbone_bg.extra", torch.ones(3)), "backbone_bg.extra"),
        (renamed("backbone.mapping", "MaskMappingNetwork"), "MaskMappingNetwork"),
        (renamed("decoder", "OSGDecoder_semantic_other"), "OSGDecoder_semantic_other"),
        (renamed(STAGE, "SuperresolutionHybrid8XDC_semantic"), "SuperresolutionHybrid8XDC"),
        (judged(5), "D_semantic takes 16 channels"),
        (judged(3, channel_max=4), "D_semantic has channel_max = 4 and D has 8"),
    ],
)
def test_what_cannot_be_imported_is_named(
    change: Change,
    sentence: str,
    networks: Networks,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damaged = copy.deepcopy(networks)
    change(damaged)
    monkeypatch.setattr(commands, "read_snapshot", lambda _: Snapshot(damaged, {}))
    file = tmp_path / "s.pkl"
    assert main(["import", str(file), "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert str(file) in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_a_grown_encoder_is_told(networks: Networks) -> None:
    assert "alpha" not in " ".join(describe(networks["G_ema"], None).notes)
    changed = copy.deepcopy(networks)
    tensor(f"{ENCODER}.alpha", torch.tensor(0.5))(changed)
    assert "embed_mask.alpha is 0.5" in " ".join(describe(changed["G_ema"], None).notes)
