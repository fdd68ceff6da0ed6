"""Style-modulated hash grid: a multi-resolution table and a decoder that obey the latents w."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.decoder import (
    FILM_GAIN,
    ColourHead,
    LabelActivation,
    Palette,
    colour_range,
    styled_layer,
)
from nerfstudio_gan3d.fields.hash_encoding import Implementation
from nerfstudio_gan3d.fields.styled_table import MixedTable, Mixing, StyledTable, check_option
from nerfstudio_gan3d.networks.ops import FullyConnected
from nerfstudio_gan3d.scene import FieldSamples

Modulation = Literal["basis", "film", "both"]

OUTSIDE_RAW_DENSITY = -1e4
"""Raw density outside the box: its softplus is exactly zero, also in half precision."""

_HIDDEN_LAYERS = 2


class Prepared(NamedTuple):
    """What a Scene keeps of a `StyleHashGrid`; batch first."""

    styles: Float[Tensor, "b levels k"]
    """Weight of each basis on each level; K is 0 without basis mixing."""
    mixed: Float[Tensor, "b entries f"]
    """Tables with their bases mixed; no entries where they are mixed after the lookup."""
    film: Float[Tensor, "b layers 2 hidden"]
    """Factor and shift of each hidden unit of the decoder; no layers without FiLM."""
    colour: Float[Tensor, "b n 2 hidden"]
    """The same of the colours' own layer; none (n = 0) for a field without labels."""
    palette: Float[Tensor, "b k f"]
    """Colours of the whole Scene; none (k = 0) for a field without a palette."""


