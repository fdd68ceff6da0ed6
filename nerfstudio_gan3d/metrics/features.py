"""Networks that turn images into the feature vectors which distribution distances compare.

A distance means something only together with the feature space it was measured in, so every
extractor has a `name` that identifies its network down to the weights.
"""

import hashlib
import pickle
import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EVALUATOR_OUTPUTS = (
    "features",
    "azimuth_sincos",
    "elevation",
    "part_logits",
    "mask_logit",
    "depth",
)
"""What an evaluator returns in the order that is assumed for a tuple of six."""
OUTPUT_NAMES = (*EVALUATOR_OUTPUTS, "class_logits")
"""Names of all that an evaluator can return."""


@dataclass(frozen=True)
class Extraction:
    """What an extractor reads from B images. Everything but the features may be missing."""

    features: Float[Tensor, "b f"]
    azimuth_sincos: Float[Tensor, "b 2"] | None = None
    """Sine and cosine of the camera azimuth; 0 is +z of the object world, +90 degrees +x."""
    elevation: Float[Tensor, "b 1"] | None = None
    """Camera elevation in radians."""
    part_logits: Float[Tensor, "b c h2 w2"] | None = None
    mask_logit: Float[Tensor, "b 1 h w"] | None = None
    """Over 0 is foreground."""
    depth: Float[Tensor, "b 1 h w"] | None = None
    """z-depth in world units."""
    class_logits: Float[Tensor, "b k"] | None = None
    """Of the classes that the network tells apart; their softmax makes an inception score."""


@runtime_checkable
class FeatureExtractor(Protocol):
    """An image network with a name. Images are float RGB in [-1, 1] of any square size."""

    @property
    def name(self) -> str: ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Which fields of `Extraction` are given."""
        ...

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Extraction: ...


def file_digest(path: Path) -> str:
    """First 8 hexadecimal digits of the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:8]


def to_eight_bit(images: Float[Tensor, "b 3 h w"]) -> Tensor:
    """[-1, 1] to uint8 0..255, clipped and rounded."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def resize_square(images: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Box mean when shrinking, bilinear when growing, clipped to [-1, 1].

    Raises:
        ValueError: the images are not square.
    """
    height, width = images.shape[-2:]
    if height != width:
        raise ValueError(f"images are {width}x{height}; evaluation needs square images")
    if width > size:
        images = F.adaptive_avg_pool2d(images, size)
    elif width < size:
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    return images.clamp(-1, 1)


