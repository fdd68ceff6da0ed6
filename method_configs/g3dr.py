"""G3DR (arXiv 2403.00939): one image with depth to 3D."""

from __future__ import annotations

from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.plugins.types import MethodSpecification

from nerfstudio_gan3d.data.datamanager import GanDataManagerConfig
from nerfstudio_gan3d.data_parsers.images import Gan3dImagesDataParserConfig
from nerfstudio_gan3d.data_parsers.rgbd import Gan3dRgbdDataParserConfig
from nerfstudio_gan3d.method_configs._defaults import trainer
from nerfstudio_gan3d.metrics.config import EvaluationConfig
from nerfstudio_gan3d.models.g3dr import G3drModelConfig, g3dr, g3dr_tiny
from nerfstudio_gan3d.training.optimizers import GanAdamConfig
from nerfstudio_gan3d.training.reconstruction import ReconstructionPipelineConfig
from nerfstudio_gan3d.training.trainer import GanTrainerConfig


def specification(
    name: str,
    description: str,
    model: G3drModelConfig,
    dataparser: DataParserConfig,
    *,
    batch_size: int,
    iterations: int,
    lr: float,
    tiny: bool,
) -> MethodSpecification:
    """A method as nerfstudio registers it. There is one player, and Adam keeps its first moment."""
    config = trainer(
        name,
        ReconstructionPipelineConfig(
            datamanager=GanDataManagerConfig(
                dataparser=dataparser, batch_size=batch_size, mirror=True
            ),
            model=model,
            evaluation=EvaluationConfig(),
        ),
        {"generator": {"optimizer": GanAdamConfig(lr=lr, betas=(0.9, 0.99)), "scheduler": None}},
        iterations=iterations,
        tiny=tiny,
    )
    return MethodSpecification(config, description=description)


def as_published(method: MethodSpecification) -> MethodSpecification:
    """The same with the published learning rate: one cycle, up to its value in 2 % of training and
    down along a cosine, while Adam's first beta goes the opposite way."""
    config = method.config
    assert isinstance(config, GanTrainerConfig)
    config.lr_warmup = config.lr_decay_start = 0.02
    config.lr_warmup_factor, config.lr_final_factor = 2e-6 / 5e-5, 2e-10 / 5e-5
    config.beta1_cycle = (0.95, 0.85)
    return method


def late_decay(method: MethodSpecification) -> MethodSpecification:
    """The same with a learning rate that falls over the second half of training."""
    config = method.config
    assert isinstance(config, GanTrainerConfig)
    config.lr_decay_start, config.lr_final_factor = 0.5, 0.02
    return method


gan3d_g3dr = as_published(
    specification(
        "gan3d-g3dr",
        "G3DR, 128 px: one image with depth to 3D, with LPIPS and CLIP (GPU)",
        g3dr(),
        Gan3dRgbdDataParserConfig(),
        batch_size=8,
        iterations=300_000,
        lr=5e-5,
        tiny=False,
    )
)

gan3d_g3dr_tiny = late_decay(
    specification(
        "gan3d-g3dr-tiny",
        "G3DR, 64 px, for two CPU cores: one image with depth to 3D, on the bundled cars",
        g3dr_tiny(),
        Gan3dImagesDataParserConfig(eval_fraction=0.1),
        batch_size=4,
        iterations=100_000,
        lr=0.001,
        tiny=True,
    )
)
