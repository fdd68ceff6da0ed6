"""Text for a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str, encoding: str | None) -> str:
    """One line with escapes for control characters, which steer a terminal, and for what its
    encoding does not have.

    Names of files in somebody's zip may hold any character, and paths any byte.
    """
    line = " ".join(text.split())
    line = "".join(ascii(c)[1:-1] if unicodedata.category(c) == "Cc" else c for c in line)
    return encodable(line, encoding)


def encodable(text: str, encoding: str | None) -> str:
    """A text with escapes for what an encoding does not have."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
