"""Nearest training images of generated ones, to show that samples are no copies."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


class Neighbours(NamedTuple):
    """The k nearest bank entries of each of N queries, nearest first."""

    distances: Float[Tensor, "n k"]
    indices: Int[Tensor, "n k"]
    """Position in the bank, in the order in which it was given."""
    mirrored: Bool[Tensor, "n k"]
    """The entry is nearest when flipped left to right."""


class NearestNeighbours:
    """Euclidean k-nearest search through a bank that comes in batches."""

    def __init__(
        self, queries: Float[Tensor, "n *shape"], k: int = 1, *, mirror: bool = False
    ) -> None:
        """`mirror` also tries each bank entry flipped along its last axis (images only)."""
        if k < 1:
            raise ValueError(f"k is {k}; at least one neighbour must be asked for")
        self._shape = queries.shape[1:]
        self._queries = queries.detach().to("cpu", torch.float64).flatten(1)
        self._k = k
        self._mirror = mirror
        self._seen = 0
        self._best: Neighbours | None = None

    def update(self, bank: Float[Tensor, "m *shape2"]) -> None:
        """Searches a batch. Raises ValueError when its shape is not that of the queries."""
        if bank.shape[1:] != self._shape:
            raise ValueError(
                f"queries have shape {tuple(self._shape)} and the bank {tuple(bank.shape[1:])}; "
                "bring both to the same size"
            )
        if len(bank) == 0:
            return
        rows = bank.detach().to("cpu", torch.float64)
        variants = [rows.flatten(1)]
        if self._mirror:
            variants.append(rows.flip(-1).flatten(1))
        parts = [self._search(queries, variants) for queries in self._queries.split(1024)]
        found = Neighbours(*(torch.cat(p) for p in zip(*parts, strict=True)))
        found = found._replace(indices=found.indices + self._seen)
        self._seen += len(bank)
        self._best = found if self._best is None else self._merge(self._best, found)

    def _search(self, queries: Tensor, variants: list[Tensor]) -> Neighbours:
        squared = torch.stack([torch.cdist(queries, v) for v in variants])  # [V, n, M]
        nearest, variant = squared.min(dim=0)
        _, indices = nearest.topk(min(self._k, nearest.shape[1]), largest=False)
        mirrored = variant.gather(1, indices) == 1
        # cdist goes through a matrix product, which loses small distances to cancellation; copies
        # are exactly the small distances, so those that are kept are computed by subtraction.
        rows = torch.stack([v[indices] for v in variants])  # [V, n, k, D]
        rows = torch.where(mirrored[..., None], rows[-1], rows[0])
        distances = (queries[:, None] - rows).norm(dim=-1)
        return Neighbours(distances, indices, mirrored)

    def _merge(self, a: Neighbours, b: Neighbours) -> Neighbours:
        distances, indices, mirrored = (torch.cat(p, dim=1) for p in zip(a, b, strict=True))
        order = distances.argsort(dim=1, stable=True)[:, : self._k]
        return Neighbours(
            distances.gather(1, order), indices.gather(1, order), mirrored.gather(1, order)
        )

    def result(self) -> Neighbours:
        """Raises ValueError when the bank held fewer than k entries."""
        if self._best is None or self._seen < self._k:
            raise ValueError(
                f"{self._k} nearest image(s) were asked for and the data set has {self._seen}"
            )
        return self._best


def nearest_by_features(
    queries: Float[Tensor, "n f"], bank: Float[Tensor, "m g"], k: int = 1
) -> Neighbours:
    """Nearest bank vectors by Euclidean distance. Raises ValueError when F differs or m < k."""
    search = NearestNeighbours(queries, k)
    search.update(bank)
    return search.result()


def nearest_by_pixels(
    queries: Float[Tensor, "n 3 h w"],
    bank: Iterable[Tensor],
    k: int = 1,
    *,
    mirror: bool = True,
) -> Neighbours:
    """Nearest images of a stream of batches by root mean square difference of their values.

    All images are in [-1, 1], so distances lie in 0..2; `bank` gives batches [M, 3, H, W]. `mirror`
    also tries each image flipped left to right, because training usually sees the data set flipped
    too.

    Raises:
        ValueError: image sizes differ, or the bank has fewer than k images.
    """
    search = NearestNeighbours(queries, k, mirror=mirror)
    for batch in bank:
        search.update(batch)
    found = search.result()
    return found._replace(distances=found.distances / math.sqrt(queries[0].numel()))


def neighbour_sheet(
    samples: Float[Tensor, "n 3 h w"],
    neighbours: Sequence[Neighbours],
    load: Callable[[int], Float[Tensor, "3 h w"]],
) -> UInt8[Tensor, "rows columns 3"]:
    """A picture: one row per sample, the sample first, then its neighbours of each search.

    Images in [-1, 1]; `load` gives the bank image of an index. Mirrored neighbours are drawn
    mirrored. A white strip separates the sample and the searches.
    """
    gap = torch.ones(3, samples.shape[-2], max(2, samples.shape[-1] // 16))
    rows = []
    for i, sample in enumerate(samples.detach().cpu().float()):
        row = [sample]
        for found in neighbours:
            row.append(gap)
            for index, flip in zip(
                found.indices[i].tolist(), found.mirrored[i].tolist(), strict=True
            ):
                image = load(index).detach().cpu().float()
                row.append(image.flip(-1) if flip else image)
        rows.append(torch.cat(row, dim=-1))
    sheet = torch.cat(rows, dim=-2).clamp(-1, 1)
    return ((sheet + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
