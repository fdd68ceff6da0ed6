"""The appearance of a photograph, for generators whose geometry comes from a label map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays
from nerfstudio_gan3d.latents import Appearance, LabelView, make_condition
from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import render

STEPS = 80
"""Steps of the search; each renders and differentiates one small image."""
FIT_RESOLUTION = 32
"""Side in pixels at which photograph and rendering are compared, at most."""
STARTS = 8
"""Seeds of which the best one starts the search."""
LEARNING_RATE = 0.1
"""Of Adam, in standard deviations of the seeds' latents."""
PULL = 0.01
"""What a latent that is one standard deviation from the mean costs, in errors of the start. It
keeps latents among those that the generator knows, which other label maps are worn with as well."""
SOLIDITY = 4
"""Pixels count with this power of their opacity alpha: half transparent ones, along outlines, show
more of what is behind the thing, which is only guessed."""
SPREAD = 0.1
"""Distance, in image sides, from which what is beside the thing tells what is behind it."""


def fit_appearance(
    generator: Generator,
    view: LabelView,
    image: Float[Tensor, "1 3 h w"],
    steps: int = STEPS,
    progress: Callable[[int, float], None] | None = None,
) -> Appearance:
    """The latent of appearance with which a label map's thing looks most like a photograph.

    The latents of the geometry are those of the label map and stay. The one that all other layers
    share minimises the squared error ``|foreground + (1 - alpha) * behind - photograph|^2``,
    averaged with the weights alpha^4; ``behind`` is guessed from the photograph (`surroundings`),
    so that its background plays no part. A small pull towards the mean is added. Colours are
    compared as they are rendered, without super-resolution. The search starts from the best of the
    mean and `STARTS` seeds, and returns the best latent that it came by.

    Args:
        generator: with label maps; its weights stay as they are.
        view: label map of the photograph, and where both are seen from.
        image: the photograph, RGB in [-1, 1], square.
        steps: of Adam.
        progress: called with the number and the error of each step, the first one 0.

    Raises:
        ValueError: The generator has no label maps, or there are no steps.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}: give 1 or more")
    mean, seeds, photograph = _prepare(generator, view, image)
    starts = torch.cat([mean, seeds])
    with torch.no_grad():
        errors = torch.stack([photograph.error(start) for start in starts.split(1)])
    place = int(errors.argmin())
    best, least = starts[place : place + 1].clone(), math.inf
    spread = seeds.std(0).clamp_min(1e-6)
    pull = PULL * float(errors[place])
    w = best.clone().requires_grad_()
    adam = torch.optim.Adam([w], lr=LEARNING_RATE * float(spread.mean()))
    for step in range(steps):
        with torch.enable_grad():
            error = photograph.error(w)
            cost = error + pull * ((w - mean) / spread).square().mean()
            (w.grad,) = torch.autograd.grad(cost, [w])
        if float(cost) < least:
            best, least = w.detach().clone(), float(cost)
        if progress is not None:
            progress(step, float(error))
        adam.step()
    return Appearance(best.cpu())


@dataclass(frozen=True)
class _Photograph:
    """A photograph, and the thing of its label map that is to look like it."""

    generator: Generator
    mapping: LabelMappingNetwork
    geometry: Float[Tensor, "1 l w_dim"]
    rays: tuple[Float[Tensor, "1 r 3"], Float[Tensor, "1 r 3"]]
    pixels: Float[Tensor, "1 r 3"]
    behind: Float[Tensor, "1 r 3"]

    def thing(self, w: Float[Tensor, "1 w_dim"]) -> Rendering:
        """The thing alone."""
        scene = self.generator.scene(Latents(self.mapping.join(self.geometry, w), None))
        return render(scene, *self.rays, self.generator.settings)

    def error(self, w: Float[Tensor, "1 w_dim"]) -> Float[Tensor, ""]:
        """Weighted mean of the squared difference of colours in 0..1."""
        found = self.thing(w)
        # Detached, so that no error vanishes by making the thing transparent.
        alpha = found.accumulation.detach()
        weight = alpha**SOLIDITY
        made = found.foreground[..., :3] + (1 - alpha) * self.behind
        squared = (made - self.pixels).square().sum(-1, keepdim=True)
        return (weight * squared).sum() / (3 * weight.sum()).clamp_min(1e-6)


@torch.no_grad()
def _prepare(
    generator: Generator, view: LabelView, image: Float[Tensor, "1 3 h w"]
) -> tuple[Float[Tensor, "1 w_dim"], Float[Tensor, "s w_dim"], _Photograph]:
    """Mean appearance, that of some seeds, and what they are compared with."""
    mapping = generator.mapping
    if not isinstance(mapping, LabelMappingNetwork):
        raise ValueError(
            "this generator takes no label maps: its appearance has no latent of its own"
        )
    device = mapping.w_avg.device
    side = min(FIT_RESOLUTION, generator.neural_resolution)
    small = torch.nn.functional.interpolate(image.to(device), (side, side), mode="area")
    pixels = (small / 2 + 0.5).flatten(2).mT
    pose = view.pose.to(device)
    maps = view.map.to(device).expand(STARTS, -1, -1, -1)
    condition = make_condition(generator, range(STARTS), None, pose.expand(STARTS, -1), maps)
    seeds = generator.map(condition).foreground
    rays = pixel_rays(pose, side, side)
    geometry, mean = seeds[:1, : mapping.geometry_layers], mapping.w_avg[-1:]
    found = _Photograph(generator, mapping, geometry, rays, pixels, torch.zeros_like(pixels))
    behind = surroundings(pixels, found.thing(mean).accumulation)
    return mean, seeds[:, -1], replace(found, behind=behind)


def surroundings(
    image: Float[Tensor, "1 r 3"], alpha: Float[Tensor, "1 r 1"]
) -> Float[Tensor, "1 r 3"]:
    """What is behind the thing in a square image, from what is beside it: each pixel is the mean of
    all, weighted by how little the thing covers them and by a Gaussian of their distance."""
    side = math.isqrt(image.shape[1])
    place = torch.arange(side, device=image.device, dtype=image.dtype)
    near = torch.exp(-(place[:, None] - place).square() / (2 * (SPREAD * side) ** 2))
    free = (1 - alpha) ** SOLIDITY + 1e-6
    values = torch.cat([image * free, free], dim=-1).mT.unflatten(2, (side, side))
    smooth = (near @ values @ near).flatten(2).mT
    return smooth[..., :3] / smooth[..., 3:]
