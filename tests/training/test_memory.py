"""Memory that is freed and asked for again: counted in page faults of a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from nerfstudio_gan3d.training.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(8):
    torch.zeros(2**24).add_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.zeros(2**24).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("kept", [True, False])
def test_pages_of_large_tensors_are_used_again(kept: bool) -> None:
    words = [sys.executable, "-c", PROGRAM, "keep" if kept else "give"]
    faults = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    # Four tensors of 2^24 floats are 65,536 pages of 4 KiB, or 128 of 2 MiB.
    assert faults < 100 if kept else faults >= 128
