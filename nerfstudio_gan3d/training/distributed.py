"""Training on several processes, which torchrun starts on one machine or on several.

``torchrun --nproc-per-node 2 -m nerfstudio_gan3d.training.distributed METHOD ...`` takes the same
options as ``ns-train METHOD ...``. Processes speak through NCCL on GPUs and through gloo on CPUs,
where nerfstudio's own launcher works with GPUs alone. The batch size is that of one process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import tyro
import yaml
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.scripts.train import train_loop
from nerfstudio.utils import comms, profiler

from nerfstudio_gan3d.training.exits import user_errors
from nerfstudio_gan3d.training.sync import EVALUATION_TIMEOUT
from nerfstudio_gan3d.training.trainer import GanTrainerConfig


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that torchrun started."""

    rank: int
    """Among all processes."""
    local_rank: int
    """Among those of this machine."""
    world_size: int
    """Number of all processes."""
    local_size: int
    """Number of processes on each machine."""

    @staticmethod
    def from_environment() -> Place:
        """As torchrun tells it; raises ValueError when there is no torchrun."""
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        missing = [name for name in names if name not in os.environ]
        if missing:
            raise ValueError(
                f"{missing[0]} is not set; start this module with torchrun --nproc-per-node N -m "
                "nerfstudio_gan3d.training.distributed METHOD, or use ns-train for one process"
            )
        place = Place(*(int(os.environ[name]) for name in names))
        if place.world_size % place.local_size:
            raise ValueError(
                f"{place.world_size} processes, {place.local_size} on this machine: start the same "
                "number on every machine"
            )
        return place


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses a method with its options as ns-train does, and trains it on this process."""
    with user_errors():
        place = Place.from_environment()
    parsed = tyro.cli(AnnotatedBaseConfigUnion, args=arguments, description=__doc__)
    with user_errors():
        config = _prepare(parsed, place)
    _open_group(config, place)
    _share_output_directory(config, place)
    try:
        train_loop(place.local_rank, place.world_size, config, place.rank)
    except SystemExit:
        # Every process leaves with the same code here, so the group can be closed in order.
        dist.destroy_process_group()
        raise
    comms.synchronize()
    dist.destroy_process_group()
    profiler.flush_profiler(config.logging)


def _prepare(config: TrainerConfig, place: Place) -> TrainerConfig:
    """The aliases of ns-train, and what torchrun decides; raises ValueError if they do not fit."""
    if config.load_config is not None:
        config = yaml.load(config.load_config.read_text(), Loader=yaml.Loader)
    if not isinstance(config, GanTrainerConfig):
        raise ValueError(
            f"{config.method_name} is not a method of this package; use ns-train for it"
        )
    if config.data is not None:
        config.pipeline.datamanager.data = config.data
    if config.machine.device_type == "cuda" and torch.cuda.device_count() < place.local_size:
        raise ValueError(
            f"{place.local_size} processes on this machine, but torch finds "
            f"{torch.cuda.device_count()} CUDA devices; start one process a device, or give "
            "--machine.device-type cpu"
        )
    config.machine.num_devices = place.local_size
    config.machine.num_machines = place.world_size // place.local_size
    config.machine.machine_rank = place.rank // place.local_size
    return config


def _open_group(config: TrainerConfig, place: Place) -> None:
    backend = "gloo"
    if config.machine.device_type == "cuda":
        torch.cuda.set_device(place.local_rank)
        backend = "nccl"
    dist.init_process_group(backend, timeout=EVALUATION_TIMEOUT)
    for first in range(0, place.world_size, place.local_size):
        # Every process has to take part in making every group, also of those it does not belong to.
        ranks = list(range(first, first + place.local_size))
        group = dist.new_group(ranks)
        if place.rank in ranks:
            comms.LOCAL_PROCESS_GROUP = group


def _share_output_directory(config: TrainerConfig, place: Place) -> None:
    config.set_timestamp()
    stamp = [config.timestamp]
    dist.broadcast_object_list(stamp, src=0)
    config.timestamp = stamp[0]
    if place.rank == 0:
        config.print_to_terminal()
        config.save_config()


if __name__ == "__main__":
    main()
