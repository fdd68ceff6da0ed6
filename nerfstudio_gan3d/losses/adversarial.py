"""The adversarial game: non-saturating logistic losses and the R1 penalty.

Symbols: D(x) is the discriminator's logit of image x, G the generator, gamma the R1 weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from nerfstudio_gan3d.networks.convolution import input_gradients_only


def generator_loss(fake_logits: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Non-saturating generator loss ``mean softplus(-D(G(z)))`` (Goodfellow et al. 2014)."""
    return softplus(-fake_logits).mean()


def discriminator_loss(
    fake_logits: Float[Tensor, "..."], real_logits: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Logistic discriminator loss ``mean softplus(D(G(z))) + mean softplus(-D(x))``."""
    return softplus(fake_logits).mean() + softplus(-real_logits).mean()


def r1_penalty(
    real_logits: Float[Tensor, "b 1"], inputs: Sequence[Float[Tensor, "b _ _ _"]]
) -> Float[Tensor, "b"]:
    """Squared gradient norm of D at real images, summed over its inputs, one value an image.

    ``sum_k |d sum D(x) / d x_k|^2`` (Mescheder et al. 2018, eq. 9; the loss is gamma / 2 times its
    mean). A dual discriminator is penalised on both of its resolutions (EG3D, supplement). The
    result is differentiable with respect to the discriminator's parameters.
    """
    with input_gradients_only():
        gradients = torch.autograd.grad(real_logits.sum(), list(inputs), create_graph=True)
    return torch.stack([g.float().square().sum((1, 2, 3)) for g in gradients]).sum(0)


def camera_loss(estimate: Float[Tensor, "b 3"], labels: Float[Tensor, "b 25"]) -> Float[Tensor, ""]:
    """Mean squared distance between estimated and true directions from the world's origin to the
    camera.

    The true direction is the unit vector to the camera's centre. The discriminator is trained with
    it on real images, the generator on its own (pi-GAN, Chan et al. 2021, section 3.3, with a
    direction in the place of two angles, which have a jump where they wrap around).
    """
    direction = torch.nn.functional.normalize(labels[:, [3, 7, 11]], dim=-1)
    return (estimate - direction).square().sum(-1).mean()


class _HandOver(torch.autograd.Function):
    """The generator's loss value, with a gradient on the images that was computed before."""

    @staticmethod
    def forward(ctx, loss, gradients, *images):  # type: ignore[override]
        ctx.save_for_backward(*gradients)
        ctx.count = len(images)
        return loss.clone()

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[override]
        return None, None, *(g * grad_output for g in ctx.saved_tensors)


def hand_over(
    loss: Float[Tensor, ""],
    gradients: Sequence[Tensor],
    images: Sequence[Tensor],
) -> Float[Tensor, ""]:
    """A scalar that equals ``loss`` and whose gradient on ``images`` is ``gradients``.

    The discriminator has seen ``images`` once, detached; its gradient on them is known without a
    second forward pass. This returns it to the generator's graph, so that one backward pass of the
    summed losses serves both players and neither sends a gradient into the other's parameters.
    """
    detached = [gradient.detach() for gradient in gradients]
    return cast(Tensor, _HandOver.apply(loss.detach(), detached, *images))
