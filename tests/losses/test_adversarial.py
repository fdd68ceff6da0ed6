"""Adversarial losses, R1 of functions with known gradients, and the hand-over between players."""

import math

import pytest
import torch
from torch import Tensor, nn

from nerfstudio_gan3d.losses.adversarial import (
    camera_loss,
    discriminator_loss,
    generator_loss,
    hand_over,
    r1_penalty,
)
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from tests.parity.fill import Fixture


def test_losses_of_an_undecided_discriminator_are_ln_2_each() -> None:
    zeros = torch.zeros(4, 1)
    assert generator_loss(zeros).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zeros, zeros).item() == pytest.approx(2 * math.log(2))


def test_losses_of_known_logits() -> None:
    # softplus(x) = ln(1 + e^x).
    fake, real = torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0], [0.0]])
    softplus = {x: math.log1p(math.exp(x)) for x in (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0)}
    assert generator_loss(fake).item() == pytest.approx((softplus[-1.0] + softplus[2.0]) / 2)
    expected = (softplus[1.0] + softplus[-2.0]) / 2 + (softplus[-3.0] + softplus[0.0]) / 2
    assert discriminator_loss(fake, real).item() == pytest.approx(expected)


def test_losses_equal_the_published_values() -> None:
    stored = Fixture("losses")
    fake, real = stored["logits_fake"], stored["logits_real"]
    torch.testing.assert_close(generator_loss(fake), stored["loss_G_nonsat"].mean())
    torch.testing.assert_close(discriminator_loss(fake, real), stored["loss_D_mean"][0])


def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weights() -> None:
    weight = torch.randn(3, 4, 4, requires_grad=True)
    image = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = (image * weight).sum((1, 2, 3))[:, None]
    penalty = r1_penalty(logits, [image])
    torch.testing.assert_close(penalty, weight.square().sum().expand(5))
    # d |w|^2 / dw = 2 w, so it can train the discriminator.
    (gradient,) = torch.autograd.grad(penalty.mean(), weight)
    torch.testing.assert_close(gradient, 2 * weight)


def test_r1_of_a_quadratic_discriminator_sums_over_both_inputs_of_each_image() -> None:
    # D = a |x|^2 + b |y|^2 has the gradient (2 a x, 2 b y).
    image, raw = torch.randn(2, 3, 4, 4).requires_grad_(), torch.randn(2, 3, 2, 2).requires_grad_()
    a, b = torch.tensor(0.5, requires_grad=True), 2.0
    squares = image.square().sum((1, 2, 3)), raw.square().sum((1, 2, 3))
    penalty = r1_penalty((a * squares[0] + b * squares[1])[:, None], [image, raw])
    torch.testing.assert_close(penalty, 4 * a**2 * squares[0] + 4 * b**2 * squares[1])
    (gradient,) = torch.autograd.grad(penalty.sum(), a)
    torch.testing.assert_close(gradient, (8 * a * squares[0]).sum())


def test_camera_loss_is_the_squared_distance_between_directions() -> None:
    label = torch.zeros(2, 25)
    # Cameras at (0, 0, 2) and (3, 0, 0); their directions are +z and +x.
    label[0, 11], label[1, 3] = 2, 3
    estimate = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    # The first is right, the second is off by (-1, 1, 0): squared length 2, mean 1.
    assert camera_loss(estimate, label).item() == pytest.approx(1)


class ToyGenerator(nn.Module):
    """Latents to an image and its raw image."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(4, 3 * 8 * 8, dtype=torch.float64)
        self.raw = nn.Linear(4, 3 * 4 * 4, dtype=torch.float64)

    def forward(self, z: Tensor) -> list[Tensor]:
        return [self.image(z).view(-1, 3, 8, 8), self.raw(z).view(-1, 3, 4, 4)]


def test_hand_over_trains_both_players_as_two_passes_do() -> None:
    # Minibatch statistics couple the images of a batch, which the hand-over has to carry too.
    generator = ToyGenerator()
    discriminator = DualDiscriminator(8, c_dim=0, channel_base=64, channel_max=8, mbstd_group=2)
    discriminator = discriminator.double()
    z = torch.randn(4, 4, dtype=torch.float64)
    own, critic = list(generator.parameters()), list(discriminator.parameters())

    plain_loss = generator_loss(discriminator(*generator(z)))
    expected = torch.autograd.grad(plain_loss, own)
    detached = [x.detach() for x in generator(z)]
    fakes_loss = torch.nn.functional.softplus(discriminator(*detached)).mean()
    expected_critic = torch.autograd.grad(fakes_loss, critic)

    images = generator(z)
    leaves = [x.detach().requires_grad_() for x in images]
    logits = discriminator(*leaves)
    loss = generator_loss(logits)
    gradients = torch.autograd.grad(loss, leaves, retain_graph=True)
    handed = hand_over(loss, gradients, images)
    torch.testing.assert_close(handed, plain_loss)
    (handed + torch.nn.functional.softplus(logits).mean()).backward()
    for found, twin in ((own, expected), (critic, expected_critic)):
        for parameter, gradient in zip(found, twin, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient)
    assert max(gradient.abs().max() for gradient in expected) > 1e-4


def test_hand_over_scales_with_what_the_loss_is_multiplied_by() -> None:
    image = torch.randn(2, 3, requires_grad=True)
    gradient = torch.randn(2, 3)
    handed = hand_over(torch.tensor(5.0), [gradient], [image * 2])
    assert handed.item() == 5
    (found,) = torch.autograd.grad(3 * handed, image)
    torch.testing.assert_close(found, 6 * gradient)
