"""A hash table whose entries hold several bases, which latents mix level by level."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.fields.hash_encoding import (
    HashTable,
    Implementation,
    lookup,
    lookup_tcnn,
)
from nerfstudio_gan3d.fields.hash_layout import TableLayout
from nerfstudio_gan3d.networks.ops import FullyConnected

Mixing = Literal["auto", "before", "after"]

# Tables of up to this many entries are mixed before they are looked up. A renderer asks for 10^4 to
# 10^6 positions of a Scene, each of which reads eight entries per level and basis if it has to mix
# afterwards.
_MAX_MIXED_ENTRIES = 2**18


class MixedTable(NamedTuple):
    """What a Scene keeps of a `StyledTable`; batch first."""

    styles: Float[Tensor, "b levels k"]
    """Weight of each basis on each level; K is 0 without basis mixing."""
    mixed: Float[Tensor, "b entries f"]
    """Tables with their bases mixed; no entries where they are mixed after the lookup."""


class StyledTable(nn.Module):
    """Latents w to a mixed hash table, and positions to features.

    Every entry of the table holds K bases of F features: on level l the style ``s_l = A_l w_l`` [K]
    (one w a level, coarse levels first) makes the entry ``sum_k s_lk basis_k / sqrt(K)``.

    Args:
        w_dim: size of a latent w.
        levels, base_resolution, max_resolution, log2_table_size: see `TableLayout.between`.
        features_per_level: features F of a basis: 1, 2, 4 or 8.
        bases: bases K of an entry.
        styled: whether latents mix them; without, ``bases`` has to be 1.
        implementation: evaluator of the table (`HashTable`).
        init_std: standard deviation of the table's values on level 0; a level of resolution R
            starts with ``init_std * base_resolution / R``, so that all levels start equally steep.
        mixing: bases are mixed "before" the lookup, once a Scene, or "after" it, once a position;
            the results are the same. "auto" mixes before with the PyTorch evaluator and up to 2^18
            entries, where reading fewer columns saves more than mixing whole tables costs.

    Raises:
        ValueError: a size out of range, an unknown option, or bases that nothing would mix.
    """

    def __init__(
        self,
        w_dim: int,
        levels: int,
        base_resolution: int,
        max_resolution: int,
        log2_table_size: int,
        features_per_level: int,
        bases: int,
        styled: bool = True,
        implementation: Implementation = "auto",
        init_std: float = 0.2,
        mixing: Mixing = "auto",
    ) -> None:
        super().__init__()
        check_option("mixing", mixing, Mixing)
        check_option("implementation", implementation, Implementation)
        if bases < 1 or (not styled and bases != 1):
            raise ValueError(
                f"bases is {bases}: it must be at least 1, and 1 where no latent mixes "
                "them, as with modulation 'film'."
            )
        self.basis_layout = TableLayout.between(
            levels, features_per_level, log2_table_size, base_resolution, max_resolution
        )
        width = _group_width(bases, features_per_level, levels)
        layout = replace(self.basis_layout, features_per_level=width)
        stds = [init_std * base_resolution / side for side in layout.resolutions]
        self.table = HashTable(layout, bases * features_per_level // width, implementation, stds)
        self.bases = bases
        self.mixing: Mixing = mixing
        self.styles = nn.ModuleList(
            FullyConnected(w_dim, bases, bias_init=1.0) for _ in range(levels if styled else 0)
        )

    def mix(
        self,
        ws: Float[Tensor, "b _ w_dim"],
        level_weights: Float[Tensor, "levels"] | None = None,
    ) -> MixedTable:
        """Styles of B Scenes from the first latents of each, one a level, and their tables where
        they are mixed before the lookup. Levels count as much as ``level_weights`` say."""
        levels = len(self.styles)
        factors = [style(w) for style, w in zip(self.styles, ws.unbind(1), strict=False)]
        styles = torch.stack(factors, 1) if factors else ws.new_zeros(len(ws), 0, 0)
        if levels:
            styles = styles / self.bases**0.5
        if level_weights is not None:
            styles = styles * level_weights[:, None]
        if levels and self.mixes_before():
            return MixedTable(styles, self._mix_tables(styles))
        return MixedTable(styles, ws.new_zeros(len(ws), 0, self.features_per_level))

    @property
    def features_per_level(self) -> int:
        """Features F that a level hands to the decoder."""
        return self.basis_layout.features_per_level

    def mixes_before(self) -> bool:
        """Whether `mix` mixes whole tables."""
        if self.mixing == "auto":
            small = self.basis_layout.entries <= _MAX_MIXED_ENTRIES
            return small and self.table.evaluator == "torch"
        return self.mixing == "before"

    def _mix_tables(self, styles: Float[Tensor, "b levels k"]) -> Float[Tensor, "b entries f"]:
        layout, size = self.basis_layout, self.features_per_level
        # Groups hold [entry][basis][feature]; with one basis a group, bringing the bases first is a
        # view.
        tables = self.table.tables().unflatten(-1, (-1, size)).transpose(1, 2).flatten(0, 1)
        mixed = []
        for level in range(layout.levels):
            part = tables[:, layout.offsets[level] : layout.offsets[level + 1]].flatten(1)
            mixed.append((styles[:, level] @ part).unflatten(-1, (-1, size)))
        return torch.cat(mixed, 1)

    def encode(
        self, prepared: MixedTable, unit: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n levels f"]:
        """Features of each level at positions in the unit cube."""
        if prepared.mixed.shape[1] == 0:
            found = self.table(unit)
            if prepared.styles.shape[1] == 0:
                return found
            bases = found.unflatten(-1, (self.bases, -1))
            return torch.einsum("blk,bnlkf->bnlf", prepared.styles, bases)
        if self.table.evaluator == "tcnn":
            pairs = zip(prepared.mixed, unit, strict=True)
            return torch.stack([lookup_tcnn(self.basis_layout, *pair) for pair in pairs])
        return lookup(self.basis_layout, prepared.mixed, unit)


def _group_width(bases: int, features: int, levels: int) -> int:
    """Features a level that one tiny-cuda-nn encoding of the table holds.

    At least 4, where the bases allow it: narrower encodings waste most of each memory transaction
    of a GPU.
    """
    for width in (4, 2):
        whole = width % features == 0 and (bases * features) % width == 0
        if width > features and whole and width * levels <= 128:
            return width
    return features


def check_option(name: str, value: str, literal: object) -> None:
    """Raises ValueError for a value that is none of the literal's."""
    allowed = get_args(literal)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}.")
