"""What the processes of a distributed run exchange: gradients, running means, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.utils import get_total_norm

INFINITE_GRADIENT = 1e5
"""What an infinite gradient becomes."""
EVALUATION_TIMEOUT = timedelta(hours=6)
"""How long processes wait for the first one, which alone evaluates and saves."""


def repair_gradients(parameters: Sequence[Parameter]) -> tuple[Tensor, Bool[Tensor, ""]]:
    """Replaces NaN by 0 and infinities by ±1e5 in the gradients, in place.

    Returns the norm of the gradients as they were, and whether there was anything to repair (a
    tensor, so that a GPU is not waited for).
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm(gradients, foreach=True)
    broken = ~norm.isfinite()
    # On the CPU one look at the norm saves the pass; on a GPU the pass is cheaper than the look.
    if norm.device.type != "cpu" or broken:
        for gradient in gradients:
            gradient.nan_to_num_(0.0, INFINITE_GRADIENT, -INFINITE_GRADIENT)
    return norm, broken


def average_gradients(parameters: Sequence[Parameter]) -> None:
    """The mean of all processes' gradients, in one all-reduce.

    A parameter without a gradient counts as zeros, so that all processes exchange the same layout
    whatever each of them computed.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    average([parameter.grad for parameter in parameters if parameter.grad is not None])


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """The mean over all processes of these tensors, in place, in one all-reduce."""
    if not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    flat /= dist.get_world_size()
    dist.all_reduce(flat)
    places = flat.split([tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, places, strict=True):
        tensor.copy_(mean.view_as(tensor))


def running_means(module: nn.Module) -> list[Tensor]:
    """The running means of w, the only buffers that processes fill with different values."""
    return [value for name, value in module.named_buffers() if name.split(".")[-1] == "w_avg"]


@torch.no_grad()
def broadcast_module(module: nn.Module) -> None:
    """Gives every process the parameters and buffers of the first one."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.numel():
            dist.broadcast(tensor.data, src=0)


class Decision(NamedTuple):
    """What has to be the same on all processes before a step begins."""

    signal: int = 0
    """Number of the signal that asks to stop; 0 is none."""
    stop: bool = False
    """Whether training was asked to end early by something else."""
    paused: bool = False
    """Whether the viewer holds training."""
    elapsed: float = 0.0
    """Seconds of training so far."""


class Agreement:
    """Finds one decision for all processes: the largest of each value.

    The exchange runs over the CPU, whatever device trains, so no process waits for its GPU.
    """

    def __init__(self) -> None:
        self.group = dist.new_group(backend="gloo", timeout=EVALUATION_TIMEOUT)

    def agree(self, own: Decision) -> Decision:
        """The common decision; every process calls this once a step."""
        values = torch.tensor([float(value) for value in own], dtype=torch.float64)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
        signal, stop, paused, elapsed = values.tolist()
        return Decision(int(signal), bool(stop), bool(paused), elapsed)

    def gather(self, value: object) -> list[object]:
        """The values of all processes in order of their rank; empty but on the first process."""
        first = dist.get_rank() == 0
        found: list[object] = [None] * dist.get_world_size() if first else []
        dist.gather_object(value, found if first else None, dst=0, group=self.group)
        return found
