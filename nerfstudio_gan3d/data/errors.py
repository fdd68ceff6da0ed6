"""The one error of everything that reads a user's data."""

from __future__ import annotations


class DataError(ValueError):
    """A data set that cannot be used: one sentence with file, value and what is expected."""
