"""Regularisers of the volume: BallGAN's L_bg and L_fg, the density's and the depth's variation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.scene import Field


def background_loss(transmittance: Float[Tensor, "b r 1"]) -> Float[Tensor, ""]:
    """``L_bg = mean_r min(T_bg, 1 - T_bg)``: every ray is foreground or background, none is both.

    BallGAN (arXiv 2301.09091), section 3.3. ``T_bg`` is what is left of the light at the
    background. Zero for opaque and for empty rays, 1/2 at most.
    """
    return torch.minimum(transmittance, 1 - transmittance).mean()


def distortion_loss(
    weights: Float[Tensor, "b r s"], edges: Float[Tensor, "b r s+1"]
) -> Float[Tensor, "b r"]:
    """mip-NeRF 360's distortion of each ray: the foreground is one compact stretch (BallGAN's
    L_fg).

    ``sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 d_i`` with midpoints ``m`` and lengths ``d`` of
    the sorted intervals (Barron et al. 2022, eq. 15). Written with running sums, so it costs O(s)
    instead of O(s^2): for sorted m the double sum is ``2 sum_i w_i (m_i W_i - M_i)``, where W_i and
    M_i are the sums of w and w m over the intervals before i. BallGAN's released code takes
    sigmoid(raw density) of unsorted samples in place of the rendering weights and half of the pair
    sum; this is the formula of the paper.
    """
    middle = (edges[..., 1:] + edges[..., :-1]) / 2
    length = edges[..., 1:] - edges[..., :-1]
    moment = weights * middle
    before_weight = weights.cumsum(-1) - weights
    before_moment = moment.cumsum(-1) - moment
    pairs = 2 * (weights * (middle * before_weight - before_moment)).sum(-1)
    return pairs + (weights.square() * length).sum(-1) / 3


def density_variation(
    field: Field,
    batch_size: int,
    box: tuple[float, float, float],
    points: int = 1000,
    distance: float = 0.004,
    device: torch.device | None = None,
) -> Float[Tensor, ""]:
    """Mean |raw density(x) - raw density(x')| over random points x of the box and neighbours x'.

    EG3D's density regularisation (supplement, "density regularization"): x is uniform in the
    Scene's box and x' = x + N(0, distance^2), held inside the box. EG3D draws x in [-1, 1]^3
    whatever its box; seven eighths of those points lie outside of it, where nothing is rendered.
    Here they all count.
    """
    sides = torch.tensor(box, device=device)
    start = (torch.rand(batch_size, points, 3, device=device) - 0.5) * sides
    moved = start + distance * torch.randn_like(start)
    # A hash grid is empty beyond the box's faces; that jump is no variation to be smoothed.
    moved = torch.minimum(torch.maximum(moved, -sides / 2), sides / 2)
    raw = field.query(torch.cat([start, moved], dim=1)).raw_density
    first, second = raw.chunk(2, dim=1)
    return (first - second).abs().mean()


def depth_variation(depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean squared difference of horizontal neighbours plus that of vertical ones.

    G3DR's L_TV (arXiv 2403.00939) of rendered depth. Both means are over all images and pairs. A
    map of one row or column has no pairs in that direction and counts as flat there.
    """
    total = depth.new_zeros(())
    for axis in (-1, -2):
        if depth.shape[axis] > 1:
            total = total + depth.diff(dim=axis).square().mean()
    return total
