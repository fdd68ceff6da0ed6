"""Test set-up: threads, runtime checks of shapes and types, and tests that need a GPU."""

import os

# Two workers on two cores: OpenMP threads that wait for each other would take most of the time.
# The variable has to be set before torch is imported, and the commands that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# Otherwise torch.compile starts a pool of processes, each as heavy as its parent, in every
# command.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Every annotated function and dataclass of the library checks its arguments and its result. The
# hook sees only modules that are imported after this line.
install_import_hook("nerfstudio_gan3d", "beartype.beartype")

import torch

torch.set_num_threads(1)

# The same examples in every run, and no limit on the time of one: a busy machine is not a defect.
settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.load_profile("project")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests marked `gpu` where torch finds no CUDA device."""
    if torch.cuda.is_available():
        return
    unavailable = [item for item in items if item.get_closest_marker("gpu")]
    if unavailable:
        config.hook.pytest_deselected(items=unavailable)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Starts every test from the same random state, whatever ran before it on its worker."""
    torch.manual_seed(0)
