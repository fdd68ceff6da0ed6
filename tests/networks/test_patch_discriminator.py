"""GRAF's discriminator of patches."""

from __future__ import annotations

import pytest
import torch

from nerfstudio_gan3d.networks.patch_discriminator import PatchDiscriminator


def test_size_of_the_published_network() -> None:
    """2,635,776 parameters for patches of 32 px."""
    network = PatchDiscriminator(32)
    assert sum(p.numel() for p in network.parameters()) == 2_635_776


@pytest.mark.parametrize("side", [32, 64, 128])
def test_one_logit_a_patch(side: int) -> None:
    network = PatchDiscriminator(side, width=16)
    logits = network(torch.randn(3, 3, side, side))
    assert logits.shape == (3, 1)
    judged = network.judge(torch.zeros(3, 3, side, side), None, torch.zeros(3, 25))
    assert judged.camera is None


@pytest.mark.parametrize("side", [16, 48, 31])
def test_sizes_that_cannot_be_halved(side: int) -> None:
    with pytest.raises(ValueError, match="patch_resolution"):
        PatchDiscriminator(side)


def test_layers_do_not_stretch() -> None:
    """Spectral normalisation: no convolution makes an input longer than it is, as a matrix."""
    torch.manual_seed(0)
    network = PatchDiscriminator(32, width=32).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(7.0)
        for _ in range(60):
            network(torch.randn(2, 3, 32, 32))
    for layer in network.layers:
        if isinstance(layer, torch.nn.Conv2d):
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
            assert float(largest) == pytest.approx(1.0, abs=0.02)


def test_r1_can_be_taken() -> None:
    """The gradient of a gradient penalty agrees with finite differences."""
    torch.manual_seed(2)
    network = PatchDiscriminator(32, width=8).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def penalty(scale: torch.Tensor) -> torch.Tensor:
        patch = x * scale
        (gradient,) = torch.autograd.grad(network(patch).sum(), patch, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(penalty, scale, eps=1e-5, atol=1e-6, rtol=1e-3)
