"""Do images with labels follow the label map that they were made from, from every side?

Label ids are integers, 0 is background. Depth is z-depth in world units, 0 where there is no
foreground. Shares and intersections over unions are in 0..1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from nerfstudio_gan3d.cameras import axis_cosine, pixel_rays, project


class ConfusionMatrix:
    """Counts of pixels by reference and predicted class, over a whole set of images."""

    def __init__(self, classes: int, names: Sequence[str] = ()) -> None:
        """Raises ValueError unless there are at least two classes, each with a name of its own.

        Without ``names`` classes are called by their ids.
        """
        if classes < 2:
            raise ValueError(f"classes is {classes}; background and one more are the least")
        if len(names) not in (0, classes) or len(set(names)) != len(names):
            raise ValueError(
                f"class names are {', '.join(names)}; {classes} different ones are needed, or none"
            )
        self.names = tuple(names) or tuple(str(i) for i in range(classes))
        self.counts: Int64[Tensor, "c c"] = torch.zeros(classes, classes, dtype=torch.int64)
        """Row: reference, column: predicted."""

    def update(
        self,
        predicted: Integer[Tensor, "*shape"],
        reference: Integer[Tensor, "*shape"],
        counted: Bool[Tensor, "*shape"] | None = None,
    ) -> None:
        """Adds pixels, where ``counted`` is given only those that it marks.

        Raises:
            ValueError: The shapes differ, or an id is not one of the classes.
        """
        if predicted.shape != reference.shape:
            raise ValueError(
                f"predicted ids have shape {list(predicted.shape)} and the reference "
                f"{list(reference.shape)}; bring both to one size"
            )
        if counted is not None:
            predicted, reference = predicted[counted], reference[counted]
        classes = len(self.counts)
        pair = torch.stack([reference.flatten(), predicted.flatten()]).long()  # [2, N]
        if pair.numel() and (int(pair.min()) < 0 or int(pair.max()) >= classes):
            raise ValueError(
                f"label ids lie in {int(pair.min())}..{int(pair.max())}; there are classes 0 to "
                f"{classes - 1}"
            )
        cells = torch.bincount(pair[0] * classes + pair[1], minlength=classes * classes)
        self.counts += cells.view(classes, classes).cpu()

    def figures(
        self, prefix: str = "", suffix: str = "", *, per_class: bool = True
    ) -> dict[str, float]:
        """All figures by name, `prefix` and `suffix` put around; empty without a pixel.

        `miou` is the mean IoU of the classes that the reference or the prediction has,
        `pixel_accuracy` the share of right pixels, `foreground_pixel_accuracy` the same of those
        that the reference calls foreground, `pixel_accuracy_majority` what an answer would score
        that gives the commonest class to every pixel, and `iou_NAME` the IoU of one class.
        """
        counts = self.counts.double()
        reference, right = counts.sum(1), counts.diagonal()
        total = float(counts.sum())
        if total == 0:
            return {}
        union = reference + counts.sum(0) - right
        iou = right / union
        figures = {
            "miou": float(iou[union > 0].mean()),
            "pixel_accuracy": float(right.sum()) / total,
            "pixel_accuracy_majority": float(reference.max()) / total,
        }
        if reference[1:].sum() > 0:
            share = float(right[1:].sum() / reference[1:].sum())
            figures["foreground_pixel_accuracy"] = share
        if per_class:
            known = (union > 0).nonzero().flatten().tolist()
            figures |= {f"iou_{self.names[i]}": float(iou[i]) for i in known}
        return {f"{prefix}{name}{suffix}": value for name, value in figures.items()}


class LabelAgreement:
    """Input label maps, generated label maps, and the segmentation of the generated images.

    Three comparisons, each made where its two sides are given: `label_` is what a segmenter sees in
    the images against the input maps, `label_self_` is the same against the label maps that were
    generated with the images, and `label_rendered_` is the generated maps against the input maps.
    The `_control` figures compare with the input map of the image before, also across batches: what
    a generator scores that ignores its input. They suppose that the maps come in random order.
    """

    def __init__(self, classes: int, names: Sequence[str] = ()) -> None:
        """Raises ValueError as `ConfusionMatrix` does."""
        self._classes = classes
        self._pairs = {
            name: ConfusionMatrix(classes, names)
            for name in ("label", "label_self", "label_rendered")
        }
        self._control = ConfusionMatrix(classes, names)
        self._last: Tensor | None = None  # [1, 1, R, R]

    def update(
        self,
        part_logits: Float[Tensor, "b k h w"] | None,
        input_maps: Integer[Tensor, "b 1 r r"] | None,
        generated_maps: Integer[Tensor, "b 1 r2 r2"] | None = None,
    ) -> None:
        """Adds a batch. Maps are brought to the size of what they are compared with.

        Args:
            part_logits: what the segmenter says about the images.
            input_maps: the maps that the images were made from; only for images that are seen from
                the poses of their maps.
            generated_maps: the ids that were generated with the images, from any pose.

        Raises:
            ValueError: The segmenter has another number of classes, or an id is not one of them.
        """
        seen = None
        if part_logits is not None:
            if part_logits.shape[1] != self._classes:
                raise ValueError(
                    f"the evaluator's part_logits have {part_logits.shape[1]} channels and the "
                    f"label maps {self._classes} classes; give one that was trained on these labels"
                )
            seen = part_logits.argmax(dim=1, keepdim=True)
        self._compare(self._pairs["label"], seen, input_maps)
        self._compare(self._pairs["label_self"], seen, generated_maps)
        self._compare(self._pairs["label_rendered"], generated_maps, input_maps)
        if seen is None or input_maps is None or len(input_maps) == 0:
            return
        start = 1 if self._last is None else 0
        others = input_maps[:-1]
        if self._last is not None:
            others = torch.cat([self._last.to(others), others])
        self._compare(self._control, seen[start:], others)
        self._last = input_maps[-1:]

    @staticmethod
    def _compare(
        matrix: ConfusionMatrix, predicted: Tensor | None, reference: Tensor | None
    ) -> None:
        if predicted is not None and reference is not None:
            size = (predicted.shape[2], predicted.shape[3])
            matrix.update(predicted, resize_ids(reference, size).to(predicted.device))

    def figures(self, prefix: str = "") -> dict[str, float]:
        """The figures of `ConfusionMatrix` for every comparison that was made."""
        figures: dict[str, float] = {}
        for name, matrix in self._pairs.items():
            figures |= matrix.figures(f"{prefix}{name}_")
        return figures | self._control.figures(f"{prefix}label_", "_control", per_class=False)


def resize_ids(
    ids: Integer[Tensor, "b 1 h w"], size: tuple[int, int]
) -> Integer[Tensor, "b 1 h2 w2"]:
    """Ids at another size: those of the pixels that the middles of the new pixels fall into."""
    rows, columns = (
        ((torch.arange(new, device=ids.device) + 0.5) * (old / new)).long()
        for new, old in zip(size, ids.shape[2:], strict=True)
    )
    return ids[:, :, rows[:, None], columns]


class WarpedLabels(NamedTuple):
    """What view B says about the pixels of view A."""

    ids: Integer[Tensor, "b 1 h w"]
    """Id in B of the surface point that A sees there; 0 where B does not see it."""
    visible: Bool[Tensor, "b 1 h w"]
    """B sees that point."""


def warp_labels(
    depth_a: Float[Tensor, "b 1 h w"],
    labels_b: Integer[Tensor, "b 1 h2 w2"],
    camera_a: Float[Tensor, "b 25"],
    camera_b: Float[Tensor, "b 25"],
    depth_b: Float[Tensor, "b 1 h2 w2"],
    *,
    tolerance: float = 0.02,
) -> WarpedLabels:
    """Label ids of view B at the surface points that the pixels of view A show.

    Each foreground pixel of A is lifted to the world by its depth and projected into B. B sees the
    point if the pixel that it falls into has foreground whose depth is that of the point up to
    ``tolerance`` times that depth. Ids and depths of B are those of the nearest pixel: interpolated
    depth at a silhouette would be that of neither side.
    """
    height, width = depth_b.shape[2:]
    origins, directions = pixel_rays(camera_a, depth_a.shape[2], depth_a.shape[3])
    distance = depth_a.flatten(1)[..., None] / axis_cosine(camera_a, directions)
    places, depth = project(camera_b, origins + distance * directions)  # [B, R, 2], [B, R]
    column, row = (places[..., 0] * width).floor(), (places[..., 1] * height).floor()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (depth > 0)
    # Points behind the camera have no pixel, and their coordinates may be infinite.
    pixel = torch.where(inside, row * width + column, 0).long()
    there = depth_b.flatten(1).gather(1, pixel)
    close = (there - depth).abs() <= tolerance * depth
    visible = inside & (depth_a.flatten(1) > 0) & (there > 0) & close
    ids = labels_b.flatten(1).gather(1, pixel)
    return WarpedLabels(
        torch.where(visible, ids, 0).view(depth_a.shape), visible.view(depth_a.shape)
    )


class ViewConsistency:
    """Label ids of two views of one object, compared where both see the same surface point."""

    def __init__(self, classes: int, names: Sequence[str] = (), *, tolerance: float = 0.02) -> None:
        """``tolerance`` is that of `warp_labels`. Raises ValueError as `ConfusionMatrix` does."""
        self._tolerance = tolerance
        self._matrix = ConfusionMatrix(classes, names)
        self._foreground = 0

    def update(
        self,
        labels_a: Integer[Tensor, "b 1 r r"],
        depth_a: Float[Tensor, "b 1 h w"],
        camera_a: Float[Tensor, "b 25"],
        labels_b: Integer[Tensor, "b 1 r r"],
        depth_b: Float[Tensor, "b 1 h w"],
        camera_b: Float[Tensor, "b 25"],
    ) -> None:
        """Adds pairs of views. Label maps of another size are brought to that of the depths.

        Raises ValueError for an id that is not one of the classes.
        """
        size = (depth_a.shape[2], depth_a.shape[3])
        seen, visible = warp_labels(
            depth_a,
            resize_ids(labels_b, size),
            camera_a,
            camera_b,
            depth_b,
            tolerance=self._tolerance,
        )
        self._matrix.update(seen, resize_ids(labels_a, size), visible)
        self._foreground += int((depth_a > 0).sum())

    def figures(self, prefix: str = "") -> dict[str, float]:
        """`label_view_agreement`, its chance level, `label_view_miou`, `label_view_covisible`.

        The share of co-visible pixels with equal ids, what it would be if the ids were dealt out at
        random in the same proportions, the mean IoU, and the share of foreground pixels of view A
        that are co-visible. Empty without foreground.
        """
        if self._foreground == 0:
            return {}
        counts = self._matrix.counts.double()
        total = float(counts.sum())
        figures = {"label_view_covisible": total / self._foreground}
        if total > 0:
            overall = self._matrix.figures()
            figures |= {
                "label_view_agreement": overall["pixel_accuracy"],
                "label_view_agreement_chance": float(counts.sum(0) @ counts.sum(1)) / total**2,
                "label_view_miou": overall["miou"],
            }
        return {f"{prefix}{name}": value for name, value in figures.items()}


@dataclass(frozen=True)
class Diversity:
    """Distances of features between samples; distances of different spaces are not comparable."""

    within: float
    """Mean distance between two samples of one label map."""
    between: float | None
    """Mean distance between samples of different label maps and seeds; None with one map."""
    feature_space: str
    """Name of the network that made the features."""


def diversity(features: Float[Tensor, "l k f"], feature_space: str) -> Diversity:
    """How much samples of one label map differ: mean Euclidean distance over all pairs of seeds.

    ``features`` are of L label maps with K seeds each. ``between`` compares each sample with one of
    the next map and the next seed.

    Raises:
        ValueError: Fewer than two seeds, no label map, or a value is NaN or infinite.
    """
    maps, seeds = features.shape[:2]
    if maps < 1 or seeds < 2:
        raise ValueError(
            f"diversity of {maps} label map(s) with {seeds} seed(s) each; at least one map and two "
            "seeds are needed"
        )
    if not torch.isfinite(features).all():
        raise ValueError(
            "features are NaN or infinite; look at the images that the generator makes"
        )
    values = features.detach().to("cpu", torch.float64)
    # By subtraction: equal images have the distance zero, which a matrix product would lose.
    pairs = [(values[:, i] - values[:, j]).norm(dim=-1) for i in range(seeds) for j in range(i)]
    between = None
    if maps > 1:
        other = values.roll((1, 1), dims=(0, 1))
        between = float((values - other).norm(dim=-1).mean())
    return Diversity(float(torch.stack(pairs).mean()), between, feature_space)
