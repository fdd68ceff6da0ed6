"""The appearance of a photograph, for generators whose geometry comes from a label map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays
from nerfstudio_gan3d.latents import Appearance, LabelView, make_condition
from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork
from nerfstudio_gan3d.rendering.renderer import render

STEPS = 80
"""Steps of the search; each renders and differentiates one small image."""
FIT_RESOLUTION = 32
"""Side in pixels at which photograph and rendering are compared, at most."""
STARTS = 8
"""Seeds of which the best one starts the search."""
LEARNING_RATE = 0.1
"""Of Adam, in standard deviations of the seeds' latents."""
SOLIDITY = 4
"""Pixels count with this power of their opacity alpha. In half transparent ones, along outlines,
the photograph shows what is behind the thing as well, which no appearance of the thing explains."""


def fit_appearance(
    generator: Generator,
    view: LabelView,
    image: Float[Tensor, "1 3 h w"],
    steps: int = STEPS,
    progress: Callable[[int, float], None] | None = None,
) -> Appearance:
    """The latent of appearance with which a label map's thing looks most like a photograph.

    The latents of the geometry are those of the label map and stay. The one that all other layers
    share minimises the squared error ``|foreground - alpha * photograph|^2``, averaged with the
    weights alpha^4: what the photograph shows behind the thing plays no part. Colours are compared
    as they are rendered, without super-resolution. The search starts from the best of the mean and
    `STARTS` seeds, and returns the best latent that it came by.

    Args:
        generator: with label maps; its weights stay as they are.
        view: label map of the photograph, and where both are seen from.
        image: the photograph, RGB in [-1, 1], square.
        steps: of Adam.
        progress: called with the number and the error of each step, the first one 0.

    Raises:
        ValueError: The generator has no label maps, or there are no steps.
    """
    mapping = generator.mapping
    if not isinstance(mapping, LabelMappingNetwork):
        raise ValueError(
            "this generator takes no label maps: its appearance has no latent of its own"
        )
    if steps < 1:
        raise ValueError(f"steps = {steps}: give 1 or more")
    device = mapping.w_avg.device
    side = min(FIT_RESOLUTION, generator.neural_resolution)
    small = torch.nn.functional.interpolate(image.to(device), (side, side), mode="area")
    target = (small / 2 + 0.5).flatten(2).mT  # [1, R, 3]
    pose = view.pose.to(device)
    rays = pixel_rays(pose, side, side)
    with torch.no_grad():
        maps = view.map.to(device).expand(STARTS, -1, -1, -1)
        condition = make_condition(generator, range(STARTS), None, pose.expand(STARTS, -1), maps)
        seeds = generator.map(condition).foreground
    geometry = seeds[:1, : mapping.geometry_layers]
    starts = torch.cat([mapping.w_avg[-1:], seeds[:, -1]])

    def error(w: Float[Tensor, "1 w_dim"]) -> Float[Tensor, ""]:
        scene = generator.scene(Latents(mapping.join(geometry, w), None))
        found = render(scene, *rays, generator.settings)
        # Detached, so that no error vanishes by making the thing transparent.
        alpha = found.accumulation.detach()
        weight = alpha**SOLIDITY
        squared = (found.foreground[..., :3] - alpha * target).square().sum(-1, keepdim=True)
        return (weight * squared).sum() / (3 * weight.sum()).clamp_min(1e-6)

    with torch.no_grad():
        errors = torch.stack([error(start) for start in starts.split(1)])
    place = int(errors.argmin())
    best, least = starts[place : place + 1].clone(), float(errors[place])
    w = best.clone().requires_grad_()
    adam = torch.optim.Adam([w], lr=LEARNING_RATE * float(starts.std(0).mean()))
    for step in range(steps):
        with torch.enable_grad():
            loss = error(w)
            adam.zero_grad()
            (w.grad,) = torch.autograd.grad(loss, [w])
        found = float(loss)
        if found < least:
            best, least = w.detach().clone(), found
        if progress is not None:
            progress(step, found)
        adam.step()
    return Appearance(best.cpu())
