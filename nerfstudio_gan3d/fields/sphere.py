"""BallGAN's background: an opaque sphere around the world, one query per ray (arXiv 2301.09091,
3.2)."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.two_layers import colour_range
from nerfstudio_gan3d.networks.ops import FullyConnected


def sphere_distance(
    origins: Float[Tensor, "b r 3"], directions: Float[Tensor, "b r 3"], radius: float
) -> Float[Tensor, "b r 1"]:
    """Distance along unit-length rays to the far intersection with the sphere about the world
    origin.

    With the camera inside, ``t = -<o, d> + sqrt(R^2 - |o|^2 + <o, d>^2)`` is the only one in front
    of it. From outside, a ray that misses takes its point nearest to the sphere.
    """
    along = (origins * directions).sum(-1, keepdim=True)
    inside = radius**2 - origins.square().sum(-1, keepdim=True) + along.square()
    return inside.clamp(min=0).sqrt() - along


def sphere_angles(points: Float[Tensor, "b r 3"]) -> Float[Tensor, "b r 2"]:
    """theta = arccos(y) in [0, pi] and phi = atan2(x, z) in [0, 2 pi) of unit vectors."""
    theta = torch.arccos(points[..., 1].clamp(-1, 1))
    phi = torch.remainder(torch.atan2(points[..., 0], points[..., 2]), 2 * math.pi)
    return torch.stack([theta, phi], dim=-1)


def fourier_features(
    values: Float[Tensor, "b r d"], octaves: int, interleave: bool = False
) -> Float[Tensor, "b r e"]:
    """sin and cos of ``2^i pi x`` for i = 0 .. octaves - 1 of every component."""
    frequency = math.pi * 2.0 ** torch.arange(octaves, device=values.device, dtype=values.dtype)
    phase = values.unsqueeze(-2) * frequency[:, None]  # [B, R, octaves, D]
    pair = torch.stack([phase.sin(), phase.cos()], dim=-2)  # [B, R, octaves, 2, D]
    if interleave:
        return pair.flatten(-3)
    return torch.cat([values, pair.flatten(-3)], dim=-1)


class StyledLayer(nn.Module):
    """Fully connected layer whose weight is scaled by a style (StyleGAN2's modulation without
    space).

    ``W' = W * s``, then each output's weights are brought to unit length (demodulation) or, for the
    last layer, divided by sqrt(in).
    """

    def __init__(self, in_dim: int, out_dim: int, w_dim: int, demodulate: bool = True) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_dim, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.demodulate = demodulate

    def forward(
        self, x: Float[Tensor, "#b r i"], w: Float[Tensor, "b w"]
    ) -> Float[Tensor, "b r o"]:
        style = self.affine(w)
        if not self.demodulate:
            style = style / math.sqrt(self.weight.shape[1])
        weight = self.weight * style[:, None]  # [B, O, I]
        if self.demodulate:
            weight = weight * (weight.square().sum(-1, keepdim=True) + 1e-8).rsqrt()
        x = x.expand(len(w), -1, -1)
        return torch.baddbmm(self.bias.expand(len(w), 1, -1), x, weight.mT)


class SphereBackground(nn.Module):
    """Colour features of the sphere's inside, from the direction alone and a background latent.

    corrected encodes the unit vector from the sphere's centre to the point that a ray hits, which
    is continuous all around. reference encodes (theta, phi) / 2 pi as published: there the first
    octave has period two, so phi = 0 and phi = 2 pi get different codes and a seam runs along the
    +z half-plane.

    With ``z_dim`` it is BallGAN's earlier network (ver0): plain layers with ReLU between, of which
    the first takes the unmapped latent z beside the code. Otherwise every layer is modulated by a
    mapped latent w (ver1).
    """

    layers: nn.ModuleList

    def __init__(
        self,
        w_dim: int,
        feature_dim: int,
        hidden_dim: int = 64,
        layers: int = 4,
        radius: float = 3.0,
        octaves: int = 8,
        conventions: Literal["corrected", "reference"] = "corrected",
        z_dim: int = 0,
    ) -> None:
        super().__init__()
        self.radius = radius
        self.plain = z_dim > 0
        self.reference = conventions == "reference"
        self.octaves = 10 if self.reference else octaves
        in_dim = 4 * self.octaves if self.reference else 3 + 6 * self.octaves
        sizes = [in_dim + z_dim] + [hidden_dim] * layers
        pairs = itertools.pairwise(sizes)
        if self.plain:
            self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairs)
            self.out = nn.Linear(hidden_dim, feature_dim)
        else:
            self.layers = nn.ModuleList(StyledLayer(i, o, w_dim) for i, o in pairs)
            self.out = StyledLayer(hidden_dim, feature_dim, w_dim, demodulate=False)
        self.num_ws = layers + 1

    def encode(
        self, origins: Float[Tensor, "b r 3"], directions: Float[Tensor, "b r 3"]
    ) -> Float[Tensor, "b r e"]:
        """Positional code of the points where rays hit the sphere."""
        distance = sphere_distance(origins, directions, self.radius)
        points = (origins + distance * directions) / self.radius
        if self.reference:
            return fourier_features(
                sphere_angles(points) / (2 * math.pi), self.octaves, interleave=True
            )
        points = torch.nn.functional.normalize(points, dim=-1)
        return fourier_features(points, self.octaves)

    def forward(
        self,
        ws: Float[Tensor, "b *l w"],
        origins: Float[Tensor, "b r 3"],
        directions: Float[Tensor, "b r 3"],
    ) -> Float[Tensor, "b r f"]:
        """Colour features (0..1) that rays see on the sphere.

        ``ws`` has one latent w a layer; for ver0 it is the latent z [B, Z].
        """
        x = self.encode(origins, directions)
        if self.plain:
            x = torch.cat([x, ws[:, None].expand(-1, x.shape[1], -1)], dim=-1)
            for layer in self.layers:
                x = torch.relu(layer(x))
            return colour_range(self.out(x))
        for index, layer in enumerate(self.layers):
            x = torch.nn.functional.leaky_relu(layer(x, ws[:, index]), 0.2) * math.sqrt(2)
        return colour_range(self.out(x, ws[:, -1]))


class BoundSphere:
    """A `SphereBackground` with the latents of B Scenes: the Background that a Scene holds."""

    def __init__(self, sphere: SphereBackground, ws: Float[Tensor, "b *l w"]) -> None:
        self.sphere = sphere
        self.ws = ws

    def query(
        self, origins: Float[Tensor, "b r 3"], directions: Float[Tensor, "b r 3"]
    ) -> Float[Tensor, "b r f"]:
        """Colour features behind the foreground."""
        return self.sphere(self.ws, origins, directions)

    def distance(
        self, origins: Float[Tensor, "b r 3"], directions: Float[Tensor, "b r 3"]
    ) -> Float[Tensor, "b r 1"]:
        """Distance to the sphere along each ray."""
        return sphere_distance(origins, directions, self.sphere.radius)
