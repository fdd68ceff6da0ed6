"""A trained run from Python: load it, ask for a Scene, render or mesh it.

run = load_run("outputs/cars64/gan3d-ballgan-tiny/2026-01-31_120000")
scene = run.scene(SceneRequest(seed=3, truncation=0.7))
image = run.render(scene, run.orbit([30.0]), ["rgb"])["rgb"][0]  # [H, W, 3] in 0..1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from nerfstudio_gan3d.cameras import labels_to_cameras, orbit_labels
from nerfstudio_gan3d.data.label_maps import read_label_file
from nerfstudio_gan3d.export.options import PictureOutput
from nerfstudio_gan3d.latents import LabelView, SceneRequest
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.outputs import Backdrop, SceneOutputs
from nerfstudio_gan3d.models.scene_model import SceneModel, SceneModelConfig
from nerfstudio_gan3d.scene import Scene
from nerfstudio_gan3d.training.checkpoints import (
    CheckpointError,
    check_fits,
    newest_whole,
    read_checkpoint,
)
from nerfstudio_gan3d.viewer.label_files import saved_pose

CONFIG_NAME = "config.yml"
CHECKPOINT_SUFFIX = ".ckpt"
MODEL_PREFIX = "_model."


@dataclass(frozen=True)
class Run:
    """A trained run, ready to make Scenes. Needs neither its data set nor its place on the disk."""

    folder: Path
    """Folder with config.yml."""
    config: TrainerConfig
    """What config.yml says."""
    model: SceneModel[Any, Any, Any]
    """The nerfstudio model with the checkpoint's weights, in evaluation mode."""
    checkpoint: Path
    """The checkpoint file that was loaded."""
    step: int
    """Training step after which it was saved."""

    @property
    def settings(self) -> Any:
        """The model's part of the configuration: a `SceneModelConfig` of the run's method."""
        return self.model.config

    @property
    def generator(self) -> Any:
        """The moving average of the generator's weights, which is what a user sees: a
        `SceneGenerator` of the run's method."""
        return self.model.generator_ema

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return self.generator.device

    @property
    def images_seen(self) -> int:
        """Real images that the discriminator saw before the checkpoint."""
        return int(self.model.images_seen)

    @torch.no_grad()
    def scene(self, request: SceneRequest | None = None) -> Scene:
        """The Scene of a request (seed 0, or image 0, by default); raises ValueError for levels,
        label maps or images that the model does not have."""
        return self.model.make_scene(request or SceneRequest())

    def labels(self, asked: str = "labels") -> LabelConfig:
        """What the label maps of a labelled model hold.

        Raises:
            ValueError: If the model has no labels; the sentence begins with what was ``asked`` for.
        """
        if self.generator.labels is None:
            raise ValueError(
                f"{asked}: {self.folder} is a run of {self.config.method_name}, a method without "
                "labels; leave it out, or open a run that learned from label maps"
            )
        return self.generator.labels

    def label_view(
        self,
        source: int | str | Path,
        azimuth_deg: float | None = None,
        elevation_deg: float | None = None,
    ) -> LabelView:
        """A label map that a Scene can be made from, and where it is seen from.

        Args:
            source: Number of a map that the checkpoint keeps, which has a camera of its own; or a
                file: class ids, class colours, or an edge map, of the size of the run's images.
            azimuth_deg: Where a file's map is seen from, as in `orbit`; None is the front (0). If
                neither angle is given, a map that the viewer saved is seen from where edit.json
                beside it says.
            elevation_deg: The same; None is 0.

        Raises:
            ValueError: If the model has no labels, keeps no such map, or cannot use the file or the
                edit.json beside it; or if a kept map is to be seen from somewhere else.
        """
        labels = self.labels(f"label map {source}")
        store = self.model.label_store
        assert store is not None
        if isinstance(source, int):
            if azimuth_deg is not None or elevation_deg is not None:
                raise ValueError(
                    f"label map {source}: a kept map is seen from its own camera; give no angles"
                )
            return store.view(source)
        assert labels.kind != "none"
        found = read_label_file(
            Path(source),
            labels.kind,
            labels.channels,
            labels.palette,
            self.settings.image_resolution,
        )
        pose = None
        if azimuth_deg is None and elevation_deg is None:
            pose = saved_pose(Path(source))
        if pose is None:
            pose = self.orbit([azimuth_deg or 0.0], elevation_deg or 0.0)
        shown = torch.from_numpy(found)[None, None]
        return LabelView(shown.to(self.device), pose.to(self.device))

    def orbit(
        self, azimuth_deg: Sequence[float], elevation_deg: float | Sequence[float] = 15.0
    ) -> Float[Tensor, "v 25"]:
        """Camera labels on a circle about the object, framed as the viewer's first camera is.

        Args:
            azimuth_deg: Degrees; 0 looks at the front (+z), 90 stands at +x.
            elevation_deg: Degrees above the horizon, of all cameras or of each.

        Raises:
            ValueError: If the run does not say where its cameras stand.
        """
        settings = self.settings
        if settings.view_radius <= 0 or settings.view_focal <= 0:
            raise ValueError(
                f"{self.folder / CONFIG_NAME}: model.view_radius = {settings.view_radius} and "
                f"model.view_focal = {settings.view_focal}; both must be positive to place a camera"
            )
        azimuth = torch.deg2rad(torch.tensor(azimuth_deg, dtype=torch.float32))
        elevation = torch.as_tensor(elevation_deg, dtype=torch.float32)
        elevation = torch.deg2rad(elevation.expand_as(azimuth))
        labels = orbit_labels(
            azimuth, elevation, settings.view_radius, settings.view_pivot, settings.view_focal
        )
        return labels.to(self.device)

    @torch.no_grad()
    def render(
        self,
        scene: Scene,
        labels: Float[Tensor, "v 25"],
        outputs: Sequence[PictureOutput] = ("rgb", "foreground", "depth", "accumulation"),
        size: int | None = None,
        backdrop: Backdrop | None = None,
    ) -> dict[str, Float[Tensor, "v h w c"]]:
        """Outputs of one Scene (B = 1) seen from V cameras, as the viewer and ns-render show them.

        Args:
            scene: From `scene`.
            labels: Cameras, for example from `orbit`.
            outputs: Names of outputs. Colours are RGB in 0..1; depth is the distance from the
                camera in object-world units; accumulation is the foreground's opacity; normals are
                (n + 1) / 2 in nerfstudio's world; labels are classes in exactly their colours, or
                grey edges.
            size: Side of the images in pixels; None is the size that the run was trained for.
            backdrop: What stands behind the foreground; None is the Scene's own background in rgb
                and white in foreground.

        Raises:
            ValueError: If labels are asked of a model that has none.
        """
        side = size or self.settings.image_resolution
        return self.render_cameras(scene, labels_to_cameras(labels, side, side), outputs, backdrop)

    @torch.no_grad()
    def render_cameras(
        self,
        scene: Scene,
        cameras: Cameras,
        outputs: Sequence[PictureOutput] = ("rgb", "foreground", "depth", "accumulation"),
        backdrop: Backdrop | None = None,
    ) -> dict[str, Float[Tensor, "v h w c"]]:
        """The same as `render` for nerfstudio's cameras (its world, z up), ``[V]`` of one size.

        Raises:
            ValueError: If labels are asked of a model that has none.
        """
        if "labels" in outputs:
            self.labels("labels")
        renderer = SceneOutputs(self.generator, scene, backdrop or Backdrop(), set(outputs))
        found: dict[str, list[Tensor]] = {name: [] for name in outputs}
        for index in range(len(cameras)):
            camera = cameras[index : index + 1].to(self.device)
            image = renderer.camera(camera, chunk=self.settings.eval_num_rays_per_chunk)
            for name, images in found.items():
                images.append(image[name])
        return {name: torch.stack(images) for name, images in found.items()}


