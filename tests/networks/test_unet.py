"""The U-Net from an image with depth to planes, and its blocks against plain twins."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nerfstudio_gan3d.networks.unet import PlaneUNet
from nerfstudio_gan3d.networks.unet_blocks import (
    ChannelNorm,
    ConvolutionBlock,
    FullAttention,
    LinearAttention,
    ResidualAttention,
    Sinusoids,
    StandardisedConv2d,
)
from tests.parity.fill import key_list

SMALL: dict[str, Any] = {
    "resolution": 16,
    "width": 8,
    "multipliers": (1, 2, 3),
    "position_channels": 5,
    "plane_channels": 6,
    "groups": 4,
    "heads": 2,
    "head_dim": 3,
}


def make_small(**changes: Any) -> PlaneUNet:
    """A small network in float64; gains, biases and places differ from their first values."""
    torch.manual_seed(3)
    network = PlaneUNet(**SMALL | changes).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def make_input(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 16, 16, dtype=torch.float64)


def test_the_default_network_is_the_published_one() -> None:
    with torch.device("meta"):
        network = PlaneUNet()
    parameters = [(name, tuple(value.shape), "P") for name, value in network.named_parameters()]
    assert parameters == [entry for entry in key_list("g3dr_128") if "decoder." not in entry[0]]
    assert list(network.state_dict()) == [name for name, _, _ in parameters]


def test_places_start_at_one() -> None:
    network = PlaneUNet(**SMALL)
    assert network.pos_embed is not None
    assert network.pos_embed.shape == (1, 5, 16, 16)
    assert bool((network.pos_embed == 1).all())


def test_weights_are_standardised_within_each_output_channel() -> None:
    layer = StandardisedConv2d(3, 4, 3, padding=1).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    rows = []
    for kernel in layer.weight:
        mean = kernel.sum() / 27
        variance = ((kernel - mean) ** 2).sum() / 27
        rows.append((kernel - mean) / math.sqrt(float(variance) + 1e-5))
    expected = F.conv2d(x, torch.stack(rows), layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_channels_of_a_pixel_are_normalised() -> None:
    norm = ChannelNorm(4).double()
    norm.g.data = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 4, 1, 1)
    x = torch.randn(2, 4, 1, 2, dtype=torch.float64)
    x[0, :, 0, 0] = torch.tensor([1.0, 1.0, 3.0, 3.0])
    x[1, :, 0, 1] = 7.0
    found = norm(x)
    # Mean 2 and biased variance 1; equal channels become 0.
    unit = 1 / math.sqrt(1 + 1e-5)
    expected = torch.tensor([-unit, -2 * unit, 3 * unit, 4 * unit], dtype=torch.float64)
    torch.testing.assert_close(found[0, :, 0, 0], expected)
    assert found[1, :, 0, 1].tolist() == [0, 0, 0, 0]


def test_channels_in_half_precision_do_not_overflow() -> None:
    norm = ChannelNorm(2)
    # The variance 250,000 is beyond the largest half, 65,504.
    x = torch.tensor([-500.0, 500.0], dtype=torch.float16).view(1, 2, 1, 1)
    found = norm(x)
    assert found.dtype == torch.float16
    assert found.flatten().tolist() == [-1, 1]


def test_sinusoids_of_one() -> None:
    found = Sinusoids(6)(torch.ones(1, dtype=torch.float64))[0]
    angles = [1.0, 0.01, 0.0001]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_scale_and_shift_come_between_norm_and_activation() -> None:
    block = ConvolutionBlock(2, 2, 1).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    scale = torch.tensor([-1.0, 0.5], dtype=torch.float64).view(1, 2, 1, 1)
    shift = torch.tensor([2.0, -3.0], dtype=torch.float64).view(1, 2, 1, 1)
    found = block(x, scale, shift)[0]
    # A scale of -1 leaves the shift alone.
    torch.testing.assert_close(found[0], torch.full_like(found[0], 2 / (1 + math.exp(-2))))
    raw = block.norm(block.proj(x))[0, 1] * 1.5 - 3
    torch.testing.assert_close(found[1], raw / (1 + (-raw).exp()))


def heads_of(module: LinearAttention | FullAttention, x: Tensor) -> Tensor:
    """Queries, keys and values [3, heads, features, pixels] of one image [C, H, W]."""
    channels = module.to_qkv.weight[:, :, 0, 0] @ x.flatten(1)
    return channels.reshape(3, module.heads, module.head_dim, -1)


def linear_attention_twin(module: LinearAttention, x: Tensor) -> Tensor:
    """Pixel by pixel, with all sums written out."""
    queries, keys, values = heads_of(module, x)
    heads, features, pixels = queries.shape
    out = torch.zeros(heads, features, pixels, dtype=x.dtype)
    for head in range(heads):
        for pixel in range(pixels):
            query = queries[head, :, pixel].exp()
            query = query / query.sum() * features**-0.5
            for other in range(pixels):
                weight = x.new_zeros(())
                for feature in range(features):
                    key = keys[head, feature].exp()
                    weight = weight + query[feature] * key[other] / key.sum()
                out[head, :, pixel] += weight * values[head, :, other] / pixels
    convolution, norm = module.to_out
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    mixed = convolution.weight[:, :, 0, 0] @ out.flatten(0, 1) + convolution.bias[:, None]
    return norm(mixed.reshape(1, *x.shape))[0]


def full_attention_twin(module: FullAttention, x: Tensor) -> Tensor:
    """Pixel by pixel."""
    queries, keys, values = heads_of(module, x)
    out = torch.zeros_like(queries)
    for head in range(module.heads):
        for pixel in range(queries.shape[-1]):
            logits = keys[head].T @ queries[head, :, pixel] * module.head_dim**-0.5
            weights = logits.exp() / logits.exp().sum()
            out[head, :, pixel] = values[head] @ weights
    assert module.to_out.bias is not None
    mixed = module.to_out.weight[:, :, 0, 0] @ out.flatten(0, 1) + module.to_out.bias[:, None]
    return mixed.reshape(x.shape)


@pytest.mark.parametrize("kind", [LinearAttention, FullAttention])
def test_attention_agrees_with_its_twin(kind: type[LinearAttention | FullAttention]) -> None:
    """In values and in gradients, on images that are no squares."""
    module = kind(5, heads=2, head_dim=3).double()
    x = torch.randn(2, 5, 3, 2, dtype=torch.float64, requires_grad=True)
    twin = linear_attention_twin if kind is LinearAttention else full_attention_twin
    expected = torch.stack([twin(module, image) for image in x])  # pyright: ignore[reportArgumentType]
    found = module(x)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(found)
    inputs = [x, *module.parameters()]
    for one, other in zip(
        torch.autograd.grad(found, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_attention_is_added_to_what_it_sees_normalised() -> None:
    attention = FullAttention(4, heads=1, head_dim=2)
    module = ResidualAttention(4, attention).double()
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(module(x), x + attention(ChannelNorm(4).double()(x)))
    # Twice the input looks the same to the attention, but for the 1e-5 in the variance.
    torch.testing.assert_close(module(2 * x) - 2 * x, module(x) - x, atol=1e-3, rtol=1e-3)


def stages(level: nn.Module) -> list[nn.Module]:
    """Residual blocks, attention and the way out of one level."""
    assert isinstance(level, nn.ModuleList)
    return list(level)


def twin(network: PlaneUNet, x: Tensor) -> Tensor:
    """Two blocks a level, three levels, every step written out."""
    assert network.pos_embed is not None
    time = network.time_mlp(torch.ones(1, dtype=x.dtype))
    places = network.pos_embed.expand(len(x), -1, -1, -1)
    first = network.init_conv(torch.cat([x, places], dim=1))
    down0, down1, down2 = (stages(level) for level in network.downs)
    a0 = down0[0](first, time)
    a1 = down0[2](down0[1](a0, time))
    b0 = down1[0](down0[3](a1), time)
    b1 = down1[2](down1[1](b0, time))
    c0 = down2[0](down1[3](b1), time)
    c1 = down2[2](down2[1](c0, time))
    x = network.mid_block1(down2[3](c1), time)
    x = network.mid_block2(network.mid_attn(x), time)
    for up, last, before in zip(network.ups, (c1, b1, a1), (c0, b0, a0), strict=True):
        block0, block1, attention, leave = stages(up)
        x = block0(torch.cat([x, last], dim=1), time)
        x = leave(attention(block1(torch.cat([x, before], dim=1), time)))
    x = network.final_res_block(torch.cat([x, first], dim=1), time)
    return network.final_conv(x).reshape(len(x), 3, -1, 16, 16)


def test_the_network_agrees_with_its_twin() -> None:
    """In values and in the gradients of all parameters; every parameter has one."""
    network, x = make_small(), make_input()
    found, expected = network(x), twin(network, x)
    assert found.shape == (2, 3, 6, 16, 16)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(found)
    names, parameters = zip(*network.named_parameters(), strict=True)
    ours = torch.autograd.grad(found, parameters, cotangent)
    theirs = torch.autograd.grad(expected, parameters, cotangent)
    for name, one, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")
        assert float(one.abs().max()) > 1e-12, name


def test_levels_halve_the_side_and_widen_the_channels() -> None:
    middle, skips = make_small().encode(make_input())
    assert middle.shape == (2, 24, 4, 4)
    assert [tuple(skip.shape[1:]) for skip in skips] == [
        *[(8, 16, 16)] * 3,
        *[(8, 8, 8)] * 2,
        *[(16, 4, 4)] * 2,
    ]


def test_planes_are_decoded_from_what_was_encoded() -> None:
    network, x = make_small(), make_input()
    middle, skips = network.encode(x)
    expected = network(x)
    for _ in range(2):
        torch.testing.assert_close(network.decode(middle, skips), expected, atol=0, rtol=0)


def test_planes_of_an_image_do_not_depend_on_its_neighbours() -> None:
    network, x = make_small(), make_input(3)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]))


def test_one_block_a_level_without_attention_and_places() -> None:
    network = make_small(blocks=1, attention=False, position_channels=0)
    names = [name for name, _ in network.named_parameters()]
    assert not any("fn." in name or name == "pos_embed" for name in names)
    assert network.init_conv.weight.shape == (8, 4, 7, 7)
    # The names of the published network stay, but for the second block.
    published = {name.split(".")[2] for name in names if name.startswith("downs.")}
    assert published == {"0", "2"}
    x = make_input()
    time = network.time_mlp(torch.ones(1, dtype=x.dtype))
    first = network.init_conv(x)
    down0, down1, down2 = (stages(level) for level in network.downs)
    a = down0[0](first, time)
    b = down1[0](down0[2](a), time)
    c = down2[0](down1[2](b), time)
    y = network.mid_block2(network.mid_block1(down2[2](c), time), time)
    for up, skip in zip(network.ups, (c, b, a), strict=True):
        block, _, leave = stages(up)
        y = leave(block(torch.cat([y, skip], dim=1), time))
    y = network.final_conv(network.final_res_block(torch.cat([y, first], dim=1), time))
    found = network(x)
    torch.testing.assert_close(found.flatten(1, 2), y)
    gradients = torch.autograd.grad(found.square().sum(), list(network.parameters()))
    for name, gradient in zip(names, gradients, strict=True):
        assert float(gradient.abs().max()) > 1e-12, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 18}, r"resolution is 18, but 3 levels need a multiple of 4"),
        ({"resolution": 0}, r"resolution is 0"),
        ({"width": 10}, r"width is 10, but must be even and a multiple of groups, which is 4"),
        ({"width": 9, "groups": 3}, r"width is 9"),
        ({"groups": 0}, r"groups, which is 0"),
        ({"multipliers": ()}, r"multipliers is \(\)"),
        ({"multipliers": (1, 0)}, r"multipliers is \(1, 0\)"),
        ({"blocks": 0}, r"blocks is 0"),
        ({"position_channels": -1}, r"position_channels is -1"),
    ],
)
def test_arguments_that_are_not_possible(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlaneUNet(**SMALL | changes)


def test_images_of_another_shape_are_refused() -> None:
    network = PlaneUNet(**SMALL)
    for shape in ((1, 3, 16, 16), (1, 4, 32, 32)):
        with pytest.raises(ValueError, match=r"must be \[B, 4, 16, 16\]"):
            network(torch.zeros(shape))
