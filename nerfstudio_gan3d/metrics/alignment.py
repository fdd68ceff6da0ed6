"""Does a generated image show the object from the camera it was rendered with?

Angles are those of the object world: y up, azimuth 0 on +z (the front), +90 degrees on +x.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def camera_angles(
    labels: Float[Tensor, "b d"], pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Azimuth and elevation in radians of the camera positions of 25-float labels.

    A label is a row-major OpenCV cam2world 4x4 followed by normalised 3x3 intrinsics, so the
    position is at 3, 7, 11. azimuth = atan2(x, z) in (-pi, pi], elevation = asin(y / radius), both
    about `pivot` (world units).

    Raises:
        ValueError: a label does not have 25 finite numbers, or a camera sits on the pivot.
    """
    if labels.ndim != 2 or labels.shape[1] != 25:
        raise ValueError(f"camera labels have shape {tuple(labels.shape)}; [B, 25] is needed")
    if not torch.isfinite(labels).all():
        raise ValueError("a camera label holds NaN or an infinite number")
    position = labels[:, [3, 7, 11]].double() - torch.tensor(
        pivot, dtype=torch.float64, device=labels.device
    )
    radius = position.norm(dim=-1)
    if bool((radius < 1e-9).any()):
        raise ValueError(
            f"a camera sits on the pivot {pivot}, where no direction is defined; "
            "pass the point that the cameras look at"
        )
    azimuth = torch.atan2(position[:, 0], position[:, 2])
    elevation = torch.asin((position[:, 1] / radius).clamp(-1, 1))
    return azimuth, elevation


def wrap_degrees(angle: np.ndarray) -> np.ndarray:
    """The same angles in [-180, 180)."""
    return (angle + 180.0) % 360.0 - 180.0


class PoseErrors:
    """Collects the angles that an evaluator reads from images and those of the rendering cameras.

    The rendering pose must be drawn independently of the pose that the generator was conditioned
    on: a generator that sees its camera can paint the pose instead of turning the object.
    """

    def __init__(self, pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        self._pivot = pivot
        self._rows: list[np.ndarray] = []

    def update(
        self,
        azimuth_sincos: Float[Tensor, "b 2"],
        elevation: Float[Tensor, "b 1"],
        labels: Float[Tensor, "b d"],
    ) -> None:
        """Adds a batch: (sin, cos) of the read azimuth, read elevation in radians, camera labels.

        Raises:
            ValueError: see `camera_angles`; or the evaluator's angles hold NaN.
        """
        azimuth, camera_elevation = camera_angles(labels, self._pivot)
        read = torch.atan2(azimuth_sincos[:, 0], azimuth_sincos[:, 1])
        columns = (read, elevation[:, 0], azimuth, camera_elevation)
        rows = np.degrees(torch.stack([c.detach().double().cpu() for c in columns], dim=1).numpy())
        if not np.isfinite(rows).all():
            raise ValueError("the evaluator's azimuth or elevation is NaN or infinite")
        self._rows.append(rows)

    def figures(self, seed: int) -> dict[str, float]:
        """Errors in degrees and shares in percent; empty when nothing was added.

        `azimuth_offset_deg` is the circular mean of the signed error, a constant turn of the
        generator's frame; it means nothing when the errors are near chance. The `_control_` figures
        compare every image with the camera of another one: a generator whose images ignore the
        camera scores the same on both. `seed` draws that pairing; it needs two images or more.
        """
        if not self._rows:
            return {}
        read, read_elevation, azimuth, elevation = np.concatenate(self._rows).T
        signed = wrap_degrees(read - azimuth)
        error = np.abs(signed)
        turned = np.radians(signed)
        offset = math.degrees(math.atan2(np.sin(turned).mean(), np.cos(turned).mean()))
        figures = {
            "azimuth_error_median_deg": np.median(error),
            "azimuth_within_15_percent": 100 * np.mean(error < 15),
            "azimuth_over_90_percent": 100 * np.mean(error > 90),
            "azimuth_flip_over_135_percent": 100 * np.mean(error > 135),
            "azimuth_offset_deg": offset,
            "azimuth_error_median_after_offset_deg": np.median(
                np.abs(wrap_degrees(signed - offset))
            ),
            "elevation_error_median_deg": np.median(np.abs(read_elevation - elevation)),
        }
        if len(read) > 1:
            other = shuffled_partners(len(read), seed)
            control = np.abs(wrap_degrees(read - azimuth[other]))
            figures |= {
                "azimuth_control_median_deg": np.median(control),
                "azimuth_control_within_15_percent": 100 * np.mean(control < 15),
                "elevation_control_median_deg": np.median(
                    np.abs(read_elevation - elevation[other])
                ),
            }
        return {name: float(value) for name, value in figures.items()}


def shuffled_partners(count: int, seed: int) -> np.ndarray:
    """For each of `count` items the index of another one, at random and never itself.

    The items are put on a random circle and each gets its neighbour, so no item keeps its own, as
    about one item does under a plain permutation. `count` must be at least 2.
    """
    circle = np.random.default_rng(seed).permutation(count)
    partners = np.empty(count, dtype=np.int64)
    partners[circle] = np.roll(circle, 1)
    return partners
