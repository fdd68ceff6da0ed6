"""Distances between two sets of feature vectors, from moments or from the vectors themselves."""

import torch
from jaxtyping import Float
from torch import Tensor


def check_features(features: Tensor) -> Tensor:
    """Returns `features` [B, F] as float64 on the CPU.

    Raises:
        ValueError: not two-dimensional, or a value is NaN or infinite.
    """
    if features.ndim != 2:
        raise ValueError(
            f"features have shape {tuple(features.shape)}; one vector per image, [B, F], is needed"
        )
    # Float64 does not exist on every accelerator, and the sums below need it.
    features = features.detach().to("cpu", torch.float64)
    if not torch.isfinite(features).all():
        bad = int((~torch.isfinite(features)).any(dim=1).sum())
        raise ValueError(
            f"features of {bad} of {len(features)} images are NaN or infinite; "
            "look at the images that the generator makes"
        )
    return features


class FeatureMoments:
    """Mean and unbiased covariance of feature vectors that come in batches, in float64.

    Batches are merged by their means and scatter matrices (Chan, Golub, LeVeque 1979), which stays
    accurate when the mean is large against the spread; a running sum of squares does not.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None  # [F]
        self._scatter: Tensor | None = None  # [F, F]

    def update(self, features: Float[Tensor, "b f"]) -> None:
        """Adds a batch. Raises ValueError on NaN and when F differs from the earlier batches."""
        x = check_features(features)
        if len(x) == 0:
            return
        mean = x.mean(dim=0)
        centred = x - mean
        scatter = centred.T @ centred
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = len(x), mean, scatter
            return
        if mean.shape != self._mean.shape:
            raise ValueError(
                f"a batch has {mean.numel()} features per image, the batches before it had "
                f"{self._mean.numel()}; one extractor must serve all of them"
            )
        total = self.count + len(x)
        shift = mean - self._mean
        self._scatter += scatter + torch.outer(shift, shift) * (self.count * len(x) / total)
        self._mean += shift * (len(x) / total)
        self.count = total

    def mean_and_covariance(self) -> tuple[Float[Tensor, " f"], Float[Tensor, "f f"]]:
        """Raises ValueError when fewer than two vectors were added."""
        if self._mean is None or self._scatter is None or self.count < 2:
            raise ValueError(
                f"{self.count} image(s) are too few for a covariance; give at least 2, "
                "and some thousands for a figure that means something"
            )
        return self._mean.clone(), self._scatter / (self.count - 1)


class FeatureReservoir:
    """A uniform random subset of at most `capacity` feature vectors of a stream (algorithm R).

    The kernel distance and the nearest neighbours need vectors, not moments; the reservoir bounds
    their memory whatever the order and the length of the data set.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        if capacity < 2:
            raise ValueError(f"kernel_samples is {capacity}; at least 2 are needed")
        self._capacity = capacity
        self._rng = torch.Generator().manual_seed(seed)
        self._rows: list[Tensor] = []
        self._seen = 0

    def update(self, features: Float[Tensor, "b f"]) -> None:
        """Offers a batch of vectors."""
        for row in features.detach().to("cpu", torch.float32):
            self._seen += 1
            if len(self._rows) < self._capacity:
                self._rows.append(row.clone())
                continue
            slot = int(torch.randint(self._seen, (), generator=self._rng))
            if slot < self._capacity:
                self._rows[slot] = row.clone()

    def features(self) -> Float[Tensor, "n f"]:
        """The vectors kept so far, n <= capacity."""
        return torch.stack(self._rows) if self._rows else torch.zeros(0, 0)


def frechet_distance(
    mean_a: Float[Tensor, " f"],
    covariance_a: Float[Tensor, "f f"],
    mean_b: Float[Tensor, " g"],
    covariance_b: Float[Tensor, "g g"],
) -> float:
    """Fréchet distance between two Gaussians.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    Dowson, Landau 1982; used on Inception features by Heusel et al. 2017, eq. 6. The trace of the
    root is computed as tr((C_a^(1/2) C_b C_a^(1/2))^(1/2)) with two symmetric eigendecompositions
    in float64. The usual matrix square root of the unsymmetric product can return complex values
    or fail when a covariance is singular, as it is with fewer images than features.

    Raises:
        ValueError: the two sides differ in F, or a value is NaN or infinite.
    """
    if mean_a.shape != mean_b.shape:
        raise ValueError(
            f"one side has {mean_a.numel()} features per image and the other {mean_b.numel()}; "
            "both must come from the same extractor"
        )
    m_a, c_a, m_b, c_b = (
        t.detach().to("cpu", torch.float64) for t in (mean_a, covariance_a, mean_b, covariance_b)
    )
    if not all(bool(torch.isfinite(t).all()) for t in (m_a, c_a, m_b, c_b)):
        raise ValueError("a mean or covariance of the features is NaN or infinite")
    values, vectors = torch.linalg.eigh(c_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c_b @ root).clamp(min=0).sqrt().sum()
    distance = (m_a - m_b).square().sum() + c_a.trace() + c_b.trace() - 2 * cross
    # Equal moments give a rounding error of either sign; the distance itself is never negative.
    return max(0.0, float(distance))


def kernel_distance(
    features_a: Float[Tensor, "n f"],
    features_b: Float[Tensor, "m g"],
    *,
    degree: int = 3,
    block_size: int = 1024,
) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel k(x, y) = (x.y / F + 1)^degree.

    mean over i != j of k(a_i, a_j)  +  mean over i != j of k(b_i, b_j)  -  2 mean of k(a_i, b_j)

    Binkowski et al. 2018, section 4 (degree 3). It is computed once over all pairs, where the paper
    averages over random subsets: the expectation is the same and the spread is smaller. Its
    expectation is zero for equal distributions whatever the sample sizes, so it may be negative.

    Raises:
        ValueError: fewer than two vectors on a side, F differs, or a value is NaN or infinite.
    """
    a, b = check_features(features_a), check_features(features_b)
    if len(a) < 2 or len(b) < 2:
        raise ValueError(
            f"the kernel distance needs at least 2 images on each side; there are {len(a)} and "
            f"{len(b)}"
        )
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"one side has {a.shape[1]} features per image and the other {b.shape[1]}; "
            "both must come from the same extractor"
        )

    def kernel_sum(x: Tensor, y: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for block in x.split(block_size):
            total += (block @ y.T / x.shape[1] + 1).pow(degree).sum()
        return total

    def off_diagonal_mean(x: Tensor) -> Tensor:
        diagonal = (x.square().sum(dim=1) / x.shape[1] + 1).pow(degree).sum()
        return (kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))

    cross = kernel_sum(a, b) / (len(a) * len(b))
    return float(off_diagonal_mean(a) + off_diagonal_mean(b) - 2 * cross)
