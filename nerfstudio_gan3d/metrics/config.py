"""Options of an evaluation, and the extractor that they ask for."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from nerfstudio_gan3d.data.paths import AbsoluteData
from nerfstudio_gan3d.metrics.features import (
    FeatureExtractor,
    InceptionExtractor,
    TorchScriptExtractor,
)


@dataclass
class EvaluationConfig(AbsoluteData):
    """What is measured, on how many images, and in which feature space."""

    PATHS: ClassVar[tuple[str, ...]] = ("evaluator", "inception_weights")

    num_samples: int = 1000
    """Generated images. The Fréchet distance shrinks as this grows: compare equal counts only."""
    batch_size: int = 16
    """Images per pass of the generator and of the extractor."""
    seed: int = 0
    """Seed of the latents, the cameras, the controls and the subsets."""
    features: Literal["none", "inception", "torchscript"] = "none"
    """Network whose features are compared. none: only figures that need no network."""
    evaluator: Path | None = None
    """TorchScript file for features torchscript: float [B,3,S,S] in [-1,1] to features [B,F], or to
    a tuple that may also hold camera angles, a mask, a depth map and scores of classes."""
    evaluator_outputs: tuple[str, ...] = ()
    """Names of the evaluator's outputs in order, out of features, azimuth_sincos, elevation,
    part_logits, mask_logit, depth and class_logits. May stay empty for one output and for the first
    six. With class_logits the result has an inception score."""
    evaluator_size: int = 64
    """Input size S of the evaluator, pixels."""
    inception_weights: Path | None = None
    """Weights of the Inception network; None looks in the cache of torch.hub."""
    allow_download: bool = False
    """Fetch the Inception weights when they are not there."""
    kernel_samples: int = 10000
    """Most images of each side in the kernel distance and the nearest-neighbour figures, drawn at
    random; bounds memory and time, which grows with the square."""
    truncation: float = 1.0
    """Truncation psi of the samples. 1 is none, which is what distances should be quoted at."""
    ground_truth: bool = True
    """Compare with the masks and depth maps of the data set where it has them."""
    mesh_samples: int = 0
    """Samples whose meshes are extracted and measured, the seeds from `seed` on; a few seconds
    each. 0 is none."""
    mesh_resolution: int = 96
    """Cells of these meshes' grid along the longest side of the Scene's box."""

    def validate(self) -> None:
        """Raises ValueError for values and combinations that cannot be meant."""
        for name, least in (("num_samples", 2), ("batch_size", 1), ("kernel_samples", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; at least {least} is needed")
        if not math.isfinite(self.truncation) or self.truncation < 0:
            raise ValueError(f"truncation is {self.truncation}; 0 (the mean) to 1 (none) is usual")
        if self.mesh_samples < 0:
            raise ValueError(
                f"mesh_samples is {self.mesh_samples}; give 0 for no meshes, or how many to measure"
            )
        if not 8 <= self.mesh_resolution <= 512:
            raise ValueError(
                f"mesh_resolution is {self.mesh_resolution}; it must lie between 8 and 512 cells"
            )
        if self.features == "torchscript" and self.evaluator is None:
            raise ValueError("features is torchscript; set evaluator to a TorchScript file")
        if self.features != "torchscript" and (self.evaluator or self.evaluator_outputs):
            raise ValueError(
                f"evaluator is set and features is {self.features}; set features to torchscript "
                "or leave evaluator and evaluator_outputs out"
            )
        if self.features != "inception" and (self.inception_weights or self.allow_download):
            raise ValueError(
                f"inception_weights or allow_download is set and features is {self.features}; set "
                "features to inception or leave them out"
            )


def build_extractor(
    config: EvaluationConfig, device: str | torch.device = "cpu"
) -> FeatureExtractor | None:
    """The extractor of `config`, or None for features none.

    Call it before anything is generated: it raises ValueError for everything that is missing.
    """
    config.validate()
    if config.features == "torchscript" and config.evaluator is not None:
        return TorchScriptExtractor(
            config.evaluator,
            config.evaluator_outputs,
            input_size=config.evaluator_size,
            device=device,
        )
    if config.features == "inception":
        return InceptionExtractor(
            config.inception_weights, allow_download=config.allow_download, device=device
        )
    return None
