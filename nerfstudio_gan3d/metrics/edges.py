"""Do generated edges lie on the lines of the drawing? Average precision with a tolerance."""

import math

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

LEVELS = 255
"""Thresholds of the precision-recall curve: strengths k / 255, as saved images have them."""


def edge_strength(values: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Edge strength 0..1 of edge maps whose paper is +1 and whose lines are -1."""
    return ((1 - values) / 2).clamp(0, 1)


class EdgeAgreement:
    """Precision and recall of edge strengths against drawings, over a whole set of images.

    At a threshold the predicted edge pixels are those of at least this strength. Precision is the
    share of them with a reference edge pixel within the tolerance, recall the share of reference
    edge pixels with a predicted one within it (Euclidean distance of pixel centres). Pixels are not
    matched one to one, as the Berkeley benchmark does, so a line that is drawn twice as thick but
    within the tolerance costs nothing.
    """

    def __init__(self, tolerance_px: float) -> None:
        """Raises ValueError for a negative tolerance."""
        if not 0 <= tolerance_px < math.inf:
            raise ValueError(f"tolerance_px is {tolerance_px}; give a distance of 0 pixels or more")
        self._tolerance = tolerance_px
        reach = math.floor(tolerance_px)
        offsets = np.arange(-reach, reach + 1)
        self._disc = np.hypot(offsets[:, None], offsets) <= tolerance_px
        # Pixels of each strength 0..255: all, those near a reference edge, and reference edges by
        # the strongest prediction near them.
        self._predicted = np.zeros(LEVELS + 1, np.int64)
        self._near, self._found = self._predicted.copy(), self._predicted.copy()

    def update(
        self, predicted: Float[Tensor, "b 1 h w"], reference: Bool[Tensor, "b 1 h w"]
    ) -> None:
        """Adds a batch of edge strengths in 0..1, rounded to 8 bits, and of drawings.

        Raises:
            ValueError: The shapes differ, or strengths are NaN or outside of 0..1.
        """
        # Not at the top: every start of ns-train imports this module.
        from scipy import ndimage

        if predicted.shape != reference.shape:
            raise ValueError(
                f"predicted edges have shape {list(predicted.shape)} and the reference "
                f"{list(reference.shape)}; bring both to one size"
            )
        # Written so that NaN is refused as well.
        if not bool(((predicted >= 0) & (predicted <= 1)).all()):
            raise ValueError(
                f"edge strengths lie in {float(predicted.min()):.3g}..{float(predicted.max()):.3g};"
                " they must be in 0..1, 1 for a line"
            )
        levels = (predicted.detach().cpu().double() * LEVELS).round().numpy().astype(np.uint8)
        for strength, edges in zip(levels[:, 0], reference[:, 0].cpu().numpy(), strict=True):
            self._predicted += _histogram(strength)
            if not edges.any():
                # Without an edge there is no distance to one.
                continue
            near = np.asarray(ndimage.distance_transform_edt(~edges)) <= self._tolerance
            self._near += _histogram(strength[near])
            # A reference pixel is found at a threshold if the strongest prediction in the disc
            # about it passes: one filter instead of a distance transform for each threshold.
            strongest = ndimage.maximum_filter(
                strength, footprint=self._disc, mode="constant", cval=0
            )
            self._found += _histogram(strongest[edges])

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`edge_ap` and `edge_ap_chance`; empty without a reference edge.

        The area under the precision-recall curve as the sum of precision times gain in recall over
        falling thresholds, strength 0 excepted; and what the same strength in all pixels scores,
        which is the share of pixels that are near an edge.
        """
        edges = self._found.sum()
        if edges == 0:
            return {}
        predicted, near, found = (
            counts[:0:-1].cumsum() for counts in (self._predicted, self._near, self._found)
        )
        precision = near / np.maximum(predicted, 1)
        gain = np.diff(found / edges, prepend=0)
        return {
            f"{prefix}edge_ap": float((precision * gain).sum()),
            f"{prefix}edge_ap_chance": float(self._near.sum() / self._predicted.sum()),
        }


def edge_average_precision(
    predicted: Float[Tensor, "b 1 h w"],
    reference: Bool[Tensor, "b 1 h w"],
    tolerance_px: float,
) -> float:
    """`edge_ap` of `EdgeAgreement` for one batch.

    Raises:
        ValueError: As there; or the reference has no edge.
    """
    agreement = EdgeAgreement(tolerance_px)
    agreement.update(predicted, reference)
    figures = agreement.figures()
    if not figures:
        raise ValueError("the reference has no edge pixel; there is nothing to be precise about")
    return figures["edge_ap"]


def _histogram(levels: np.ndarray) -> np.ndarray:
    return np.bincount(levels.ravel(), minlength=LEVELS + 1)
