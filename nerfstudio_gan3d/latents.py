"""Seeds to latents: what the viewer's sliders and the commands' options ask a generator for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.scene import Condition

if TYPE_CHECKING:
    from nerfstudio_gan3d.models.generator import Generator, Latents


def seed_latent(seed: int, z_dim: int, stream: int = 0) -> Float[Tensor, "1 z"]:
    """The latent z of a seed: the same on every device and in every version of this package.

    ``stream`` gives independent latents of the same seed (0 foreground, 1 background).
    """
    generator = torch.Generator().manual_seed(seed * 2 + stream)
    return torch.randn(1, z_dim, generator=generator)


@dataclass(frozen=True)
class SceneRequest:
    """One Scene, named by seeds."""

    seed: int = 0
    """Seed of the foreground."""
    background_seed: int | None = None
    """Seed of the background; None takes the foreground's."""
    truncation: float = 1.0
    """Truncation psi: 1 is the full variety, 0 the mean Scene."""
    other_seed: int | None = None
    """Seed at the far end of the interpolation; None does not interpolate."""
    interpolation: float = 0.0
    """Place between seed (0) and other seed (1)."""
    mix_seed: int | None = None
    """Seed whose latents the mixed levels take; None does not mix."""
    mix_levels: tuple[int, ...] = ()
    """Levels (indices of w) that take the mixing seed's latent."""
    camera_label: tuple[float, ...] | None = None
    """Conditioning pose (25 numbers) of generators that have one; None is the neutral pose."""
    truncation_cutoff: int | None = None
    """Levels of w, from the coarsest, that truncation acts on; None is all of them."""


def make_condition(
    generator: Generator,
    seeds: Sequence[int],
    background_seeds: Sequence[int] | None = None,
    camera_label: Float[Tensor, "b 25"] | None = None,
) -> Condition:
    """The condition of these seeds, on the generator's device."""
    device = generator.mapping.w_avg.device
    size = generator.latent.z_dim
    z = torch.cat([seed_latent(seed, size) for seed in seeds]).to(device)
    behind = None
    if generator.background is not None:
        chosen = seeds if background_seeds is None else background_seeds
        behind = torch.cat([seed_latent(seed, size, stream=1) for seed in chosen]).to(device)
    return Condition(z, behind, camera_label)


def request_latents(generator: Generator, request: SceneRequest) -> Latents:
    """Latents w of a request: seeds mapped and truncated, then interpolated, then mixed by level.

    Interpolation is linear in w, where the path between two things stays plausible. Raises
    ValueError for a level that the generator does not have.
    """

    label = None
    if request.camera_label is not None:
        label = torch.tensor([request.camera_label], device=generator.mapping.w_avg.device)

    def latents(seed: int, background_seed: int) -> Latents:
        condition = make_condition(generator, [seed], [background_seed], label)
        return generator.map(condition, request.truncation, request.truncation_cutoff)

    behind = request.seed if request.background_seed is None else request.background_seed
    found = latents(request.seed, behind)
    if request.other_seed is not None and request.interpolation > 0:
        other = latents(request.other_seed, request.other_seed)
        found = found._replace(
            foreground=torch.lerp(found.foreground, other.foreground, request.interpolation)
        )
        if request.background_seed is None and found.background is not None:
            assert other.background is not None
            mixed = torch.lerp(found.background, other.background, request.interpolation)
            found = found._replace(background=mixed)
    if request.mix_seed is not None and request.mix_levels:
        layers = found.foreground.shape[1]
        wrong = [level for level in request.mix_levels if not 0 <= level < layers]
        if wrong:
            raise ValueError(f"mix levels {wrong}: this generator has levels 0 to {layers - 1}")
        ws = found.foreground.clone()
        mixing = latents(request.mix_seed, behind).foreground
        ws[:, list(request.mix_levels)] = mixing[:, list(request.mix_levels)]
        found = found._replace(foreground=ws)
    return found
