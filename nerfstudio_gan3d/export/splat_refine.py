"""Splats refined until they look like the pictures that their Scene shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import split_labels
from nerfstudio_gan3d.rendering.splatting import (
    LOW_PASS,
    NEAR_PLANE,
    Splats,
    composite,
    pair_opacity,
    project_splats,
    splat_pixels,
    unhidden,
)

Rasterizer = Literal["auto", "torch", "gsplat"]
RATES = {"means": 0.1, "quaternions": 0.02, "scales": 0.03, "opacities": 0.1, "colours": 0.02}
"""Adam's step sizes at the beginning: of means in units of the mean size of the splats, of scales'
logarithms, and of opacities before their sigmoid."""
LAST_RATE = 0.05
"""Share of the step sizes that is left at the end."""
LARGEST = 4.0
"""Size, in units of the mean size at the beginning, that splats may grow to: larger ones would fit
the pictures as haze, and show as spikes from elsewhere."""
VISITS = 4
"""Visits of a view for which the same pairs of splats and pixels count."""
NEGLIGIBLE = 1e-3
"""Share of the light below which what is behind does not learn."""
FAINTEST_KEPT = 0.01
"""Opacity below which splats are dropped in the end."""
GPU_VIEWS = 4
"""Views of a step of gsplat's."""


def chosen_rasterizer(name: Rasterizer, device: torch.device) -> Literal["torch", "gsplat"]:
    """What ``auto`` means on a device.

    Raises:
        ValueError: For gsplat where there is no CUDA device.
    """
    if name == "auto":
        return "gsplat" if device.type == "cuda" else "torch"
    if name == "gsplat" and device.type != "cuda":
        raise ValueError(
            "rasterizer gsplat needs a CUDA GPU, and there is none here; leave the rasterizer out "
            "to refine the splats on the CPU"
        )
    return name


def refine_splats(
    splats: Splats,
    cameras: Float[Tensor, "v 25"],
    pictures: Float[Tensor, "v h w 4"],
    steps: int,
    *,
    with_colours: bool = True,
    rasterizer: Rasterizer = "auto",
    shown_sides: Sequence[int] = (),
    seed: int = 0,
) -> Splats:
    """Splats after ``steps`` steps of Adam towards pictures; those that nobody would see are
    dropped.

    The loss is the squared difference before white plus half of that before black, so that
    opacities are learned, too. Each step looks at the next view of a shuffled order.

    Args:
        splats: Where to begin; not changed.
        cameras: Of the pictures; on the device of the splats.
        pictures: Premultiplied RGB and opacity.
        steps: 0 returns the splats as they are.
        with_colours: Whether colours may change; those of classes may not.
        rasterizer: torch, gsplat (CUDA) or auto, which is gsplat where the splats are on CUDA.
        shown_sides: Sides in pixels of the pictures in which the splats shall look right, one
            after the other in turn; without any it is that of the given ones. Viewers add the
            same part of a pixel to every splat, which closes gaps in small pictures and leaves
            them open in large ones.
        seed: Of the views' order.

    Raises:
        ValueError: For gsplat where the splats are not on a CUDA device.
    """
    chosen = chosen_rasterizer(rasterizer, splats.means.device)
    if not steps:
        return splats
    size = float(splats.scales.amax(-1).mean())
    free = {
        "means": splats.means.clone(),
        "quaternions": splats.quaternions.clone(),
        "scales": splats.scales.log(),
        "opacities": torch.logit(splats.opacities.clamp(0.01, 0.99)),
        "colours": splats.colours.clone(),
    }
    for name, values in free.items():
        values.requires_grad_(with_colours or name != "colours")
    rates = RATES | {"means": RATES["means"] * size}
    groups = [{"params": [values], "lr": rates[name]} for name, values in free.items()]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)
    fall = torch.optim.lr_scheduler.ExponentialLR(adam, LAST_RATE ** (1 / steps))
    width = pictures.shape[2]
    low_passes = [LOW_PASS * (width / side) ** 2 for side in shown_sides or (width,)]
    look = (_gsplat_look if chosen == "gsplat" else _torch_look)(cameras, pictures)
    views = _views(len(cameras), 1 if chosen == "torch" else GPU_VIEWS, seed)
    highest = torch.tensor(LARGEST * size).log().item()
    for step in range(steps):
        rows = views()
        alike = look(_splats(free), rows, low_passes[step % len(low_passes)]) - pictures[rows]
        dark, opacity = alike[..., :3], alike[..., 3:]
        loss = (dark - opacity).square().mean() + dark.square().mean() / 2
        adam.zero_grad()
        loss.backward()
        adam.step()
        fall.step()
        with torch.no_grad():
            free["scales"].clamp_(max=highest)
    with torch.no_grad():
        found = _splats(free)
        found = Splats(**{name: values.detach() for name, values in vars(found).items()})
        return found.rows(found.opacities >= FAINTEST_KEPT)