class StyleHashGrid(StyledTable):
    """Latents w to a mixed hash table, and positions to density and colour features.

    Basis mixing: see `StyledTable`, one w a level. FiLM (Perez et al. 2018): hidden layer i of the
    decoder is ``lrelu(factor_i * (W_i x + b_i) + shift_i)`` with factor and shift from one further
    w a layer. Truncation and style mixing thus act level by level.

    Args:
        w_dim: size of a latent w.
        feature_dim: number of colour features.
        levels, base_resolution, max_resolution, log2_table_size: see `TableLayout.between`.
        features_per_level: features F of a basis: 1, 2, 4 or 8.
        bases: bases K of an entry; must be 1 with modulation "film", which does not mix.
        hidden_dim: width of the decoder's two hidden layers.
        modulation: what the latents change.
        box_size: side of the box that the table spans, object-world units. Density is zero outside.
        implementation: evaluator of the table (`HashTable`).
        density_bias: constant that is added to the raw density.
        initial_density: raw density [B, N, 1] at positions [B, N, 3], added to the decoder's, whose
            density output starts at zero.
        init_std: standard deviation of the table's values on level 0; a level of resolution R
            starts with ``init_std * base_resolution / R``, so that all levels start equally steep.
        label_dim: label features of a position; 0 for none. Density and labels then come from the
            decoder's hidden layers, and colours from a further layer behind them that has a latent
            of its own, the last one: it cannot move the surface.
        label_activation: of the label features, where there are any.
        own_colour: give colours such a layer in a field without labels, too.
        palette: colours of a palette that the last latent decides (see `Palette`), in a field
            without such a layer; 0 for colours that each position has for itself.
        growing: levels count as much as `grow` says, the finer ones later than the coarse ones.
        mixing: bases are mixed "before" the lookup, once a Scene, or "after" it, once a position;
            the results are the same. "auto" mixes before with the PyTorch evaluator and up to 2^18
            entries, where reading fewer columns saves more than mixing whole tables costs.

    Raises:
        ValueError: a size out of range, an unknown option, or bases that nothing would mix.
    """

    level_weights: Tensor | None

    def __init__(
        self,
        w_dim: int,
        feature_dim: int,
        levels: int = 8,
        base_resolution: int = 8,
        max_resolution: int = 128,
        log2_table_size: int = 15,
        features_per_level: int = 2,
        bases: int = 16,
        hidden_dim: int = 64,
        modulation: Modulation = "both",
        box_size: float = 1.0,
        implementation: Implementation = "auto",
        density_bias: float = 0.0,
        initial_density: Callable[[Tensor], Tensor] | None = None,
        init_std: float = 0.2,
        mixing: Mixing = "auto",
        label_dim: int = 0,
        label_activation: LabelActivation | None = None,
        own_colour: bool = False,
        growing: bool = False,
        palette: int = 0,
    ) -> None:
        check_option("modulation", modulation, Modulation)
        mixes, films = modulation != "film", modulation != "basis"
        super().__init__(
            w_dim,
            levels,
            base_resolution,
            max_resolution,
            log2_table_size,
            features_per_level,
            bases,
            mixes,
            implementation,
            init_std,
            mixing,
        )
        self.box_size = box_size
        self.density_bias = density_bias
        self.initial_density = initial_density
        self.films = nn.ModuleList(
            FullyConnected(w_dim, 2 * hidden_dim) for _ in range(_HIDDEN_LAYERS if films else 0)
        )
        own_colour = own_colour or label_activation is not None
        self.palette = Palette(w_dim, feature_dim, palette) if palette else None
        self.num_ws: int = len(self.styles) + len(self.films) + int(own_colour or palette > 0)
        if growing and not mixes:
            raise ValueError(
                "levels can grow with modulation 'basis' and 'both' alone, and it is 'film'."
            )
        self.register_buffer("level_weights", torch.ones(levels) if growing else None)
        self.hidden = nn.ModuleList(
            FullyConnected(in_dim, hidden_dim)
            for in_dim in (levels * features_per_level + 3, hidden_dim)
        )
        self.label_activation = label_activation
        self.colour: ColourHead | None = None
        if own_colour:
            self.colour = ColourHead(w_dim, hidden_dim, feature_dim)
        outputs = 1 + palette if palette else feature_dim
        self.out = FullyConnected(hidden_dim, 1 + (label_dim if own_colour else outputs))
        with torch.no_grad():
            self.out.weight[0] = 0

    def prepare(self, ws: Float[Tensor, "b num_ws w_dim"]) -> Prepared:
        """Styles of B Scenes, and their tables where they are mixed before the lookup.

        Raises ValueError where the number of ws is not ``num_ws``.
        """
        if ws.shape[1] != self.num_ws:
            raise ValueError(
                f"ws has {ws.shape[1]} latents a Scene: this field takes {self.num_ws}."
            )
        levels = len(self.styles)
        mixed = self.mix(ws, self.level_weights)
        films = [
            film(w).unflatten(-1, (2, -1))
            for film, w in zip(self.films, ws[:, levels:].unbind(1), strict=False)
        ]
        film = torch.stack(films, 1) * FILM_GAIN if films else ws.new_zeros(len(ws), 0, 2, 0)
        colour = ws.new_zeros(len(ws), 0, 2, 0)
        if self.colour is not None:
            colour = self.colour.prepare(ws[:, -1])
        palette = ws.new_zeros(len(ws), 0, 0)
        if self.palette is not None:
            palette = self.palette.prepare(ws[:, -1])
        return Prepared(*mixed, film, colour, palette)

    def query(self, prepared: Prepared, positions: Float[Tensor, "b n 3"]) -> FieldSamples:
        """Content at object-world positions. Differentiable once in positions."""
        hidden, out, raw = self._shape(prepared, positions)
        if self.palette is not None:
            return FieldSamples(raw, self.palette.mix(out[..., 1:], prepared.palette))
        if self.colour is None:
            return FieldSamples(raw, colour_range(out[..., 1:]))
        labels = None if self.label_activation is None else self.label_activation(out[..., 1:])
        return FieldSamples(raw, self.colour(hidden, prepared.colour), labels)

    def raw_density(
        self, prepared: Prepared, positions: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n 1"]:
        """Raw density alone, without the colours' own layer."""
        return self._shape(prepared, positions)[2]

    def _shape(
        self, prepared: Prepared, positions: Float[Tensor, "b n 3"]
    ) -> tuple[Float[Tensor, "b n h"], Float[Tensor, "b n o"], Float[Tensor, "b n 1"]]:
        """The decoder's last hidden layer, its outputs, and the raw density."""
        unit = positions / self.box_size + 0.5
        mixed = MixedTable(prepared.styles, prepared.mixed)
        feature = self.encode(mixed, unit).flatten(2)  # [B, N, L * F]
        # The position itself carries what is smoother than the coarsest level.
        hidden = torch.cat([feature, 2 * unit - 1], -1)
        for i, layer in enumerate(self.hidden):
            assert isinstance(layer, FullyConnected)
            hidden = styled_layer(layer, hidden, prepared.film[:, i : i + 1])
        out = self.out(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        raw = out[..., :1] + self.density_bias
        if self.initial_density is not None:
            raw = raw + self.initial_density(positions)
        inside = positions.abs().amax(-1, keepdim=True) <= self.box_size / 2
        return hidden, out, torch.where(inside, raw, OUTSIDE_RAW_DENSITY)

    @torch.no_grad()
    def grow(self, share: float) -> None:
        """Coarse to fine: level l of L counts ``clamp(1 + share (L - 1) - l, 0, 1)``; at share 0
        the coarsest alone, at 1 all."""
        if self.level_weights is not None:
            levels = torch.arange(len(self.level_weights), device=self.level_weights.device)
            weights = (1 + share * (len(levels) - 1) - levels).clamp(0, 1)
            self.level_weights.copy_(weights)
