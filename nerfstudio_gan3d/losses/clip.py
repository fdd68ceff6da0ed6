"""How far apart CLIP sees two images: a distance of what is shown, not of pixels."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WITHOUT = "--pipeline.model.losses.clip 0"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# Only the image tower is used. A text tower has to be there, so it is as small as can be.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


class ClipDistance:
    """``mean_k |e_k(a) - e_k(b)|`` of the image embeddings e of CLIP (Radford et al. 2021).

    As in G3DR (arXiv 2403.00939): images are mapped to [0, 1], resized to the model's size
    (bilinear, no antialiasing, pixel centres), normalised by CLIP's mean and deviation, and the
    embeddings are compared as they are, not scaled to unit length. No crop, no augmentation, no
    text. G3DR runs CLIP in half precision on a GPU; here it is single at least.

    ``model`` and ``tag`` are open_clip's names; the tag decides about the activation (OpenAI's
    models have QuickGELU), mean and deviation. The weights are read from ``weights`` (a state
    dict, a safetensors file, a checkpoint of open_clip or OpenAI's archive, of which the image
    tower alone is kept), or else looked for in the caches of open_clip and Hugging Face. They are
    fetched only if ``allow_download`` says so. A model of one's own, which has no tags, needs
    ``weights``.

    This is no module on purpose: it has nothing to train, and CLIP's 350 MB belong in no checkpoint
    of what is trained with it. It follows the images to their device.

    Raises:
        ValueError: open_clip is not installed, or does not know the model or tag; or the weights
            are missing, unreadable, of another model, or cannot be fetched.
    """

    def __init__(
        self,
        model: str = "ViT-B-16",
        tag: str = "openai",
        weights: Path | None = None,
        *,
        allow_download: bool = False,
        without: str = WITHOUT,
    ) -> None:
        library = _open_clip(without)
        config = library.get_model_config(model)
        if config is None:
            raise ValueError(
                f"CLIP model {model}: open_clip does not know it; name one of "
                f"open_clip.list_models(), such as ViT-B-16, or train without it: {without}"
            )
        vision: dict[str, Any] = config["vision_cfg"]
        if "timm_model_name" in vision or vision.get("output_tokens", False):
            raise ValueError(
                f"CLIP model {model}: its image tower is none of CLIP's own; name a ViT or ResNet "
                f"such as ViT-B-16, or train without it: {without}"
            )
        tags = library.list_pretrained_tags_by_model(model)
        if tags and not library.is_pretrained_cfg(model, tag):
            raise ValueError(
                f"CLIP tag {tag}: open_clip knows no such weights of {model}; name one of "
                f"{', '.join(tags)}, or train without it: {without}"
            )
        path = _find_weights(library, model, tag, weights, allow_download, without)
        published: dict[str, Any] = library.get_pretrained_cfg(model, tag) or {}
        # Nothing is allocated or drawn on the meta device.
        with torch.device("meta"):
            net: nn.Module = library.CLIP(
                embed_dim=config["embed_dim"],
                vision_cfg=vision,
                text_cfg=_NO_TEXT,
                quick_gelu=published.get("quick_gelu", config.get("quick_gelu", False)),
            ).visual
        net.load_state_dict(_read_tower(path, net.state_dict(), model, without), assign=True)
        self._net = net.requires_grad_(False).eval()
        size = vision.get("image_size", 224)
        self._size = (size, size) if isinstance(size, int) else tuple(size)
        self._mean = torch.tensor(published.get("mean", MEAN)).view(3, 1, 1)
        self._std = torch.tensor(published.get("std", STD)).view(3, 1, 1)

    def __call__(
        self, image: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h2 w2"]
    ) -> Float[Tensor, "b"]:
        """One distance for each pair of images in [-1, 1]; differentiable in both.

        Computed in the images' precision, at least single. Values outside of [-1, 1] are not
        clipped, so that their gradients remain.
        """
        dtype = torch.promote_types(image.dtype, torch.float32)
        self._net.to(image.device, dtype)
        with torch.autocast(image.device.type, enabled=False):
            return (self._embed(image.to(dtype)) - self._embed(target.to(dtype))).abs().mean(-1)

    def _embed(self, image: Tensor) -> Tensor:
        image = F.interpolate(
            (image + 1) / 2, self._size, mode="bilinear", align_corners=False, antialias=False
        )
        return self._net((image - self._mean.to(image)) / self._std.to(image))


def _open_clip(without: str) -> ModuleType:
    try:
        # Imported here, as it takes seconds and only this loss needs it.
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise ValueError(
            "the CLIP loss needs the package open-clip-torch; run `pip install open-clip-torch`, "
            f"or train without it: {without}"
        ) from error


def _find_weights(
    library: ModuleType,
    model: str,
    tag: str,
    weights: Path | None,
    allow_download: bool,
    without: str,
) -> Path:
    name = f"the weights of CLIP {model} ({tag})"
    if weights is not None:
        if weights.is_file():
            return weights
        raise ValueError(
            f"{name} are not at {weights}: put them there, or train without them: {without}"
        )
    published: dict[str, Any] = library.get_pretrained_cfg(model, tag) or {}
    url, repository = published.get("url", ""), published.get("hf_hub", "").strip("/")
    if not url and not repository:
        raise ValueError(
            f"{name} have no public place that open_clip knows: name their file, or train without "
            f"them: {without}"
        )
    # Where open_clip itself puts what it fetches.
    place = Path("~/.cache/clip").expanduser() / url.rpartition("/")[2]
    cached = place if url and place.is_file() else _in_hub_cache(repository)
    if cached is not None:
        return cached
    source = url or f"https://huggingface.co/{repository}"
    where = str(place) if url else f"Hugging Face's cache ({repository})"
    if not allow_download:
        raise ValueError(
            f"{name} are not at {where}: put them there (from {source}), name the file of them, or "
            f"train without them: {without}"
        )
    try:
        return Path(library.download_pretrained(published))
    except Exception as error:
        # Two libraries report what a network can do wrong with many kinds of errors.
        raise ValueError(
            f"{name} could not be fetched from {source} ({_reason(error)}); name a file of them, "
            f"or train without them: {without}"
        ) from error


def _in_hub_cache(repository: str) -> Path | None:
    """open_clip's file of a Hugging Face repository, if it was fetched before."""
    if not repository:
        return None
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        return None
    for file in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        # Besides a path and None there is a mark for a file known to be missing.
        found = hub.try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def _read_state(path: Path) -> Any:
    if path.suffix == ".safetensors":
        # Every nerfstudio command imports this module, and few of them read such a file.
        from safetensors.torch import load_file

        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if scripted:
            # OpenAI's own files: the network as TorchScript, of which no method is called.
            return torch.jit.load(path, map_location="cpu").state_dict()
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_tower(
    path: Path, wanted: Mapping[str, Tensor], model: str, without: str
) -> dict[str, Tensor]:
    """Tensors of the image tower, by the names of ``wanted``."""
    try:
        state = _read_state(path)
    except Exception as error:
        # torch.load reports damage with many kinds of errors, from RuntimeError to KeyError.
        raise ValueError(
            f"{path}: truncated or unreadable ({_reason(error)}); fetch it anew, or train without "
            f"it: {without}"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    found = {}
    for name, value in wanted.items():
        tensor = None
        if isinstance(state, dict):
            # Checkpoints of distributed training put "module." before each name.
            tensor = state.get(f"visual.{name}", state.get(f"module.visual.{name}"))
        if not isinstance(tensor, Tensor) or tensor.shape != value.shape:
            raise ValueError(
                f"{path}: not the weights of CLIP {model}, whose visual.{name} has the shape "
                f"{list(value.shape)}; name a file of {model}, or train without it: {without}"
            )
        # Copies, so that the text tower is released with the file's content.
        found[name] = tensor.detach().to(value.dtype, copy=True)
    return found
