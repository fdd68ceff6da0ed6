"""Lists of seeds, positions and levels as a user writes them: `0-3,8`."""

from __future__ import annotations

MAXIMUM_SEEDS = 100_000
MOST_LEVELS = 64
"""No generator has as many latents w."""


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """Reads single seeds and inclusive ranges: `0-3,8` is [0, 1, 2, 3, 8].

    Raises:
        ValueError: If a part is not a number or a rising range, or there are too many seeds.
    """
    return _parse_numbers(option, text, MAXIMUM_SEEDS)


def parse_inputs(text: str) -> list[int]:
    """Reads numbers of kept label maps as `parse_seeds` does."""
    return _parse_numbers("--inputs", text, MAXIMUM_SEEDS)


def parse_images(text: str) -> list[int]:
    """Reads positions of images as `parse_seeds` does."""
    return _parse_numbers("--images", text, MAXIMUM_SEEDS)


def parse_levels(text: str) -> list[int]:
    """Reads levels of w as `parse_seeds` does."""
    return _parse_numbers("--mix-levels", text, MOST_LEVELS)


def _parse_numbers(option: str, text: str, most: int) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise ValueError(
                f"{option} is {text!r}, of which {part.strip()!r} is neither a number nor a range; "
                "write for example 0-15 or 3,7,20-25."
            )
        start, stop = int(first), int(last if dash else first)
        if stop < start:
            raise ValueError(f"{option} has the range {part.strip()}, which ends before it starts.")
        if len(numbers) + stop - start + 1 > most:
            raise ValueError(f"{option} is {text!r}; at most {most} numbers are allowed.")
        numbers.extend(range(start, stop + 1))
    return numbers


def _is_number(text: str) -> bool:
    # Torch takes seeds of 64 bits; 18 digits stay below that.
    return text.isascii() and text.isdigit() and len(text) <= 18
