"""Deterministic weights and inputs of the parity fixtures.

The fixtures hold what official implementations return, but no weights: every tensor of a state
dict is a function of its official name and its shape. The rule is restated in `filled`.
"""

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

_MAPPING_WEIGHT = re.compile(r"mapping\.fc\d+\.weight$")
_DENSITY_BIAS = ("decoder.net.2.bias", "decoder.sigma_out.bias", "decoder.net_semantic.2.bias")


class Fixture:
    """Arrays of one expected-output file as tensors; `config` describes the network."""

    def __init__(self, name: str) -> None:
        folder = Path(os.environ.get("GAN3D_FIXTURES", Path(__file__).parent))
        with np.load(folder / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        self.config: dict[str, Any] = json.loads(str(arrays.pop("config")))
        self.tensors: dict[str, Tensor] = {
            key: torch.from_numpy(value) for key, value in arrays.items() if value.dtype.kind != "U"
        }

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


def key_list(name: str) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and kind (P parameter, B buffer) of every tensor of an official model."""
    lines = (Path(__file__).parent / "keys" / f"{name}.txt").read_text().splitlines()
    entries = (line.split("\t") for line in lines)
    return [
        (key, () if shape == "scalar" else tuple(int(n) for n in shape.split("x")), kind)
        for key, shape, kind in entries
    ]


def fill_value(
    name: str, shape: tuple[int, ...], density_offset: float = 3.0, salt: int = 0
) -> np.ndarray | None:
    """The value of an official tensor; None where the constructor's own value stays.

    x is standard normal, seeded by the CRC-32 of the name plus the salt. Weights and constants are
    x, biases, noise strengths and mean latents 0.1 x, biases of affine layers 1 + 0.1 x, mapping
    weights 100 x. The density bias is raised by `density_offset`, so that there is something to
    see (pix2pix3D has two such biases, of which one is not used).
    """
    if name.endswith(("resample_filter", ".alpha")):
        return None
    state = np.random.RandomState((zlib.crc32(name.encode()) + salt) & 0xFFFFFFFF)
    x = state.standard_normal(shape or (1,)).astype(np.float32).reshape(shape)
    if name.endswith("affine.bias"):
        x = 1 + 0.1 * x
    elif name.endswith((".bias", "noise_strength", "w_avg")):
        x = 0.1 * x
    elif _MAPPING_WEIGHT.search(name):
        x = 100 * x
    x = np.asarray(x, dtype=np.float32)
    if name in _DENSITY_BIAS:
        x.reshape(-1)[0] += np.float32(density_offset)
    return x


def filled(module: Module, prefix: str = "", names: Mapping[str, str] | None = None) -> Module:
    """Fill a module by the rule, in evaluation mode.

    A tensor's official name is `names[own name]` where given, else `prefix` + its own name.
    """
    names = names or {}
    state = module.state_dict()
    for own, tensor in state.items():
        value = fill_value(names.get(own, prefix + own), tuple(tensor.shape))
        if value is not None:
            state[own] = torch.from_numpy(value)
    module.load_state_dict(state)
    return module.eval()


def procedural_image(size: int, phase: float) -> Tensor:
    """0.6 sin(2 pi ((k+1) x + y/2) + phase) + 0.4 cos(2 pi ((k+2) y - x/4)); [3, size, size].

    (x, y) are pixel centres in [0, 1]^2 and k is the channel.
    """
    centres = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(centres, centres, indexing="ij")
    channels = [
        0.6 * np.sin(2 * np.pi * ((k + 1) * x + 0.5 * y) + phase)
        + 0.4 * np.cos(2 * np.pi * ((k + 2) * y - 0.25 * x))
        for k in range(3)
    ]
    return torch.from_numpy(np.stack(channels).astype(np.float32))
