"""The reader of official pickles as users have it.

The checks of shapes and types that the tests add would raise errors of their own where a file is
damaged, and they make a million small calls slow.
"""

import importlib
import resource
import sys
import tracemalloc
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

import nerfstudio_gan3d.snapshots

PACKAGE = nerfstudio_gan3d.snapshots.__name__


def _import(*names: str) -> list[ModuleType]:
    """Modules of the package that know of no checks, and of each other alone."""
    own = [name for name in sys.modules if f"{name}.".startswith(f"{PACKAGE}.")]
    with (
        patch.dict(sys.modules),
        patch.object(nerfstudio_gan3d, "snapshots"),
        # Python's own finder comes before the one that adds the checks.
        patch.object(sys, "meta_path", [PathFinder, *sys.meta_path]),
    ):
        for name in own:
            del sys.modules[name]
        return [importlib.import_module(f"{PACKAGE}.{name}") for name in names]


contents, reader = _import("contents", "reader")


def refusal(path: Path) -> str:
    """What the reader says about a file that it has to refuse."""
    with pytest.raises(reader.SnapshotError) as caught:
        reader.read_snapshot(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    return told


def refusal_without_memory(path: Path) -> str:
    """The same, of a file that may claim much but must not get it."""
    size = path.stat().st_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        told = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * size + 2**20
    # Memory of torch, which tracemalloc does not see; in KiB on Linux.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16
    return told
