"""Losses of labels: hand-worked values, plain twins in double, images that do not count."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.losses.labels import (
    CELEBA_CLASS_WEIGHTS,
    cross_view_loss,
    edge_reconstruction,
    image_reconstruction,
    label_channels,
    label_cross_entropy,
    named_class_weights,
    reduce_nearest,
)
from nerfstudio_gan3d.networks.label_encoder import encode_labels
from tests.parity.fill import Fixture


def test_cross_entropy_of_two_hand_worked_pixels() -> None:
    # Logits (ln 3, 0): probabilities 3/4 and 1/4. The first pixel is class 0, the second class 1.
    logits = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    maps = torch.tensor([[[[0, 1], [0, 1]]]], dtype=torch.uint8)
    expected = (math.log(4 / 3) + math.log(4)) / 2
    assert label_cross_entropy(logits, maps).item() == pytest.approx(expected)
    # Class 1 weighs three times as much: a weighted mean, not a mean of weighted values.
    weights = torch.tensor([1.0, 3.0])
    expected = (math.log(4 / 3) + 3 * math.log(4)) / 4
    assert label_cross_entropy(logits, maps, weights).item() == pytest.approx(expected)


def test_a_map_is_reduced_to_the_first_pixel_of_each_cell() -> None:
    maps = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    assert reduce_nearest(maps, (2, 2)).flatten().tolist() == [0, 2, 8, 10]
    # floor(4 i / 3) for i = 0, 1, 2 is 0, 1, 2.
    assert reduce_nearest(maps, (3, 3))[0, 0, 0].tolist() == [0, 1, 2]
    # Logits that are sure of exactly these ids have no loss, of any others they have.
    sure = 50 * torch.nn.functional.one_hot(torch.tensor([[[0, 2], [8, 10]]]), 16)
    assert label_cross_entropy(sure.movedim(-1, 1).float(), maps).item() < 1e-6
    wrong = 50 * torch.nn.functional.one_hot(torch.tensor([[[5, 7], [13, 15]]]), 16)
    assert label_cross_entropy(wrong.movedim(-1, 1).float(), maps).item() == pytest.approx(50)


def plain_cross_entropy(logits: Tensor, maps: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    """The formula, pixel by pixel."""
    total, count = logits.new_zeros(()), logits.new_zeros(())
    height, width = logits.shape[2:]
    for b in range(len(logits)):
        for i in range(height):
            for j in range(width):
                y = int(maps[b, 0, i * maps.shape[2] // height, j * maps.shape[3] // width])
                surprise = logits[b, :, i, j].exp().sum().log() - logits[b, y, i, j]
                total = total + weight[b] * classes[y] * surprise
                count = count + weight[b] * classes[y]
    return total / count


def test_cross_entropy_equals_its_plain_twin_in_values_and_gradients() -> None:
    logits = torch.randn(3, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    maps = torch.randint(4, (3, 1, 12, 12)).to(torch.uint8)
    classes, weight = torch.rand(4, dtype=torch.float64), torch.tensor([1.0, 0, 1]).double()
    found = label_cross_entropy(logits, maps, classes, weight)
    twin = plain_cross_entropy(logits, maps, classes, weight)
    torch.testing.assert_close(found, twin)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits), torch.autograd.grad(twin, logits)
    )
    # With weights of 0 and 1 it is the loss of the images that count.
    alone = label_cross_entropy(logits[[0, 2]], maps[[0, 2]], classes)
    torch.testing.assert_close(found, alone)


def test_smooth_l1_of_edges_by_hand() -> None:
    # Differences 0.5, -1.5, 0 and 1: 0.125, 1, 0 and 0.5, mean 0.40625.
    values = torch.tensor([0.5, -0.5, 1.0, 0.0]).view(1, 1, 2, 2)
    target = torch.tensor([0.0, 1.0, 1.0, -1.0]).view(1, 1, 2, 2)
    assert edge_reconstruction(values, target).item() == pytest.approx(0.40625)
    # Four times as large, only the first pixel of a cell counts.
    large = target.repeat_interleave(4, 2).repeat_interleave(4, 3)
    large[:, :, 1::4] = 7
    large[:, :, :, 2::4] = 7
    assert edge_reconstruction(values, large).item() == pytest.approx(0.40625)


def test_smooth_l1_equals_the_published_value() -> None:
    stored = Fixture("losses")
    a, b = stored["smooth_l1_a"], stored["smooth_l1_b"]
    torch.testing.assert_close(cross_view_loss(a, b), stored["smooth_l1"][0])


def test_images_are_compared_after_an_antialiased_reduction() -> None:
    # A checkerboard of single pixels, -1 and 1, averages to 0 far from the border; its nearest
    # reduction would be 1 everywhere.
    board = 1 - 2 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2)
    target = board.float().expand(1, 3, 32, 32)
    assert image_reconstruction(torch.zeros(1, 3, 8, 8), target).item() < 1e-3
    # Of one size, nothing is filtered: differences of 1 are 1/2 each.
    loss = image_reconstruction(torch.zeros(1, 3, 32, 32), target)
    assert loss.item() == pytest.approx(0.5)


RECONSTRUCTIONS: list[Callable[..., Tensor]] = [
    edge_reconstruction,
    image_reconstruction,
    cross_view_loss,
]


@pytest.mark.parametrize("loss", RECONSTRUCTIONS)
def test_images_that_do_not_count_are_left_out(loss: Callable[..., Tensor]) -> None:
    values = torch.randn(4, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    target = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    weight = torch.tensor([0.0, 1, 0, 1]).double()
    found = loss(values, target, weight)
    torch.testing.assert_close(found, loss(values[[1, 3]], target[[1, 3]]))
    (gradient,) = torch.autograd.grad(found, values)
    assert gradient[[0, 2]].abs().max() == 0
    assert gradient[[1, 3]].abs().min() > 0
    assert torch.autograd.gradcheck(loss, (values, target, weight))


@pytest.mark.parametrize("loss", RECONSTRUCTIONS)
def test_no_image_that_counts_gives_zero(loss: Callable[..., Tensor]) -> None:
    values = torch.randn(2, 1, 4, 4, requires_grad=True)
    found = loss(values, torch.randn(2, 1, 4, 4), torch.zeros(2))
    (gradient,) = torch.autograd.grad(found, values)
    assert found.item() == 0
    assert gradient.abs().max() == 0


def test_no_map_that_counts_gives_zero_cross_entropy() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    maps = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    found = label_cross_entropy(logits, maps, torch.tensor([1.0, 2, 3]), torch.zeros(2))
    (gradient,) = torch.autograd.grad(found, logits)
    assert found.item() == 0
    assert gradient.abs().max() == 0


def test_the_reference_of_the_cross_view_loss_is_a_constant() -> None:
    recovered, reference = torch.randn(2, 1, 3, 4, 4).requires_grad_().unbind()
    loss = cross_view_loss(recovered, reference)
    first, second = torch.autograd.grad(loss, (recovered, reference), allow_unused=True)
    assert second is None
    # Smooth L1 has the slope clamp(difference, -1, 1) / number of values.
    expected = (recovered - reference).clamp(-1, 1) / recovered.numel()
    torch.testing.assert_close(first, expected.detach())


def test_the_discriminator_sees_probabilities_of_classes_and_edges_as_they_are() -> None:
    labels = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1)
    assert label_channels(labels, "seg").flatten().tolist() == pytest.approx([0.75, 0.25])
    edges = torch.tensor([[[[-0.3]]]])
    assert label_channels(edges, "edge").item() == pytest.approx(-0.3)


def test_sure_scores_look_like_the_maps_of_real_images() -> None:
    maps = torch.tensor([[[[0, 2], [1, 2]]]], dtype=torch.uint8)
    channels = encode_labels(maps, "seg", 3)
    torch.testing.assert_close(label_channels(50 * channels, "seg"), channels)


def test_weights_of_the_face_classes_and_their_squares() -> None:
    plain, squared = named_class_weights("celeba", 19), named_class_weights("celeba_squared", 19)
    assert plain is not None
    assert squared is not None
    # Necklace and hair: 17.17367367^2 = 294.9350673..., 0.40917425^2 = 0.1674235668...
    assert plain[16].item() == pytest.approx(17.17367367)
    assert squared[16].item() == pytest.approx(294.93506732, rel=1e-6)
    assert squared[13].item() == pytest.approx(0.16742357, rel=1e-6)
    assert plain.tolist() == pytest.approx(CELEBA_CLASS_WEIGHTS, rel=1e-6)
    assert named_class_weights("none", 6) is None
    with pytest.raises(ValueError, match=r"class_weights is celeba, .* 19 .* have 6; set .* none"):
        named_class_weights("celeba", 6)
