"""Label maps in the batches of real images: resized, cached and mirrored with them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.data.batches import ImageBatches
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from tests.data.sets import encode, files, image, write_folder, write_zip


def seg_set(tmp_path: Path) -> ImageSet:
    """Ten images of 8 pixels; a mirrored one exchanges classes 1 and 2."""
    content = files(10) | {"labels.json": b'{"mirror_classes": [[2, 1]]}'}
    return ImageSet(write_zip(tmp_path / "seg.zip", content))


@pytest.mark.parametrize("cache", [0, 512])
def test_label_maps_come_and_turn_with_their_images(tmp_path: Path, cache: int):
    batches = ImageBatches(
        seg_set(tmp_path), 4, 8, mirror=True, cache_megabytes=cache, label_kind="seg", num_classes=3
    )
    assert batches.cached is (cache > 0)
    seen = set()
    for step in range(10):
        batch = batches.batch(step)
        maps = batch["label_map"]
        assert maps is not None
        assert (maps.dtype, maps.shape) == (torch.uint8, (4, 1, 8, 8))
        assert batch["image"].shape == (4, 3, 8, 8)
        for picture, found, index in zip(batch["image"], maps, batch["index"], strict=True):
            # Of image i the class ids are (ramp + i) % 3, and red is i.
            ids = (np.arange(64).reshape(8, 8) + int(index)) % 3
            pixels = image(int(index))
            flipped = not np.array_equal(picture.permute(1, 2, 0), pixels)
            seen.add(flipped)
            if flipped:
                pixels = pixels[:, ::-1]
                ids = np.array([0, 2, 1])[ids[:, ::-1]]
            np.testing.assert_array_equal(picture.permute(1, 2, 0), pixels)
            np.testing.assert_array_equal(found[0], ids)
    assert seen == {False, True}


def test_label_maps_do_not_change_what_else_is_in_a_batch(tmp_path: Path):
    plain = ImageBatches(seg_set(tmp_path), 4, 8, seed=1, mirror=True)
    labelled = ImageBatches(seg_set(tmp_path), 4, 8, seed=1, mirror=True, label_kind="seg")
    for step in range(4):
        a, b = plain.batch(step), labelled.batch(step)
        assert a["label_map"] is None
        for key in ("image", "label", "index"):
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)


def test_label_maps_of_another_resolution(tmp_path: Path):
    drawing = np.full((8, 8), 255, np.uint8)
    drawing[:, 2] = 0
    content = files(1) | {"label/00000/img00000000.png": encode(drawing)}
    images = ImageSet(write_folder(tmp_path / "set", content))
    maps = ImageBatches(images, 1, 4, label_kind="edge").batch(0)["label_map"]
    assert maps is not None
    # Half of a cell of two pixels is a line.
    assert maps[0, 0].tolist() == [[255, 128, 255, 255]] * 4
    seg = ImageBatches(seg_set(tmp_path), 10, 4, label_kind="seg").batch(0)
    assert seg["label_map"] is not None
    for found, index in zip(seg["label_map"], seg["index"], strict=True):
        ids = (np.arange(64).reshape(8, 8) + int(index)) % 3
        np.testing.assert_array_equal(found[0], ids[1::2, 1::2])


def test_drawings_are_mirrored_and_keep_their_values(tmp_path: Path):
    content = files(4) | {"labels.json": b'{"kind": "edge", "mirror_classes": [[1, 2]]}'}
    images = ImageSet(write_folder(tmp_path / "set", content))
    plain = ImageBatches(images, 4, 8, label_kind="edge")
    mirrored = ImageBatches(images, 4, 8, mirror=True, label_kind="edge")
    for step in range(4):
        _, flips = mirrored.order(step)
        a, b = plain.batch(step)["label_map"], mirrored.batch(step)["label_map"]
        assert a is not None
        assert b is not None
        wanted = torch.where(torch.from_numpy(flips)[:, None, None, None], a.flip(3), a)
        torch.testing.assert_close(b, wanted, rtol=0, atol=0)


def test_a_class_id_out_of_range_stops_the_batch(tmp_path: Path):
    content = files(2) | {"label/00000/img00000001.png": encode(np.full((8, 8), 4, np.uint8))}
    del content["meta.json"]
    images = ImageSet(write_folder(tmp_path / "set", content))
    batches = ImageBatches(images, 2, 8, label_kind="seg", num_classes=4)
    with pytest.raises(
        DataError, match=r"img00000001.png: class id 4 is out of range; there are 4"
    ):
        batches.batch(0)


def test_a_set_without_label_maps_is_refused_before_the_first_batch(tmp_path: Path):
    images = ImageSet(write_folder(tmp_path / "set", {"a.png": encode(image(0))}))
    with pytest.raises(DataError, match="the set has no label/ beside its images"):
        ImageBatches(images, 1, 8, label_kind="edge")


def test_label_maps_count_for_the_cache(tmp_path: Path):
    images = ImageSet(write_zip(tmp_path / "set.zip", files(80, 64)))
    # 80 images of 64 x 64 pixels are 0.98 MB, and 1.31 MB with their label maps.
    assert ImageBatches(images, 2, 64, cache_megabytes=1).cached
    assert not ImageBatches(images, 2, 64, cache_megabytes=1, label_kind="seg").cached


def test_pickled_batches_keep_their_label_maps(tmp_path: Path):
    batches = ImageBatches(seg_set(tmp_path), 4, 8, seed=1, mirror=True, label_kind="seg")
    wanted = batches.batch(2)["label_map"]
    assert wanted is not None
    found = pickle.loads(pickle.dumps(batches)).batch(2)["label_map"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
