"""What is found wrong before training starts, and what real images are measured at."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nerfstudio_gan3d.data.datamanager import GanDataManagerConfig
from nerfstudio_gan3d.data_parsers.images import Gan3dImagesDataParserConfig
from nerfstudio_gan3d.training.evaluation import real_batches
from tests.data.sets import files, image, write_folder
from tests.training.micro import micro_config


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "set", files(8, size=16))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pipeline.datamanager.workers": 0}, "workers = 0: give at least 1"),
        ({"pipeline.datamanager.cache_megabytes": -1}, "cache_megabytes = -1: give 0 or more"),
        ({"pipeline.datamanager.seed": -1}, "seed = -1: give 0 or more"),
        ({"pipeline.datamanager.batch_size": 0}, "batch_size = 0: give 1 image or more"),
        ({"pipeline.model.discriminator.minibatch_group": 0}, "minibatch_group = 0"),
        (
            {
                "pipeline.evaluation.features": "torchscript",
                "pipeline.evaluation.evaluator": Path("/nowhere/judge.pt"),
            },
            "/nowhere/judge.pt",
        ),
    ],
)
def test_a_setting_that_training_would_stop_at_is_refused_before(
    options: dict[str, Any], sentence: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    config = micro_config(data, tmp_path / "outputs", max_num_iterations=1, **options)
    trainer = config.setup(local_rank=0, world_size=1)
    with pytest.raises(SystemExit) as caught:
        trainer.setup()
    assert caught.value.code == 2
    told = capfd.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("*.ckpt"))


def test_real_images_are_measured_at_the_size_that_is_trained_on(data: Path) -> None:
    parser = Gan3dImagesDataParserConfig()
    manager = GanDataManagerConfig(data=data, dataparser=parser, resolution=8).setup()
    (batch,) = real_batches(manager)
    places = manager.split_indices("train")
    assert batch.image.dtype == torch.uint8
    for found, index in zip(batch.image, places, strict=True):
        # Half the size: the mean of four pixels each.
        whole = torch.from_numpy(image(index, 16)).permute(2, 0, 1).double()
        cells = torch.nn.functional.avg_pool2d(whole, 2)
        assert (found - cells).abs().max() <= 0.5
