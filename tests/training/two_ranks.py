"""The distributed entry point, after whose training every process writes its whole state."""

import os
from pathlib import Path

import torch
import torch.distributed as dist

from nerfstudio_gan3d.training import distributed
from nerfstudio_gan3d.training.trainer import GanTrainer


class Recorder:
    """Stands in for `GanTrainer.train` and adds the record."""

    original = GanTrainer.train

    @staticmethod
    def train(trainer: GanTrainer) -> None:
        Recorder.original(trainer)
        state = {
            "pipeline": trainer.pipeline.state_dict(),
            "optimizers": {k: v.state_dict() for k, v in trainer.optimizers.optimizers.items()},
            "order": trainer.pipeline.datamanager.batches.order(0)[0].tolist(),
            "viewer": trainer.viewer_state is not None,
        }
        torch.save(state, Path(os.environ["RECORDS"]) / f"{dist.get_rank()}.pt")


if __name__ == "__main__":
    GanTrainer.train = Recorder.train
    distributed.main()
