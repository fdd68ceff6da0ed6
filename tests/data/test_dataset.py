"""`ImageSet`: layouts, decoding, laziness."""

import json
import pickle
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.data.dataset import DataError, ImageSet, select_labels
from tests.data.sets import encode, files, image, labels, write_folder, write_zip


def check_content(images: ImageSet, count: int = 6) -> None:
    assert len(images) == count
    assert images.size == 8
    assert images.names == [f"00000/img{i:08d}.png" for i in range(count)]
    assert images.labels is not None
    torch.testing.assert_close(images.labels, torch.tensor(labels(count)))
    for index in range(count):
        np.testing.assert_array_equal(images.image(index), image(index))


def test_folder_with_all_trees(tmp_path: Path):
    images = ImageSet(write_folder(tmp_path / "set", files()))
    check_content(images)
    assert (images.has_masks, images.has_depth, images.has_label_maps) == (True, True, True)
    ramp = np.arange(64).reshape(8, 8)
    # Image 2: mask value (ramp + 2) / 255, depth (10000 + 100 ramp + 2) / 10000, label mod 3.
    np.testing.assert_allclose(images.mask(2), (ramp + 2) / 255, rtol=1e-6)
    np.testing.assert_allclose(images.depth(2), 1 + 0.01 * ramp + 0.0002, rtol=1e-6)
    np.testing.assert_array_equal(images.label_map(2), (ramp + 2) % 3)
    assert images.classes == ["background", "body", "wheel"]
    assert images.palette == [[0, 0, 0], [255, 0, 0], [0, 0, 255]]
    assert images.objects == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("root", ["", "images/"])
@pytest.mark.parametrize("wrap", ["", "cars/"])
@pytest.mark.parametrize("kind", ["folder", "stored", "deflated"])
def test_layouts(tmp_path: Path, root: str, wrap: str, kind: str):
    content = {wrap + name: data for name, data in files(root=root).items()}
    if kind == "folder":
        path = write_folder(tmp_path / "set", content)
    else:
        compression = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        path = write_zip(tmp_path / "set.zip", content, compression)
    images = ImageSet(path)
    check_content(images)
    assert images.label_map(1)[0].tolist() == [1, 2, 0, 1, 2, 0, 1, 2]


def test_folder_called_images_finds_its_siblings(tmp_path: Path):
    write_folder(tmp_path / "set", files())
    images = ImageSet(tmp_path / "set" / "images")
    check_content(images)
    assert images.has_masks
    assert images.objects is not None


def test_siblings_are_matched_by_name_not_by_order(tmp_path: Path):
    content = {f"{n}.jpg": encode(image(i), "JPEG") for i, n in enumerate("abc")}
    # Written in another order and as another file type, with one mask too many in front.
    content |= {
        f"mask/{n}.png": encode(np.full((8, 8), v, np.uint8))
        for n, v in [("c", 51), ("0", 255), ("a", 0), ("b", 102)]
    }
    images = ImageSet(write_zip(tmp_path / "set.zip", content))
    assert [images.mask(i)[0, 0] for i in range(3)] == pytest.approx([0, 0.4, 0.2])


def test_labels_at_the_top_may_name_images_in_a_folder(tmp_path: Path):
    content = files(root="images/")
    entries = json.loads(content.pop("images/dataset.json"))["labels"]
    content["dataset.json"] = json.dumps(
        {"labels": [["images/" + name, label] for name, label in entries]}
    ).encode()
    del content["meta.json"]
    images = ImageSet(write_folder(tmp_path / "set", content))
    assert images.names[3] == "images/00000/img00000003.png"
    assert images.label_map(1)[0, 0] == 1


def test_images_alone_and_null_labels(tmp_path: Path):
    content = {f"{i}.png": encode(image(i)) for i in range(3)}
    assert ImageSet(write_folder(tmp_path / "plain", content)).labels is None
    content["dataset.json"] = b'{"labels": null}'
    images = ImageSet(write_folder(tmp_path / "null", content))
    assert images.labels is None
    assert not images.has_masks
    with pytest.raises(DataError, match="the set has no mask/ beside its images"):
        images.mask(0)


def test_colour_modes(tmp_path: Path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4] = [10, 20, 30, 255]
    rgba[4:] = [10, 20, 30, 0]
    palette = Image.fromarray(np.ones((8, 8), np.uint8), "P")
    palette.putpalette([0, 0, 0, 7, 8, 9])
    path = write_folder(tmp_path / "set", {"a.png": encode(grey), "b.png": encode(rgba)})
    palette.save(path / "c.png")
    images = ImageSet(path)
    np.testing.assert_array_equal(images.image(0), np.repeat(grey[..., None], 3, 2))
    # What is transparent shows white, not the colour that happens to be stored below.
    assert images.image(1)[0, 0].tolist() == [10, 20, 30]
    assert images.image(1)[7, 7].tolist() == [255, 255, 255]
    assert images.image(2)[0, 0].tolist() == [7, 8, 9]


def test_palette_label_maps_are_read_as_indices(tmp_path: Path):
    content = files(1)
    ids = (np.arange(64).reshape(8, 8) % 3).astype(np.uint8)
    path = write_folder(tmp_path / "set", content)
    picture = Image.fromarray(ids, "P")
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 255])
    picture.save(path / "label/00000/img00000000.png")
    np.testing.assert_array_equal(ImageSet(path).label_map(0), ids)


def test_opening_reads_no_image_and_reading_reads_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_zip(tmp_path / "set.zip", files(40))
    read: list[str] = []
    original = zipfile.ZipFile.read

    def spy(self: zipfile.ZipFile, name: zipfile.ZipInfo, pwd: bytes | None = None) -> bytes:
        read.append(name.filename)
        return original(self, name, pwd)

    monkeypatch.setattr(zipfile.ZipFile, "read", spy)
    images = ImageSet(path)
    assert read == ["images/dataset.json", "meta.json"]
    read.clear()
    images.image(7)
    # The first image tells the size of the set.
    assert sorted(set(read)) == ["images/00000/img00000000.png", "images/00000/img00000007.png"]


def test_threads_read_what_one_reader_reads(tmp_path: Path):
    images = ImageSet(write_zip(tmp_path / "set.zip", files(30), zipfile.ZIP_DEFLATED))
    barrier = threading.Barrier(4)

    def work(seed: int) -> bool:
        barrier.wait()
        order = np.random.default_rng(seed).permutation(30)
        return all(np.array_equal(images.image(int(i)), image(int(i))) for i in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_pickle_and_close(tmp_path: Path):
    images = ImageSet(write_zip(tmp_path / "set.zip", files()))
    images.image(0)
    copied = pickle.loads(pickle.dumps(images))
    images.close()
    check_content(copied)
    check_content(images)


def test_hidden_files_are_not_images(tmp_path: Path):
    content = files(root="") | {"._x.png": b"", "__MACOSX/00000/img.png": b"", ".git/a.png": b""}
    check_content(ImageSet(write_zip(tmp_path / "set.zip", content)))
    content.pop("__MACOSX/00000/img.png")
    check_content(ImageSet(write_folder(tmp_path / "set", content)))


def test_selected_labels_are_spread_evenly():
    rows = torch.arange(10.0)[:, None].expand(10, 25)
    assert select_labels(rows, 5)[:, 0].tolist() == [0, 2, 4, 6, 8]
    assert select_labels(rows[:2], 4)[:, 0].tolist() == [0, 0, 1, 1]
