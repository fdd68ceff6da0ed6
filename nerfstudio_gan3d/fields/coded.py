"""Fields that a shape code and an appearance code condition: UNISURF's surface (3DGEN) and
GRAF's density."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.surface_mlp import ColourMlp, GeometryMlp
from nerfstudio_gan3d.networks.positional import positional_encoding, positional_size
from nerfstudio_gan3d.scene import FieldSamples


class PreparedCodes(NamedTuple):
    """What a Scene keeps of a `UnisurfField`: what its codes add to layers; batch first."""

    shape: list[Float[Tensor, "b 1 _"]]
    appearance: Float[Tensor, "b 1 h"]


class UnisurfField(nn.Module):
    """3DGEN's generator: a conditional UNISURF. The first latent is the shape code, the second the
    appearance code, which geometry never sees.

    Positions come in sides of the box and go to the networks in half sides, so that the box is
    [-1, 1]^3. The raw density is ``-f``, times the slope that the Scene gives it the logit of
    occupancy.

    Args:
        geometry, colour: the networks.
    """

    num_ws = 2
    view_dependent = True
    """Colours take the direction of the ray."""
    twice_differentiable = True
    """Normals may be part of a loss."""

    def __init__(self, geometry: GeometryMlp, colour: ColourMlp) -> None:
        super().__init__()
        self.geometry, self.colour = geometry, colour

    def prepare(self, ws: Float[Tensor, "b 2 w_dim"]) -> PreparedCodes:
        """The codes' shares of layers."""
        return PreparedCodes(self.geometry.prepare(ws[:, 0]), self.colour.prepare(ws[:, 1]))

    def raw_density(
        self, prepared: PreparedCodes, positions: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n 1"]:
        """``-f`` at positions in sides of the box."""
        return -self.geometry(prepared.shape, positions * 2)[0]

    def query(
        self,
        prepared: PreparedCodes,
        positions: Float[Tensor, "b n 3"],
        directions: Float[Tensor, "b n 3"] | None = None,
    ) -> FieldSamples:
        """Content at positions in sides of the box, seen along unit ``directions``; None: from
        straight above the surface. Differentiable twice in the positions.

        Normals are those of the box's own coordinates.
        """
        gradient, views = None, None
        needs_gradient = self.colour.normals or (
            directions is None and self.colour.view_octaves is not None
        )
        places = positions * 2
        if not needs_gradient:
            f, features = self.geometry(prepared.shape, places)
        else:
            # Normals feed the colours, so the graph of this gradient is part of training.
            training = torch.is_grad_enabled()
            with torch.enable_grad():
                if not places.requires_grad:
                    places = places.detach().requires_grad_()
                f, features = self.geometry(prepared.shape, places)
                (gradient,) = torch.autograd.grad(f.sum(), places, create_graph=training)
            if not training:
                f, features = f.detach(), features.detach()
        if self.colour.view_octaves is not None:
            if directions is None:
                assert gradient is not None
                views = torch.nn.functional.normalize(gradient, dim=-1)
            else:
                views = -directions
        normals = gradient if self.colour.normals else None
        colour = self.colour(prepared.appearance, places, views, normals, features)
        return FieldSamples(-f, colour)


class GrafField(nn.Module):
    """GRAF (Schwarz et al. 2020), the baseline of 3DGEN: density and colour of a NeRF with codes.

    ReLU layers see the encoded position and the shape code, and both again behind ``skip``; the
    density is a linear function of the last of them, the colour a sigmoid of one further layer that
    sees a linear function of it, the view and the appearance code. The density's activation is the
    Scene's (softplus in place of GRAF's ReLU with noise).

    Args:
        code_dim: size of each code.
        hidden_dim: width; the colour's layer has half of it.
        layers: hidden layers.
        octaves, view_octaves: of the encodings; ``view_octaves=None`` leaves the view out.
        skip: layer behind which the inputs enter again.
        initial_density: raw density [B, N, 1] at positions [B, N, 3], added to the network's; None
            adds nothing, as in GRAF.
    """

    num_ws = 2
    view_dependent = True
    """Colours take the direction of the ray."""
    twice_differentiable = True
    """Normals may be part of a loss."""

    def __init__(
        self,
        code_dim: int,
        hidden_dim: int = 256,
        layers: int = 8,
        octaves: int = 10,
        view_octaves: int | None = 4,
        skip: int = 4,
        initial_density: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.code_dim, self.octaves, self.view_octaves = code_dim, octaves, view_octaves
        self.skip, self.initial_density = skip, initial_density
        entering = positional_size(octaves) + code_dim
        widths = [entering] + [
            hidden_dim + (entering if index == skip else 0) for index in range(layers - 1)
        ]
        self.hidden = nn.ModuleList(nn.Linear(width, hidden_dim) for width in widths)
        self.density = nn.Linear(hidden_dim, 1)
        self.feature = nn.Linear(hidden_dim, hidden_dim)
        seen = hidden_dim + code_dim
        seen += 0 if view_octaves is None else positional_size(view_octaves)
        self.colour = nn.Sequential(
            nn.Linear(seen, hidden_dim // 2), nn.ReLU(), nn.Linear(hidden_dim // 2, 3)
        )

    def prepare(self, ws: Float[Tensor, "b 2 w_dim"]) -> Float[Tensor, "b 2 w_dim"]:
        """The codes as they are."""
        return ws

    def raw_density(
        self, codes: Float[Tensor, "b 2 w_dim"], positions: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n 1"]:
        """Raw density at positions in sides of the box."""
        return self._density(self._hidden(codes, positions), positions)

    def query(
        self,
        codes: Float[Tensor, "b 2 w_dim"],
        positions: Float[Tensor, "b n 3"],
        directions: Float[Tensor, "b n 3"] | None = None,
    ) -> FieldSamples:
        """Content at positions in sides of the box, seen along unit ``directions``; None, which has
        no surface to stand above: from the front, along -z."""
        x = self._hidden(codes, positions)
        parts = [self.feature(x)]
        if self.view_octaves is not None:
            if directions is None:
                directions = torch.zeros_like(positions)
                directions[..., 2] = -1
            parts.append(positional_encoding(directions, self.view_octaves))
        parts.append(codes[:, 1:].expand(-1, x.shape[1], -1))
        colour = self.colour(torch.cat(parts, dim=-1)).sigmoid()
        return FieldSamples(self._density(x, positions), colour)

    def _density(self, x: Tensor, positions: Tensor) -> Float[Tensor, "b n 1"]:
        raw = self.density(x)
        return raw if self.initial_density is None else raw + self.initial_density(positions)

    def _hidden(self, codes: Tensor, positions: Tensor) -> Float[Tensor, "b n h"]:
        encoded = positional_encoding(positions * 2, self.octaves)
        entering = torch.cat([encoded, codes[:, :1].expand(-1, positions.shape[1], -1)], dim=-1)
        x = entering
        for index, layer in enumerate(self.hidden):
            x = torch.relu(layer(x))
            if index == self.skip and index + 1 < len(self.hidden):
                x = torch.cat([x, entering], dim=-1)
        return x
