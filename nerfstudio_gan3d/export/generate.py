"""The command `gan3d generate`: words to an image, its depth, and what is made of both."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from nerfstudio_gan3d.data.decode import RELATIVE_SCALE
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.layout import DEPTH_ENDING
from nerfstudio_gan3d.data.prepare import DepthFunction, ForegroundFunction, prepare_photo
from nerfstudio_gan3d.data.prepare_options import BackgroundColor, Crop
from nerfstudio_gan3d.data.text_to_image import ImageMaker, from_diffusers
from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.inputs import image_settings
from nerfstudio_gan3d.export.reconstruct import write_scene
from nerfstudio_gan3d.export.reconstruct_options import GenerateOptions
from nerfstudio_gan3d.export.record import command_line
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.models.g3dr import G3drModelConfig
from nerfstudio_gan3d.pretrained import check_empty
from nerfstudio_gan3d.run import load_run
from nerfstudio_gan3d.viewer.image_files import DepthMap, Photo, make_view, read_photo

IMAGE = "image"
"""Name of the prepared image's file; its depth lies beside it."""


@dataclass(frozen=True, eq=False)
class Imagined:
    """An image of words, and what a Scene is made of."""

    picture: UInt8[np.ndarray, "h w 3"]
    """As it was made, RGB."""
    image: UInt8[np.ndarray, "s s 3"]
    """Cropped to a square of the model's size."""
    depth: UInt16[np.ndarray, "s s"]
    """Of the square, as a depth file holds it: 0 is near."""
    view: ImageView
    """Both, as a `SceneRequest` takes them."""


def imagine(
    prompt: str,
    seed: int,
    maker: ImageMaker,
    depth: DepthFunction,
    settings: G3drModelConfig,
    *,
    foreground: ForegroundFunction | None = None,
    crop: Crop = "centre",
    background: BackgroundColor = "white",
) -> Imagined:
    """An image of words with its depth, prepared as `gan3d prepare` does it.

    Args:
        prompt: what the image shows.
        seed: of the image.
        maker: any function that makes one, such as `from_diffusers` gives.
        depth: distance on any scale for an RGB image, such as a `DepthEstimator`.
        settings: of the model that a Scene is made with.
        foreground: coverage for an RGB image, such as a `ForegroundEstimator`; None keeps the
            background.
        crop: "centre", or "subject", which needs ``foreground``.
        background: colour in the place of a removed background.

    Raises:
        DataError: the maker gave no image, no foreground was found in it, or it has one depth
            everywhere.
    """
    where = f"the image of {prompt!r} with seed {seed}"
    made = maker(prompt, seed)
    if not isinstance(made, Image.Image):
        raise DataError(f"{where} is a {type(made).__name__}; the maker has to return a PIL image")
    file = BytesIO()
    try:
        made.save(file, "PNG")
    except OSError as error:
        raise DataError(
            f"{where} has the mode {made.mode}; the maker has to return an RGB image"
        ) from error
    # Read as any photograph is: transparency lies on white.
    picture = read_photo(file.getvalue(), where).pixels
    side = settings.image_resolution
    image, values = prepare_photo(picture, side, depth, foreground, crop, background, where)
    relative = values.astype(np.float32) / np.float32(RELATIVE_SCALE)
    view = make_view(Photo(where, image), DepthMap(where, relative), side, settings.depth_range)
    return Imagined(picture, image, values, view)


def generate(
    options: GenerateOptions,
    *,
    maker: ImageMaker | None = None,
    depth: DepthFunction | None = None,
    foreground: ForegroundFunction | None = None,
) -> str:
    """Makes a Scene of words and writes what options ask for; returns sentences about it.

    Args:
        options: those of the command.
        maker: makes the image; None is the pipeline that options name.
        depth: estimates its depth; None is the network that options name.
        foreground: finds its foreground, where options ask for that; None as for depth.

    Raises:
        ValueError: If the run is not of a method that takes images, a network is not on this
            machine, the image cannot be used, or a file cannot be written.
    """
    options.validate()
    run = load_run(options.load_config)
    settings = image_settings(run)
    if options.run:
        check_empty(options.output / "run")
    # What is missing is told before the image is made, which can take minutes.
    if depth is None or (options.remove_background and foreground is None):
        from nerfstudio_gan3d.data.estimators import DepthEstimator, ForegroundEstimator

        depth = depth or DepthEstimator(options.depth_model, options.depth_kind)
        if options.remove_background and foreground is None:
            foreground = ForegroundEstimator(options.background_model)
    if maker is None:
        maker = from_diffusers(
            options.pipeline,
            steps=options.steps,
            guidance=options.guidance,
            side=options.image_size,
        )
    made = imagine(
        options.words,
        options.seed,
        maker,
        depth,
        settings,
        foreground=foreground if options.remove_background else None,
        crop=options.crop,
        background=options.background,
    )
    pictures = {
        "generated.png": made.picture,
        f"{IMAGE}.png": made.image,
        f"{IMAGE}{DEPTH_ENDING}": made.depth,
    }
    for name, pixels in pictures.items():
        with replaced(options.output / name) as temporary:
            Image.fromarray(pixels).save(temporary)
    made_of = {
        "command": command_line("generate", options),
        "prompt": options.words,
        "seed": options.seed,
        "pipeline": options.pipeline,
        "depth": f"estimated by {options.depth_model}",
    }
    told = write_scene(run, options, made.view, made_of)
    return f"{options.output / 'generated.png'}: {options.words}\n{told}"
