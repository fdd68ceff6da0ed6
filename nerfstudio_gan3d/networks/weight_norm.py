"""Fully connected layers with normalised weights (Salimans and Kingma 2016), as UNISURF has
them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class WeightNormLinear(nn.Module):
    """``y = W x + b`` with ``W_i = g_i v_i / |v_i|``: length and direction of each row are learned
    apart.

    Args:
        in_features: size of x.
        out_features: size of y.
        weight: initial W [out, in]; None draws ``N(0, 2 / out)``, with which UNISURF's initial
            surface is a sphere.
        bias: initial value of all biases.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        weight: Float[Tensor, "o i"] | None = None,
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        if weight is None:
            weight = torch.randn(out_features, in_features) * math.sqrt(2 / out_features)
        self.weight_g = nn.Parameter(weight.norm(dim=1, keepdim=True))
        self.weight_v = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.full((out_features,), bias))

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """W; differentiable twice."""
        length = self.weight_v.norm(dim=1, keepdim=True)
        return self.weight_v * (self.weight_g / length)

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        return torch.nn.functional.linear(x, self.weight, self.bias)
