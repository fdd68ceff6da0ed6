"""Order, mirroring, caching and read-ahead of the batches of real images."""

import itertools
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.cameras import PosePrior, camera_angles, split_labels
from nerfstudio_gan3d.data.batches import ImageBatches
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.resize import resize_image
from tests.data.sets import encode, files, image, write_folder, write_zip


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return ImageSet(write_zip(tmp_path / "set.zip", files(10)))


def indices(batches: ImageBatches, steps: range) -> list[list[int]]:
    return [batches.batch(step)["index"].tolist() for step in steps]


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize("cache", [0, 512])
def test_images_labels_and_indices_belong_together(images: ImageSet, cache: int):
    batches = ImageBatches(images, batch_size=4, resolution=8, cache_megabytes=cache)
    assert batches.cached is (cache > 0)
    for step in range(6):
        batch = batches.batch(step)
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].shape == (4, 3, 8, 8)
        assert images.labels is not None
        torch.testing.assert_close(batch["label"], images.labels[batch["index"]], rtol=0, atol=0)
        for picture, index in zip(batch["image"], batch["index"], strict=True):
            np.testing.assert_array_equal(picture.permute(1, 2, 0), image(int(index)))


def test_every_image_comes_once_an_epoch(images: ImageSet):
    batches = ImageBatches(images, batch_size=4, resolution=8)
    drawn = flat(indices(batches, range(10)))  # 40 images: four epochs of ten
    epochs = [drawn[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_depends_on_seed_step_and_rank_alone(images: ImageSet):
    reference = ImageBatches(images, batch_size=4, resolution=8, seed=3, mirror=True)
    wanted = [reference.batch(step) for step in range(6)]
    # Another object, another order of asking, another cache, as after a resume.
    other = ImageBatches(
        images, batch_size=4, resolution=8, seed=3, mirror=True, cache_megabytes=0, workers=1
    )
    for step in (5, 4, 0, 3, 3, 1, 2):
        batch = other.batch(step)
        for key in ("image", "label", "index"):
            torch.testing.assert_close(batch[key], wanted[step][key], rtol=0, atol=0)
    changed = ImageBatches(images, batch_size=4, resolution=8, seed=4, mirror=True)
    assert indices(changed, range(6)) != [b["index"].tolist() for b in wanted]


def test_ranks_share_an_epoch(images: ImageSet):
    ranks = [ImageBatches(images, 2, 8, rank=rank, world_size=3) for rank in range(3)]
    drawn = [flat([b.batch(step)["index"].tolist() for b in ranks]) for step in range(5)]
    # Six images a step: 30 images in five steps are three epochs.
    every = flat(drawn)
    assert all(sorted(every[i : i + 10]) == list(range(10)) for i in (0, 10, 20))
    # One process with the same total batch sees the same images in the same steps.
    assert drawn == indices(ImageBatches(images, 6, 8), range(5))


def test_batches_larger_than_the_set(images: ImageSet):
    drawn = ImageBatches(images, batch_size=25, resolution=8).batch(0)["index"]
    assert torch.bincount(drawn).min() >= 2
    assert torch.bincount(drawn).max() <= 3


def test_subset(images: ImageSet):
    batches = ImageBatches(images, batch_size=3, resolution=8, indices=[1, 5, 7])
    assert sorted(batches.batch(0)["index"].tolist()) == [1, 5, 7]
    labels = batches.sample_labels(50, 0)
    assert images.labels is not None
    assert {tuple(row) for row in labels.tolist()} == {
        tuple(row) for row in images.labels[[1, 5, 7]].tolist()
    }


def test_mirroring_flips_image_and_camera_together(images: ImageSet):
    plain = ImageBatches(images, batch_size=10, resolution=8)
    mirrored = ImageBatches(images, batch_size=10, resolution=8, mirror=True)
    flips = []
    for step in range(20):
        a, b = plain.batch(step), mirrored.batch(step)
        assert a["index"].equal(b["index"])
        assert a["label"] is not None
        assert b["label"] is not None
        azimuth, turned = (camera_angles(label)[0] for label in (a["label"], b["label"]))
        flipped = (b["image"] == a["image"].flip(3)).flatten(1).all(1)
        kept = (b["image"] == a["image"]).flatten(1).all(1)
        assert (flipped ^ kept).all()
        torch.testing.assert_close(turned, torch.where(flipped, -azimuth, azimuth))
        flips.append(flipped)
    # 200 flips of a coin: 100 +- 28 is four standard deviations.
    assert abs(int(torch.cat(flips).sum()) - 100) < 28
    # Drawn anew each epoch: no image keeps its side in all 20.
    by_image = torch.zeros(10)
    for step, flip in enumerate(flips):
        by_image[mirrored.batch(step)["index"]] += flip
    assert (by_image > 0).all()
    assert (by_image < 20).all()


def project(label: torch.Tensor, point: torch.Tensor, size: int) -> torch.Tensor:
    cam2world, intrinsics = split_labels(label[None])
    local = torch.linalg.inv(cam2world[0]) @ torch.cat([point, torch.ones(1)])
    image_point = intrinsics[0] @ local[:3]
    return image_point[:2] / image_point[2] * size


def test_a_mirrored_camera_sees_the_mirrored_point_at_the_mirrored_pixel(tmp_path: Path):
    size, point = 32, torch.tensor([0.31, 0.12, 0.22])
    content = {n: d for n, d in files(4, size).items() if n.startswith("images/")}
    path = write_folder(tmp_path / "set", content)
    labels = ImageSet(path).labels
    assert labels is not None
    for index in range(4):
        # A picture of the point alone: one white pixel where its camera sees it.
        u, v = project(labels[index], point, size).floor().long().tolist()
        picture = np.zeros((size, size, 3), np.uint8)
        picture[v, u] = 255
        (path / f"images/00000/img{index:08d}.png").write_bytes(encode(picture))
    batches = ImageBatches(ImageSet(path), batch_size=4, resolution=size, mirror=True)
    seen = set()
    for step in range(8):
        batch = batches.batch(step)
        assert batch["label"] is not None
        for picture, label, index in zip(
            batch["image"], batch["label"], batch["index"], strict=True
        ):
            flipped = not torch.equal(label, labels[index])
            seen.add(flipped)
            # The scene of a flipped image is the mirrored scene: x changes its sign.
            there = point * torch.tensor([-1.0 if flipped else 1.0, 1, 1])
            u, v = project(label, there, size).floor().long().tolist()
            assert picture[0, v, u] == 255
    assert seen == {False, True}


def test_resolution(tmp_path: Path):
    images = ImageSet(write_folder(tmp_path / "set", files(4, 24)))
    for resolution in (8, 12, 24, 17):
        batch = ImageBatches(images, batch_size=4, resolution=resolution).batch(0)
        for picture, index in zip(batch["image"], batch["index"], strict=True):
            expected = resize_image(image(int(index), 24), resolution)
            np.testing.assert_array_equal(picture.permute(1, 2, 0), expected)


def test_sampled_labels_are_cameras_of_the_set(images: ImageSet):
    labels = images.labels
    assert labels is not None
    known = {tuple(row) for row in labels.tolist()}
    plain = ImageBatches(images, 4, 8).sample_labels(400, 0)
    assert {tuple(row) for row in plain.tolist()} == known
    both = ImageBatches(images, 4, 8, mirror=True).sample_labels(400, 0)
    share = sum(tuple(row) in known for row in both.tolist()) / 400
    assert 0.4 < share < 0.6
    generator = torch.Generator().manual_seed(0)
    mirrored = ImageBatches(images, 4, 8, mirror=True)
    torch.testing.assert_close(mirrored.sample_labels(400, generator), both)
    assert not torch.equal(mirrored.sample_labels(400, generator), both)


def test_a_set_without_labels_draws_from_the_prior(tmp_path: Path):
    path = write_folder(tmp_path / "set", {f"{i}.png": encode(image(i)) for i in range(4)})
    prior = PosePrior(azimuth_deg=(10.0, 20.0), elevation_deg=(0.0, 5.0), radius=3.0, fov_deg=20.0)
    batches = ImageBatches(ImageSet(path), batch_size=2, resolution=8, mirror=True, prior=prior)
    assert batches.batch(0)["label"] is None
    labels = batches.sample_labels(100, 5)
    azimuth, elevation, radius = camera_angles(labels)
    # Half of the images are mirrored, and as many of the cameras.
    assert 0.3 < (azimuth < 0).float().mean() < 0.7
    assert azimuth.abs().min() > np.deg2rad(9.99)
    assert azimuth.abs().max() < np.deg2rad(20.01)
    assert elevation.min() > -1e-3
    assert elevation.max() < np.deg2rad(5.01)
    torch.testing.assert_close(radius, torch.full((100,), 3.0))


def count_reads(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    reads: list[int] = []
    original = images.image

    def spy(index: int) -> np.ndarray:
        reads.append(index)
        return original(index)

    monkeypatch.setattr(images, "image", spy)
    return reads


def test_a_cached_set_is_decoded_once(images: ImageSet, monkeypatch: pytest.MonkeyPatch):
    reads = count_reads(images, monkeypatch)
    batches = ImageBatches(images, batch_size=2, resolution=8)
    assert reads == []
    for step in range(40):
        batches.batch(step)
    # Read-ahead may decode an image twice where one epoch ends and the next begins.
    assert len(reads) <= 14
    batches.close()


def test_a_set_larger_than_the_cache_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = ImageSet(write_zip(tmp_path / "set.zip", files(60, 64)))
    reads = count_reads(images, monkeypatch)
    # 60 images of 64 x 64 x 3 bytes are 0.74 MB: they do not fit into 0 MB and do fit into 1.
    assert ImageBatches(images, batch_size=2, resolution=64, cache_megabytes=1).cached
    batches = ImageBatches(images, batch_size=2, resolution=64, cache_megabytes=0)
    for step in range(5):
        batches.batch(step)
    batches.close()
    # Five steps and at most two ahead: of 60 images at most 14 were opened.
    assert 10 <= len(reads) <= 14
    assert batches._cache is None


def test_following_steps_are_read_while_the_caller_works(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
):
    reads = count_reads(images, monkeypatch)
    batches = ImageBatches(images, batch_size=2, resolution=8, cache_megabytes=0)
    batches.batch(0)
    deadline = time.monotonic() + 20
    while len(reads) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    ahead = [batches.order(step)[0].tolist() for step in range(3)]
    assert sorted(reads) == sorted(flat(ahead))


def test_reading_runs_in_several_threads(images: ImageSet, monkeypatch: pytest.MonkeyPatch):
    # Each reader waits for the other: with fewer than two threads the barrier breaks.
    barrier = threading.Barrier(2, timeout=20)
    original = images.image

    def meet(index: int) -> np.ndarray:
        barrier.wait()
        return original(index)

    monkeypatch.setattr(images, "image", meet)
    batches = ImageBatches(images, batch_size=2, resolution=8, cache_megabytes=0, workers=2)
    assert len(batches.batch(0)["index"]) == 2


def test_pickle(images: ImageSet):
    batches = ImageBatches(images, batch_size=4, resolution=8, seed=1, mirror=True)
    wanted = batches.batch(2)["image"]
    torch.testing.assert_close(pickle.loads(pickle.dumps(batches)).batch(2)["image"], wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0: give at least 1"),
        ({"resolution": 0}, "resolution = 0: give at least 1"),
        ({"workers": 0}, "workers = 0: give at least 1"),
        ({"rank": 2, "world_size": 2}, "rank = 2: must be at least 0 and below world_size 2"),
        ({"indices": []}, "no image is left for training"),
        ({"seed": -1}, "seed = -1: give 0 or more"),
        ({"cache_megabytes": -1}, "cache_megabytes = -1: give 0 or more"),
        ({"label_kind": "seg", "num_classes": 0}, "num_classes = 0: give 1 to 256"),
    ],
)
def test_bad_options(images: ImageSet, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ImageBatches(images, **(dict[str, Any](batch_size=1, resolution=8) | options))
