"""What processes exchange: checked in two real ones, and gradients that are not finite."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from nerfstudio_gan3d.training.sync import (
    Agreement,
    Decision,
    average,
    average_gradients,
    broadcast_module,
    repair_gradients,
    running_means,
)


def exchange(rank: int, folder: str) -> None:
    """One of two processes; writes what it got."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    got: dict[str, Any] = {}

    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, 2))]
    weights[0].grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    if rank == 1:
        weights[1].grad = torch.full((2, 2), 8.0)
    average_gradients(weights)
    got["gradients"] = [weight.grad.tolist() for weight in weights if weight.grad is not None]

    torch.manual_seed(rank)
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.register_buffer("empty", torch.zeros(0))
    broadcast_module(module)
    got["broadcast"] = [value.tolist() for value in module.state_dict().values()]

    values = [torch.tensor(float(rank)), torch.full((3,), 2.0 * rank)]
    average(values)
    average([])
    got["average"] = [value.tolist() for value in values]

    agreement = Agreement()
    own = Decision(signal=15, elapsed=1.5) if rank == 0 else Decision(paused=True, elapsed=2.5)
    got["decision"] = agreement.agree(own)
    got["gathered"] = agreement.gather({"rank": rank})

    (Path(folder) / f"{rank}.json").write_text(json.dumps(got))
    # Groups go before the process does, and together: one that outlives the default group, or whose
    # other side has left, can wait for ever in its destructor.
    del agreement
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_come_to_the_same() -> None:
    with tempfile.TemporaryDirectory() as folder:
        spawn(exchange, args=(folder,), nprocs=2)
        first, second = (json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in (0, 1))
    # The second weight has a gradient on one process only: (0 + 8) / 2.
    assert first["gradients"] == [[1.5, 3.0], [[4.0, 4.0], [4.0, 4.0]]]
    assert first["average"] == [0.5, [1.0, 1.0, 1.0]]
    assert first["decision"] == [15, False, True, 2.5]
    assert first["gathered"] == [{"rank": 0}, {"rank": 1}]
    assert second["gathered"] == []
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict()
    assert first["broadcast"][1:] == [value.tolist() for value in expected.values()]
    for name in ("gradients", "broadcast", "average", "decision"):
        assert first[name] == second[name]


def test_gradients_that_are_not_finite_are_replaced() -> None:
    weights = [
        nn.Parameter(torch.zeros(4)),
        nn.Parameter(torch.zeros(1)),
        nn.Parameter(torch.zeros(1)),
    ]
    weights[0].grad = torch.tensor([math.nan, math.inf, -math.inf, 3.0])
    weights[1].grad = torch.tensor([2e5])
    norm, broken = repair_gradients(weights)
    assert broken
    assert not norm.isfinite()
    assert weights[0].grad.tolist() == [0.0, 1e5, -1e5, 3.0]
    assert weights[1].grad.tolist() == [2e5]
    assert weights[2].grad is None


def test_finite_gradients_stay_and_their_norm_is_told() -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
    norm, broken = repair_gradients(weights)
    assert not broken
    assert norm.item() == 7.0
    assert weights[0].grad.tolist() == [2.0, 3.0]


def test_running_means_are_found_by_name() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    module[0].register_buffer("w_avg", torch.ones(3))
    assert [tuple(value.shape) for value in running_means(module)] == [(3,)]