class TorchScriptExtractor:
    """Any TorchScript file that maps float [B, 3, S, S] in [-1, 1] to features [B, F].

    It may also return a tuple whose entries `outputs` names (see `OUTPUT_NAMES`); a tuple of
    six without names is read in that order. The file is tried on two grey images when it is
    opened, so that a file that does not fit is refused before anything is generated.

    TorchScript is a program: open files of people you trust only.

    Raises:
        ValueError: no such file, not TorchScript, unknown or missing names, or outputs whose shape
            is not that of their name.
    """

    def __init__(
        self,
        path: str | Path,
        outputs: Sequence[str] = (),
        *,
        input_size: int = 64,
        device: str | torch.device = "cpu",
    ) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise ValueError(
                f"evaluator: there is no file {self._path}; give a TorchScript file, or set "
                "features to none"
            )
        unknown = [n for n in outputs if n not in OUTPUT_NAMES]
        if unknown or len(set(outputs)) != len(outputs) or (outputs and "features" not in outputs):
            raise ValueError(
                f"evaluator_outputs is {', '.join(outputs)}; name each output once, features among "
                f"them, out of {', '.join(OUTPUT_NAMES)}"
            )
        if input_size < 1:
            raise ValueError(f"evaluator_size is {input_size}; give the input size in pixels")
        self._device = torch.device(device)
        self._size = input_size
        try:
            self._net = torch.jit.load(str(self._path), map_location=self._device).eval()
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"evaluator: {self._path} does not open as TorchScript "
                f"({str(error).strip().splitlines()[0]}); make one with torch.jit.trace and .save"
            ) from error
        self._outputs = tuple(outputs)
        self.name = f"torchscript:{self._path.name}@sha256:{file_digest(self._path)}"
        self._try_out()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tuple's entries, in order."""
        return self._outputs

    def _try_out(self) -> None:
        try:
            result = self._run(torch.zeros(2, 3, self._size, self._size))
        except RuntimeError as error:
            raise ValueError(
                f"evaluator: {self._path} fails on images of {self._size} pixels "
                f"({str(error).strip().splitlines()[-1]}); set evaluator_size to the size that it "
                "was traced for"
            ) from error
        if not self._outputs:
            if len(result) == 1:
                self._outputs = ("features",)
            elif len(result) == len(EVALUATOR_OUTPUTS):
                self._outputs = EVALUATOR_OUTPUTS
        if len(result) != len(self._outputs):
            raise ValueError(
                f"evaluator: {self._path} returns {len(result)} output(s) and evaluator_outputs "
                f"names {len(self._outputs)}; name every output in order, out of "
                f"{', '.join(OUTPUT_NAMES)}"
            )
        self._check_shapes(result, batch=2)

    def _run(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            result = self._net(images.to(self._device, torch.float32))
        result = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        if not result or not all(isinstance(r, Tensor) for r in result):
            raise ValueError(
                f"evaluator: {self._path} must return a tensor or a tuple of tensors; it returns "
                f"({', '.join(type(r).__name__ for r in result)})"
            )
        return result

    def _check_shapes(self, result: tuple[Tensor, ...], batch: int) -> None:
        wanted = {
            "features": (batch, None),
            "azimuth_sincos": (batch, 2),
            "elevation": (batch, 1),
            "part_logits": (batch, None, None, None),
            "mask_logit": (batch, 1, None, None),
            "depth": (batch, 1, None, None),
            "class_logits": (batch, None),
        }
        for name, value in zip(self._outputs, result, strict=True):
            want = wanted[name]
            if len(want) != value.ndim or any(
                w is not None and w != s for w, s in zip(want, value.shape, strict=True)
            ):
                shape = ", ".join("any" if w is None else str(w) for w in want)
                raise ValueError(
                    f"evaluator: {self._path} returns {name} with shape {tuple(value.shape)} for "
                    f"{batch} images; [{shape}] is needed: check the order in evaluator_outputs"
                )
        sizes = {
            tuple(v.shape[-2:])
            for n, v in zip(self._outputs, result, strict=True)
            if n in ("mask_logit", "depth")
        }
        if len(sizes) > 1:
            raise ValueError(
                f"evaluator: {self._path} returns mask_logit and depth of different sizes "
                f"{sorted(sizes)}; both must share one"
            )

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Extraction:
        """Resizes to the input size and runs the network."""
        result = self._run(resize_square(images.float(), self._size))
        self._check_shapes(result, batch=len(images))
        return Extraction(**dict(zip(self._outputs, result, strict=True)))


INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


class InceptionExtractor:
    """The 2048 pooled features of the Inception-v3 of 2015 that FID is defined on, and its logits.

    The 1008 logits are without the last layer's bias, as in the inception score's own code.

    The network, its TensorFlow-like resize to 299 pixels and its weights are torch-fidelity's. The
    weights are looked for at `weights`, or else in the cache of torch.hub. They are fetched only
    if `allow_download` says so, and a fetched file must have the hash in its name.

    Raises:
        ValueError: the weights are missing, unreadable, of another network, or cannot be fetched;
            or torch-fidelity is not installed.
    """

    outputs: tuple[str, ...] = ("features", "class_logits")

    def __init__(
        self,
        weights: Path | None = None,
        *,
        allow_download: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError(
                "features is inception, which needs the package torch-fidelity; run "
                "`pip install torch-fidelity` or set features to none"
            ) from error
        path = self._find_weights(weights, allow_download)
        try:
            # torch-fidelity unpickles without restrictions. A file that first passes the
            # restricted reader holds tensors only and is safe there as well.
            torch.load(path, map_location="cpu", weights_only=True)
            net = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=str(path),
            )
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, TypeError) as error:
            raise ValueError(
                f"inception_weights: {path} does not hold the weights of the 2015 Inception-v3 "
                f"({type(error).__name__}); fetch {INCEPTION_URL} anew or set features to none"
            ) from error
        self._device = torch.device(device)
        self._net = net.to(self._device).eval()
        digest = file_digest(path)
        # Only the published weights make a FID that can be set beside others.
        published = INCEPTION_URL.rsplit("-", 1)[1].split(".")[0]
        self.name = "inception-v3-fid"
        if digest != published:
            self.name = f"inception-v3:{path.name}@sha256:{digest}"

    @staticmethod
    def _find_weights(weights: Path | None, allow_download: bool) -> Path:
        name = INCEPTION_URL.rsplit("/", 1)[1]
        path = Path(torch.hub.get_dir()) / "checkpoints" / name if weights is None else weights
        if path.is_file():
            return path
        if not allow_download or weights is not None:
            raise ValueError(
                f"the Inception weights are not at {path}: put {name} there (from {INCEPTION_URL}),"
                " have it fetched (allow_download, without inception_weights), or set features to "
                "none or torchscript to do without"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        expected = name.rsplit("-", 1)[1].split(".")[0]
        try:
            torch.hub.download_url_to_file(
                INCEPTION_URL, str(path), hash_prefix=expected, progress=False
            )
        except (urllib.error.URLError, RuntimeError, OSError) as error:
            raise ValueError(
                f"{name} could not be fetched from {INCEPTION_URL} ({error}); put it at {path}, or "
                "set features to none"
            ) from error
        return path

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Extraction:
        """Quantises to 8 bits, as FID is defined on image files, and runs the network."""
        with torch.no_grad():
            features, logits = self._net(to_eight_bit(images).to(self._device))
        return Extraction(features=features, class_logits=logits)
