"""UNISURF's networks, with codes: a surface as the zero level of a network, and the colour on
it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.decoder import SPHERE_RADIUS
from nerfstudio_gan3d.networks.positional import positional_encoding, positional_size
from nerfstudio_gan3d.networks.weight_norm import WeightNormLinear

SOFTPLUS_BETA = 100.0
"""Sharpness of the geometry's activation: nearly a ReLU, but with second derivatives."""


class GeometryMlp(nn.Module):
    """Shape code and positions to ``f``, negative inside of the surface, and features for colours.

    UNISURF (Oechsle et al. 2021) with 3DGEN's shape code: the positional encoding and the code go
    into the first layer and, divided by sqrt(2) together with what is there, into the layers of
    ``skips``. Layers have normalised weights and softplus between them. The initialisation (Atzmon
    and Lipman 2020) makes ``f`` roughly the distance to a sphere, which is then brought to a radius
    of 0.6. A code that reached it from the start would destroy that sphere, so its columns are zero
    at first.

    Args:
        code_dim: size of the shape code; 0 is UNISURF itself.
        hidden_dim: width.
        layers: hidden layers.
        feature_dim: features for the colours.
        octaves: of the positional encoding.
        skips: layers that see the position again; none may be the first.
    """

    def __init__(
        self,
        code_dim: int,
        hidden_dim: int = 256,
        layers: int = 8,
        feature_dim: int = 256,
        octaves: int = 6,
        skips: tuple[int, ...] = (4,),
    ) -> None:
        super().__init__()
        self.code_dim, self.octaves, self.skips = code_dim, octaves, skips
        self.feature_dim = feature_dim
        encoded = positional_size(octaves)
        for index in range(layers + 1):
            if index == layers:
                weight = torch.randn(1 + feature_dim, hidden_dim) * 1e-4
                weight += math.sqrt(math.pi / hidden_dim)
                last = WeightNormLinear(hidden_dim, 1 + feature_dim, weight, -SPHERE_RADIUS)
                setattr(self, f"lin{index}", last)
                break
            out = hidden_dim - encoded if index + 1 in skips else hidden_dim
            width = encoded if index == 0 else hidden_dim
            weight = torch.randn(out, width) * math.sqrt(2 / out)
            if index == 0:
                weight[:, 3:] = 0
            elif index in skips:
                weight[:, -(encoded - 3) :] = 0
            if index == 0 or index in skips:
                weight = torch.cat([weight, weight.new_zeros(out, code_dim)], dim=1)
            setattr(self, f"lin{index}", WeightNormLinear(weight.shape[1], out, weight))
        self.layers = layers
        self._centre()

    @torch.no_grad()
    def _centre(self) -> None:
        """Shifts ``f`` so that the initial surface has the mean radius 0.6. The initialisation
        alone leaves it between 0.43 and 0.78, seed by seed."""
        index = torch.arange(256, dtype=torch.float32)
        height = 1 - (2 * index + 1) / len(index)
        # Points of a Fibonacci lattice lie evenly on a sphere.
        turn, ring = index * math.pi * (3 - math.sqrt(5)), (1 - height.square()).sqrt()
        points = torch.stack([ring * turn.cos(), height, ring * turn.sin()], dim=-1)
        added = self.prepare(torch.zeros(1, self.code_dim))
        f = self(added, points[None] * SPHERE_RADIUS)[0]
        last = getattr(self, f"lin{self.layers}")
        last.bias[0] -= f.mean()

    def prepare(self, code: Float[Tensor, "b c"]) -> list[Float[Tensor, "b 1 _"]]:
        """What the code adds to the first layer and to those of the skips: once a Scene, not once a
        position."""
        added = []
        for index in (0, *self.skips):
            layer = getattr(self, f"lin{index}")
            share = code @ layer.weight[:, layer.weight.shape[1] - self.code_dim :].T
            added.append((share if index == 0 else share / math.sqrt(2))[:, None])
        return added

    def forward(
        self, added: list[Float[Tensor, "b 1 _"]], positions: Float[Tensor, "b n 3"]
    ) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n f"]]:
        """``f`` and features at positions in [-1, 1]^3. Differentiable twice."""
        encoded = positional_encoding(positions, self.octaves)
        x, pending = encoded, iter(added)
        for index in range(self.layers + 1):
            layer = getattr(self, f"lin{index}")
            weight = layer.weight
            if index in self.skips:
                x = torch.cat([x, encoded], dim=-1) / math.sqrt(2)
            if index == 0 or index in self.skips:
                weight = weight[:, : weight.shape[1] - self.code_dim]
                x = x @ weight.T + (layer.bias + next(pending))
            else:
                x = torch.nn.functional.linear(x, weight, layer.bias)
            if index < self.layers:
                x = torch.nn.functional.softplus(x, beta=SOFTPLUS_BETA)
        return x[..., :1], x[..., 1:]


