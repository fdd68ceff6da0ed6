"""G3DR (arXiv 2403.00939): one image with depth to a Scene; its model and the sizes of its presets.

A U-Net turns the image into three feature planes. They are learned from the image's own view, with
gradients that stay near the known depth, and from views that nobody photographed, which have to
look like the image to classifiers.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from dataclasses import field as default
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.fields.multiplane import Frustum, MultiPlane
from nerfstudio_gan3d.fields.styled_table import StyledTable
from nerfstudio_gan3d.image_views import ImageStore, ImageView
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.losses.perceptual import SMALLEST
from nerfstudio_gan3d.models.g3dr_config import DetailConfig, MultiPlaneConfig, UNetConfig
from nerfstudio_gan3d.models.image_generator import ImageGenerator
from nerfstudio_gan3d.models.reconstruction import WITHOUT_LPIPS, ReconstructionObjective
from nerfstudio_gan3d.models.reconstruction_config import NovelViewConfig, ReconstructionLossConfig
from nerfstudio_gan3d.models.scene_model import SceneModel, SceneModelConfig
from nerfstudio_gan3d.networks.unet import PlaneUNet
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.scene import Bounds, Scene
from nerfstudio_gan3d.viewer.image_controls import ImageControls

ALIKE = 0.02
"""Share by which cameras of a data set may differ."""


@dataclass
class G3drModelConfig(SceneModelConfig):
    """One image with depth to 3D."""

    _target: type = default(default_factory=lambda: G3drModel)
    image_resolution: int = 128
    """Side of the images and of the planes, pixels."""
    samples: int = 32
    """Samples a ray that are spread evenly."""
    importance_samples: int = 32
    """Further samples a ray where the first ones found weight, or about the known depth."""
    ema_kimg: float = 0.0
    """Half-life of the moving average of the weights, thousands of images; 0 keeps no average, as
    published."""
    ray_bounds: Literal["constant", "box"] = "box"
    view_radius: float = 0.0
    """Distance of the canonical camera from the origin, object-world units. 0: that of the data
    set's cameras."""
    view_focal: float = 0.0
    """Focal length of the canonical camera in image sides. 0: that of the data set's cameras."""
    unet: UNetConfig = default(default_factory=UNetConfig)
    """The network that makes the planes."""
    planes: MultiPlaneConfig = default(default_factory=MultiPlaneConfig)
    """Planes and decoder."""
    detail: DetailConfig = default(default_factory=DetailConfig)
    """Hash grid whose features the decoder sees beside the planes'."""
    box_side: float = 2.0
    """Side along z of the box about the origin that holds everything, the background included,
    object-world units. Relative depth maps run from its front to its back."""
    box_width: float = 0.0
    """Its sides along x and y; 0, as published: a cube. What lies beside the box is black, and from
    elsewhere the canonical view's background is wider than from the front."""
    wall: float = 0.95
    """Where pixels without depth are taken to be: on a plane this far behind the origin, in half
    sides of the box."""
    losses: ReconstructionLossConfig = default(default_factory=ReconstructionLossConfig)
    """Weights of the losses."""
    novel: NovelViewConfig = default(default_factory=NovelViewConfig)
    """Views that nobody photographed, and how often they are looked at."""
    image: int = 0
    """Number of the kept image that is shown first, and rendered and exported by nerfstudio's
    commands."""

    @property
    def box(self) -> tuple[float, float, float]:
        """Sides of the box that holds a Scene."""
        width = self.box_width or self.box_side
        return width, width, self.box_side

    @property
    def depth_range(self) -> tuple[float, float]:
        """Distances that relative depth maps run from and to."""
        return self.view_radius - self.box_side / 2, self.view_radius + self.box_side / 2


