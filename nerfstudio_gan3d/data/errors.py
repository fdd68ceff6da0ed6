"""The one error of everything that reads a user's data."""

from __future__ import annotations


class DataError(ValueError):
    """A data set that cannot be used: one sentence with the file, the value and what is expected."""
