"""Average precision of edges in rows of pixels, worked by hand, and against a plain twin."""

import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.metrics.edges import EdgeAgreement, edge_average_precision, edge_strength

# Lines at pixels 2 and 6; strengths 1, 0.8 and 0.6 at pixels 2, 4 and 5.
REFERENCE = torch.tensor([0, 0, 1, 0, 0, 0, 1, 0]).bool().view(1, 1, 1, 8)
PREDICTED = torch.tensor([0, 0, 1.0, 0, 0.8, 0.6, 0, 0]).view(1, 1, 1, 8)


def test_average_precision_of_a_row_by_hand():
    # Tolerance 1. At 1.0: precision 1/1, recall 1/2. At 0.8: pixel 4 is two pixels from a line,
    # precision 1/2, recall 1/2. At 0.6: pixel 5 finds the line at 6, precision 2/3, recall 2/2.
    # Area: 1/2 * 1 + 0 * 1/2 + 1/2 * 2/3.
    assert edge_average_precision(PREDICTED, REFERENCE, 1.0) == pytest.approx(5 / 6)
    # Tolerance 0: only the first is ever found.
    assert edge_average_precision(PREDICTED, REFERENCE, 0.0) == pytest.approx(1 / 2)
    # Tolerance 2: at 0.8 all is right and both lines are found.
    assert edge_average_precision(PREDICTED, REFERENCE, 2.0) == pytest.approx(1)


def test_the_chance_level_is_what_equal_strength_everywhere_scores():
    agreement = EdgeAgreement(1.0)
    agreement.update(PREDICTED, REFERENCE)
    # Pixels 1, 2, 3, 5, 6 and 7 of eight are near a line.
    assert agreement.figures("x_")["x_edge_ap_chance"] == 6 / 8
    for strength in (0.2, 1.0):
        constant = torch.full_like(PREDICTED, strength)
        assert edge_average_precision(constant, REFERENCE, 1.0) == pytest.approx(6 / 8)
    assert edge_average_precision(torch.zeros_like(PREDICTED), REFERENCE, 1.0) == 0


def test_edges_where_the_drawing_has_none_cost_precision():
    agreement = EdgeAgreement(1.0)
    agreement.update(PREDICTED, REFERENCE)
    stray = torch.zeros_like(PREDICTED)
    stray[..., 0] = 1
    agreement.update(stray, torch.zeros_like(REFERENCE))
    # One more wrong pixel at every threshold: precisions 1/2, 1/3, 2/4.
    assert agreement.figures()["edge_ap"] == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 4)
    assert agreement.figures()["edge_ap_chance"] == 6 / 16


def test_the_tolerance_is_a_euclidean_distance():
    reference = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    reference[..., 2, 2] = True
    corner = torch.zeros(1, 1, 5, 5)
    corner[..., 1, 1] = 1
    assert edge_average_precision(corner, reference, 1.4) == 0
    assert edge_average_precision(corner, reference, 1.42) == 1


def plain_average_precision(predicted: Tensor, reference: Tensor, tolerance: float) -> float:
    """Distances between all pixels, and every strength that occurs as a threshold."""
    side = torch.arange(predicted.shape[-1])
    grid = torch.cartesian_prod(side, side).double()
    close = torch.cdist(grid, grid) <= tolerance
    area, recall = 0.0, 0.0
    for threshold in predicted[predicted > 0].unique().flip(0):
        right = all_predicted = found = edges = 0
        for strengths, lines in zip(predicted.flatten(1), reference.flatten(1), strict=True):
            chosen = strengths >= threshold
            all_predicted += int(chosen.sum())
            edges += int(lines.sum())
            right += int((close[chosen][:, lines]).any(1).sum())
            found += int((close[lines][:, chosen]).any(1).sum())
        area += right / all_predicted * (found / edges - recall)
        recall = found / edges
    return area


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 2.3])
def test_average_precision_equals_its_plain_twin(tolerance: float):
    reference = torch.rand(3, 1, 9, 9) < 0.08
    reference[2] = False
    predicted = (torch.rand(3, 1, 9, 9) * 20).round() / 255 * 12
    found = edge_average_precision(predicted, reference, tolerance)
    assert found == pytest.approx(plain_average_precision(predicted, reference, tolerance))
    parts = EdgeAgreement(tolerance)
    for one, lines in zip(predicted.split(1), reference.split(1), strict=True):
        parts.update(one, lines)
    assert parts.figures()["edge_ap"] == found


def test_lines_are_strong_and_paper_is_not():
    values = torch.tensor([1.0, -1, 0, 1.5, -3]).view(1, 1, 1, 5)
    assert edge_strength(values).flatten().tolist() == [0, 1, 0.5, 0, 1]


def test_edges_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="tolerance_px is -1"):
        EdgeAgreement(-1.0)
    with pytest.raises(ValueError, match=r"strengths lie in -1\.\.1; they must be in 0\.\.1"):
        EdgeAgreement(1.0).update(1 - 2 * REFERENCE.float(), REFERENCE)
    with pytest.raises(ValueError, match="strengths lie in nan"):
        EdgeAgreement(1.0).update(PREDICTED * math.nan, REFERENCE)
    with pytest.raises(ValueError, match="no edge pixel"):
        edge_average_precision(PREDICTED, torch.zeros_like(REFERENCE), 1.0)
    assert EdgeAgreement(1.0).figures() == {}
