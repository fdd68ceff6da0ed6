"""Latents of fields with a shape code and an appearance code (GRAF, 3DGEN)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfstudio_gan3d.networks.stylegan2 import MappingNetwork


class CodeMapping(nn.Module):
    """Latent z to intermediate latents w of which the last one is the appearance's.

    The first half of z is the shape code, the second the appearance code. Without layers they are
    the latents themselves; otherwise each has a mapping network of its own, so that neither ever
    sees the other.

    Args:
        z_dim: size of z, both codes together; an even number.
        w_dim: size of a latent w; without layers half of ``z_dim``.
        num_ws: latents of a Scene; all but the last one are the shape's.
        num_layers, lr_multiplier: of the mapping networks; 0 layers: none.

    Raises:
        ValueError: If z cannot be divided, or codes without layers do not fit.
    """

    def __init__(
        self, z_dim: int, w_dim: int, num_ws: int, num_layers: int, lr_multiplier: float
    ) -> None:
        super().__init__()
        if z_dim % 2 or (num_layers == 0 and z_dim != 2 * w_dim):
            raise ValueError(
                f"model.latent.z_dim = {z_dim}: it holds two codes of equal size, without mapping "
                f"layers of size model.latent.w_dim = {w_dim} each"
            )
        self.num_ws, self.code_dim = num_ws, z_dim // 2
        self.shape: MappingNetwork | None = None
        self.appearance: MappingNetwork | None = None
        if num_layers:
            sizes = self.code_dim, 0, w_dim, None, num_layers, lr_multiplier
            self.shape, self.appearance = MappingNetwork(*sizes), MappingNetwork(*sizes)
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(num_ws, w_dim))

    def forward(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b n w"]:
        """All latents of each z; there is no pose ``c`` to be told."""
        shape, appearance = z.split(self.code_dim, dim=1)
        if self.shape is not None and self.appearance is not None:
            shape, appearance = self.shape(shape), self.appearance(appearance)
        return torch.cat(
            [shape[:, None].expand(-1, self.num_ws - 1, -1), appearance[:, None]], dim=1
        )

    @torch.no_grad()
    def update_w_avg(self, ws: Float[Tensor, "b n w"], beta: float = 0.998) -> None:
        """Move the running mean towards the batch mean; that of the codes themselves is zero."""
        if self.shape is not None:
            self.w_avg.copy_(torch.lerp(ws.detach().float().mean(dim=0), self.w_avg, beta))
