"""Nearest neighbours against hand-worked distances and a plain search."""

import math

import pytest
import torch

from nerfstudio_gan3d.metrics.nearest import (
    Neighbours,
    nearest_by_features,
    nearest_by_pixels,
    neighbour_sheet,
)


def test_feature_neighbours_by_hand():
    bank = torch.tensor([[0.0, 0], [3, 4], [6, 8], [0, 1]])
    found = nearest_by_features(torch.tensor([[0.0, 0], [3, 3]]), bank, k=3)
    assert found.indices.tolist() == [[0, 3, 1], [1, 3, 0]]
    expected = [[0, 1, 5], [1, math.sqrt(13), math.sqrt(18)]]
    torch.testing.assert_close(found.distances, torch.tensor(expected, dtype=torch.float64))
    assert not found.mirrored.any()


def test_a_tiny_difference_far_from_zero_is_not_lost():
    # Through a matrix product 1e-7 at a norm of 1e4 would vanish; it tells a copy from a near one.
    bank = torch.full((40, 100), 1e3, dtype=torch.float64)
    query = bank[:1].clone()
    query[0, 0] += 1e-7
    found = nearest_by_features(query, bank, k=1)
    assert found.distances.item() == pytest.approx(1e-7, rel=1e-5)


def test_pixel_search_in_batches_equals_a_plain_search_with_mirrors():
    bank, queries = torch.rand(23, 3, 5, 5) * 2 - 1, torch.rand(4, 3, 5, 5) * 2 - 1
    queries[1] = bank[17].flip(-1)
    queries[2] = bank[8] + 0.01
    found = nearest_by_pixels(queries, bank.split([10, 1, 12]), k=3)

    def rms(a: torch.Tensor, b: torch.Tensor) -> float:
        return (a - b).square().mean().sqrt().item()

    for i, query in enumerate(queries):
        plain = sorted(
            (*min((rms(query, b), False), (rms(query, b.flip(-1)), True)), j)
            for j, b in enumerate(bank)
        )[:3]
        assert found.indices[i].tolist() == [j for _, _, j in plain]
        assert found.mirrored[i].tolist() == [m for _, m, _ in plain]
        assert found.distances[i].tolist() == pytest.approx([d for d, _, _ in plain], abs=1e-6)
    assert found.distances[1, 0] == 0
    assert found.mirrored[1, 0]
    assert found.distances[2, 0].item() == pytest.approx(0.01, rel=1e-4)
    assert not nearest_by_pixels(queries, [bank], mirror=False).mirrored.any()


def test_search_refuses_other_sizes_and_too_small_a_bank():
    with pytest.raises(ValueError, match=r"\(3, 4, 4\).*\(3, 8, 8\)"):
        nearest_by_pixels(torch.zeros(1, 3, 4, 4), [torch.zeros(2, 3, 8, 8)])
    with pytest.raises(ValueError, match=r"\(2,\).*the bank \(3,\)"):
        nearest_by_features(torch.zeros(1, 2), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"3 nearest image\(s\).*has 2"):
        nearest_by_features(torch.zeros(1, 2), torch.zeros(2, 2), k=3)
    with pytest.raises(ValueError, match="k is 0"):
        nearest_by_features(torch.zeros(1, 2), torch.zeros(2, 2), k=0)


def test_sheet_shows_sample_then_neighbours_and_mirrors_them():
    samples = torch.full((2, 3, 4, 4), -1.0)
    bank = torch.zeros(2, 3, 4, 4)
    bank[1, :, :, 0] = 1.0
    found = Neighbours(
        torch.zeros(2, 1, dtype=torch.float64),
        torch.tensor([[0], [1]]),
        torch.tensor([[False], [True]]),
    )
    sheet = neighbour_sheet(samples, [found], lambda i: bank[i])
    assert sheet.shape == (8, 10, 3)
    # Sample (black), strip of two (white), neighbour (grey; mirrored: white column at the right).
    assert sheet[0, :, 0].tolist() == [0] * 4 + [255] * 2 + [128] * 4
    assert sheet[7, :, 0].tolist() == [0] * 4 + [255] * 2 + [128] * 3 + [255]
