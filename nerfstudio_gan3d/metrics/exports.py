"""What leaves a model against what the model shows: colours of meshes, edges of layers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.export.ray_casting import cast
from nerfstudio_gan3d.export.transparency import composite, to_bytes

COVERED = 0.5
"""Opacity above which the foreground covers a pixel."""


class MeshPictures(NamedTuple):
    """What V cameras see of a mesh, without light."""

    rgb: Float32[np.ndarray, "v s s 3"]
    """Colours at the places that the pixels' middles show, 0 to 1; 0 where they miss the mesh."""
    hit: Bool[np.ndarray, "v s s"]
    """Whether they show it."""


class Halo(NamedTuple):
    """How far a transparent picture before a plain colour is from what is rendered before it."""

    largest: int
    """Levels of 8 bits, over all pixels, channels and colours."""
    above_one: float
    """Share of the pixels with a channel that is more than one level away, 0..1."""


def mesh_pictures(mesh: trimesh.Trimesh, cameras: Float[Tensor, "v 25"], side: int) -> MeshPictures:
    """A mesh with colours of its vertices, as cameras see it: the colour of each triangle is mixed
    of its corners', and nothing shades it.

    Args:
        mesh: Object-world units.
        cameras: Camera labels.
        side: Of the pictures, in pixels.

    Raises:
        ValueError: If the vertices have no colours.
    """
    if not isinstance(mesh.visual, ColorVisuals) or mesh.visual.kind != "vertex":
        raise ValueError(
            "the mesh has no colours of vertices, which are what is compared; extract it with "
            "color rgb and without a texture"
        )
    corners = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(np.float32) / 255
    found = cast(mesh, cameras, side)
    hit = found.face >= 0
    mixed = (found.weights[..., None] * corners[np.asarray(mesh.faces)[found.face]]).sum(-2)
    return MeshPictures(np.where(hit[..., None], mixed, 0).astype(np.float32), hit)


def colour_error(shown: MeshPictures, pictures: Float[Tensor, "v s s 4"]) -> float:
    """Mean absolute difference of RGB (0 to 1) between a mesh and pictures of its Scene, over the
    pixels that both cover.

    The pictures' colours are divided by their opacity, so that what shines through does not count.

    Args:
        shown: The mesh.
        pictures: Premultiplied RGB and opacity, from the same cameras.

    Raises:
        ValueError: If there is no such pixel.
    """
    rgba = pictures.float().cpu().numpy()
    alpha = rgba[..., 3]
    both = shown.hit & (alpha > COVERED)
    if not both.any():
        raise ValueError(
            "no pixel shows both the mesh and the Scene, so their colours cannot be compared; look "
            "at both from where the Scene is seen"
        )
    own = (rgba[both][:, :3] / alpha[both][:, None]).clip(0, 1)
    return float(np.abs(own - shown.rgb[both]).mean())


def halo(
    picture: UInt8[np.ndarray, "*shape 4"],
    before_black: Float[np.ndarray, "*shape 3"],
    before_white: Float[np.ndarray, "*shape 3"],
) -> Halo:
    """A picture with straight alpha, put before black and white as other programs do it, against
    renders before black and white.

    A trace of a background in the colours shows as a bright or dark edge. Rounding to 8 bits alone
    costs two levels at most: one of colours and alpha, one of each of the pictures compared.

    Args:
        picture: As a file of the output rgba holds it.
        before_black: The same rendered before black, 0 to 1.
        before_white: The same before white.
    """
    apart = []
    for value, rendered in ((0, before_black), (255, before_white)):
        behind = np.full(rendered.shape, value, np.uint8)
        shown = composite(picture, behind).astype(int)
        apart.append(np.abs(shown - to_bytes(rendered)).max(-1))
    levels = np.stack(apart)
    return Halo(int(levels.max()), float((levels > 1).any(0).mean()))
