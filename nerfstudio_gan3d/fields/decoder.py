"""The small network that turns a position's feature into density and colour features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.networks.ops import FullyConnected


def colour_range(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``sigmoid(x) * 1.002 - 0.001``: colours reach 0 and 1 at finite x (mip-NeRF; EG3D's
    decoder)."""
    return torch.sigmoid(raw) * 1.002 - 0.001


def initial_ball(positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 1"]:
    """Raw density of a soft, half-transparent ball: ``8 (0.25 - r^2) - 2`` (r in box sides).

    Added to what a field's network says, it is what an untrained field shows: something in the
    middle that light reaches through. Both the foreground and the background then get gradients
    from the first step; a field that starts empty or solid takes one of them away from the
    discriminator's signal.
    """
    squared = positions.square().sum(-1, keepdim=True)
    return 8 * (0.25 - squared) - 2


class Decoder(nn.Module):
    """Two fully connected layers with softplus between: feature -> raw density and colour features.

    EG3D, section 3.2 and supplement; the view direction is not used. With ``density_init="zero"``
    the density output starts at zero (BallGAN), so that the initial geometry is the initial ball
    alone.
    """

    def __init__(
        self,
        in_dim: int,
        feature_dim: int,
        hidden_dim: int = 64,
        density_init: str = "zero",
    ) -> None:
        super().__init__()
        self.hidden = FullyConnected(in_dim, hidden_dim)
        self.out = FullyConnected(hidden_dim, 1 + feature_dim)
        if density_init == "zero":
            with torch.no_grad():
                self.out.weight[0] = 0

    def forward(
        self, feature: Float[Tensor, "b n c"]
    ) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n f"]]:
        """Raw density and colour features (0..1) of each position."""
        hidden = self.hidden(feature.flatten(0, 1))
        out = self.out(torch.nn.functional.softplus(hidden)).unflatten(0, feature.shape[:2])
        return out[..., :1], colour_range(out[..., 1:])
