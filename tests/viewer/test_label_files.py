"""Edits come back from their files as they were, and other programs can read them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.label_maps import read_label_file
from nerfstudio_gan3d.latents import Appearance, LabelView
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.viewer.label_files import (
    class_names,
    load_edit,
    map_pixels,
    save_edit,
    saved_edits,
    saved_pose,
)

PALETTE = ((0, 0, 0), (204, 61, 61), (102, 178, 230))
SEG = LabelConfig(kind="seg", classes=3, class_names=("back", "body", "glass"), palette=PALETTE)
EDGE = LabelConfig(kind="edge")
SIDE, W_DIM = 8, 5


def view_of(highest: int) -> LabelView:
    random = torch.Generator().manual_seed(0)
    label_map = torch.randint(highest + 1, (1, 1, SIDE, SIDE), generator=random, dtype=torch.uint8)
    return LabelView(label_map, orbit_labels(torch.ones(1), torch.ones(1) / 3, 1.9))


def appearance() -> Appearance:
    return Appearance(torch.randn(1, W_DIM, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("labels", "highest"), [(SEG, 2), (EDGE, 255)])
def test_an_edit_comes_back_exactly(tmp_path: Path, labels: LabelConfig, highest: int) -> None:
    view, worn = view_of(highest), appearance()
    folder = save_edit(tmp_path / "run" / "label_edits", view, worn, labels)
    found, found_worn = load_edit(folder, labels, SIDE, W_DIM)
    assert torch.equal(found.map, view.map)
    assert torch.equal(found.pose, view.pose)
    assert torch.equal(found_worn.w, worn.w)


def test_files_hold_class_ids_and_exactly_the_palettes_colours(tmp_path: Path) -> None:
    view = view_of(2)
    folder = save_edit(tmp_path, view, appearance(), SEG)
    ids = view.map[0, 0].numpy()
    assert sorted(path.name for path in folder.iterdir()) == [
        "colours.png", "edit.json", "labels.png"
    ]  # fmt: skip
    with Image.open(folder / "labels.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), ids)
    with Image.open(folder / "colours.png") as image:
        assert np.array_equal(np.asarray(image), np.array(PALETTE, np.uint8)[ids])
    # Both are label maps that can be loaded by themselves.
    for name in ("labels.png", "colours.png"):
        assert np.array_equal(read_label_file(folder / name, "seg", 3, PALETTE, SIDE), ids)
    rest = json.loads((folder / "edit.json").read_text())
    assert rest["pose"] == view.pose[0].tolist()


def test_the_pose_is_found_beside_each_file_of_an_edit(tmp_path: Path) -> None:
    view = view_of(2)
    folder = save_edit(tmp_path, view, appearance(), SEG)
    for name in ("labels.png", "colours.png"):
        found = saved_pose(folder / name)
        assert found is not None
        assert torch.equal(found, view.pose)
    assert saved_pose(tmp_path / "labels.png") is None


def test_a_pose_that_is_no_cameras_is_refused(tmp_path: Path) -> None:
    folder = save_edit(tmp_path, view_of(2), appearance(), SEG)
    (folder / "edit.json").write_text(json.dumps({"pose": [1.0] * 25}))
    with pytest.raises(DataError, match=r"edit\.json: the label of 'pose' has a rotation"):
        saved_pose(folder / "labels.png")


def test_edits_are_numbered_and_never_overwritten(tmp_path: Path) -> None:
    assert saved_edits(tmp_path / "none") == []
    (tmp_path / "007").mkdir()
    (tmp_path / "notes").mkdir()
    names = [save_edit(tmp_path, view_of(2), appearance(), SEG).name for _ in range(2)]
    assert names == ["008", "009"]
    # 007 holds no edit.
    assert saved_edits(tmp_path) == ["008", "009"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pose": [1.0] * 24}, '"pose" must be a list of 25 finite numbers'),
        ({"pose": [float("nan")] * 25}, '"pose" must be a list of 25 finite numbers'),
        ({"pose": [True] * 25}, '"pose" must be a list of 25 finite numbers'),
        ({"appearance": [0.0] * 6}, '"appearance" must be a list of 5 finite numbers'),
        ({"appearance": None}, '"appearance" must be a list of 5 finite numbers'),
    ],
)
def test_damaged_edits_are_refused(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    folder = save_edit(tmp_path, view_of(2), appearance(), SEG)
    file = folder / "edit.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=rf"edit\.json: {sentence}"):
        load_edit(folder, SEG, SIDE, W_DIM)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_files_that_are_no_edits_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = save_edit(tmp_path, view_of(2), appearance(), SEG)
    (folder / "edit.json").write_bytes(content)
    with pytest.raises(DataError, match=r"edit\.json"):
        load_edit(folder, SEG, SIDE, W_DIM)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.png"):
        load_edit(tmp_path, SEG, SIDE, W_DIM)


def test_models_without_names_and_colours_have_some(tmp_path: Path) -> None:
    plain = LabelConfig(kind="seg", classes=2)
    assert class_names(plain) == ("class 0", "class 1")
    assert map_pixels(view_of(1).map, plain).shape == (SIDE, SIDE, 3)
    assert map_pixels(view_of(255).map, EDGE).shape == (SIDE, SIDE)
