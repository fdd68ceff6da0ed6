"""Full validation of a data set, its summary, and its pose histogram."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_gan3d.cameras import camera_angles
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.layout import DepthKind
from nerfstudio_gan3d.data.meta import MAX_CLASSES, MapKind

__all__ = ["DataError", "PoseRange", "SetSummary", "check_set", "pose_histogram"]

BINS = (24, 12)
"""Bins of azimuth (-180 to 180 degrees) and elevation (-90 to 90 degrees): 15 degrees each."""


@dataclass(frozen=True)
class PoseRange:
    """Smallest and largest value over the cameras of a set; angles in degrees."""

    focal: tuple[float, float]
    """Focal length in image widths."""
    radius: tuple[float, float]
    """Distance of the camera from the origin, scene units."""
    azimuth: tuple[float, float]
    """0 stands at +z, 90 at +x."""
    elevation: tuple[float, float]
    """Above the horizon (y up)."""


@dataclass(frozen=True)
class SetSummary:
    """What `check_set` found."""

    path: Path
    count: int
    size: int
    has_masks: bool
    has_depth: bool
    """Whether there is depth of either kind."""
    has_label_maps: bool
    classes: tuple[str, ...]
    """Names of the classes (meta.json or labels.json); empty when unknown."""
    class_ids: tuple[int, ...]
    """Class ids that occur in the label maps; empty for edge maps."""
    class_shares: tuple[float, ...]
    """Share of the pixels of each of these classes."""
    label_kind: MapKind | None
    """Whether label maps hold class ids or lines; None when there are none."""
    line_share: float | None
    """Share of the dark pixels (below 128) of edge maps; None when there are none."""
    objects: int | None
    """Number of different objects (meta.json); None when unknown."""
    poses: PoseRange | None
    """None when the set has no camera labels."""
    depth_kind: DepthKind = "none"
    """What the depth files hold."""
    depth_range: tuple[float, float] | None = None
    """Smallest and largest depth of the foreground (z-depth, scene units), or of all pixels
    (relative, 0 to 1); None when there is none."""

    def text(self) -> str:
        """The summary as lines of text."""
        lines = [
            f"{self.path}: {self.count} images of {self.size} x {self.size} pixels, all readable",
            f"masks: {_yes(self.has_masks)}   depth: {_yes(self.has_depth)}   "
            f"label maps: {_yes(self.has_label_maps)}",
        ]
        if self.depth_range is not None:
            unit = "scene units" if self.depth_kind == "z" else "(relative, 0 is near)"
            lines.append(f"depth range: {_range(self.depth_range, 4)} {unit}")
        lines.extend(self._about_labels())
        if self.objects is not None:
            lines.append(f"objects: {self.objects}")
        if self.poses is None:
            instead = (
                "gan3d-rgbd gives every image the same camera"
                if self.depth_kind == "relative"
                else "training draws them from a pose prior"
            )
            return "\n".join([*lines, f"camera labels: no ({instead})"])
        poses = self.poses
        return "\n".join(
            [
                *lines,
                "camera labels: yes",
                f"  focal length  {_range(poses.focal, 4)} image widths",
                f"  radius        {_range(poses.radius, 4)}",
                f"  azimuth       {_range(poses.azimuth, 1)} degrees",
                f"  elevation     {_range(poses.elevation, 1)} degrees",
            ]
        )

    def _about_labels(self) -> list[str]:
        if self.line_share is not None:
            lines = [f"edge maps: {_percent(self.line_share)} of the pixels are lines"]
            if self.line_share > 0.5:
                lines.append("  more than half: edge maps are dark lines on white; invert these")
            return lines
        if not self.has_label_maps:
            return []
        names = dict(enumerate(self.classes))
        found = (
            " ".join(part for part in (str(i), names.get(i), _percent(share)) if part)
            for i, share in zip(self.class_ids, self.class_shares, strict=True)
        )
        lines = ["classes: " + ", ".join(found)]
        if not self.classes and MAX_CLASSES - 1 in self.class_ids:
            lines.append('  if these are edge maps, write {"kind": "edge"} into labels.json')
        return lines


def check_set(image_set: ImageSet, num_classes: int | None = None, workers: int = 2) -> SetSummary:
    """Decode every file of a set.

    Args:
        image_set: an opened set; its names, labels and poses were checked at opening.
        num_classes: ids in label maps must be smaller; None takes the classes of the set.
        workers: threads that decode.

    Raises:
        DataError: the first file, in the order of names, that cannot be used.
    """
    if num_classes is not None and not 1 <= num_classes <= MAX_CLASSES:
        raise DataError(f"num_classes = {num_classes}: give 1 to {MAX_CLASSES}")
    edges = image_set.has_label_maps and image_set.label_kind == "edge"
    if edges and num_classes is not None:
        raise DataError(
            f"{image_set.path}: the label maps are edge maps (labels.json), which have no "
            "classes; leave the number of classes out"
        )

    def check(index: int) -> tuple[Int[np.ndarray, "256"], tuple[float, float] | None]:
        image_set.image(index)
        if image_set.has_masks:
            image_set.mask(index)
        extremes = _depth_extremes(image_set, index)
        if not image_set.has_label_maps:
            return np.zeros(MAX_CLASSES, np.int64), extremes
        read = image_set.edge_map(index) if edges else image_set.label_map(index, num_classes)
        return np.bincount(read.ravel(), minlength=MAX_CLASSES), extremes

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(check, index) for index in range(len(image_set))]
        try:
            found = [future.result() for future in futures]
        except DataError:
            pool.shutdown(cancel_futures=True)
            raise
    counts = sum((one for one, _ in found), np.zeros(MAX_CLASSES, np.int64))
    depths = [extremes for _, extremes in found if extremes is not None]
    used = [] if edges else np.flatnonzero(counts)
    kind: MapKind = "edge" if edges else "seg"
    return SetSummary(
        path=image_set.path,
        count=len(image_set),
        size=image_set.size,
        has_masks=image_set.has_masks,
        has_depth=image_set.depth_kind != "none",
        has_label_maps=image_set.has_label_maps,
        classes=tuple(image_set.classes or ()),
        class_ids=tuple(int(i) for i in used),
        class_shares=tuple(float(counts[i] / counts.sum()) for i in used),
        label_kind=kind if image_set.has_label_maps else None,
        line_share=float(counts[: MAX_CLASSES // 2].sum() / counts.sum()) if edges else None,
        objects=len(set(image_set.objects)) if image_set.objects else None,
        poses=None if image_set.labels is None else pose_range(image_set.labels),
        depth_kind=image_set.depth_kind,
        depth_range=(min(d[0] for d in depths), max(d[1] for d in depths)) if depths else None,
    )


def _depth_extremes(image_set: ImageSet, index: int) -> tuple[float, float] | None:
    """Smallest and largest depth of an image; None without depth or foreground."""
    if image_set.depth_kind == "none":
        return None
    if image_set.depth_kind == "relative":
        depth = image_set.relative_depth(index)
    else:
        depth = image_set.depth(index)
        depth = depth[depth > 0]
    return (float(depth.min()), float(depth.max())) if depth.size else None


def pose_range(labels: Float[Tensor, "n 25"]) -> PoseRange:
    """Extremes of focal length, radius and angles over the cameras."""
    azimuth, elevation, radius = camera_angles(labels.double())

    def extremes(values: Tensor) -> tuple[float, float]:
        return float(values.min()), float(values.max())

    return PoseRange(
        focal=extremes(labels[:, [16, 20]]),
        radius=extremes(radius),
        azimuth=extremes(torch.rad2deg(azimuth)),
        elevation=extremes(torch.rad2deg(elevation)),
    )


def pose_counts(labels: Float[Tensor, "n 25"]) -> np.ndarray:
    """Number of cameras in each bin of azimuth and elevation, ``[24, 12]``."""
    azimuth, elevation, _ = camera_angles(labels.double())
    counts, _, _ = np.histogram2d(
        azimuth.numpy(),
        elevation.numpy(),
        bins=BINS,
        range=((-math.pi, math.pi), (-math.pi / 2, math.pi / 2)),
    )
    return counts.astype(int)


def pose_histogram(labels: Float[Tensor, "n 25"], file: Path) -> Path:
    """Draw `pose_counts` and the radii as a PNG; returns ``file``.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    angles, radii = figure.subplots(1, 2, width_ratios=(3, 1))
    grid = angles.imshow(
        pose_counts(labels).T,
        origin="lower",
        extent=(-180, 180, -90, 90),
        cmap="viridis",
        interpolation="nearest",
    )
    angles.set(
        xlabel="azimuth (degrees; 0 = +z, 90 = +x)",
        ylabel="elevation (degrees)",
        title=f"{len(labels)} cameras",
        xticks=range(-180, 181, 45),
        yticks=range(-90, 91, 30),
    )
    figure.colorbar(grid, ax=angles, label="cameras")
    # Radii that differ by rounding alone would otherwise fill a plot of their own noise.
    radius = camera_angles(labels)[2].double().numpy()
    middle, half = float(np.median(radius)), max(float(np.ptp(radius)), 0.1 * float(radius.max()))
    radii.hist(radius, bins=41, range=(middle - half, middle + half), color="tab:blue")
    radii.set(xlabel="distance from the origin", ylabel="cameras")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="png", dpi=110)
    except OSError as error:
        raise DataError(f"{file}: cannot write the pose histogram ({error.strerror})") from error
    return file


def _yes(present: bool) -> str:
    return "yes" if present else "no"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _range(values: tuple[float, float], digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in values)
    return low if low == high else f"{low} to {high}"