def validate(config: G3drModelConfig) -> None:
    """Raises ValueError, naming the field, for settings that cannot work together."""
    for name in ("box_side", "view_radius", "view_focal"):
        if getattr(config, name) <= 0:
            raise ValueError(f"model.{name} = {getattr(config, name)}: give a positive number")
    if config.view_radius <= config.box_side / 2:
        raise ValueError(
            f"model.view_radius = {config.view_radius}: the camera stands inside of the box, whose "
            f"half side is {config.box_side / 2}; make one of them larger or smaller"
        )
    if config.box_width < 0:
        raise ValueError(f"model.box_width = {config.box_width}: 0 for a cube, or a positive side")
    if not -1 < config.wall < 1:
        raise ValueError(f"model.wall = {config.wall}: it must lie in the box, between -1 and 1")
    if config.planes.density_scale <= 0:
        raise ValueError(
            f"model.planes.density_scale = {config.planes.density_scale}: give a positive number"
        )
    if config.planes.frame == "frustum" and config.conventions == "reference":
        raise ValueError(
            "model.planes.frame = frustum exists for conventions = corrected only; published "
            "weights span the box"
        )
    if config.detail.levels and config.conventions == "reference":
        raise ValueError(
            f"model.detail.levels = {config.detail.levels} needs conventions = corrected; "
            "decoders of published weights see the planes alone; set it to 0"
        )
    side, levels = config.image_resolution, config.planes.resolutions
    if not 1 <= levels <= side.bit_length():
        raise ValueError(
            f"model.planes.resolutions = {levels}: planes of {side} texels can be halved "
            f"{side.bit_length() - 1} times; give 1 to {side.bit_length()}"
        )
    if config.losses.guided > 0 and config.importance_samples == 0:
        raise ValueError(
            f"model.losses.guided = {config.losses.guided}: without model.importance_samples there "
            "are no fine samples to be guided; set it to 0, or give some"
        )
    config.losses.validate()
    config.novel.validate()
    stride = config.losses.ray_stride
    if config.losses.lpips > 0 and side // stride < SMALLEST:
        raise ValueError(
            f"model.losses.ray_stride = {stride} leaves {side // stride} of {side} pixels: LPIPS "
            f"needs {SMALLEST}; give a smaller one, or train without it: {WITHOUT_LPIPS}"
        )


def fit_to_cameras(config: G3drModelConfig, labels: Float[Tensor, "n 25"]) -> None:
    """Takes the canonical camera's distance and focal length from the data set where they were left
    at 0.

    Raises ValueError where the cameras are not alike: an image is taken to be seen from the
    canonical camera, whose distance and focal length are part of what the network learns.
    """
    radius, focal = labels[:, [3, 7, 11]].norm(dim=-1), labels[:, 16]
    config.view_radius = config.view_radius or float(radius.median())
    config.view_focal = config.view_focal or float(focal.median())
    # The optical axis of a camera that looks at the origin.
    forward, position = labels[:, [2, 6, 10]], labels[:, [3, 7, 11]]
    aside = (forward + position / radius[:, None]).norm(dim=-1)
    for name, worst, limit in (
        ("distance from the origin", (radius / config.view_radius - 1).abs().max(), ALIKE),
        ("focal length", (labels[:, [16, 20]] / config.view_focal - 1).abs().max(), ALIKE),
        ("principal point", (labels[:, [18, 21]] - 0.5).abs().max(), ALIKE),
        ("direction", aside.max(), ALIKE),
    ):
        if worst > limit:
            raise ValueError(
                f"the data set's cameras differ in {name} by {float(worst):.3f} (a share) from "
                f"model.view_radius = {config.view_radius:.4g} and model.view_focal = "
                f"{config.view_focal:.4g}, looking at the origin: at most {limit} is allowed; G3DR "
                "takes every image to be seen from one camera, so use a set of such images"
            )


