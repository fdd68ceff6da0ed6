"""The distributed entry point, after whose training every process writes its whole state."""

import os
from pathlib import Path

import torch
import torch.distributed as dist

from nerfstudio_gan3d.training import distributed
from nerfstudio_gan3d.training.trainer import GanTrainer


def record(trainer: GanTrainer) -> None:
    """Writes what this process ends with."""
    state = {
        "pipeline": trainer.pipeline.state_dict(),
        "optimizers": {k: v.state_dict() for k, v in trainer.optimizers.optimizers.items()},
        "order": trainer.pipeline.datamanager.batches.order(0)[0].tolist(),
        "viewer": trainer.viewer_state is not None,
    }
    torch.save(state, Path(os.environ["RECORDS"]) / f"{dist.get_rank()}.pt")


def main() -> None:
    """Trains as the module itself does."""
    original = GanTrainer.train

    def train(self: GanTrainer) -> None:
        original(self)
        record(self)

    GanTrainer.train = train
    distributed.main()


if __name__ == "__main__":
    main()
