"""The foreground on nothing: its own colours and alpha, from pictures before a plain colour."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import distance_transform_edt

LEAST_ALPHA = 0.5 / 255
"""Opacity from which on a pixel has a colour of its own: what a picture of 8 bits does not show as
0."""


def straight_colours(
    foreground: Float[np.ndarray, "*shape 3"],
    alpha: Float[np.ndarray, "*shape 1"],
    behind: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Float[np.ndarray, "*shape 4"]:
    """RGBA with colours that are not multiplied with alpha.

    ``C = (F - (1 - alpha) * B) / alpha`` for a foreground F that was rendered before the colour B;
    0 where alpha is below `LEAST_ALPHA`, where there is no colour to be found.
    """
    colours = (foreground - (1 - alpha) * np.array(behind, alpha.dtype)) / np.maximum(
        alpha, LEAST_ALPHA
    )
    seen = np.where(alpha < LEAST_ALPHA, 0, colours.clip(0, 1))
    return np.concatenate([seen, alpha], axis=-1).astype(foreground.dtype)


def to_bytes(values: Float[np.ndarray, "*shape c"]) -> UInt8[np.ndarray, "*shape c"]:
    """Values of 0 to 1 as 8 bits, each to the nearest level.

    With straight colours and alpha both rounded so, a composite before any colour is at most one
    level from the exact one: ``|C - B| * 0.5 + alpha * 0.5``.
    """
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)


def spread_colours(picture: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 4"]:
    """The same RGBA picture with colours where it is fully transparent: those of the nearest opaque
    pixel (alpha of at least 1/2, or above 0 if there is none).

    Programs that filter colours and alpha apart mix what is transparent into the edges; black
    there would show as a dark fringe. A picture without any opaque pixel stays as it is.
    """
    alpha = picture[..., 3]
    opaque = alpha >= 128
    if not opaque.any():
        opaque = alpha > 0
    if not opaque.any():
        return picture
    nearest = distance_transform_edt(~opaque, return_distances=False, return_indices=True)
    rows, columns = np.asarray(nearest)
    spread = picture[rows, columns]
    spread[..., 3] = 0
    return np.where(alpha[..., None] == 0, spread, picture)


def composite(
    picture: UInt8[np.ndarray, "*shape 4"], behind: UInt8[np.ndarray, "*shape 3"]
) -> UInt8[np.ndarray, "*shape 3"]:
    """A picture with straight alpha before another one, as other programs put them together."""
    alpha = picture[..., 3:].astype(np.float64) / 255
    return np.rint(alpha * picture[..., :3] + (1 - alpha) * behind).astype(np.uint8)