def make_image_generator(config: G3drModelConfig) -> ImageGenerator:
    """A fresh generator of this configuration."""
    unet, planes = config.unet, config.planes
    axes = planes.axes
    if axes == "auto":
        axes = "xy_xz_zx" if config.conventions == "reference" else "xy_xz_zy"
    frustum = None
    if planes.frame == "frustum":
        frustum = Frustum(
            config.view_radius / config.box_side,
            config.view_focal,
            config.box[0] / config.box_side,
        )
    detail, grid = None, config.detail
    if grid.levels:
        detail = StyledTable(
            unet.width * unet.multipliers[-1],
            grid.levels,
            grid.base_resolution,
            grid.max_resolution,
            grid.log2_table_size,
            grid.features_per_level,
            grid.bases,
            implementation=grid.implementation,
        )
    corner = math.hypot(*config.box) / 2
    return ImageGenerator(
        PlaneUNet(
            config.image_resolution,
            4,
            unet.width,
            unet.multipliers,
            unet.blocks,
            unet.attention,
            unet.position_channels,
            planes.channels,
        ),
        MultiPlane(
            planes.channels,
            3,
            planes.hidden_dim,
            planes.resolutions,
            axes,
            frustum,
            config.conventions == "corrected",
            detail,
        ),
        Bounds(config.box, max(config.view_radius - corner, 0.0), config.view_radius + corner),
        config.view_radius,
        config.view_focal,
        planes.density_scale,
        RenderSettings(
            config.samples,
            config.importance_samples,
            config.conventions if config.sampling == "auto" else config.sampling,
            config.ray_bounds,
        ),
        config.image_resolution,
        config.conventions,
    )


class G3drModel(SceneModel[ImageGenerator, ReconstructionObjective, ImageControls]):
    """The generator, its objective, and some images to show."""

    config: G3drModelConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def populate_modules(self) -> None:
        """Builds generator and controls; raises ValueError for impossible settings."""
        config = self.config
        validate(config)
        self.generator = make_image_generator(config)
        self.generator_ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.objective = ReconstructionObjective(config.losses, config.novel, config.wall)
        self.label_store = None
        self.image_store = ImageStore(config.image_resolution, config.view_radius)
        self.controls = ImageControls(self)
        self._kept = None

    @property
    def images(self) -> ImageStore:
        """The images that a checkpoint keeps."""
        assert self.image_store is not None
        return self.image_store

    def prepare_training(self) -> None:
        """Loads what training alone needs; raises ValueError where it is not on this machine."""
        self.objective.prepare()

    def set_training_share(self, share: float) -> None:
        """Tells the objective how much of training is done, 0..1, before each step."""
        self.objective.share = share

    def training_losses(
        self, images: Tensor, distances: Tensor, step: int, seed: int, world_size: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of a step, and figures to log; see `ReconstructionObjective`."""
        self._last_batch = len(images) * world_size
        return self.objective(self.generator, images, distances, step, seed, world_size)

    @torch.no_grad()
    def make_scene(self, request: SceneRequest) -> Scene:
        """The Scene of a kept image or of one of the user's own."""
        found = request.image
        view = found if isinstance(found, ImageView) else self.images.view(found)
        return self.generator_ema.scene(view.condition(self.generator_ema.device))


def g3dr() -> G3drModelConfig:
    """128 px on GPUs: the published sizes, losses and schedules, on planes with corrected axes.
    Cameras are those of the published data: 18 degrees of view from a distance of 5."""
    return G3drModelConfig(
        view_radius=5.0,
        view_focal=0.5 / math.tan(math.radians(9)),
        eval_num_rays_per_chunk=16384,
    )


def g3dr_tiny() -> G3drModelConfig:
    """64 px on two CPU cores: a small network, few samples, and neither LPIPS nor CLIP. Novel views
    are compared with the image carried along by its depth instead."""
    return G3drModelConfig(
        image_resolution=64,
        samples=16,
        importance_samples=8,
        unet=UNetConfig(
            width=16, multipliers=(1, 2, 4, 8), blocks=1, attention=False, position_channels=8
        ),
        planes=MultiPlaneConfig(channels=16, frame="frustum", hidden_dim=32, density_scale=12.0),
        box_side=1.8,
        box_width=3.4,
        wall=0.85,
        losses=ReconstructionLossConfig(
            clip=0.0, lpips=0.0, depth_spread=2.0, warp=1.0, ray_stride=2
        ),
        novel=NovelViewConfig(share=0.2),
        ema_kimg=2.0,
        eval_num_rays_per_chunk=16384,
    )
