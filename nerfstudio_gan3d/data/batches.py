"""Batches of real images whose order is a pure function of seed, step and rank."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from nerfstudio_gan3d.cameras import PosePrior, mirror_labels
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.depth import DEPTH_RANGE, check_depth, read_distance
from nerfstudio_gan3d.data.label_maps import (
    LabelKind,
    check_label_maps,
    mirror_table,
    read_label_map,
)
from nerfstudio_gan3d.data.resize import resize_image

PREFETCH = 2
"""Steps that are read ahead of the one asked for."""


class RealBatch(TypedDict):
    """One batch of real images on the CPU."""

    image: Tensor
    """uint8 ``[B, 3, R, R]``."""
    label: Tensor | None
    """Camera labels, float32 ``[B, 25]``; None when the set has none."""
    index: Tensor
    """int64 ``[B]``: the images' positions in the `ImageSet`."""
    label_map: Tensor | None
    """uint8 ``[B, 1, R, R]``: class ids, or drawings (0 line, 255 paper); None when none are
    read."""
    depth: Tensor | None
    """float32 ``[B, 1, R, R]``: distance along the ray of each pixel in object-world units, 0 is
    background; None when none is read."""


class _Read(NamedTuple):
    """What is read of one image."""

    pixels: UInt8[np.ndarray, "r r channels"]
    distance: Float32[np.ndarray, "r r"] | None


