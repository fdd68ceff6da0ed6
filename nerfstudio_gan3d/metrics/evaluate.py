"""All figures of a set of generated images against a set of real ones."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_gan3d.metrics.alignment import PoseErrors
from nerfstudio_gan3d.metrics.features import Extraction, FeatureExtractor, to_eight_bit
from nerfstudio_gan3d.metrics.frechet import (
    FeatureMoments,
    FeatureReservoir,
    frechet_distance,
    kernel_distance,
)
from nerfstudio_gan3d.metrics.geometry import Agreement, ShapeStatistics, check_alpha, check_map
from nerfstudio_gan3d.metrics.nearest import nearest_by_features
from nerfstudio_gan3d.metrics.reconstruction import inception_score

NO_FEATURES = "none (only figures that need no network)"
INCEPTION_PARTS = 10
"""Parts that generated images are divided into for the inception score, as in published figures."""


class GeneratedBatch(NamedTuple):
    """Generated images with the cameras that they were rendered from."""

    image: Float[Tensor, "b 3 h w"]
    """RGB in [-1, 1]."""
    label: Float[Tensor, "b 25"]
    """Camera labels of the rendering, never those of the conditioning."""
    alpha: Float[Tensor, "b 1 h2 w2"] | None = None
    """Accumulated opacity of the foreground, 0..1, at any size."""
    depth: Float[Tensor, "b 1 h2 w2"] | None = None
    """Foreground z-depth in world units, of the size of alpha; 0 where there is none."""


class RealBatch(NamedTuple):
    """Images of the data set with the ground truth that it has."""

    image: Tensor
    """[B, 3, H, W]; uint8, or float in [-1, 1]."""
    label: Float[Tensor, "b 25"] | None = None
    mask: Float[Tensor, "b 1 h2 w2"] | None = None
    """Foreground coverage, 0..1."""
    depth: Float[Tensor, "b 1 h2 w2"] | None = None
    """z-depth in world units, of the size of mask; 0 for background."""


@dataclass(frozen=True)
class EvaluationResult:
    """Figures, and what must be known to read them. Both are ready for JSON."""

    figures: dict[str, float]
    provenance: dict[str, str | int | float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, str | int | float]:
        """Both in one flat dictionary; no name is in both."""
        return {**self.figures, **self.provenance}


class _Side:
    """What is collected about one set of images, generated or real."""

    def __init__(
        self,
        extractor: FeatureExtractor | None,
        seed: int,
        kernel_samples: int,
        pivot: tuple[float, float, float],
        classes: bool = False,
    ) -> None:
        self._extractor = extractor
        self._seed = seed
        self.count = 0
        self.resolution = 0
        self.map_resolution = 0
        self.moments = FeatureMoments()
        self.reservoir = FeatureReservoir(kernel_samples, seed)
        self.pose = PoseErrors(pivot)
        self.agreement = Agreement()
        self.shape = ShapeStatistics()
        # One row an image: too much to keep of a large data set.
        self._classes: list[Float[Tensor, "b k"]] | None = [] if classes else None

    def update(
        self,
        images: Tensor,
        label: Tensor | None,
        alpha: Tensor | None,
        depth: Tensor | None,
    ) -> None:
        self._check_size(images)
        self.count += len(images)
        if label is not None and label.shape != (len(images), 25):
            raise ValueError(
                f"camera labels have shape {tuple(label.shape)}; [{len(images)}, 25] is needed for "
                f"{len(images)} images"
            )
        if alpha is not None:
            alpha = check_alpha(alpha.detach(), len(images))
            self.map_resolution = alpha.shape[-1]
        if depth is not None:
            depth = depth.detach()
            check_map("depth", depth, len(images))
            if alpha is None or alpha.shape != depth.shape:
                raise ValueError(
                    f"depth has shape {tuple(depth.shape)} and alpha "
                    f"{None if alpha is None else tuple(alpha.shape)}; depth needs an alpha (or "
                    "mask) of its own size"
                )
        if alpha is not None:
            self.shape.update(alpha, depth)
        if self._extractor is not None:
            self._read(self._extractor(images), label, alpha, depth)

    def _check_size(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}; [B, 3, H, W] is needed")
        if self.resolution not in (0, images.shape[-1]):
            raise ValueError(
                f"images of {self.resolution} and of {images.shape[-1]} pixels are mixed; "
                "bring them to one size"
            )
        self.resolution = images.shape[-1]

    def _read(
        self,
        seen: Extraction,
        label: Tensor | None,
        alpha: Tensor | None,
        depth: Tensor | None,
    ) -> None:
        self.moments.update(seen.features)
        self.reservoir.update(seen.features)
        if label is not None and seen.azimuth_sincos is not None and seen.elevation is not None:
            self.pose.update(seen.azimuth_sincos, seen.elevation, label.to(seen.elevation))
        if self._classes is not None and seen.class_logits is not None:
            self._classes.append(seen.class_logits.detach().float().softmax(1).cpu())
        if alpha is not None and seen.mask_logit is not None:
            self.agreement.update(seen.mask_logit, seen.depth, alpha, depth)

    def figures(self) -> dict[str, float]:
        return {**self.pose.figures(self._seed), **self.agreement.figures()}

    def inception(self) -> dict[str, float]:
        """The inception score and its deviation over `INCEPTION_PARTS` parts; nothing without a
        classifier, or with fewer images than parts."""
        if not self._classes or self.count < INCEPTION_PARTS:
            return {}
        found = inception_score(torch.cat(self._classes), INCEPTION_PARTS)
        return {"inception_score": found.mean, "inception_score_std": found.std}


def evaluate(
    samples: Iterable[GeneratedBatch],
    reals: Iterable[RealBatch | Tensor],
    extractor: FeatureExtractor | None,
    *,
    seed: int,
    num_samples: int | None = None,
    kernel_samples: int = 10000,
    ground_truth: bool = True,
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0),
    conditioning: Literal["independent", "rendering", "none"] = "independent",
    settings: Mapping[str, str | int | float] | None = None,
) -> EvaluationResult:
    """Measures generated images against real ones; see docs/evaluation.md for every figure.

    Generated images are judged as the 8-bit images that a user would save. Reals may be plain
    tensors or `RealBatch`es; with the latter, `truth_` figures describe the data set's own masks
    and depths, and `real_` figures say what the extractor scores on real images: its floor.

    Args:
        samples: generated images in random order, in batches of any size.
        reals: the data set, in batches of any size; may be empty without an extractor.
        extractor: the feature space; None leaves every figure out that needs a network.
        seed: draws the controls and the subsets; recorded.
        num_samples: how many of `samples` to use; None for all of them.
        kernel_samples: most images of each side in the kernel distance and nearest neighbours.
        ground_truth: use the masks, depths and labels of `RealBatch`es.
        pivot: the point about which azimuth and elevation are measured, world units.
        conditioning: how the pose that the generator saw relates to the rendering pose; only with
            `independent` and `none` do the camera errors mean anything. Recorded.
        settings: further facts to record, such as truncation and paths.

    Raises:
        ValueError: too few images, NaN, wrong shapes or ranges, or sets of different features.
    """
    generated = _Side(extractor, seed, kernel_samples, pivot, classes=True)
    for batch in _first(samples, num_samples):
        if not torch.isfinite(batch.image).all():
            raise ValueError("a generated image holds NaN or infinite values")
        image = to_eight_bit(batch.image.detach().float()).float() / 127.5 - 1
        generated.update(image, batch.label, batch.alpha, batch.depth)
    real = _Side(extractor, seed + 1, kernel_samples, pivot)
    for item in reals:
        batch = item if isinstance(item, RealBatch) else RealBatch(item)
        if not ground_truth:
            batch = RealBatch(batch.image)
        real.update(_real_image(batch.image), batch.label, batch.mask, batch.depth)
    for name, side in (("generated", generated), ("real", real)):
        # Figures that need no network can do without the data set, which may have been left behind.
        spared = side is real and side.count == 0 and extractor is None
        if side.count < 2 and not spared:
            raise ValueError(f"there are {side.count} {name} images; at least 2 are needed")

    figures = {
        **(_distances(generated, real) if extractor is not None else {}),
        **generated.inception(),
        **generated.figures(),
        **generated.shape.figures(),
        **{f"real_{name}": value for name, value in (real.figures() if real.count else {}).items()},
        **real.shape.figures("truth_"),
    }
    provenance: dict[str, str | int | float] = {
        "feature_space": NO_FEATURES if extractor is None else extractor.name,
        "num_samples": generated.count,
        "num_reals": real.count,
        "seed": seed,
        "resolution": generated.resolution,
        "real_resolution": real.resolution,
        "conditioning": conditioning,
    }
    if generated.map_resolution:
        provenance["alpha_resolution"] = generated.map_resolution
    if extractor is not None:
        provenance["kernel_samples"] = min(kernel_samples, generated.count)
        provenance["kernel_reals"] = min(kernel_samples, real.count)
    clash = sorted(set(settings or {}) & (set(figures) | set(provenance)))
    if clash:
        raise ValueError(f"settings names {', '.join(clash)}, which the evaluation itself records")
    return EvaluationResult(figures, {**provenance, **(settings or {})})


def _distances(generated: _Side, real: _Side) -> dict[str, float]:
    """Distances of the two sets, and how near samples lie to the data.

    `nearest_real_median` is the median distance of samples to their nearest real image in feature
    space, `nearest_real_floor_median` that of real images to their nearest other real image. A
    generator that copies scores far below the floor.
    """
    a, b = generated.reservoir.features(), real.reservoir.features()
    figures = {
        "frechet_distance": frechet_distance(
            *generated.moments.mean_and_covariance(), *real.moments.mean_and_covariance()
        ),
        "kernel_distance": kernel_distance(a, b),
        "nearest_real_median": float(nearest_by_features(a, b).distances.median()),
    }
    others = nearest_by_features(b, b, k=2).distances[:, 1]
    figures["nearest_real_floor_median"] = float(others.median())
    return figures


def _first(batches: Iterable[GeneratedBatch], count: int | None) -> Iterator[GeneratedBatch]:
    """The first `count` images of a stream of batches, the last batch cut to fit.

    The stream is not asked for a batch more than is needed. Raises ValueError when it ends early.
    """
    left = count
    for batch in batches:
        if left is not None and len(batch.image) > left:
            alpha, depth = (None if t is None else t[:left] for t in (batch.alpha, batch.depth))
            batch = GeneratedBatch(batch.image[:left], batch.label[:left], alpha, depth)
        yield batch
        if left is not None:
            left -= len(batch.image)
            if left == 0:
                return
    if left:
        raise ValueError(f"num_samples is {count} and only {(count or 0) - left} were generated")


def _real_image(image: Tensor) -> Tensor:
    """Real images as float in [-1, 1]."""
    if image.dtype == torch.uint8:
        return image.float() / 127.5 - 1
    if not image.is_floating_point():
        raise ValueError(f"real images are {image.dtype}; uint8, or float in -1..1 is needed")
    low, high = float(image.min()), float(image.max())
    if not (low >= -1.001 and high <= 1.001):
        raise ValueError(
            f"real images lie in {low:.3g}..{high:.3g}; floats must be in -1..1, "
            "or pass uint8 in 0..255"
        )
    return image.float()
