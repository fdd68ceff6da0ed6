"""LPIPS: how different two images look, by the features of a classifier."""

from __future__ import annotations

import math
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

VGG_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
"""torchvision's VGG-16, 528 MB; the name ends with the first digits of the file's SHA-256."""
SMALLEST = 16
"""Smallest side of an image, pixels: four poolings come before the last features."""
LAYERS = 5
WITHOUT = "--pipeline.model.label-losses.lpips 0"


class PerceptualDistance:
    """LPIPS version 0.1 on VGG-16 (Zhang et al. 2018, "lin").

    ``sum_l mean_p sum_c w_lc (a_lpc - b_lpc)^2`` over five layers l, pixels p and channels c, where
    a and b are the features of the two images, scaled to length 1 at each pixel. Network and
    weights w are torchmetrics'; the features' weights are torchvision's VGG-16, which are looked
    for at ``weights``, or else in the cache of torch.hub. They are fetched only if
    ``allow_download`` says so, and a fetched file must have the hash in its name.

    ``layers`` are factors of the five layers' terms; None is LPIPS itself, all ones. G3DR compares
    a new view with the photo from the front by (0, 0, 0, 1, 1), the layers that see parts of
    objects and not where exactly they lie. ``without`` is the option that trains without this loss,
    for the sentences about missing weights.

    This is no module on purpose: it has nothing to train, and the network's 59 MB belong in no
    checkpoint of what is trained with it. It follows the images to their device.

    Raises:
        ValueError: The weights are missing, unreadable, of another network, or cannot be fetched;
            or ``layers`` are not five factors of 0 or more, of which one is over 0.
    """

    def __init__(
        self,
        weights: Path | None = None,
        *,
        allow_download: bool = False,
        layers: tuple[float, ...] | None = None,
        without: str = WITHOUT,
    ) -> None:
        from torchmetrics.functional.image import lpips

        if layers is not None:
            known = len(layers) == LAYERS and all(0 <= factor < math.inf for factor in layers)
            if not known or max(layers) == 0:
                raise ValueError(
                    f"LPIPS layers {layers}: give {LAYERS} factors of 0 or more, not all of them "
                    f"0; or train without it: {without}"
                )
        self._layers = layers
        self._without = without
        path = _find_weights(weights, allow_download, without)
        # Nothing is allocated or drawn on the meta device. torchvision would otherwise draw the
        # 120 million weights of a classifier that is thrown away.
        with torch.device("meta"):
            net = lpips._NoTrainLpips(net="vgg", pnet_rand=True, pretrained=False)
        net.scaling_layer = lpips.ScalingLayer()
        file = Path(lpips.__file__).with_name("lpips_models") / "vgg.pth"
        linear = torch.load(file, map_location="cpu", weights_only=True)
        cast(nn.ModuleList, net.lins).load_state_dict(
            {name.removeprefix("lin"): value for name, value in linear.items()}, assign=True
        )
        net.net.load_state_dict(_read_features(path, net.net.state_dict(), without), assign=True)
        self._net = net

    def __call__(
        self, image: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b"]:
        """One distance for each pair of images in [-1, 1]; differentiable in both.

        Computed in the images' precision, at least single. Values outside of [-1, 1] are not
        clipped, so that their gradients remain.

        Raises:
            ValueError: The images are smaller than 16 pixels, or of different sizes.
        """
        if image.shape != target.shape:
            raise ValueError(
                f"images of shape {list(image.shape)} and {list(target.shape)} are compared; "
                "bring both to one size"
            )
        if min(image.shape[2:]) < SMALLEST:
            raise ValueError(
                f"LPIPS of images of {image.shape[3]} x {image.shape[2]} pixels: it needs at least "
                f"{SMALLEST} x {SMALLEST}; render larger images, or train without it: "
                f"{self._without}"
            )
        dtype = torch.promote_types(image.dtype, torch.float32)
        self._net.to(image.device, dtype)
        with torch.autocast(image.device.type, enabled=False):
            total, terms = self._net(image.to(dtype), target.to(dtype), True)
        if self._layers is not None:
            pairs = zip(self._layers, terms, strict=True)
            # Left out, not multiplied by zero: no gradient is computed where none is wanted.
            total = torch.stack([factor * term for factor, term in pairs if factor != 0]).sum(0)
        return total.flatten()


def _find_weights(weights: Path | None, allow_download: bool, without: str) -> Path:
    name = VGG_URL.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name if weights is None else weights
    if path.is_file():
        return path
    if not allow_download or weights is not None:
        raise ValueError(
            f"the VGG-16 weights of LPIPS are not at {path}: put {name} there (from {VGG_URL}), or "
            f"train without them: {without}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = name.rsplit("-", 1)[1].split(".")[0]
    try:
        torch.hub.download_url_to_file(VGG_URL, str(path), hash_prefix=digest, progress=False)
    except (urllib.error.URLError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{name} could not be fetched from {VGG_URL} ({error}); put it at {path}, or train "
            f"without it: {without}"
        ) from error
    return path


def _read_features(path: Path, wanted: Mapping[str, Tensor], without: str) -> dict[str, Tensor]:
    """Tensors for the names of ``wanted`` (slice, layer, tensor) of torchvision's features."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load reports damage with many kinds of errors, from RuntimeError to KeyError.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(
            f"{path}: truncated or unreadable ({reason}); fetch it anew from {VGG_URL}, or train "
            f"without it: {without}"
        ) from error
    found = {}
    for name, value in wanted.items():
        layer = f"features.{name.partition('.')[2]}"
        tensor = state.get(layer) if isinstance(state, dict) else None
        if not isinstance(tensor, Tensor) or tensor.shape != value.shape:
            raise ValueError(
                f"{path}: not the weights of torchvision's VGG-16, whose {layer} has the shape "
                f"{list(value.shape)}; fetch it from {VGG_URL}, or train without it: {without}"
            )
        # A copy, so that the classifier's 495 MB are released with the file's content.
        found[name] = tensor.float().clone(memory_format=torch.contiguous_format)
    return found
