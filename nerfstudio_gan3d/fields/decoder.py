"""The small network that turns a position's feature into density and colour features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.two_layers import colour_range, two_layers
from nerfstudio_gan3d.networks.ops import LRELU_SLOPE, FullyConnected

FILM_GAIN = 0.5
"""Standard deviation of a decoder's factors and shifts in an untrained network."""

SPHERE_RADIUS = 0.6
"""Radius of the sphere that surfaces start from, half sides of the box (UNISURF)."""


def initial_ball(positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 1"]:
    """Raw density of a soft, half-transparent ball: ``8 (0.25 - r^2) - 2`` (r in box sides).

    Added to what a field's network says, it is what an untrained field shows: something in the
    middle that light reaches through. Both the foreground and the background then get gradients
    from the first step; a field that starts empty or solid takes one of them away from the
    discriminator's signal.
    """
    squared = positions.square().sum(-1, keepdim=True)
    return 8 * (0.25 - squared) - 2


def initial_sphere(positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 1"]:
    """``0.6 - r``, r = 1 on the box's faces: what a surface starts from, positive inside.

    It is minus the distance to the surface, as UNISURF's initialisation makes it, in half sides of
    the box.
    """
    return SPHERE_RADIUS - 2 * positions.norm(dim=-1, keepdim=True)


class TwoLayers(nn.Module):
    """Two fully connected layers with softplus between: feature -> raw density and raw outputs.

    The density starts at zero (BallGAN), so that the initial geometry is the initial ball alone.

    Args:
        in_dim: size of a position's feature.
        out_dim: number of outputs beside the density.
        hidden_dim: width of the layer between.
    """

    def __init__(self, in_dim: int, out_dim: int, hidden_dim: int = 64) -> None:
        super().__init__()
        self.hidden = FullyConnected(in_dim, hidden_dim)
        self.out = FullyConnected(hidden_dim, 1 + out_dim)
        with torch.no_grad():
            self.out.weight[0] = 0

    def outputs(
        self, feature: Float[Tensor, "b n c"], ranged: bool = False
    ) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n o"]]:
        """Raw density and the other outputs of each position, these as `colour_range` of
        themselves if ``ranged``."""
        dtype = feature.dtype
        raw, others = two_layers(
            feature.flatten(0, 1), *self.hidden.scaled(dtype), *self.out.scaled(dtype), ranged
        )
        return raw.unflatten(0, feature.shape[:2]), others.unflatten(0, feature.shape[:2])

    def raw_density(self, feature: Float[Tensor, "b n c"]) -> Float[Tensor, "b n 1"]:
        """Raw density alone."""
        hidden = self.hidden.scaled(feature.dtype)
        weight, bias = self.out.scaled(feature.dtype)
        raw, _ = two_layers(feature.flatten(0, 1), *hidden, weight[:1], bias[:1], ranged=False)
        return raw.unflatten(0, feature.shape[:2])


class Decoder(TwoLayers):
    """`TwoLayers` whose outputs are colour features (EG3D, section 3.2 and supplement); the view
    direction is not used."""

    def forward(
        self, feature: Float[Tensor, "b n c"]
    ) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n f"]]:
        """Raw density and colour features (0..1) of each position."""
        return self.outputs(feature, ranged=True)


def styled_layer(
    layer: FullyConnected, x: Float[Tensor, "b n i"], film: Float[Tensor, "b #one 2 hidden"]
) -> Float[Tensor, "b n o"]:
    """A hidden layer with leaky ReLU, FiLM-modulated where ``film`` has an entry (Perez et al.
    2018): ``lrelu(factor (W x + b) + shift)`` with factor ``1 + film[.., 0]``, shift
    ``film[.., 1]``."""
    weight, bias = (layer.weight * layer.weight_gain).t(), layer.bias * layer.bias_gain
    if film.shape[1]:
        # FiLM is folded into one weight matrix a Scene: a pass over the hidden units less.
        factor, shift = 1 + film[:, 0, 0, None], film[:, 0, 1, None]
        x = torch.baddbmm(bias * factor + shift, x, weight * factor)
    else:
        x = torch.matmul(x, weight) + bias
    return torch.nn.functional.leaky_relu(x, LRELU_SLOPE, inplace=True)


class ColourHead(nn.Module):
    """Colours from what the geometry's layers made of a position, and a latent w of their own,
    which can change how a thing looks and not where it is.

    Args:
        w_dim: size of the latent.
        hidden_dim: size of what the geometry hands over, and width of the one layer.
        feature_dim: number of colour features.
    """

    def __init__(self, w_dim: int, hidden_dim: int, feature_dim: int) -> None:
        super().__init__()
        self.film = FullyConnected(w_dim, 2 * hidden_dim)
        self.hidden = FullyConnected(hidden_dim, hidden_dim)
        self.out = FullyConnected(hidden_dim, feature_dim)

    def prepare(self, w: Float[Tensor, "b w_dim"]) -> Float[Tensor, "b 1 2 hidden"]:
        """Factors and shifts of the layer: what a Scene keeps of the latent."""
        return self.film(w).unflatten(-1, (1, 2, -1)) * FILM_GAIN

    def forward(
        self, x: Float[Tensor, "b n hidden"], film: Float[Tensor, "b 1 2 hidden"]
    ) -> Float[Tensor, "b n f"]:
        """Colour features in [0, 1]."""
        shown = styled_layer(self.hidden, x, film)
        return colour_range(self.out(shown.flatten(0, 1)).unflatten(0, x.shape[:2]))


class ShapeDecoder(nn.Module):
    """Density from a position's feature, and behind it a `ColourHead` (3DGEN's division).

    Args:
        in_dim: size of a position's feature.
        feature_dim, hidden_dim, w_dim: see `ColourHead`.
    """

    def __init__(self, in_dim: int, feature_dim: int, hidden_dim: int, w_dim: int) -> None:
        super().__init__()
        self.hidden = FullyConnected(in_dim, hidden_dim)
        self.out = FullyConnected(hidden_dim, 1)
        self.colour = ColourHead(w_dim, hidden_dim, feature_dim)
        with torch.no_grad():
            self.out.weight[0] = 0

    def shape(
        self, feature: Float[Tensor, "b n c"]
    ) -> tuple[Float[Tensor, "b n h"], Float[Tensor, "b n 1"]]:
        """The hidden layer, and the raw density."""
        hidden = torch.nn.functional.softplus(self.hidden(feature.flatten(0, 1)))
        raw = self.out(hidden).unflatten(0, feature.shape[:2])
        return hidden.unflatten(0, feature.shape[:2]), raw


class Palette(FullyConnected):
    """Colours that are mixed from a few which belong to the whole Scene.

    ``colour = range(sum_k m_k(x) p_k(w) + s(x))``: the shares m (softmax) and a shade s belong to
    the position, the palette p, K sets of colour features, to the latent. A thing that is painted
    in few colours is then painted evenly from the start, and what a discriminator says of any pixel
    teaches the colour of its whole part.

    Args:
        w_dim: size of the latent.
        feature_dim: number of colour features.
        colours: entries of the palette (K).
    """

    def __init__(self, w_dim: int, feature_dim: int, colours: int) -> None:
        super().__init__(w_dim, colours * feature_dim)
        self.colours = colours

    def prepare(self, w: Float[Tensor, "b w_dim"]) -> Float[Tensor, "b k f"]:
        """The palettes of Scenes, before `colour_range`."""
        return self(w).unflatten(-1, (self.colours, -1))

    @staticmethod
    def mix(
        shares: Float[Tensor, "b n k1"], palette: Float[Tensor, "b k f"]
    ) -> Float[Tensor, "b n f"]:
        """Colours in [0, 1] of positions, of which the shade and the raw shares are given."""
        # Positions last: a CPU sums up over few colours side by side, not one position at a time.
        rows = shares.mT.contiguous()
        mixed = torch.baddbmm(rows[:, :1], palette.mT, rows[:, 1:].softmax(1))
        return colour_range(mixed).mT


class PaletteDecoder(TwoLayers):
    """`TwoLayers` whose outputs say how colours are mixed from a `Palette`, on which the last
    latent decides."""

    def __init__(
        self, in_dim: int, feature_dim: int, hidden_dim: int, w_dim: int, colours: int
    ) -> None:
        super().__init__(in_dim, 1 + colours, hidden_dim)
        self.palette = Palette(w_dim, feature_dim, colours)

    def forward(
        self, feature: Float[Tensor, "b n c"], palette: Float[Tensor, "b k f"]
    ) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n f"]]:
        """Raw density and colour features (0..1) of each position."""
        raw, shares = self.outputs(feature)
        return raw, self.palette.mix(shares, palette)


@dataclass(frozen=True)
class LabelActivation:
    """What the label features of a position are made into before they are composited along rays.

    Scores are composited as they are in the published networks. A faint object then outvotes the
    background behind it by high scores and need not become opaque. Shares cannot: what the
    foreground says of a pixel weighs as much as its opacity.
    """

    kind: Literal["scores", "shares", "values"]
    """scores: class scores, unchanged. shares: the classes' probabilities. values: in [0, 1], for
    edge maps."""
    classes: int
    """Number of classes; further features, which super-resolution takes, stay as they are."""

    def __call__(self, raw: Float[Tensor, "*n l"]) -> Float[Tensor, "*n l"]:
        if self.kind == "values":
            return colour_range(raw)
        if self.kind == "scores":
            return raw
        shares = raw[..., : self.classes].softmax(-1)
        if self.classes == raw.shape[-1]:
            return shares
        return torch.cat([shares, raw[..., self.classes :]], dim=-1)


class LabelDecoder(nn.Module):
    """Two small networks side by side: feature -> colour, and feature -> density and labels.

    pix2pix3D, section 3.1: labels and geometry share a network, so that what is learned from label
    maps shapes the thing. The view direction is not used.

    Args:
        in_dim: size of a position's feature.
        feature_dim: colour features.
        label_dim: label features.
        activation: of the label features.
        hidden_dim: width of both networks.
        dead_row: the colour network has one more output, which is not used, as official weights
            have it.
    """

    def __init__(
        self,
        in_dim: int,
        feature_dim: int,
        label_dim: int,
        activation: LabelActivation,
        hidden_dim: int = 64,
        dead_row: bool = False,
    ) -> None:
        super().__init__()
        self.activation, self.dead_row = activation, dead_row
        self.hidden = FullyConnected(in_dim, hidden_dim)
        self.out = FullyConnected(hidden_dim, feature_dim + int(dead_row))
        self.label_hidden = FullyConnected(in_dim, hidden_dim)
        self.label_out = FullyConnected(hidden_dim, 1 + label_dim)
        with torch.no_grad():
            self.label_out.weight[0] = 0

    def forward(
        self, feature: Float[Tensor, "b n c"]
    ) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n f"], Float[Tensor, "b n l"]]:
        """Raw density, colour features (0..1) and label features of each position."""
        shape, flat = feature.shape[:2], feature.flatten(0, 1)
        colour = self.out(torch.nn.functional.softplus(self.hidden(flat)))
        if self.dead_row:
            colour = colour[:, 1:]
        out = self.label_out(torch.nn.functional.softplus(self.label_hidden(flat)))
        labels = self.activation(out[:, 1:])
        return (
            out[:, :1].unflatten(0, shape),
            colour_range(colour).unflatten(0, shape),
            labels.unflatten(0, shape),
        )
