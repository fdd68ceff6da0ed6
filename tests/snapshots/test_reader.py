"""Whole official network pickles: what comes out, and files that are something else."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nerfstudio_gan3d.snapshots.reader import read_snapshot
from tests.parity.fill import fill_value
from tests.snapshots import unchecked
from tests.snapshots.official_pickle import network, write_snapshot
from tests.snapshots.opcodes import module, root, written
from tests.snapshots.unchecked import refusal

PARITY = Path(__file__).parents[1] / "parity"


def test_modules_keep_names_tensors_and_plain_values(tmp_path: Path) -> None:
    given_network = network()
    path = write_snapshot(
        tmp_path / "a.pkl",
        {"G_ema": given_network, "D": {"class_name": "DualDiscriminator"}, "augment_pipe": None},
        {"path": "cars.zip", "resolution": 64},
    )
    snapshot = read_snapshot(path)
    assert list(snapshot.networks) == ["D", "G_ema"]
    assert snapshot.training_set == {"path": "cars.zip", "resolution": 64}
    generator = snapshot.networks["G_ema"]
    assert generator.class_name == "TriPlaneGenerator"
    assert list(generator.parameters) == ["const"]
    assert list(generator.buffers) == ["w_avg", "grid"]
    assert generator.non_persistent == {"grid"}
    assert generator.attributes == {"training": False, **given_network["attributes"]}
    assert type(generator.attributes["neural_rendering_resolution"]) is int
    assert type(generator.attributes["rendering_kwargs"]["box_warp"]) is float
    assert list(generator.state_dict()) == ["const", "w_avg", "decoder.net.0.weight"]
    assert generator.at("") is generator
    assert generator.at("decoder.net.2") is None
    assert generator.at("nothing.net") is None
    softplus = generator.at("decoder.net.1")
    assert softplus is not None
    assert (softplus.class_name, softplus.source) == ("Softplus", "")
    assert softplus.attributes == {"training": True, "beta": 1.0, "threshold": 20.0}
    renderer = generator.at("renderer")
    assert renderer is not None
    assert renderer.class_name == "ImportanceRenderer"
    assert torch.equal(renderer.attributes["plane_axes"], torch.eye(3).expand(3, 3, 3))


def test_the_source_is_kept_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = write_snapshot(tmp_path / "a.pkl", {"G": network(mark)})
    assert read_snapshot(path).networks["G"].source == f"open({str(mark)!r}, 'w').close()\n"
    assert not mark.exists()
    assert not {"torch_utils", "dnnlib", "training"} & set(sys.modules)


def test_a_module_under_two_names_is_one_object(tmp_path: Path) -> None:
    generator = network()
    networks = read_snapshot(
        write_snapshot(tmp_path / "a.pkl", {"G": generator, "G_ema": generator, "D": network()})
    ).networks
    assert networks["G"] is networks["G_ema"]
    assert networks["D"] is not networks["G"]


def test_a_module_in_two_places_shares_its_tensors_and_has_both_names(tmp_path: Path) -> None:
    block = {"class_name": "Block", "parameters": {"weight": torch.ones(2)}}
    parent = {"class_name": "Parent", "modules": {"a": block, "b": block}}
    state = read_snapshot(write_snapshot(tmp_path / "a.pkl", {"G": parent})).networks["G"]
    tensors = state.state_dict()
    assert list(tensors) == ["a.weight", "b.weight"]
    assert tensors["a.weight"] is tensors["b.weight"]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_state_dict_names_and_order_are_torchs(tmp_path: Path, protocol: int) -> None:
    module = nn.Sequential(
        nn.Linear(3, 2, bias=False),
        nn.Sequential(nn.BatchNorm2d(2), nn.PReLU()),
        nn.Conv2d(2, 1, 3),
    )
    module[1].register_buffer("hidden", torch.ones(1), persistent=False)
    path = write_snapshot(tmp_path / "a.pkl", {"G_ema": module}, protocol=protocol)
    state, expected = read_snapshot(path).networks["G_ema"].state_dict(), module.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def tree(tensors: dict[str, Tensor], buffers: set[str]) -> dict[str, Any]:
    """Description of a network with these tensors, whose names are dotted."""
    root: dict[str, Any] = {"class_name": "Net"}
    for path, tensor in tensors.items():
        node = root
        *parents, name = path.split(".")
        for parent in parents:
            node = node.setdefault("modules", {}).setdefault(parent, {"class_name": "Net"})
        node.setdefault("buffers" if name in buffers else "parameters", {})[name] = tensor
    return root


def snapshots_at_hand() -> list[Path | None]:
    """None for a file that the test makes itself, and the official container where there is one."""
    folder = os.environ.get("GAN3D_FIXTURES")
    found = sorted(Path(folder).glob("eg3d_tiny128_snapshot.pkl")) if folder else []
    return [None, *found]


@pytest.mark.parametrize(
    "found", snapshots_at_hand(), ids=lambda path: path.stem if path else "own"
)
def test_sums_of_a_whole_network(tmp_path: Path, found: Path | None) -> None:
    """Sums that the official code gave for weights of the fixtures' fill rule."""
    folder = found.parent if found else PARITY
    with np.load(folder / "eg3d_tiny128_snapshot.npz") as file:
        config = json.loads(str(file["config"]))
        sums = {"G": file["G_tensor_sum"], "D": file["D_tensor_sum"]}
    path = found or write_snapshot(
        tmp_path / "own.pkl", {name: filled(config[f"{name}_tensors"], config) for name in sums}
    )
    snapshot = read_snapshot(path)
    for name, expected in sums.items():
        state = snapshot.networks[name].state_dict()
        shapes = {key: tuple(shape) for key, shape in config[f"{name}_tensors"]}
        assert {key: tuple(value.shape) for key, value in state.items()} == shapes
        actual = np.array([state[key].double().sum().item() for key in shapes])
        # The stored sums are float32; weights of mapping layers are a hundred times larger.
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-2)


def filled(entries: list[Any], config: dict[str, Any]) -> dict[str, Any]:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    tensors = {}
    for name, shape in entries:
        value = fill_value(name, tuple(shape), config["density_offset"], config["salt"])
        tensors[name] = torch.outer(taps, taps) if value is None else torch.from_numpy(value)
    return tree(tensors, {"w_avg", "resample_filter", "noise_const"})


def saved(tmp_path: Path, zipped: bool) -> bytes:
    path = tmp_path / "torch.pt"
    torch.save({"G": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: b"", "empty"),
        (lambda folder: b"version https://git-lfs.github.com/spec/v1\n", "not a pickle"),
        (lambda folder: b"<html>", "not a pickle"),
        (lambda folder: pickle.dumps({"G": 1}, 0), "not a pickle of protocol 2 to 5"),
        (lambda folder: saved(folder, zipped=True), "a zip archive"),
        (lambda folder: saved(folder, zipped=False), "a checkpoint of torch.save"),
        (lambda folder: b"\x80", "truncated"),
    ],
    ids=["empty", "pointer", "page", "protocol 0", "zip", "torch", "one byte"],
)
def test_other_files_get_their_own_sentence(
    tmp_path: Path, make: Callable[[Path], bytes], sentence: str
) -> None:
    assert sentence in refusal(written(tmp_path, make(tmp_path)))


def test_a_path_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no such file" in refusal(tmp_path / "missing.pkl")
    assert "not a file" in refusal(tmp_path)
    path = written(tmp_path, root(module()))
    monkeypatch.setattr(unchecked.reader, "MAX_FILE", 10)
    assert "at most 10 are read" in refusal(path)
