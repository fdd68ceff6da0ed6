"""Untrained weights under official names."""

from __future__ import annotations

import torch
from torch import Tensor


def first_generator(
    background: bool, base: int = 4096, most: int = 128, side: int = 64
) -> dict[str, Tensor]:
    """Untrained weights of a generator with 64 px images and planes of ``side`` px."""
    weights: dict[str, Tensor] = {}
    if background:
        _add_mapping(weights, "BG_mapping", 512, 8)
        _add_convolution(weights, "BG_Net.fc_in", 40, 64, 1)
        for index in range(3):
            _add_convolution(weights, f"BG_Net.blocks.{index}", 64, 64, 1)
        _add_convolution(weights, "BG_Net.feat_out", 64, 32, 1)
    size, given = 4, 0
    while size <= side:
        name, width = f"backbone.synthesis.b{size}", min(base // size, most)
        if given:
            _add_convolution(weights, f"{name}.conv0", given, width, 3, size)
        else:
            weights[f"{name}.const"] = torch.randn(width, size, size)
        _add_convolution(weights, f"{name}.conv1", width, width, 3, size)
        _add_convolution(weights, f"{name}.torgb", width, 96, 1)
        size, given = 2 * size, width
    _add_linear(weights, "backbone.mapping.embed", 25, 512)
    _add_mapping(weights, "backbone.mapping", 1024, 2)
    for index, (given, width, size) in enumerate(((32, 128, 32), (128, 64, 64))):
        name = f"superresolution.block{index}"
        _add_convolution(weights, f"{name}.conv0", given, width, 3, size)
        _add_convolution(weights, f"{name}.conv1", width, width, 3, size)
        _add_convolution(weights, f"{name}.torgb", width, 3, 1)
    _add_linear(weights, "decoder.net.0", 32, 64)
    if background:
        _add_linear(weights, "decoder.rgb_out", 64, 32)
        _add_linear(weights, "decoder.sigma_out", 64, 1)
    else:
        _add_linear(weights, "decoder.net.2", 64, 33)
    return _leaves(weights)


def first_discriminator(base: int = 4096, most: int = 128, side: int = 64) -> dict[str, Tensor]:
    """Untrained weights of a discriminator of images of ``side`` px."""
    weights: dict[str, Tensor] = {}
    size = side
    _add_convolution(weights, f"b{size}.fromrgb", 6, min(base // size, most), 1, styled=False)
    while size > 4:
        width, next_width = min(base // size, most), min(2 * base // size, most)
        _add_convolution(weights, f"b{size}.conv0", width, width, 3, styled=False)
        _add_convolution(weights, f"b{size}.conv1", width, next_width, 3, styled=False)
        weights[f"b{size}.skip.weight"] = torch.randn(next_width, width, 1, 1)
        size //= 2
    width = min(base // 4, most)
    _add_linear(weights, "mapping.embed", 25, width)
    _add_mapping(weights, "mapping", width, 8, width)
    _add_convolution(weights, "b4.conv", width + 1, width, 3, styled=False)
    _add_linear(weights, "b4.fc", 16 * width, width)
    _add_linear(weights, "b4.out", width, width)
    return _leaves(weights)


def _add_linear(weights: dict[str, Tensor], name: str, given: int, out: int) -> None:
    weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.randn(out, given), torch.zeros(out)


def _add_mapping(
    weights: dict[str, Tensor], name: str, given: int, layers: int, width: int = 512
) -> None:
    for index in range(layers):
        _add_linear(weights, f"{name}.fc{index}", given, width)
        weights[f"{name}.fc{index}.weight"] *= 100
        given = width


def _add_convolution(
    weights: dict[str, Tensor],
    name: str,
    given: int,
    out: int,
    taps: int,
    noise: int = 0,
    styled: bool = True,
) -> None:
    weights[f"{name}.weight"] = torch.randn(out, given, taps, taps)
    weights[f"{name}.bias"] = torch.zeros(out)
    if noise:
        weights[f"{name}.noise_strength"] = torch.zeros(())
    if styled:
        _add_linear(weights, f"{name}.affine", 512, given)
        weights[f"{name}.affine.bias"] += 1


def _leaves(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.requires_grad_() for name, value in weights.items()}
