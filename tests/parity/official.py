"""Generators and discriminators with the weights that a fixture describes."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nerfstudio_gan3d.models.config import (
    BackgroundConfig,
    FieldConfig,
    LabelConfig,
    LatentConfig,
    SuperResolutionConfig,
    TriPlaneConfig,
)
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.networks.convolution import fir_filter
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.snapshots.official_names import generator_state
from tests.parity.fill import fill_value

# Side of the feature image that each official super-resolution stage takes.
INPUT_SIZE = {64: 32, 128: 64, 256: 128, 512: 128}


def fixtures_with(*arrays: str, models: tuple[str, ...] = ("eg3d", "ballgan")) -> list[str]:
    """Names of the fixtures of these models that hold all of these arrays."""
    folder = Path(os.environ.get("GAN3D_FIXTURES", Path(__file__).parent))
    found = []
    for path in sorted(folder.glob("*.npz")):
        members = {name.removesuffix(".npy") for name in zipfile.ZipFile(path).namelist()}
        if "config" in members and members.issuperset(arrays):
            with np.load(path) as file:
                model = json.loads(str(file["config"])).get("model")
            if model in models:
                found.append(path.stem)
    return found


def make_generator(config: dict[str, Any]) -> Generator:
    """The generator of a fixture's configuration, with random weights."""
    rendering, size = config["rendering_kwargs"], config["img_resolution"]
    side = float(rendering["box_warp"])
    field = FieldConfig(
        TriPlaneConfig(
            config.get("plane_resolution", 256),
            config.get("plane_channels", 96) // 3,
            config["channel_base"],
            config["channel_max"],
        ),
        initial_ball=False,
        box=(side, side, side),
        near=float(rendering["ray_start"]),
        far=float(rendering["ray_end"]),
        white_back=bool(rendering.get("white_back", False)),
    )
    latent = LatentConfig(
        mapping_layers=config.get("mapping_layers", 2),
        pose_conditioning=True,
        pose_scale=0.0 if config.get("conditioning_camera_zeroed", False) else 1.0,
    )
    labels = None
    if config["model"] == "pix2pix3d":
        classes = config["semantic_channels"]
        labels = LabelConfig(
            "edge" if classes == 1 else "seg",
            classes,
            config["geometry_slots"],
            encode_pose=False,
            encoder_base=config["channel_base"],
            encoder_max=config["channel_max"],
        )
    sphere = None
    if config["model"] == "ballgan":
        kwargs = config["bg_kwargs"]
        sphere = BackgroundConfig(
            float(kwargs["R"]),
            kwargs["hidden_size"],
            kwargs["n_blocks"],
            mapping_layers=kwargs["mapping_kwargs"]["num_layers"],
        )
    return Generator(
        "triplane",
        latent,
        field,
        sphere,
        SuperResolutionConfig((256, 128) if size == 512 else (128, 64), 256.0),
        RenderSettings(
            rendering["depth_resolution"], rendering["depth_resolution_importance"], "reference"
        ),
        INPUT_SIZE[size],
        size,
        labels=labels,
    )


def official_parts(own: str, value: Tensor, ballgan: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Official names and shapes of what lies in one of our tensors, independent of the library."""
    shape = tuple(value.shape)
    if own.startswith("field.synthesis."):
        yield own.replace("field.", "backbone.", 1), shape
    elif own.startswith("mapping."):
        yield "backbone." + own, shape
    elif own.startswith("superresolution."):
        yield own, shape
    elif own.startswith("superresolution_labels."):
        yield own.replace("superresolution_labels.", "superresolution_semantic."), shape
    elif own.startswith("background_mapping."):
        yield own.replace("background_mapping.", "BG_mapping.", 1), shape
    elif own.startswith("field.decoder.hidden."):
        yield own.replace("field.decoder.hidden.", "decoder.net.0."), shape
    elif own.startswith("field.decoder.label_hidden."):
        yield own.replace("field.decoder.label_hidden.", "decoder.net_semantic.0."), shape
    elif own.startswith("field.decoder.label_out."):
        yield own.replace("field.decoder.label_out.", "decoder.net_semantic.2."), shape
    elif own.startswith("field.decoder.out."):
        kind = own.rpartition(".")[2]
        if ballgan:
            yield f"decoder.sigma_out.{kind}", (1, *shape[1:])
            yield f"decoder.rgb_out.{kind}", (shape[0] - 1, *shape[1:])
        else:
            yield f"decoder.net.2.{kind}", shape
    else:
        for prefix, official in (
            ("background.layers.0.", "BG_Net.fc_in."),
            ("background.out.", "BG_Net.feat_out."),
            ("background.layers.1.", "BG_Net.blocks.0."),
            ("background.layers.2.", "BG_Net.blocks.1."),
            ("background.layers.3.", "BG_Net.blocks.2."),
        ):
            if own.startswith(prefix):
                convolution = own == prefix + "weight"
                yield own.replace(prefix, official), (*shape, 1, 1) if convolution else shape


def filled_generator(config: dict[str, Any]) -> Generator:
    """The generator with the fixture's weights, brought in under their official names."""
    with torch.device("meta"):
        generator = make_generator(config)
    state: dict[str, Tensor] = {}
    for own, tensor in generator.state_dict().items():
        for name, shape in official_parts(own, tensor, config["model"] == "ballgan"):
            value = fill_value(name, shape, config["density_offset"], config["salt"])
            state[name] = fir_filter() if value is None else torch.from_numpy(value)
    generator.load_state_dict(generator_state(state), assign=True)
    return generator.eval()


def filled_discriminator(config: dict[str, Any], channels: int = 3) -> DualDiscriminator:
    """The discriminator of images of so many channels with the fixture's weights."""
    sizes = config["discriminator"]
    with torch.device("meta"):
        discriminator = DualDiscriminator(
            config["img_resolution"],
            img_channels=channels,
            channel_base=sizes["channel_base"],
            channel_max=sizes["channel_max"],
            mbstd_group=sizes["mbstd_group_size"],
            conv_clamp=float(sizes["conv_clamp"]),
            mapping_layers=sizes["mapping_layers"],
        )
    state: dict[str, Tensor] = {}
    for name, tensor in discriminator.state_dict().items():
        value = fill_value(name, tuple(tensor.shape), salt=config["salt"])
        state[name] = fir_filter() if value is None else torch.from_numpy(value)
    discriminator.load_state_dict(state, assign=True)
    return discriminator.eval()
