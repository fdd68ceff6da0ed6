"""Images from words: any function that makes them, and the text-to-image pipelines of diffusers."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image

from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.hub import check_reach, first_line

INSTALL = "pip install 'nerfstudio-gan3d[diffusion]'"
KIND = "text-to-image model"
WRITTEN = "a folder that save_pretrained of a pipeline of diffusers wrote (it has model_index.json)"


@runtime_checkable
class ImageMaker(Protocol):
    """Makes an image of what a sentence says."""

    def __call__(self, prompt: str, seed: int) -> Image.Image:
        """The image; the same for the same prompt and seed."""
        ...


def from_diffusers(
    name_or_path: str,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    side: int | None = None,
) -> ImageMaker:
    """A text-to-image pipeline of diffusers: Stable Diffusion and others.

    Weights are looked for on this machine first. A GPU computes in bfloat16. The seed is that of a
    generator on the CPU, so that it means the same noise on every machine.

    Args:
        name_or_path: name on the Hugging Face hub, or a folder that ``save_pretrained`` wrote.
        steps: of the diffusion; None is the pipeline's own number.
        guidance: scale of classifier-free guidance; None is the pipeline's own.
        side: of the images in pixels; None is what the pipeline was trained for.

    Raises:
        DataError: diffusers is missing, the weights are neither here nor within reach, or the
            pipeline takes no prompt, no seed or none of these.
    """
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "height": side}
    if side is not None:
        asked["width"] = side
    given = {name: value for name, value in asked.items() if value is not None}
    return _Pipeline(name_or_path, given)


class _Pipeline:
    """An `ImageMaker`; ``settings`` are arguments of the pipeline's call."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, settings
        device = "cuda" if torch.cuda.is_available() else "cpu"
        pipeline = _load(name, {"torch_dtype": torch.bfloat16} if device == "cuda" else {})
        _check_call(name, pipeline, ["prompt", "generator", *settings])
        self._pipeline = pipeline.to(device)
        self._pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())

    def __call__(self, prompt: str, seed: int) -> Image.Image:
        """The image; raises DataError if the pipeline fails or withholds it."""
        source = torch.Generator().manual_seed(seed)
        try:
            made = self._pipeline(prompt=prompt, generator=source, **self.settings)
        # Memory that is full, sizes that a network cannot take, an image that it wants as well.
        except (RuntimeError, ValueError, TypeError) as error:
            raise DataError(
                f"{KIND} {self.name!r}: cannot make an image of {prompt!r} ({first_line(error)}); "
                "ask for another size, or give another model"
            ) from error
        flagged = getattr(made, "nsfw_content_detected", None)
        if flagged is not None and any(flagged):
            raise DataError(
                f"{KIND} {self.name!r}: its safety checker withholds the image of {prompt!r} with "
                f"seed {seed}; give another seed or prompt"
            )
        return made.images[0]


def _check_call(name: str, pipeline: Any, needed: list[str]) -> None:
    parameters = inspect.signature(pipeline.__call__).parameters
    missing = [key for key in needed if key not in parameters]
    if missing:
        raise DataError(
            f"{KIND} {name!r}: {type(pipeline).__name__} takes no {' and no '.join(missing)}; give "
            "a pipeline that does, such as StableDiffusionPipeline"
        )


def _load(name: str, precision: dict[str, torch.dtype]) -> Any:
    try:
        import diffusers
        from diffusers.utils.import_utils import is_accelerate_available
    except ImportError as error:
        raise DataError(
            f"images are made of words by the package diffusers, which cannot be imported "
            f"({first_line(error)}); run `{INSTALL}`, or give gan3d reconstruct an image"
        ) from error
    folder = Path(name).expanduser()
    target = str(folder) if folder.is_dir() else name

    def load(local: bool) -> Any:
        return diffusers.DiffusionPipeline.from_pretrained(  # pyright: ignore[reportPrivateImportUsage]
            target,
            local_files_only=local,
            # Files of other kinds are pickles, which are programs.
            use_safetensors=True,
            # Without that package it would say so for each of its parts.
            low_cpu_mem_usage=is_accelerate_available(),
            **precision,
        )

    try:
        try:
            return load(local=True)
        except OSError:
            if folder.is_dir():
                raise
            check_reach(KIND, name, f"give --pipeline {WRITTEN}")
            return load(local=False)
    except DataError:
        raise
    # What wrong and missing files raise differs from pipeline to pipeline.
    except Exception as error:
        raise DataError(
            f"{KIND} {name!r}: cannot be loaded ({first_line(error)}); give --pipeline the name of "
            f"a pipeline of diffusers on the Hugging Face hub, or {WRITTEN}"
        ) from error