class ColourMlp(nn.Module):
    """Appearance code, position, view, normal and features to a colour (UNISURF, 3DGEN).

    ``tanh(.) / 2 + 1/2`` of ReLU layers with normalised weights. The code is the last part of the
    input, and is not seen by the geometry.

    Args:
        code_dim: size of the appearance code; 0 is UNISURF itself.
        feature_dim: features of the geometry.
        hidden_dim: width.
        layers: hidden layers.
        view_octaves: of the view direction's encoding; None leaves the direction out.
        normals: whether the normal is part of the input.
    """

    def __init__(
        self,
        code_dim: int,
        feature_dim: int = 256,
        hidden_dim: int = 256,
        layers: int = 4,
        view_octaves: int | None = 4,
        normals: bool = True,
    ) -> None:
        super().__init__()
        self.code_dim, self.layers = code_dim, layers
        self.view_octaves, self.normals = view_octaves, normals
        width = 3 + feature_dim + (3 if normals else 0)
        width += 0 if view_octaves is None else positional_size(view_octaves)
        for index in range(layers + 1):
            out = 3 if index == layers else hidden_dim
            entering = width + code_dim if index == 0 else hidden_dim
            # As torch initialises linear layers; the sphere needs nothing of the colours.
            weight = torch.empty(out, entering)
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            setattr(self, f"lina{index}", WeightNormLinear(entering, out, weight))

    def prepare(self, code: Float[Tensor, "b c"]) -> Float[Tensor, "b 1 h"]:
        """What the code adds to the first layer."""
        first = self.lina0
        assert isinstance(first, WeightNormLinear)
        weight = first.weight
        return (code @ weight[:, weight.shape[1] - self.code_dim :].T)[:, None]

    def forward(
        self,
        added: Float[Tensor, "b 1 h"],
        positions: Float[Tensor, "b n 3"],
        views: Float[Tensor, "b n 3"] | None,
        normals: Float[Tensor, "b n 3"] | None,
        features: Float[Tensor, "b n f"],
    ) -> Float[Tensor, "b n 3"]:
        """Colours in (0, 1); ``views`` are unit vectors from the position to the eye, ``normals``
        the gradient of ``f`` as it is. Raises ValueError where one of them is missing."""
        parts = [positions]
        if self.view_octaves is not None:
            parts.append(positional_encoding(_given("views", views), self.view_octaves))
        if self.normals:
            parts.append(_given("normals", normals))
        x = torch.cat([*parts, features], dim=-1)
        for index in range(self.layers + 1):
            layer = getattr(self, f"lina{index}")
            weight, bias = layer.weight, layer.bias
            if index == 0:
                weight, bias = weight[:, : x.shape[-1]], bias + added
            x = x @ weight.T + bias
            if index < self.layers:
                x = torch.relu(x)
        return torch.tanh(x) * 0.5 + 0.5


def _given(name: str, value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError(f"this colour network needs {name}")
    return value
