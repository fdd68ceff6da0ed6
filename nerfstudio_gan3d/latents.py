"""Seeds to latents: what the viewer's sliders and the commands' options ask a generator for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nerfstudio_gan3d.cameras import LABEL_SIZE
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.networks.codes import CodeMapping
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork, encode_labels
from nerfstudio_gan3d.scene import Condition

if TYPE_CHECKING:
    from nerfstudio_gan3d.models.config import LabelConfig
    from nerfstudio_gan3d.models.generator import Generator, Latents
    from nerfstudio_gan3d.models.scene_generator import SceneGenerator


def seed_latent(seed: int, z_dim: int, stream: int = 0) -> Float[Tensor, "1 z"]:
    """The latent z of a seed: the same on every device and in every version of this package.

    ``stream`` gives independent latents of the same seed (0 foreground, 1 background).
    """
    generator = torch.Generator().manual_seed(seed * 2 + stream)
    return torch.randn(1, z_dim, generator=generator)


STORED_MAPS = 16
"""Label maps that a model keeps, to be looked at without its data set."""


@dataclass(frozen=True, eq=False)
class LabelView:
    """A label map and where it is seen from. Two of them are equal only if they are the same."""

    map: UInt8[Tensor, "1 1 r r"]
    """Class ids, or grey values of edges (0 a line, 255 paper)."""
    pose: Float[Tensor, "1 25"]
    """Camera label."""


class LabelStore(nn.Module):
    """Some label maps of the data set with their poses; a checkpoint carries them.

    Args:
        labels: what the maps hold.
        resolution: their side in pixels.
    """

    maps: UInt8[Tensor, "n 1 r r"]
    poses: Float[Tensor, "n 25"]

    def __init__(self, labels: LabelConfig, resolution: int) -> None:
        super().__init__()
        self.labels = labels
        blank = 255 if labels.kind == "edge" else 0
        shape = (STORED_MAPS, 1, resolution, resolution)
        self.register_buffer("maps", torch.full(shape, blank, dtype=torch.uint8))
        poses = torch.zeros(STORED_MAPS, LABEL_SIZE)
        poses[:, [0, 5, 10, 15, 16, 20, 24]] = 1.0
        self.register_buffer("poses", poses)

    def fill(self, maps: UInt8[Tensor, "n 1 r r"], poses: Float[Tensor, "n 25"]) -> None:
        """Keeps these maps, repeated where they are fewer than `STORED_MAPS`."""
        rows = torch.arange(STORED_MAPS) % len(maps)
        self.maps.copy_(maps[rows])
        self.poses.copy_(poses[rows])

    def view(self, index: int) -> LabelView:
        """One of the maps; raises ValueError for one that is not kept."""
        if not 0 <= index < STORED_MAPS:
            raise ValueError(
                f"label map {index}: a checkpoint keeps {STORED_MAPS} of them, 0 to "
                f"{STORED_MAPS - 1}"
            )
        return LabelView(self.maps[index : index + 1], self.poses[index : index + 1])


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
    label: int | LabelView = 0
    """Label map of generators that take one: number of a kept one, or one of one's own."""
    other_label: int | LabelView | None = None
    """Label map at the far end of the interpolation; None keeps the first one."""
    appearance: Appearance | None = None
    """Appearance latent that takes the place of the seed's; None leaves it to the seed."""
    appearance_seed: int | None = None
    """Seed of the appearance code of generators that have one; None takes `seed`'s."""
    other_appearance_seed: int | None = None
    """The same at the far end of the interpolation; None takes the other seed's."""
    appearance_interpolation: float | None = None
    """Place of the appearance code between its seed (0) and the other one (1); None follows
    `interpolation`."""
    image: int | ImageView = 0
    """Image with depth of generators that take one: number of a kept one, or one of one's own."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """The latent w that all layers behind those of the label map share."""

    w: Float[Tensor, "1 w_dim"]


def has_codes(generator: SceneGenerator) -> bool:
    """Whether z is a shape code and an appearance code, so that each can have a seed of its own."""
    return isinstance(getattr(generator, "mapping", None), CodeMapping)


def make_condition(
    generator: Generator,
    seeds: Sequence[int],
    background_seeds: Sequence[int] | None = None,
    camera_label: Float[Tensor, "b 25"] | None = None,
    label_maps: UInt8[Tensor, "b 1 r r"] | None = None,
    appearance_seeds: Sequence[int] | None = None,
) -> Condition:
    """The condition of these seeds, on the generator's device.

    ``camera_label`` is the pose of the label maps where there are any. ``appearance_seeds`` decide
    the appearance code; raises ValueError for them if the generator has none.
    """
    device = generator.device
    size = generator.latent.z_dim
    z = torch.cat([seed_latent(seed, size) for seed in seeds]).to(device)
    if appearance_seeds is not None:
        if not isinstance(generator.mapping, CodeMapping):
            raise ValueError(
                f"appearance seeds {list(appearance_seeds)}: this generator has no appearance code "
                "of its own; leave them out"
            )
        coloured = torch.cat([seed_latent(seed, size) for seed in appearance_seeds]).to(device)
        half = generator.mapping.code_dim
        z = torch.cat([z[:, :half], coloured[:, half:]], dim=1)
    behind = None
    if generator.background is not None:
        chosen = seeds if background_seeds is None else background_seeds
        behind = torch.cat([seed_latent(seed, size, stream=1) for seed in chosen]).to(device)
    maps = None
    if generator.labels is not None and label_maps is not None:
        maps = encode_labels(label_maps, generator.labels.kind, generator.labels.classes)
        maps = maps.to(device)
    return Condition(z, behind, camera_label, maps)


def request_latents(
    generator: Generator, request: SceneRequest, store: LabelStore | None = None
) -> Latents:
    """Latents w of a request: seeds mapped and truncated, then interpolated, then mixed by level.

    Interpolation is linear in w, where the path between two things stays plausible. Label maps that
    a request names by number are those of ``store``. Raises ValueError for a level or an appearance
    code that the generator does not have, or a map that is not kept.
    """
    _check_codes(generator, request)
    device = generator.device
    pose = None
    if request.camera_label is not None:
        pose = torch.tensor([request.camera_label], device=device)

    def view(label: int | LabelView) -> LabelView | None:
        if generator.labels is None:
            return None
        if isinstance(label, LabelView):
            return label
        if store is None:
            raise ValueError(f"label map {label}: this model comes without label maps; give one")
        return store.view(label)

    def latents(
        seed: int, background_seed: int, label: int | LabelView, coloured: int | None = None
    ) -> Latents:
        shown = view(label)
        seen_from, maps = pose, None
        if shown is not None:
            seen_from, maps = shown.pose.to(device), shown.map.to(device)
        coloured_by = None if coloured is None else [coloured]
        condition = make_condition(
            generator, [seed], [background_seed], seen_from, maps, coloured_by
        )
        found = generator.map(condition, request.truncation, request.truncation_cutoff)
        return _with_appearance(generator, found, request.appearance)

    behind = request.seed if request.background_seed is None else request.background_seed
    found = latents(request.seed, behind, request.label, request.appearance_seed)
    far_label = request.label if request.other_label is None else request.other_label
    ends = request.other_seed, request.other_label, request.other_appearance_seed
    share = request.appearance_interpolation
    share = request.interpolation if share is None else share
    if any(end is not None for end in ends) and max(request.interpolation, share) > 0:
        far_seed = request.seed if request.other_seed is None else request.other_seed
        far_colours = request.other_appearance_seed
        if far_colours is None and request.other_seed is None:
            far_colours = request.appearance_seed
        other = latents(far_seed, far_seed, far_label, far_colours)
        places = torch.full_like(found.foreground[:, :, :1], request.interpolation)
        if has_codes(generator):
            places[:, -1] = share
        found = found._replace(foreground=torch.lerp(found.foreground, other.foreground, places))
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
        mixing = latents(request.mix_seed, behind, request.label).foreground
        ws[:, list(request.mix_levels)] = mixing[:, list(request.mix_levels)]
        found = found._replace(foreground=ws)
    return found


def _check_codes(generator: Generator, request: SceneRequest) -> None:
    if has_codes(generator):
        return
    for name in ("appearance_seed", "other_appearance_seed", "appearance_interpolation"):
        value = getattr(request, name)
        if value is not None:
            raise ValueError(
                f"{name} = {value}: this generator has no appearance code of its own; leave it at "
                "None"
            )


def _with_appearance(
    generator: Generator, latents: Latents, appearance: Appearance | None
) -> Latents:
    mapping = generator.mapping
    if appearance is None or not isinstance(mapping, LabelMappingNetwork):
        return latents
    geometry = latents.foreground[:, : mapping.geometry_layers]
    w = appearance.w.to(geometry.device)
    return latents._replace(foreground=mapping.join(geometry, w))