def _splats(free: dict[str, Tensor]) -> Splats:
    return Splats(
        free["means"],
        torch.nn.functional.normalize(free["quaternions"], dim=-1),
        free["scales"].exp(),
        free["opacities"].sigmoid(),
        # Gradients pass through the ends of the range, so that no colour stays there.
        free["colours"] + (free["colours"].clamp(0, 1) - free["colours"]).detach(),
    )


def _views(count: int, at_once: int, seed: int) -> Callable[[], list[int]]:
    """Gives the next views, each once before any comes again."""
    generator, left = torch.Generator().manual_seed(seed), []

    def following() -> list[int]:
        while len(left) < at_once:
            left.extend(torch.randperm(count, generator=generator).tolist())
        taken = left[:at_once]
        del left[:at_once]
        return taken

    return following


Look = Callable[[Splats, list[int], float], Tensor]


def _torch_look(cameras: Tensor, pictures: Tensor) -> Look:
    """Pictures of one view, [1, H, W, 4], by `rendering.splatting`.

    Splats move little from visit to visit: pairs are found anew at every few visits alone.
    """
    height, width = pictures.shape[1:3]
    known: dict[tuple[int, float], tuple[Tensor, Tensor]] = {}
    visits: Counter[tuple[int, float]] = Counter()

    def look(splats: Splats, rows: list[int], low_pass: float) -> Tensor:
        (row,) = rows
        key = row, low_pass
        footprints = project_splats(splats, cameras[row : row + 1], height, width, low_pass)
        if visits[key] % VISITS == 0:
            with torch.no_grad():
                splat, pixel = splat_pixels(footprints, splats.opacities, height, width)
                alpha = pair_opacity(footprints, splats.opacities, splat, pixel, width)
                kept = unhidden(alpha, pixel, height * width, NEGLIGIBLE)
                known[key] = splat[kept], pixel[kept]
        visits[key] += 1
        return composite(splats, footprints, *known[key], height, width)[None]

    return look


def _gsplat_look(cameras: Tensor, pictures: Tensor) -> Look:
    """Pictures of some views, [V, H, W, 4], by gsplat's CUDA kernels."""
    from gsplat import rasterization

    height, width = pictures.shape[1:3]
    cam2world, intrinsics = split_labels(cameras)
    world2cam = torch.linalg.inv(cam2world)
    pixels = intrinsics * intrinsics.new_tensor([[width], [height], [1.0]])

    def look(splats: Splats, rows: list[int], low_pass: float) -> Tensor:
        colours, opacity, _ = rasterization(
            splats.means,
            splats.quaternions,
            splats.scales,
            splats.opacities,
            splats.colours,
            world2cam[rows],
            pixels[rows],
            width,
            height,
            near_plane=NEAR_PLANE,
            eps2d=low_pass,
            packed=False,
        )
        return torch.cat([colours, opacity], -1)

    return look
