"""The bundled cars, and how they are made."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.cameras import camera_angles
from nerfstudio_gan3d.data.bundle import bundle
from nerfstudio_gan3d.data.commands import data_cars64
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from nerfstudio_gan3d.data.sample_data import bundled_cars
from tests.data.sets import encode, files, labels, write_folder, write_zip


@pytest.fixture(scope="module")
def cars() -> ImageSet:
    return ImageSet(bundled_cars())


def test_size_layout_and_licence(cars: ImageSet):
    assert bundled_cars().stat().st_size <= 10_000_000
    assert (len(cars), cars.size) == (2000, 64)
    assert (cars.has_masks, cars.has_depth, cars.has_label_maps) == (True, True, True)
    assert cars.classes == ["background", "body", "glass", "wheel", "trim", "light"]
    assert cars.palette is not None
    assert len(cars.palette) == 6
    assert cars.objects is not None
    assert np.bincount(cars.objects).tolist() == [4] * 500
    with zipfile.ZipFile(bundled_cars()) as archive:
        text = archive.read("PROVENANCE.txt").decode()
        meta = json.loads(archive.read("meta.json"))
    for part in ("CC0 1.0", "Car Kit 3.0", "City Builder Bits 1.0", "Starter Kit Racing"):
        assert part in text
    assert {"file", "az", "el", "object", "base"} == meta["images"][0].keys()


def test_cameras_are_those_of_the_description(cars: ImageSet):
    assert cars.labels is not None
    azimuth, elevation, radius = camera_angles(cars.labels)
    torch.testing.assert_close(radius, torch.full((2000,), 1.9), rtol=0, atol=1e-5)
    assert torch.equal(cars.labels[:, 16], torch.full((2000,), 1.5))
    with zipfile.ZipFile(bundled_cars()) as archive:
        entries = json.loads(archive.read("meta.json"))["images"]
    assert [entry["file"] for entry in entries] == cars.names
    told = torch.deg2rad(torch.tensor([[entry["az"], entry["el"]] for entry in entries]))
    turn = torch.remainder(azimuth - told[:, 0] + torch.pi, 2 * torch.pi) - torch.pi
    assert turn.abs().max() < 1e-4
    torch.testing.assert_close(elevation, told[:, 1], rtol=0, atol=1e-4)


# 2 x 2 pixels of the 128 px renders, read off by hand: image, (row, column) of the cell at 64 px,
# colours, coverage, depth x 10000, part; then what the cell must hold. Colours are the nearest
# multiples of 3 to the mean, depth the nearest multiple of 128 to the mean of the foreground.
ORIGINALS = [
    (777, (33, 24), [(227, 47, 62), (227, 47, 62), (195, 42, 54), (205, 44, 57)],
     [255, 255, 255, 255], [15359, 15339, 15108, 15089], [1, 1, 1, 1],
     [213, 45, 60], 255, 15232, 1),  # means 213.5, 45, 58.75; 15223.75
    (5, (32, 57), [(106, 112, 128), (133, 119, 94), (100, 106, 121), (140, 125, 98)],
     [255, 0, 255, 0], [17670, 0, 17407, 0], [4, 0, 4, 0],
     [120, 117, 111], 128, 17536, 4),  # half foreground: depth (17670 + 17407) / 2 = 17538.5
    (5, (34, 7), [(182, 162, 126), (183, 163, 127), (173, 156, 127), (144, 143, 144)],
     [0, 0, 28, 170], [0, 0, 0, 19476], [0, 0, 0, 4],
     [171, 156, 132], 50, 0, 0),  # a quarter foreground: background, coverage 198 / 4 = 49.5
    (1234, (37, 17), [(26, 28, 32), (54, 61, 76), (94, 95, 94), (26, 28, 32)],
     [255, 255, 113, 255], [20803, 20601, 0, 20713], [3, 3, 0, 3],
     [51, 54, 60], 220, 20736, 3),  # depth of the three: 62117 / 3 = 20705.7
]  # fmt: skip


@pytest.mark.parametrize("known", ORIGINALS, ids=lambda known: f"{known[0]}{known[1]}")
def test_pixels_against_the_originals(cars: ImageSet, known: tuple):
    index, cell, colours, coverage, depth, parts, colour, mask, metres, part = known
    assert abs(np.array(colours).mean(axis=0) - colour).max() <= 1.5
    assert cars.image(index)[cell].tolist() == colour
    assert cars.mask(index)[cell] * 255 == pytest.approx(mask, abs=1e-3)
    assert np.mean(coverage) == pytest.approx(mask, abs=0.5)
    assert cars.depth(index)[cell] * 10000 == pytest.approx(metres, abs=1e-2)
    if metres:
        assert np.array(depth)[np.array(parts) > 0].mean() == pytest.approx(metres, abs=64)
    assert cars.label_map(index)[cell] == part


def test_masks_depth_and_labels_agree(cars: ImageSet):
    for index in range(0, 2000, 97):
        depth, label_map, mask = cars.depth(index), cars.label_map(index), cars.mask(index)
        np.testing.assert_array_equal(depth > 0, label_map > 0)
        # Coverage is sampled three times a pixel side, depth once: they differ at edges alone.
        assert (abs((mask > 0.5) * 1.0 - (depth > 0)).mean()) < 0.03
        # The camera is 1.9 away from an object of half diagonal at most 0.87.
        assert depth[depth > 0].min() > 1.03
        assert depth.max() < 2.77


def test_unpacked_cars_equal_the_zip(cars: ImageSet, tmp_path: Path):
    text = data_cars64(tmp_path / "new" / "cars")
    assert "2000 images of 64 x 64 pixels" in text
    unpacked = ImageSet(tmp_path / "new" / "cars")
    assert unpacked.names == cars.names
    for index in (0, 1234):
        np.testing.assert_array_equal(unpacked.image(index), cars.image(index))
        np.testing.assert_array_equal(unpacked.depth(index), cars.depth(index))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    for target in (tmp_path / "new" / "cars", tmp_path / "full", tmp_path / "full/notes.txt"):
        with pytest.raises(DataError, match="exists and is not an empty folder"):
            data_cars64(target)
    assert (tmp_path / "full/notes.txt").read_text() == "mine"


def test_an_empty_folder_may_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = write_zip(tmp_path / "small.zip", files(2))
    monkeypatch.setattr("nerfstudio_gan3d.data.commands.bundled_cars", lambda: small)
    (tmp_path / "empty").mkdir()
    assert "2 images of 8 x 8 pixels" in data_cars64(tmp_path / "empty")
    assert len(ImageSet(tmp_path / "empty")) == 2


def test_bundling_by_hand(tmp_path: Path):
    content = files(2, 8)
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:2, :2, 0] = [[10, 11], [12, 13]]  # mean 11.5: nearest multiple of 3 is 12
    picture[:2, 2:4, 1] = [[10, 10], [10, 11]]  # mean 10.25: 9
    picture[2:4, :2, 2] = 255  # stays 255
    content["images/00000/img00000000.png"] = encode(picture)
    mask = np.zeros((8, 8), np.uint8)
    mask[0, :2] = [255, 254]  # mean 127.25: 127
    content["mask/00000/img00000000.png"] = encode(mask)
    depth, label_map = np.zeros((8, 8), np.uint16), np.zeros((8, 8), np.uint8)
    depth[0, :2], label_map[0, :2] = [15000, 15300], [1, 2]  # 15150 / 128 = 118.4: 15104
    depth[0, 2], label_map[0, 2] = 20000, 2  # one of four pixels: background
    content["depth/00000/img00000000.png"] = encode(depth)
    content["label/00000/img00000000.png"] = encode(label_map)
    meta = {"classes": list("abcdef"), "camera": "c", "box": "b"}
    entries = json.loads(content["meta.json"])["images"]
    meta["images"] = [e | {"az": 1.23456, "el": 2.0, "base": "x"} for e in entries]
    content["meta.json"] = json.dumps(meta).encode()
    content["label/00000/img00000001.png"] = encode(np.zeros((8, 8), np.uint8))
    first = bundle(write_folder(tmp_path / "set", content), tmp_path / "a.zip")
    small = ImageSet(first)
    assert small.size == 4
    assert small.labels is not None
    torch.testing.assert_close(small.labels, torch.tensor(labels(2)))
    assert small.image(0)[0, 0].tolist() == [12, 0, 0]
    assert small.image(0)[0, 1].tolist() == [0, 9, 0]
    assert small.image(0)[1, 0].tolist() == [0, 0, 255]
    assert small.mask(0)[0, 0] == pytest.approx(127 / 255)
    assert small.depth(0)[0].tolist() == pytest.approx([1.5104, 0, 0, 0])
    assert small.label_map(0)[0].tolist() == [1, 0, 0, 0]
    second = bundle(tmp_path / "set", tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
