"""A whole official file for the tests that damage one."""

import pytest
import torch

from tests.snapshots.official_pickle import network, write_snapshot


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Bytes of a whole file with G, D and G_ema."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("official") / "network.pkl"
    generator = network()
    networks = {"G": generator, "D": network(), "G_ema": generator, "augment_pipe": None}
    return write_snapshot(path, networks, {"path": "cars.zip", "xflip": False}).read_bytes()
