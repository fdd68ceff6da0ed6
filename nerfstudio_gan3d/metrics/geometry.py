"""What renders say about shape: silhouettes, depth and opacity, one batch at a time.

Alpha is the accumulated opacity of the foreground alone, 0..1. Depth is the foreground's expected
z-depth (along the optical axis, world units); it is read only where alpha says foreground, and a
depth of 0 or less means that there is none.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def check_map(name: str, values: Tensor, batch: int) -> None:
    """Raises ValueError unless `values` is [batch, 1, H, W] with finite numbers."""
    if values.ndim != 4 or values.shape[0] != batch or values.shape[1] != 1:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}; [{batch}, 1, H, W] is needed for {batch} "
            "images"
        )
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values")


def check_alpha(alpha: Tensor, batch: int) -> Tensor:
    """`alpha` in 0..1; rounding just outside is clipped.

    Raises:
        ValueError: wrong shape, NaN, or values outside 0..1, as of a mask in 0..255.
    """
    check_map("alpha", alpha, batch)
    low, high = float(alpha.min()), float(alpha.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(f"alpha lies in {low:.3g}..{high:.3g}; opacity must be in 0..1")
    return alpha.clamp(0, 1)


def resize_map(
    values: Float[Tensor, "b c h w"], size: tuple[int, int]
) -> Float[Tensor, "b c h2 w2"]:
    """Box mean when shrinking, bilinear when growing."""
    if tuple(values.shape[-2:]) == size:
        return values
    if values.shape[-1] > size[1]:
        return F.adaptive_avg_pool2d(values, size)
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


def mask_iou(
    mask_logit: Float[Tensor, "b 1 h w"], alpha: Float[Tensor, "b 1 h2 w2"]
) -> Float[Tensor, " b"]:
    """Intersection over union per image of {mask_logit > 0} and {alpha > 0.5}.

    `alpha` is brought to the size of the mask first. Two empty masks agree and count as 1; the
    mean coverage shows a generator that makes nothing.
    """
    rendered = resize_map(alpha.to(mask_logit), (mask_logit.shape[-2], mask_logit.shape[-1])) > 0.5
    seen = mask_logit > 0
    intersection = (rendered & seen).sum(dim=(1, 2, 3)).float()
    union = (rendered | seen).sum(dim=(1, 2, 3)).float()
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones_like(union))


def foreground_depth(
    alpha: Float[Tensor, "b 1 h w"],
    depth: Float[Tensor, "b 1 h w"],
    size: tuple[int, int],
) -> tuple[Float[Tensor, "b 1 h2 w2"], Bool[Tensor, "b 1 h2 w2"]]:
    """Depth at another size, and where it is valid.

    Shrinking averages the depths in a cell with alpha as weight, so that what lies behind an edge
    does not leak into the object; growing takes the nearest pixel. Valid is where the resized alpha
    is over 0.5 and the cell has a depth.
    """
    weight = alpha * (depth > 0)
    depth = torch.where(weight > 0, depth, torch.zeros_like(depth))
    resized_alpha = resize_map(alpha, size)
    if depth.shape[-1] > size[1]:
        pooled = F.adaptive_avg_pool2d(weight, size)
        depth = F.adaptive_avg_pool2d(depth * weight, size) / pooled.clamp(min=1e-8)
        return depth, (resized_alpha > 0.5) & (pooled > 1e-8)
    depth = F.interpolate(depth, size=size, mode="nearest-exact")
    return depth, (resized_alpha > 0.5) & (depth > 0)


def depth_abs_rel(
    evaluator_depth: Float[Tensor, "b 1 h w"],
    mask_logit: Float[Tensor, "b 1 h w"],
    alpha: Float[Tensor, "b 1 h2 w2"],
    depth: Float[Tensor, "b 1 h2 w2"],
) -> Float[Tensor, " b"]:
    """Mean of |evaluator - rendered| / rendered per image, on pixels that both call foreground.

    NaN for an image without such a pixel.
    """
    size = (mask_logit.shape[-2], mask_logit.shape[-1])
    rendered, valid = foreground_depth(alpha.to(mask_logit), depth.to(mask_logit), size)
    common = valid & (mask_logit > 0)
    error = (evaluator_depth - rendered).abs() / rendered.clamp(min=1e-8)
    total = torch.where(common, error, torch.zeros_like(error)).sum(dim=(1, 2, 3))
    return total / common.sum(dim=(1, 2, 3))


class Agreement:
    """Rendered silhouettes and depths against those that an evaluator reads from the images.

    The control compares each image with the render before it in the stream, also across batches;
    it says what unrelated shapes score and supposes that the images come in random order.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._last: tuple[Tensor, Tensor | None] | None = None

    def update(
        self,
        mask_logit: Float[Tensor, "b 1 h w"],
        evaluator_depth: Float[Tensor, "b 1 h w"] | None,
        alpha: Float[Tensor, "b 1 h2 w2"],
        depth: Float[Tensor, "b 1 h2 w2"] | None,
    ) -> None:
        """Adds a batch. Depths may be missing; then only the silhouettes are compared."""
        if len(mask_logit) == 0:
            return
        alpha = alpha.to(mask_logit)
        depth = None if depth is None else depth.to(mask_logit)
        self._compare("", mask_logit, evaluator_depth, alpha, depth)
        other_alpha, other_depth = alpha[:-1], None if depth is None else depth[:-1]
        start = 1
        if self._last is not None:
            start = 0
            other_alpha = torch.cat([self._last[0], other_alpha])
            if other_depth is not None and self._last[1] is not None:
                other_depth = torch.cat([self._last[1], other_depth])
        if len(other_alpha) > 0:
            seen_depth = None if evaluator_depth is None else evaluator_depth[start:]
            self._compare("_control", mask_logit[start:], seen_depth, other_alpha, other_depth)
        self._last = (alpha[-1:], None if depth is None else depth[-1:])

    def _compare(
        self,
        suffix: str,
        mask_logit: Tensor,
        evaluator_depth: Tensor | None,
        alpha: Tensor,
        depth: Tensor | None,
    ) -> None:
        self._values.setdefault(f"mask_iou{suffix}", []).append(mask_iou(mask_logit, alpha).cpu())
        if depth is not None and evaluator_depth is not None:
            error = depth_abs_rel(evaluator_depth, mask_logit, alpha, depth)
            self._values.setdefault(f"depth_abs_rel{suffix}", []).append(error.cpu())

    def figures(self) -> dict[str, float]:
        """Means over images: `mask_iou`, `depth_abs_rel`, and both with `_control`.

        `depth_common_percent` is the share of images with common foreground; the others have no
        depth error. A figure without any image is left out.
        """
        figures: dict[str, float] = {}
        for name, parts in self._values.items():
            values = torch.cat(parts).double()
            known = torch.isfinite(values)
            if name == "depth_abs_rel":
                figures["depth_common_percent"] = 100 * float(known.double().mean())
            if bool(known.any()):
                figures[name] = float(values[known].mean())
        return figures