class ImageBatches:
    """Batches for training, resized, shuffled and mirrored.

    Every image comes once an epoch (all ranks together), in an order that depends on the seed and
    the epoch alone; a batch may span two epochs. So a resumed run sees what the uninterrupted one
    would have seen. With ``mirror`` each image is flipped with probability one half, drawn anew
    every epoch, and its camera, label map and depth are mirrored with it; in a map of class ids the
    pairs of `ImageSet.mirror_classes` change places.

    When the resized set fits into ``cache_megabytes`` it is kept, images as uint8 and depth as
    float32, and each file is decoded once. Otherwise files are decoded at each use. Either way
    ``workers`` threads work on the following steps while the caller trains on this one.

    Args:
        image_set: the images.
        batch_size: images a batch and rank.
        resolution: side of the returned images in pixels.
        seed: of order and mirroring.
        mirror: whether to flip half of the images.
        rank: of this process.
        world_size: number of processes.
        cache_megabytes: memory for decoded images, 10^6 bytes each; 0 keeps none.
        workers: threads that decode.
        indices: the images to use, as positions in the set; None uses all.
        prior: where `sample_labels` draws from when the set has no labels.
        label_kind: how to read label maps; "none" reads none.
        num_classes: class ids must be smaller; None takes the classes of the set.
        with_depth: whether to read depth; see `nerfstudio_gan3d.data.depth.read_distance`.
        depth_range: distances of the nearest and the farthest point, for relative depth.

    Raises:
        ValueError: an argument out of range.
        DataError: the set has no label maps of the asked kind, or no depth that is asked for.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        resolution: int,
        seed: int = 0,
        mirror: bool = False,
        rank: int = 0,
        world_size: int = 1,
        cache_megabytes: int = 512,
        workers: int = 2,
        indices: Sequence[int] | None = None,
        prior: PosePrior | None = None,
        label_kind: LabelKind = "none",
        num_classes: int | None = None,
        with_depth: bool = False,
        depth_range: tuple[float, float] = DEPTH_RANGE,
    ) -> None:
        for name, value in {
            "batch_size": batch_size,
            "resolution": resolution,
            "workers": workers,
            "world_size": world_size,
        }.items():
            if value < 1:
                raise ValueError(f"{name} = {value}: give at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank = {rank}: must be at least 0 and below world_size {world_size}")
        for name, value in {"seed": seed, "cache_megabytes": cache_megabytes}.items():
            if value < 0:
                raise ValueError(f"{name} = {value}: give 0 or more")
        self.image_set = image_set
        self.indices = np.arange(len(image_set)) if indices is None else np.array(indices, int)
        if len(self.indices) == 0:
            raise ValueError(f"{image_set.path}: no image is left for training")
        self.batch_size, self.resolution = batch_size, resolution
        self.seed, self.mirror = seed, mirror
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.prior = prior or PosePrior()
        check_label_maps(image_set, label_kind, num_classes)
        self.label_kind: LabelKind = label_kind
        self.num_classes = num_classes
        self.channels = 3 if label_kind == "none" else 4
        if with_depth:
            check_depth(image_set, depth_range)
        self.with_depth, self.depth_range = with_depth, depth_range
        bytes_of_pixel = self.channels + 4 * with_depth
        bytes_needed = len(self.indices) * resolution * resolution * bytes_of_pixel
        self.cached = bytes_needed <= cache_megabytes * 1_000_000
        self._start()

    def _start(self) -> None:
        self._cache: np.ndarray | None = None
        self._distances: np.ndarray | None = None
        if self.cached:
            # np.empty costs no memory until an image is written into its place.
            side = self.resolution
            self._cache = np.empty((len(self.indices), side, side, self.channels), np.uint8)
            if self.with_depth:
                self._distances = np.empty((len(self.indices), side, side), np.float32)
        pairs = self.image_set.mirror_classes if self.label_kind == "seg" else []
        self._mirror_table = mirror_table(pairs)
        self._filled = np.zeros(len(self.indices), bool)
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[int, list[Future[_Read]]] = {}
        self._lock = threading.Lock()

    def batch(self, step: int) -> RealBatch:
        """The real images of a step; raises DataError when one of them cannot be read."""
        with self._lock:
            wanted = self._pending.pop(step, None) or self._submit(step)
            ahead = range(step + 1, step + 1 + PREFETCH)
            for other in [s for s in self._pending if s not in ahead]:
                for future in self._pending.pop(other):
                    future.cancel()
            for other in ahead:
                if other not in self._pending:
                    self._pending[other] = self._submit(other)
        places, flips = self.order(step)
        # The label map is a fourth channel, so that it shares cache and mirroring with its image.
        read = [future.result() for future in wanted]
        pixels = np.stack([one.pixels for one in read])  # [B, R, R, 3 or 4]
        pixels[flips] = pixels[flips, :, ::-1]
        pixels[flips, ..., 3:] = self._mirror_table[pixels[flips, ..., 3:]]
        planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        index = torch.from_numpy(self.indices[places])
        return {
            "image": planes[:, :3].contiguous(),
            "label": self._labels(index, torch.from_numpy(flips)),
            "index": index,
            "label_map": None if self.label_kind == "none" else planes[:, 3:].contiguous(),
            "depth": _mirrored([one.distance for one in read], flips) if self.with_depth else None,
        }

    def order(self, step: int) -> tuple[Int[np.ndarray, "b"], np.ndarray]:
        """Places in ``indices`` and mirror flags (bool ``[B]``) of a step's images."""
        first = (step * self.world_size + self.rank) * self.batch_size
        positions = first + np.arange(self.batch_size)
        epochs, offsets = np.divmod(positions, len(self.indices))
        places = np.empty(self.batch_size, int)
        flips = np.empty(self.batch_size, bool)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            permutation, mirrored = self._epoch(int(epoch))
            places[here] = permutation[offsets[here]]
            flips[here] = mirrored[places[here]]
        return places, flips

    def sample_labels(self, count: int, generator: torch.Generator | int) -> Float[Tensor, "b 25"]:
        """Cameras for generated images: those of random images of the set, or of the pose prior.

        Args:
            count: number of cameras.
            generator: or a seed. With ``mirror`` half of the cameras are mirrored.
        """
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        if self.image_set.labels is None:
            labels = self.prior.sample(count, generator)
        else:
            places = torch.randint(len(self.indices), (count,), generator=generator)
            labels = self.image_set.labels[torch.from_numpy(self.indices)[places]]
        if not self.mirror:
            return labels
        flips = torch.rand(count, generator=generator) < 0.5
        return torch.where(flips[:, None], mirror_labels(labels), labels)

    def close(self) -> None:
        """Stop the threads; `batch` starts them again."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
            self._pending.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        found = self._epochs.get(epoch)
        if found is None:
            random = np.random.default_rng([self.seed, epoch])
            permutation = random.permutation(len(self.indices))
            flips = random.random(len(self.indices)) < 0.5
            found = permutation, flips & self.mirror
            # A step and those read ahead of it touch few epochs, unless batches exceed the set.
            self._epochs = {k: v for k, v in self._epochs.items() if abs(k - epoch) <= 2}
            self._epochs[epoch] = found
        return found

    def _labels(self, index: Int[Tensor, "b"], flips: Tensor) -> Float[Tensor, "b 25"] | None:
        if self.image_set.labels is None:
            return None
        labels = self.image_set.labels[index]
        return torch.where(flips[:, None], mirror_labels(labels), labels)

    def _submit(self, step: int) -> list[Future[_Read]]:
        places, _ = self.order(step)
        futures: list[Future[_Read]] = []
        for place in places:
            if self._cache is not None and self._filled[place]:
                future: Future[_Read] = Future()
                distance = None if self._distances is None else self._distances[place]
                future.set_result(_Read(self._cache[place], distance))
            else:
                future = self._workers().submit(self._decode, int(place))
            futures.append(future)
        return futures

    def _workers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="gan3d-images")
        return self._pool

    def _decode(self, place: int) -> _Read:
        index, side = int(self.indices[place]), self.resolution
        image = resize_image(self.image_set.image(index), side)
        if self.label_kind != "none":
            label_map = read_label_map(
                self.image_set, index, self.label_kind, self.num_classes, side
            )
            image = np.concatenate([image, label_map[..., None]], axis=-1)
        distance = None
        if self.with_depth:
            distance = read_distance(self.image_set, index, side, self.depth_range)
        if self._cache is not None:
            # Two threads may decode one image of two steps; both write the same bytes.
            self._cache[place] = image
            if self._distances is not None:
                self._distances[place] = distance
            self._filled[place] = True
        return _Read(image, distance)


def _mirrored(
    distances: Sequence[Float32[np.ndarray, "r r"] | None], flips: np.ndarray
) -> Float32[Tensor, "b 1 r r"]:
    """Distances of a batch; a mirrored camera sees a mirrored scene at the same distances."""
    stacked = np.stack([one for one in distances if one is not None])
    stacked[flips] = stacked[flips, :, ::-1]
    return torch.from_numpy(stacked)[:, None]
