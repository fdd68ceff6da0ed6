"""A training step as published, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.published.networks import Fakes, generated, judged, latents, planes_of, resized
from benchmarks.published.rendering import TINY64, Sizes, queried


@dataclass
class Training:
    """Generator and discriminator in training; tensors are leaves under official names."""

    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor]
    background: bool
    sizes: Sizes = TINY64
    gamma: float = 1.0
    average: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.optimizers = []
        for weights in (self.generator, self.discriminator):
            leaves = [value for value in weights.values() if value.requires_grad]
            self.optimizers.append(torch.optim.Adam(leaves, lr=0.002, betas=(0.0, 0.99)))
        self.average = {name: value.detach().clone() for name, value in self.generator.items()}

    def step(self, images: Tensor, cameras: Tensor, index: int) -> None:
        """Iteration ``index`` with real images [B, 3, H, W] and their cameras [B, 25]."""
        judge = {name: value.detach() for name, value in self.discriminator.items()}
        fakes = self._fakes(cameras)
        logits = judged(judge, fakes.image, fakes.raw, cameras, self.sizes.group)
        self._learn(0, F.softplus(-logits).mean())
        if index % 4 == 0:
            self._learn(0, 4 * self._density_variation(cameras))
            if self.background:
                left = self._fakes(cameras).march.left
                self._learn(0, 4 * torch.minimum(left, 1 - left).mean())
        with torch.no_grad():
            fakes = self._fakes(cameras)
        logits = judged(self.discriminator, fakes.image, fakes.raw, cameras, self.sizes.group)
        F.softplus(logits).mean().backward()
        raw = resized(images, self.sizes.neural)
        logits = judged(self.discriminator, images, raw, cameras, self.sizes.group)
        self._learn(1, F.softplus(-logits).mean())
        if index % 16 == 0:
            pair = images.clone().requires_grad_(), raw.clone().requires_grad_()
            logits = judged(self.discriminator, *pair, cameras, self.sizes.group)
            slopes = torch.autograd.grad(logits.sum(), pair, create_graph=True)
            squares = torch.cat([slope.flatten(1) for slope in slopes], dim=1).square()
            self._learn(1, 16 * (squares.sum(1) * self.gamma / 2).mean())
        with torch.no_grad():
            for name, value in self.generator.items():
                self.average[name].copy_(value.lerp(self.average[name], 0.999))

    def _fakes(self, cameras: Tensor) -> Fakes:
        """New things, each seen by its camera and told that camera or its neighbour's."""
        z = torch.randn(len(cameras), 512)
        z_bg = torch.randn_like(z) if self.background else None
        swapped = torch.rand(len(cameras), 1) < 0.5
        conditioning = torch.where(swapped, cameras.roll(1, 0), cameras)
        return generated(self.generator, z, conditioning, cameras, z_bg, self.sizes)

    def _density_variation(self, cameras: Tensor) -> Tensor:
        z = torch.randn(len(cameras), 512)
        planes = planes_of(self.generator, latents(self.generator, z, cameras), "random")
        points = torch.rand(len(z), 1000, 3) * 2 - 1
        points = torch.cat([points, points + torch.randn_like(points) * 0.004], dim=1)
        raw = queried(self.generator, planes, points, self.sizes)[1]
        return 0.25 * (raw[:, :1000] - raw[:, 1000:]).abs().mean()

    def _learn(self, player: int, loss: Tensor) -> None:
        loss.backward()
        optimizer = self.optimizers[player]
        for parameter in optimizer.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 1e5, -1e5)
        optimizer.step()
        optimizer.zero_grad()
