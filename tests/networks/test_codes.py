"""Shape and appearance codes, layers with normalised weights, and positional encoding."""

from __future__ import annotations

import math

import pytest
import torch

from nerfstudio_gan3d.networks.codes import CodeMapping
from nerfstudio_gan3d.networks.positional import positional_encoding, positional_size
from nerfstudio_gan3d.networks.weight_norm import WeightNormLinear


def test_codes_without_layers_are_the_latents() -> None:
    mapping = CodeMapping(8, 4, 3, 0, 1.0)
    z = torch.arange(16.0).view(2, 8)
    ws = mapping(z)
    torch.testing.assert_close(ws[:, 0], z[:, :4])
    torch.testing.assert_close(ws[:, 1], z[:, :4])
    torch.testing.assert_close(ws[:, 2], z[:, 4:])
    mapping.update_w_avg(ws)
    assert mapping.w_avg.abs().max() == 0


def test_mapped_codes_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    mapping = CodeMapping(8, 6, 4, 2, 1.0)
    z = torch.randn(1, 8)
    other = z.clone()
    other[:, 4:] = torch.randn(1, 4)
    first, second = mapping(z), mapping(other)
    assert first.shape == (1, 4, 6)
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert (first[:, 3] - second[:, 3]).abs().max() > 0.1
    # One step of a running mean that keeps 0.998 of what was there, which is zero.
    mapping.update_w_avg(first)
    torch.testing.assert_close(mapping.w_avg, 0.002 * first[0])


@pytest.mark.parametrize(("z_dim", "w_dim", "layers"), [(7, 4, 2), (8, 5, 0)])
def test_codes_that_do_not_fit(z_dim: int, w_dim: int, layers: int) -> None:
    with pytest.raises(ValueError, match=r"model\.latent\.z_dim"):
        CodeMapping(z_dim, w_dim, 3, layers, 1.0)


def test_length_and_direction_of_weights() -> None:
    """Rows (3, 4) and (0, 2) with lengths set to 10 and 1 are (6, 8) and (0, 1)."""
    layer = WeightNormLinear(2, 2, torch.tensor([[3.0, 4.0], [0.0, 2.0]]), bias=0.5)
    torch.testing.assert_close(layer.weight, torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    with torch.no_grad():
        layer.weight_g.copy_(torch.tensor([[10.0], [1.0]]))
    torch.testing.assert_close(layer.weight, torch.tensor([[6.0, 8.0], [0.0, 1.0]]))
    torch.testing.assert_close(layer(torch.tensor([[1.0, 1.0]])), torch.tensor([[14.5, 1.5]]))


def test_weight_norm_is_torchs() -> None:
    """Value and gradients equal those of torch's parametrisation."""
    torch.manual_seed(1)
    layer = WeightNormLinear(5, 3)
    twin = torch.nn.Linear(5, 3)
    with torch.no_grad():
        twin.weight.copy_(layer.weight)
        twin.bias.copy_(layer.bias)
    twin = torch.nn.utils.parametrizations.weight_norm(twin)
    x, target = torch.randn(7, 5), torch.randn(7, 3)
    for network in (layer, twin):
        (network(x) - target).square().sum().backward()
    twins = dict(twin.named_parameters())
    torch.testing.assert_close(layer.weight_g.grad, twins["parametrizations.weight.original0"].grad)
    torch.testing.assert_close(layer.weight_v.grad, twins["parametrizations.weight.original1"].grad)
    torch.testing.assert_close(layer.bias.grad, twins["bias"].grad)


def test_positional_encoding() -> None:
    x = torch.tensor([[0.1, -0.2, 0.3]])
    encoded = positional_encoding(x, 2)
    expected = [0.1, -0.2, 0.3]
    for scale in (1, 2):
        expected += [math.sin(scale * v) for v in (0.1, -0.2, 0.3)]
        expected += [math.cos(scale * v) for v in (0.1, -0.2, 0.3)]
    torch.testing.assert_close(encoded, torch.tensor([expected]))
    assert encoded.shape[-1] == positional_size(2)