class ShapeStatistics:
    """Distribution of silhouettes and depths over images, comparable with a data set's own.

    These need no network. `coverage` is the mean alpha of an image; `foreground_depth` the mean
    depth of its foreground; `relief` the standard deviation of depth inside its foreground, near
    zero for a billboard; `opacity_ambiguity` is mean min(alpha, 1 - alpha), zero for opaque or
    empty pixels only.
    """

    def __init__(self) -> None:
        self._coverage: list[Tensor] = []
        self._ambiguity: list[Tensor] = []
        self._depth: list[Tensor] = []
        self._relief: list[Tensor] = []

    def update(
        self, alpha: Float[Tensor, "b 1 h w"], depth: Float[Tensor, "b 1 h w"] | None
    ) -> None:
        """Adds a batch; `depth` must have the size of `alpha`, or be None."""
        alpha = alpha.detach().cpu().double()
        self._coverage.append(alpha.mean(dim=(1, 2, 3)))
        self._ambiguity.append(torch.minimum(alpha, 1 - alpha).mean(dim=(1, 2, 3)))
        if depth is None:
            return
        depth = depth.to(alpha)
        inside = (alpha > 0.5) & (depth > 0)
        count = inside.sum(dim=(1, 2, 3))
        kept = torch.where(inside, depth, torch.zeros_like(depth))
        mean = kept.sum(dim=(1, 2, 3)) / count.clamp(min=1)
        centred = torch.where(inside, depth - mean[:, None, None, None], torch.zeros_like(depth))
        relief = (centred.square().sum(dim=(1, 2, 3)) / count.clamp(min=1)).sqrt()
        self._depth.append(mean[count > 0])
        self._relief.append(relief[count > 0])

    def figures(self, prefix: str = "") -> dict[str, float]:
        """Means over images, and standard deviations between images; names get `prefix`."""
        figures: dict[str, float] = {}
        if self._coverage:
            coverage = torch.cat(self._coverage)
            figures[f"{prefix}coverage_mean"] = float(coverage.mean())
            figures[f"{prefix}coverage_std"] = float(coverage.std(correction=0))
            figures[f"{prefix}opacity_ambiguity"] = float(torch.cat(self._ambiguity).mean())
        if self._depth and torch.cat(self._depth).numel() > 0:
            depth = torch.cat(self._depth)
            figures[f"{prefix}foreground_depth_mean"] = float(depth.mean())
            figures[f"{prefix}foreground_depth_std"] = float(depth.std(correction=0))
            figures[f"{prefix}foreground_depth_relief"] = float(torch.cat(self._relief).mean())
        return figures
