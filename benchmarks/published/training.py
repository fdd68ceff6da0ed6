"""A training step as published, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.published.layers import Noise
from benchmarks.published.networks import Fakes, generated, judged, latents, planes_of, resized
from benchmarks.published.rendering import TINY64, Sizes, queried

# Learning rate and the phases' lazy interval of generator and discriminator.
PLAYERS = ((0.0025, 4), (0.002, 16))
BACKGROUND = 0.1
"""Weight of BallGAN's background loss."""


@dataclass
class Training:
    """Generator and discriminator in training; tensors are leaves under official names.

    Left out: the running mean of w; and augmentation, blur and schedules, which ours has off in the
    configuration that is compared, too.
    """

    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor]
    background: bool
    sizes: Sizes = TINY64
    gamma: float = 1.0
    average: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.optimizers = []
        self.images_seen = 0
        for weights, (rate, interval) in zip(
            (self.generator, self.discriminator), PLAYERS, strict=True
        ):
            leaves = [value for value in weights.values() if value.requires_grad]
            lazy = interval / (interval + 1)
            self.optimizers.append(
                torch.optim.Adam(leaves, lr=rate * lazy, betas=(0.0, 0.99**lazy), fused=True)
            )
        self.average = {name: value.detach().clone() for name, value in self.generator.items()}

    def step(self, images: Tensor, cameras: Tensor, index: int) -> None:
        """Iteration ``index`` with real images [B, 3, H, W] and their cameras [B, 25]."""
        judge = {name: value.detach() for name, value in self.discriminator.items()}
        fakes = self.fakes(cameras)
        logits = judged(judge, fakes.image, fakes.raw, cameras, self.sizes.group)
        self._learn(0, F.softplus(-logits).mean())
        if index % 4 == 0:
            z = torch.randn(len(cameras), 512)
            points = torch.rand(len(z), 1000, 3) * 2 - 1
            moved = points + torch.randn_like(points) * 0.004
            self._learn(0, 4 * self.density_variation(z, cameras, points, moved))
            if self.background:
                left = self.fakes(cameras).march.left
                self._learn(0, 4 * BACKGROUND * torch.minimum(left, 1 - left).mean())
        with torch.no_grad():
            fakes = self.fakes(cameras)
        logits = judged(self.discriminator, fakes.image, fakes.raw, cameras, self.sizes.group)
        raw = resized(images, self.sizes.neural)
        real_logits = judged(self.discriminator, images, raw, cameras, self.sizes.group)
        self._learn(1, F.softplus(logits).mean() + F.softplus(-real_logits).mean())
        if index % 16 == 0:
            pair = images.clone().requires_grad_(), raw.clone().requires_grad_()
            logits = judged(self.discriminator, *pair, cameras, self.sizes.group)
            slopes = torch.autograd.grad(logits.sum(), pair, create_graph=True)
            squares = torch.cat([slope.flatten(1) for slope in slopes], dim=1).square()
            self._learn(1, 16 * (squares.sum(1) * self.gamma / 2).mean())
        self._follow(len(images))

    @torch.no_grad()
    def _follow(self, batch: int) -> None:
        """The moving average. Half-life: 10,000 images for batches of 32, less at first."""
        self.images_seen += batch
        half_life = min(10000 * batch / 32, 0.05 * self.images_seen)
        share = 1 - 0.5 ** (batch / half_life)
        for name, value in self.generator.items():
            if value.requires_grad:
                self.average[name].lerp_(value, share)

    def fakes(self, cameras: Tensor) -> Fakes:
        """New things, each seen by its camera and told that camera or its neighbour's."""
        z = torch.randn(len(cameras), 512)
        z_bg = torch.randn_like(z) if self.background else None
        swapped = torch.rand(len(cameras), 1) < 0.5
        conditioning = torch.where(swapped, cameras.roll(1, 0), cameras)
        return generated(self.generator, z, conditioning, cameras, z_bg, self.sizes)

    def density_variation(
        self,
        z: Tensor,
        conditioning: Tensor,
        points: Tensor,
        moved: Tensor,
        noise: Noise = "random",
    ) -> Tensor:
        """How much the raw density changes between points and moved ones, both [B, N, 3]."""
        planes = planes_of(self.generator, latents(self.generator, z, conditioning), noise)
        raw = queried(self.generator, planes, torch.cat([points, moved], dim=1), self.sizes)[1]
        first, second = raw.chunk(2, dim=1)
        return 0.25 * (first - second).abs().mean()

    def _learn(self, player: int, loss: Tensor) -> None:
        loss.backward()
        optimizer = self.optimizers[player]
        for parameter in optimizer.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 1e5, -1e5)
        optimizer.step()
        optimizer.zero_grad()
