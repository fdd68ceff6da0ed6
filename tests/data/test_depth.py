"""Depth of images: G3DR's layout, distances along rays, batches with depth."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.cameras import mirror_labels, orbit_labels, pixel_rays, project
from nerfstudio_gan3d.data.batches import ImageBatches
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from nerfstudio_gan3d.data.depth import check_depth, read_distance, read_rgbd
from tests.data.sets import (
    encode,
    files,
    image,
    labels,
    relative,
    rgbd_files,
    write_folder,
    write_zip,
)

ZERO = torch.zeros(1)
FRONT = orbit_labels(ZERO, ZERO, 5.0, focal=3.0)


@pytest.mark.parametrize("root", ["", "images/", "pets/"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_layout_of_g3dr(tmp_path: Path, root: str, kind: str):
    content = rgbd_files(root=root)
    if kind == "folder":
        images = ImageSet(write_folder(tmp_path / "set", content))
    else:
        images = ImageSet(write_zip(tmp_path / "set.zip", content))
    inside = root.removeprefix("images/")
    assert images.names == [
        inside + n for n in ("1/1551.jpg", "1/1552.jpg", "2/1553.jpg", "2/1554.jpg")
    ]
    assert (images.depth_kind, images.has_depth, images.labels) == ("relative", False, None)
    assert images.image(2)[0, 0].tolist() == [80, 80, 80]
    # Row 1, column 3 of image 2 holds 11 * 512 + 2 of 65536.
    found = images.relative_depth(2)
    assert found.dtype == np.float32
    assert found[1, 3] == 5634 / 65536
    np.testing.assert_array_equal(found * 65536, relative(2))
    again = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(again.relative_depth(2), found)
    with pytest.raises(DataError, match=r"its depth is relative .* but z-depth in scene units"):
        images.depth(0)


def test_flat_folder_and_other_file_types(tmp_path: Path):
    content = {"a.png": encode(image(1)), "b.jpeg": encode(image(2), "JPEG")}
    content |= {"a_depth.png": encode(relative(1)), "b_depth.png": encode(relative(2))}
    images = ImageSet(write_folder(tmp_path / "set", content))
    assert images.names == ["a.png", "b.jpeg"]
    assert images.relative_depth(1)[0, 0] == 2 / 65536
    assert images.file(1, "depth").endswith("/set/b_depth.png")


def test_the_same_camera_for_every_image(tmp_path: Path):
    path = write_folder(tmp_path / "set", rgbd_files())
    images = ImageSet(path, FRONT)
    torch.testing.assert_close(images.labels, FRONT.repeat(4, 1), rtol=0, atol=0)
    # A set's own labels count.
    own = ImageSet(write_folder(tmp_path / "own", files()), FRONT)
    torch.testing.assert_close(own.labels, torch.tensor(labels(6)))


def test_other_layouts_have_z_depth_or_none(tmp_path: Path):
    content = files()
    assert ImageSet(write_folder(tmp_path / "z", content)).depth_kind == "z"
    plain = {"a.png": encode(image(0)), "b_depth.png": encode(image(1))}
    images = ImageSet(write_folder(tmp_path / "plain", plain))
    # Nothing here has a depth file of its own name: two images, one with an odd name.
    assert (images.depth_kind, images.names) == ("none", ["a.png", "b_depth.png"])
    with pytest.raises(DataError, match="the set has no depth/ beside its images"):
        images.relative_depth(0)
    with_json = {"a.png": encode(image(0)), "a_depth.png": encode(image(1))}
    entries = [[name, label] for name, label in zip(with_json, labels(2), strict=True)]
    with_json["dataset.json"] = json.dumps({"labels": entries}).encode()
    assert len(ImageSet(write_folder(tmp_path / "json", with_json))) == 2
    with pytest.raises(DataError, match="its depth is z-depth in scene units, but relative"):
        ImageSet(tmp_path / "z").relative_depth(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"2/1554_depth.png": None}, ["2/1554.jpg: has no depth", "1554_depth.png beside it"]),
        ({"2/1553.jpg": None}, ["2/1553_depth.png: a depth file without an image", "1553.jpg"]),
        ({"2/1554_depth.png": encode(np.zeros((8, 8), np.uint8))},
         ["2/1554_depth.png", "mode L", "16-bit grey"]),
        ({"2/1554_depth.png": encode(image(0))}, ["2/1554_depth.png", "mode RGB", "16-bit grey"]),
        ({"2/1554_depth.png": encode(relative(0, 16))},
         ["2/1554_depth.png", "16 x 16 pixels", "8 x 8"]),
        ({"2/1554.png": encode(image(0))}, ["two images of one name", "1554.jpg"]),
    ],
)  # fmt: skip
def test_bad_sets(tmp_path: Path, change: dict[str, bytes | None], words: list[str]):
    content = {n: d for n, d in (rgbd_files() | change).items() if d is not None}
    with pytest.raises(DataError) as caught:
        ImageSet(write_folder(tmp_path / "set", content)).relative_depth(3)
    for word in words:
        assert word in str(caught.value)


def test_relative_depth_fills_the_range(tmp_path: Path):
    values = np.array([[0, 16384], [32768, 65535]], np.uint16)
    content = {"a.png": encode(image(0, 2)), "a_depth.png": encode(values)}
    images = ImageSet(write_folder(tmp_path / "set", content), FRONT)
    # 4 + 2 * (0, 1/4, 1/2, 65535/65536).
    expected = np.array([[4.0, 4.5], [5.0, 6 - 2 / 65536]])
    np.testing.assert_allclose(read_distance(images, 0, 2), expected, rtol=0, atol=1e-6)
    # The mean of all: 4 + 2 * 114687 / 262144; and in another range 1 + 114687 / 262144.
    assert read_distance(images, 0, 1)[0, 0] == pytest.approx(4 + 114687 / 131072, abs=1e-6)
    assert read_distance(images, 0, 1, (1.0, 2.0))[0, 0] == pytest.approx(1.43750, abs=1e-5)


def plane_set(path: Path, size: int, rows: list[list[float]]) -> ImageSet:
    """A wall at z-depth 1.5 whose lower half is background."""
    depth = np.full((size, size), 15000, np.uint16)
    depth[size // 2 :] = 0
    content = {f"images/{i}.png": encode(image(i, size)) for i in range(len(rows))}
    content |= {f"depth/{i}.png": encode(depth) for i in range(len(rows))}
    entries = [[f"{i}.png", row] for i, row in enumerate(rows)]
    content["images/dataset.json"] = json.dumps({"labels": entries}).encode()
    return ImageSet(write_folder(path, content))


def test_distance_by_hand(tmp_path: Path):
    row = orbit_labels(ZERO, ZERO, 2.0, focal=0.5)[0].tolist()
    images = plane_set(tmp_path / "set", 4, [row])
    found = read_distance(images, 0, 2)
    # Field of view 90 degrees, two pixels a side: the middles lie at x, y = -0.5 and 0.5 where
    # z = 1, so the upper rays are sqrt(1.5) times as long as their z. The lower half is background.
    np.testing.assert_allclose(found[0], 1.5 * np.sqrt(1.5), rtol=1e-6)
    assert found[1].tolist() == [0, 0]


def test_points_at_the_distance_lie_at_their_depth(tmp_path: Path):
    images = plane_set(tmp_path / "set", 8, labels(3))
    assert images.labels is not None
    for index in range(3):
        label = images.labels[index, None]
        origins, directions = pixel_rays(label, 8, 8)
        distance = torch.from_numpy(read_distance(images, index, 8)).reshape(1, -1, 1)
        places, depth = project(label, origins + distance * directions)
        torch.testing.assert_close(depth[0, :32], torch.full((32,), 1.5), rtol=0, atol=1e-5)
        column = (places[0, :32, 0] * 8).floor()
        torch.testing.assert_close(column, torch.arange(8.0).repeat(4))


@pytest.mark.parametrize("cache", [0, 512])
@pytest.mark.parametrize("kind", ["z", "relative"])
def test_batches_mirror_depth_with_its_image(tmp_path: Path, cache: int, kind: str):
    if kind == "z":
        images = ImageSet(write_folder(tmp_path / "set", files(6)))
    else:
        images = ImageSet(write_folder(tmp_path / "set", rgbd_files()), FRONT)
    plain = ImageBatches(images, 5, 8, seed=2, mirror=True, cache_megabytes=cache)
    batches = ImageBatches(
        images, 5, 8, seed=2, mirror=True, cache_megabytes=cache, with_depth=True
    )
    flipped = 0
    for step in range(4):
        batch, without = batches.batch(step), plain.batch(step)
        assert without["depth"] is None
        # Depth changes nothing about what else is served.
        for key in ("image", "label", "index"):
            torch.testing.assert_close(batch[key], without[key], rtol=0, atol=0)
        depth, places = batch["depth"], batch["index"].tolist()
        assert depth is not None
        assert (depth.dtype, tuple(depth.shape)) == (torch.float32, (5, 1, 8, 8))
        _, flips = batches.order(step)
        for one, index, flip in zip(depth[:, 0].numpy(), places, flips, strict=True):
            wanted = read_distance(images, index, 8)
            np.testing.assert_array_equal(one, wanted[:, ::-1] if flip else wanted)
            flipped += int(flip)
    assert 0 < flipped < 20
    batches.close()


def test_mirrored_depth_is_that_of_the_mirrored_camera(tmp_path: Path):
    # A camera with its principal point off the middle, so that left and right differ.
    row = orbit_labels(torch.tensor([0.4]), torch.tensor([0.2]), 2.0, focal=0.8)
    row[0, 18] = 0.3
    images = plane_set(tmp_path / "set", 8, [row[0].tolist()])
    batches = ImageBatches(images, 8, 8, mirror=True, with_depth=True)
    batch = batches.batch(0)
    _, flips = batches.order(0)
    assert flips.any()
    mirrored = plane_set(tmp_path / "other", 8, [mirror_labels(row)[0].tolist()])
    assert batch["depth"] is not None
    np.testing.assert_allclose(
        batch["depth"][int(np.flatnonzero(flips)[0]), 0], read_distance(mirrored, 0, 8), rtol=1e-6
    )


def test_depth_counts_in_the_cache(tmp_path: Path):
    # 70 images of 64 x 64 x 3 bytes are 0.86 MB; with four bytes of depth a pixel 2.01 MB.
    images = ImageSet(write_folder(tmp_path / "set", rgbd_files(70, 64)), FRONT)
    assert ImageBatches(images, 2, 64, cache_megabytes=1).cached
    assert not ImageBatches(images, 2, 64, cache_megabytes=2, with_depth=True).cached
    assert ImageBatches(images, 2, 64, cache_megabytes=3, with_depth=True).cached


def test_batches_with_depth_can_be_pickled(tmp_path: Path):
    images = ImageSet(write_folder(tmp_path / "set", rgbd_files()), FRONT)
    batches = ImageBatches(images, 4, 4, with_depth=True, depth_range=(1.0, 2.0))
    wanted = batches.batch(1)["depth"]
    assert wanted is not None
    assert 1 <= wanted.min() < wanted.max() < 2
    found = pickle.loads(pickle.dumps(batches)).batch(1)["depth"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_images_with_depth_and_camera(tmp_path: Path):
    images = ImageSet(write_folder(tmp_path / "set", files(6)))
    rgb, distances, cameras = read_rgbd(images, [4, 1], 8)
    np.testing.assert_array_equal(rgb[0].permute(1, 2, 0), image(4))
    np.testing.assert_array_equal(distances[1, 0], read_distance(images, 1, 8))
    torch.testing.assert_close(cameras, torch.tensor(labels(6))[[4, 1]])


def test_sets_that_cannot_serve(tmp_path: Path):
    plain = ImageSet(write_folder(tmp_path / "plain", {"a.png": encode(image(0))}))
    with pytest.raises(DataError, match=r"plain: the set has no depth, but the method learns"):
        check_depth(plain)
    no_labels = {n: d for n, d in files().items() if n.startswith("depth/") or "img" in n}
    bare = ImageSet(write_folder(tmp_path / "bare", no_labels))
    with pytest.raises(DataError, match=r"bare: the set has depth but no camera labels; they tell"):
        ImageBatches(bare, 2, 8, with_depth=True)
    rgbd = ImageSet(write_folder(tmp_path / "rgbd", rgbd_files()))
    with pytest.raises(DataError, match="the data parser gan3d-rgbd gives each"):
        read_rgbd(rgbd, [0], 8)
    for near, far in ((6.0, 4.0), (0.0, 2.0), (1.0, float("inf")), (float("nan"), 2.0)):
        with pytest.raises(ValueError, match="give two positive distances, the nearer first"):
            check_depth(rgbd, (near, far))
