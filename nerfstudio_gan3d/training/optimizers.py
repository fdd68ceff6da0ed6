"""Optimizers for two players, and a learning rate that falls in the last part of training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from nerfstudio.engine.optimizers import OptimizerConfig
from torch.nn import Parameter


@dataclass
class GanAdamConfig(OptimizerConfig):
    """Adam as GANs use it: no first moment, so that a player answers the other's last move."""

    _target: type = torch.optim.Adam
    lr: float = 0.002
    """Learning rate."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Decay of the first and second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    lazy_interval: int = 0
    """Steps k between lazy regularisation when that has optimizer steps of its own: the learning
    rate is multiplied by c = k / (k + 1) and the betas are raised to c. 0: no correction.
    Regularisation that is part of the same step, as in this package, needs none."""

    def setup(self, params: Iterable[Parameter]) -> torch.optim.Optimizer:
        """The optimizer; raises ValueError for values out of range."""
        lr, betas = self.corrected()
        # The fused kernel passes over the parameters once, the plain one about ten times.
        return torch.optim.Adam(params, lr=lr, betas=betas, eps=float(self.eps), fused=True)

    def corrected(self) -> tuple[float, tuple[float, float]]:
        """Learning rate and betas with the correction for lazy regularisation.

        Source: StyleGAN2 (Karras et al. 2020), appendix B, "Lazy regularization".
        """
        first, second = (float(beta) for beta in self.betas)
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"optimizer.lr = {self.lr}: give a positive number")
        if not (0 <= first < 1 and 0 <= second < 1):
            raise ValueError(f"optimizer.betas = {self.betas}: both must lie in 0 <= beta < 1")
        if self.eps <= 0:
            raise ValueError(f"optimizer.eps = {self.eps}: give a positive number")
        if self.lazy_interval < 0:
            raise ValueError(f"optimizer.lazy_interval = {self.lazy_interval}: 0 or more steps")
        if self.lazy_interval == 0:
            return float(self.lr), (first, second)
        share = self.lazy_interval / (self.lazy_interval + 1)
        return float(self.lr) * share, (first**share, second**share)


@dataclass
class GanRmsPropConfig(OptimizerConfig):
    """RMSprop, with which GRAF trains."""

    _target: type = torch.optim.RMSprop
    lr: float = 5e-4
    """Learning rate."""
    alpha: float = 0.99
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def setup(self, params: Iterable[Parameter]) -> torch.optim.Optimizer:
        """The optimizer; raises ValueError for values out of range."""
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"optimizer.lr = {self.lr}: give a positive number")
        if not 0 <= self.alpha < 1:
            raise ValueError(f"optimizer.alpha = {self.alpha}: it must lie in 0 <= alpha < 1")
        if self.eps <= 0:
            raise ValueError(f"optimizer.eps = {self.eps}: give a positive number")
        return torch.optim.RMSprop(params, lr=self.lr, alpha=self.alpha, eps=self.eps)


@dataclass(frozen=True)
class LrSchedule:
    """Factor on learning rates over the share of training that is done: up half a cosine, constant,
    down half a cosine.

    With ``warmup == decay_start`` it is torch's OneCycleLR (cosine).
    """

    decay_start: float = 1.0
    """Share at which it begins to fall; 1 keeps it constant."""
    final: float = 0.1
    """Factor at the end."""
    warmup: float = 0.0
    """Share at which it has risen to 1."""
    first: float = 0.04
    """Factor at the very start, where it has to rise."""

    def height(self, share: float) -> float:
        """Where between its lowest (0) and its highest (1) value the factor is; lowest are both
        ends."""
        if share < self.warmup:
            return 0.5 * (1 - math.cos(math.pi * share / self.warmup))
        if share < self.decay_start or self.decay_start >= 1:
            return 1.0
        along = min((share - self.decay_start) / (1 - self.decay_start), 1.0)
        return 0.5 * (1 + math.cos(math.pi * along))

    def factor(self, share: float) -> float:
        """The factor at a share of training, 0..1."""
        lowest = self.first if share < self.warmup else self.final
        return lowest + (1 - lowest) * self.height(share)