def load_run(path: str | Path, device: torch.device | str | None = None) -> Run:
    """Loads a checkpoint of a run for inference, by default the newest whole one.

    The checkpoint is read as data (``weights_only=True``). config.yml is not: nerfstudio writes
    Python objects into it, and reading it can run code, so open only runs whose origin you trust.

    Args:
        path: A run's config.yml, or the folder that holds it; or one of the run's checkpoints,
            ``step-*.ckpt``, which lies in that folder or in one inside of it.
        device: Where to put the model; None is a CUDA device if there is one, else the CPU.

    Raises:
        ValueError: If there is no such run, it is not one of this package's methods, or no
            checkpoint of it can be read or fits the configuration.
    """
    chosen = Path(path).expanduser()
    config_path = _config_path(chosen)
    config = read_config(config_path)
    folder = config_path.parent
    if chosen.suffix == CHECKPOINT_SUFFIX:
        file, state = chosen, read_checkpoint(chosen)
    else:
        # A run's checkpoints lie beside its config.yml, wherever both were moved to since.
        file, state, _ = newest_whole(checkpoint_folder(config, folder))
    step = int(state["step"])
    settings = config.pipeline.model
    assert isinstance(settings, SceneModelConfig)
    box = torch.tensor(settings.box) / 2
    model = settings.setup(scene_box=SceneBox(torch.stack([-box, box])), num_train_data=1)
    weights = {
        name.removeprefix(MODEL_PREFIX): value
        for name, value in state["pipeline"].items()
        if name.startswith(MODEL_PREFIX)
    }
    try:
        check_fits(model, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    model.load_state_dict(weights, strict=True)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval().requires_grad_(False)
    return Run(folder.absolute(), config, model, file.absolute(), step)


def checkpoint_folder(config: TrainerConfig, folder: Path) -> Path:
    """Where the checkpoints of a run lie: in its ``folder``, wherever that is now, or else where
    its configuration says that they were written."""
    inside = folder / config.relative_model_dir.name
    return inside if inside.is_dir() else config.get_checkpoint_dir()


def _config_path(path: Path) -> Path:
    if path.suffix == CHECKPOINT_SUFFIX and path.is_file():
        beside = [
            folder / CONFIG_NAME for folder in (path.absolute().parent, path.absolute().parents[1])
        ]
        for config in beside:
            if config.is_file():
                return config
        raise ValueError(
            f"{path}: there is no {CONFIG_NAME} in its folder or in the one above, which says what "
            "model it is of; put the one that training wrote there"
        )
    if path.is_dir():
        path = path / CONFIG_NAME
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; give the {CONFIG_NAME} that training wrote, or its folder"
        )
    return path


def read_config(path: Path) -> TrainerConfig:
    """The configuration that a config.yml holds; reading one can run code, as in nerfstudio.

    Raises:
        ValueError: If the file is not YAML, or not the configuration of one of this package's
            methods.
    """
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: not a configuration that this version can read ({reason})"
        ) from error
    if not isinstance(config, TrainerConfig) or not isinstance(
        getattr(config.pipeline, "model", None), SceneModelConfig
    ):
        raise ValueError(f"{path}: not the configuration of a gan3d method")
    return config
