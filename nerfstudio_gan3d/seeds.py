"""Seeds that something can be drawn with; imports nothing heavy."""

from __future__ import annotations

SEED_LIMIT = 10**18
"""Torch takes 64 bits, and twice a seed is drawn with."""


def check_seed(name: str, seed: int | None) -> None:
    """Raises ValueError, naming the option or argument, for a seed that nothing can be drawn
    with."""
    if seed is not None and not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"{name} is {seed}; it must lie between 0 and 10^18.")
