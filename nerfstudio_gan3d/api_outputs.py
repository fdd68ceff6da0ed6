"""What Python code gets of a Scene: pictures as arrays, and splats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from jaxtyping import Float32, UInt8
from nerfstudio.cameras.cameras import Cameras

from nerfstudio_gan3d.data.palettes import Palette, class_colours, ids_from_colors
from nerfstudio_gan3d.export.inputs import plane_behind
from nerfstudio_gan3d.export.outputs import PictureOutput
from nerfstudio_gan3d.export.splat_refine import Rasterizer
from nerfstudio_gan3d.export.splat_views import surroundings
from nerfstudio_gan3d.export.splats import TRAINING_VIEWS, make_splats
from nerfstudio_gan3d.export.transparency import straight_colours
from nerfstudio_gan3d.models.outputs import Backdrop
from nerfstudio_gan3d.rendering.splatting import Splats
from nerfstudio_gan3d.run import Run
from nerfstudio_gan3d.scene import Scene

Output = Literal["rgb", "depth", "alpha", "labels", "rgba"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
ALWAYS: tuple[Output, ...] = ("rgb", "depth", "alpha")
"""Outputs that come with every picture."""
RENDERED: dict[Output, tuple[PictureOutput, ...]] = {
    "rgb": ("rgb",),
    "depth": ("depth",),
    "alpha": ("accumulation",),
    "labels": ("labels",),
    "rgba": ("foreground", "accumulation"),
}
"""The model's outputs that each array is made of."""


@dataclass(frozen=True, eq=False)
class Images:
    """What V cameras see of a Scene."""

    rgb: Float32[np.ndarray, "v h w 3"]
    """Colours before the background, 0 to 1."""
    depth: Float32[np.ndarray, "v h w"]
    """Distance from the camera's centre along each pixel's ray (not z-depth), object-world units.
    Where alpha is at most 1/2 it is that of what lies behind: of the background, or, without one,
    the farthest distance at which samples are taken."""
    alpha: Float32[np.ndarray, "v h w"]
    """Opacity of the foreground, 0 to 1."""
    labels: UInt8[np.ndarray, "v h w"] | None = None
    """Class ids; of models of edge maps grey values, 0 a line and 255 paper. None without labels:
    where the model has none, or they were not asked for."""
    rgba: Float32[np.ndarray, "v h w 4"] | None = None
    """The foreground alone: its colour, not multiplied with alpha, and alpha. With super-resolution
    the colours at the edges are close to that, and not exact. None where it was not asked for."""


def chosen_outputs(run: Run, outputs: Sequence[str] | None) -> Sequence[Output]:
    """The outputs that are made: rgb, depth and alpha, and what is asked for besides; None asks for
    the labels of models that have some.

    Raises:
        ValueError: If there is no such output.
    """
    if outputs is None:
        return ALWAYS if run.generator.labels is None else (*ALWAYS, "labels")
    for name in outputs:
        if name not in OUTPUTS:
            raise ValueError(
                f"outputs has {name!r}, which is none; choose from {', '.join(OUTPUTS)}"
            )
    if "labels" in outputs:
        run.labels("outputs has 'labels'")
    return *ALWAYS, *cast("Sequence[Output]", outputs)


def render_images(
    run: Run,
    scene: Scene,
    cameras: Cameras,
    outputs: Sequence[Output],
    background: tuple[float, float, float] | None = None,
) -> Images:
    """Pictures of one Scene (B = 1) by a flat batch of cameras of one size.

    Args:
        run: Of the Scene.
        scene: The Scene.
        cameras: nerfstudio's, ``[V]``.
        outputs: Which arrays are made; see `chosen_outputs`.
        background: Colour that stands behind the foreground in rgb; None is the Scene's own
            background.
    """
    # Before black the foreground is its colours times alpha.
    backdrop = Backdrop("own", (0.0, 0.0, 0.0))
    if background is not None:
        backdrop = Backdrop("colour", background)
    names: list[PictureOutput] = [name for output in outputs for name in RENDERED[output]]
    found = run.render_cameras(scene, cameras, names, backdrop)
    arrays = {name: value.cpu().numpy() for name, value in found.items()}
    rgba = None
    if "rgba" in outputs:
        alpha = arrays["accumulation"]
        rgba = straight_colours(arrays["foreground"], alpha, backdrop.colour)
    return Images(
        rgb=arrays["rgb"],
        depth=arrays["depth"][..., 0],
        alpha=arrays["accumulation"][..., 0],
        labels=_class_ids(run, arrays["labels"]) if "labels" in outputs else None,
        rgba=rgba,
    )


def classes_palette(run: Run) -> Palette:
    """Colours of a run's classes, 0 to 255; raises ValueError for a run without classes."""
    labels = run.labels("color = labels")
    if labels.kind == "edge":
        raise ValueError("color = labels: edge maps have no classes; choose another colour")
    return class_colours(labels)


def scene_splats(
    run: Run,
    scene: Scene,
    count: int,
    size: float,
    *,
    steps: int,
    resolution: int,
    level: float | Literal["auto"],
    palette: Palette,
    behind: float | None,
    rasterizer: Rasterizer,
) -> Splats:
    """Splats of one Scene's foreground, made from where the run's Scenes are looked at.

    Args:
        run: Of the Scene.
        scene: One Scene (B = 1).
        count, size, steps, resolution, level, palette, rasterizer: As `make_splats` takes them.
        behind: Leaves out what lies farther than this behind the origin, in half sides of the box.

    Raises:
        ValueError: If a number is impossible, there is no surface, or the run does not have what is
            asked for.
    """
    if scene.batch_size != 1:
        raise ValueError(f"scene holds {scene.batch_size} Scenes; give one")
    if count < 1:
        raise ValueError(f"count = {count}: give a positive number of splats")
    if not size > 0:
        raise ValueError(f"size = {size}: it must be positive")
    if steps < 0:
        raise ValueError(f"steps = {steps}: give 0, which refines nothing, or more")
    farthest = None if behind is None else plane_behind(run, behind, "behind")
    # The sentence about runs that do not say where their cameras stand is there.
    run.orbit([0.0])
    around = surroundings(run.settings)
    return make_splats(
        scene.with_background(None),
        run.generator.settings,
        around.training(TRAINING_VIEWS),
        count,
        size,
        steps=steps,
        resolution=resolution,
        level=level,
        palette=palette,
        behind=farthest,
        device=run.device,
        rasterizer=rasterizer,
        one_sided=around.one_sided,
    )


def _class_ids(run: Run, pictures: Float32[np.ndarray, "v h w 3"]) -> UInt8[np.ndarray, "v h w"]:
    """What label pictures show: each pixel has exactly the colour of a class, or is grey."""
    labels = run.labels()
    pixels = np.rint(pictures * 255).astype(np.uint8)
    if labels.kind == "edge":
        return pixels[..., 0]
    colours = class_colours(labels)
    return np.stack([ids_from_colors(one, colours, "labels") for one in pixels])
