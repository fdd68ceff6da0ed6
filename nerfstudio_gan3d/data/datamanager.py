"""nerfstudio data manager of the GAN methods: real images for training, cameras for the rest."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import torch
import tyro
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import (
    VanillaDataManager,
    VanillaDataManagerConfig,
)
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.data.utils.dataloaders import (
    FixedIndicesEvalDataloader,
    RandIndicesEvalDataloader,
)
from nerfstudio.model_components.ray_generators import RayGenerator
from nerfstudio.utils import comms
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nerfstudio_gan3d.cameras import PosePrior, cameras_to_labels
from nerfstudio_gan3d.data.batches import ImageBatches, RealBatch
from nerfstudio_gan3d.data.dataset import ImageSet, select_labels
from nerfstudio_gan3d.data.depth import DEPTH_RANGE, check_depth, read_rgbd
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.input_dataset import (
    KEY,
    GanInputDataset,
    StandInConfig,
    resized_outputs,
    thinned_outputs,
)
from nerfstudio_gan3d.data.label_maps import LabelKind, check_label_maps, read_label_maps
from nerfstudio_gan3d.data.paths import AbsoluteData

STORED_CAMERAS = 64
"""Training cameras that a checkpoint carries."""
STAND_IN_SIZE = 128
"""Side in pixels of stand-in cameras when neither config nor checkpoint says one."""


@dataclass
class GanDataManagerConfig(AbsoluteData, VanillaDataManagerConfig):
    """Real images and cameras of a GAN method."""

    _target: type = field(default_factory=lambda: GanDataManager)
    batch_size: int = 16
    """Real images, and generated images, a step and process."""
    seed: int = 0
    """Seed of the order and the mirroring of the real images."""
    mirror: bool = False
    """Flip half of the real images, with their cameras. Not for text or one-sided objects."""
    cache_megabytes: int = 512
    """Keep decoded images in memory when all of them fit into this many 10^6 bytes."""
    workers: int = 2
    """Threads that read and decode images."""
    export_cameras: int = 64
    """Cameras of each split that the viewer, ns-eval, ns-render and ns-export see when they open
    a checkpoint, evenly spread: `ns-export tsdf` renders every one. 0 shows all."""
    train_num_rays_per_batch: int = 1024
    """Rays that `next_train` returns; only the exporters ask for rays."""
    eval_num_rays_per_batch: int = 1024
    """Rays that `next_eval` returns."""
    stored_cameras: tuple[Tensor, int] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    """Cameras and image size found in a checkpoint whose data set is missing. `ns-render dataset`
    opens a second data manager from this config, which never sees the checkpoint."""

    # The pipeline copies these from the model's configuration.
    resolution: tyro.conf.Suppress[int] = 0
    """Side of the real images in pixels, after resizing. 0 keeps that of the data set."""
    label_kind: tyro.conf.Suppress[LabelKind] = "none"
    """How label maps are read; "none" reads none."""
    num_classes: tyro.conf.Suppress[int | None] = None
    """Class ids of the label maps must be smaller. None takes the classes of the data set."""
    with_depth: tyro.conf.Suppress[bool] = False
    """Whether depth is read."""
    depth_range: tyro.conf.Suppress[tuple[float, float]] = DEPTH_RANGE
    """Distances of the nearest and the farthest point where a set has relative depth."""

    # The pixels of real images are not compared with rays, so these choose nothing.
    train_num_images_to_sample_from: tyro.conf.Suppress[int] = -1
    train_num_times_to_repeat_images: tyro.conf.Suppress[int] = -1
    eval_num_images_to_sample_from: tyro.conf.Suppress[int] = -1
    eval_num_times_to_repeat_images: tyro.conf.Suppress[int] = -1
    eval_image_indices: tyro.conf.Suppress[tuple[int, ...] | None] = None
    patch_size: tyro.conf.Suppress[int] = 1
    masks_on_gpu: tyro.conf.Suppress[bool] = False
    images_on_gpu: tyro.conf.Suppress[bool] = False
    pixel_sampler: tyro.conf.Suppress[PixelSamplerConfig] = field(
        default_factory=PixelSamplerConfig
    )


class GanDataManager(VanillaDataManager[GanInputDataset]):
    """Serves real images to the training step, and cameras and rays to nerfstudio's commands.

    Nothing reads a pixel before it is asked for one: `next_images` starts the reading threads, and
    the datasets decode single images. A checkpoint carries `STORED_CAMERAS` training cameras (the
    buffer ``export_labels``); when it is opened where the data set is missing, these stand in, with
    grey images, and a message says so. Training needs the data set.

    Attributes:
        images_missing: whether stand-in cameras are in use.
        resolution: side of the real images in pixels.

    Raises:
        DataError: the data set is missing, has no label maps of the asked kind, or no depth that
            is asked for (training), or it is unusable (always).
    """

    config: GanDataManagerConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    export_labels: Tensor
    export_size: Tensor

    def __init__(
        self,
        config: GanDataManagerConfig,
        device: torch.device | str = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        self._given_config = config
        data = config.data if config.data is not None else config.dataparser.data
        self.images_missing = test_mode != "val" and data is not None and not Path(data).exists()
        if self.images_missing:
            config = self._stand_in(config, Path(data))
            CONSOLE.print(
                f"[bold yellow]{data} is missing: cameras of the checkpoint stand in, "
                "real images appear grey, and figures that need real images are not available."
            )
        self.resolution = config.resolution
        self._rays = torch.Generator().manual_seed(config.seed)
        super().__init__(config, device, test_mode, world_size, local_rank, **kwargs)
        if test_mode == "val":
            check_label_maps(self.image_set, config.label_kind, config.num_classes)
            if config.with_depth:
                check_depth(self.image_set, config.depth_range)
        labels = cameras_to_labels(self.train_dataset.cameras)
        self.register_buffer("export_labels", select_labels(labels, STORED_CAMERAS))
        self.register_buffer("export_size", torch.tensor(self.resolution))

    @cached_property
    def image_set(self) -> ImageSet:
        """The opened data set; raises DataError when it is missing."""
        opened = getattr(self.dataparser, "image_set", None)
        if opened is None:
            path = self.train_dataparser_outputs.metadata[KEY]["path"]
            opened = ImageSet(path)
        return opened

    @cached_property
    def batches(self) -> ImageBatches:
        """Real images of the training split, in the order of this process."""
        return ImageBatches(
            self.image_set,
            self.config.batch_size,
            self.resolution,
            seed=self.config.seed,
            mirror=self.config.mirror,
            rank=comms.get_rank(),
            world_size=comms.get_world_size(),
            cache_megabytes=self.config.cache_megabytes,
            workers=self.config.workers,
            indices=self.split_indices("train"),
            prior=_prior(self.config),
            label_kind=self.config.label_kind,
            num_classes=self.config.num_classes,
            with_depth=self.config.with_depth,
            depth_range=self.config.depth_range,
        )

    def split_indices(self, split: Literal["train", "test"]) -> list[int]:
        """Positions in `image_set` of all images of a split, whatever ``export_cameras`` says."""
        outputs = self._parse(split)
        indices = outputs.metadata[KEY]["indices"]
        if indices is None:
            raise DataError(f"{outputs.metadata[KEY]['path']}: no such file or folder")
        return indices

    def next_images(self, step: int) -> RealBatch:
        """The real images of a training step: a pure function of seed, step and rank."""
        return self.batches.batch(step)

    def label_maps(self, indices: Sequence[int]) -> UInt8[Tensor, "n 1 r r"]:
        """Label maps of images of `image_set` at the resolution of training, not mirrored.

        Raises:
            DataError: the data set or its label maps are missing, or a file cannot be used.
            ValueError: the method reads no label maps.
        """
        kind, classes = self.config.label_kind, self.config.num_classes
        return read_label_maps(self.image_set, indices, kind, classes, self.resolution)

    def rgbd(
        self, indices: Sequence[int]
    ) -> tuple[UInt8[Tensor, "n 3 r r"], Float[Tensor, "n 1 r r"], Float[Tensor, "n 25"]]:
        """Images of `image_set` at the resolution of training with depth and camera, not mirrored.

        Returns:
            RGB; distances along the rays in object-world units, where 0 is background; camera
            labels.

        Raises:
            DataError: the data set, its depth or its camera labels are missing, or a file cannot
                be used.
        """
        return read_rgbd(self.image_set, indices, self.resolution, self.config.depth_range)

    def sample_labels(self, count: int, generator: torch.Generator | int) -> Float[Tensor, "b 25"]:
        """Cameras for generated images, from the training images or the pose prior.

        Where the data set is missing they are drawn from the stand-in cameras.
        """
        if self.images_missing:
            if isinstance(generator, int):
                generator = torch.Generator().manual_seed(generator)
            labels = cameras_to_labels(self.train_dataset.cameras)
            return labels[torch.randint(len(labels), (count,), generator=generator)]
        return self.batches.sample_labels(count, generator)

    def create_train_dataset(self) -> GanInputDataset:
        """Dataset of the training split."""
        self.train_dataparser_outputs = self._prepare(self.train_dataparser_outputs)
        return self._dataset(self.train_dataparser_outputs)

    def create_eval_dataset(self) -> GanInputDataset:
        """Dataset of the evaluation split."""
        return self._dataset(self._prepare(self._parse(self.test_split)))

    def setup_train(self) -> None:
        """Rays of the training cameras; no image is read."""
        # ns-export writes the number of rays it wants into `train_pixel_sampler`.
        self.train_pixel_sampler = cast(
            Any, SimpleNamespace(num_rays_per_batch=self.config.train_num_rays_per_batch)
        )
        self.train_ray_generator = RayGenerator(self.train_dataset.cameras.to(self.device))

    def setup_eval(self) -> None:
        """Rays and loaders of the evaluation cameras; no image is read."""
        self.eval_pixel_sampler = cast(
            Any, SimpleNamespace(num_rays_per_batch=self.config.eval_num_rays_per_batch)
        )
        self.eval_ray_generator = RayGenerator(self.eval_dataset.cameras.to(self.device))
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(
            input_dataset=self.eval_dataset, device=self.device
        )
        self.eval_dataloader = RandIndicesEvalDataloader(
            input_dataset=self.eval_dataset, device=self.device
        )

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Tensor]]:
        """Rays through random pixels of random training cameras.

        Returns:
            the rays, and ``{"indices": [R, 3]}`` (camera, row, column). No pixels: they show other
            objects than the generated one.
        """
        self.train_count += 1
        assert self.train_pixel_sampler is not None
        return self._random_rays(
            self.train_dataset.cameras,
            self.train_ray_generator,
            self.train_pixel_sampler.num_rays_per_batch,
        )

    def next_eval(self, step: int) -> tuple[RayBundle, dict[str, Tensor]]:
        """As `next_train`, for the evaluation cameras."""
        self.eval_count += 1
        assert self.eval_pixel_sampler is not None
        return self._random_rays(
            self.eval_dataset.cameras,
            self.eval_ray_generator,
            self.eval_pixel_sampler.num_rays_per_batch,
        )

    def next_eval_image(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """The evaluation images in turn."""
        self.eval_count += 1
        return self.eval_dataloader.get_camera(step % len(self.eval_dataset))

    def get_train_rays_per_batch(self) -> int:
        """Pixels of the real images of a step; the trainer turns them into rays a second."""
        return self.config.batch_size * self.resolution**2

    def get_datapath(self) -> Path:
        """Folder for camera paths saved in the viewer: beside the data, else the current one."""
        data = self.config.data
        return Path.cwd() if data is None or not Path(data).exists() else Path(data)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        own = self.export_labels.clone(), self.export_size.clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if not self.images_missing:
            # The data set that is there decides, not the one that the checkpoint remembers.
            self.export_labels.copy_(own[0])
            self.export_size.copy_(own[1])
            return
        size = self.config.resolution or int(self.export_size)
        labels = self.export_labels.cpu()
        # A set of fewer images than STORED_CAMERAS is stored with repetitions.
        kept = [i for i in range(len(labels)) if i == 0 or (labels[i] != labels[i - 1]).any()]
        self._given_config.stored_cameras = labels[kept], size
        stand_in = cast(StandInConfig, self.config.dataparser)
        stand_in.labels, stand_in.size = self._given_config.stored_cameras
        self.resolution = size
        self.train_dataparser_outputs = self._parse("train")
        self.train_dataset = self.create_train_dataset()
        self.eval_dataset = self.create_eval_dataset()
        if self.test_mode != "inference":
            self.setup_train()
            self.setup_eval()

    def _stand_in(self, config: GanDataManagerConfig, data: Path) -> GanDataManagerConfig:
        if config.stored_cameras is None:
            labels = _prior(config).sample(STORED_CAMERAS, torch.Generator().manual_seed(0))
            size = config.resolution or STAND_IN_SIZE
        else:
            labels, size = config.stored_cameras
        config = copy.copy(config)
        config.dataparser = StandInConfig(data=data, labels=labels, size=size)
        return config

    def _parse(self, split: str) -> DataparserOutputs:
        outputs = self.dataparser.get_dataparser_outputs(split=split)
        if KEY not in outputs.metadata:
            raise ValueError(
                f"the data parser {type(self.dataparser).__name__} does not serve GAN methods; "
                "use gan3d-images"
            )
        return outputs

    def _prepare(self, outputs: DataparserOutputs) -> DataparserOutputs:
        if KEY not in outputs.metadata:
            outputs = self._parse("train")
        self.resolution = self.resolution or outputs.metadata[KEY]["size"]
        if self.test_mode != "val":
            outputs = thinned_outputs(outputs, self.config.export_cameras)
        return resized_outputs(outputs, self.resolution)

    def _dataset(self, outputs: DataparserOutputs) -> GanInputDataset:
        return GanInputDataset(
            outputs,
            self.config.camera_res_scale_factor,
            None if self.images_missing else self.image_set,
        )

    def _random_rays(
        self, cameras: Cameras, rays: RayGenerator, count: int
    ) -> tuple[RayBundle, dict[str, Tensor]]:
        height, width = int(cameras.height.max()), int(cameras.width.max())
        limits = (len(cameras), height, width)
        columns = [torch.randint(n, (count,), generator=self._rays) for n in limits]
        indices = torch.stack(columns, dim=-1).to(self.device)  # [R, 3]
        return rays(indices), {"indices": indices}


def _prior(config: GanDataManagerConfig) -> PosePrior:
    return getattr(config.dataparser, "prior", PosePrior())
