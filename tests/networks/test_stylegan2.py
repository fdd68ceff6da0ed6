"""Mapping and synthesis networks: which latent does what, noise, truncation and errors."""

import pytest
import torch
from torch import Tensor, nn

from nerfstudio_gan3d.networks.stylegan2 import (
    Backbone,
    MappingNetwork,
    SynthesisNetwork,
    ToRGB,
    truncate,
)


def small_synthesis(resolution: int = 16, **options) -> SynthesisNetwork:
    return SynthesisNetwork(8, resolution, 6, channel_base=64, channel_max=8, **options)


def set_noise(network: nn.Module, strength: float) -> None:
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            nn.init.constant_(parameter, strength)


def test_truncation_by_hand() -> None:
    ws = torch.tensor([[[2.0, 4.0], [2.0, 4.0], [2.0, 4.0]]])
    w_avg = torch.tensor([0.0, 2.0])
    assert truncate(ws, w_avg, 0.5).tolist() == [[[1, 3], [1, 3], [1, 3]]]
    assert truncate(ws, w_avg, 0.5, cutoff=1).tolist() == [[[1, 3], [2, 4], [2, 4]]]
    assert truncate(ws, w_avg, 0.0, cutoff=2).tolist() == [[[0, 2], [0, 2], [2, 4]]]
    assert truncate(ws, w_avg, -1.0, cutoff=1).tolist() == [[[-2, 0], [2, 4], [2, 4]]]
    assert truncate(ws, w_avg, 1.0) is ws


def test_running_mean_of_latents_moves_only_when_asked() -> None:
    mapping = MappingNetwork(4, 0, 2, num_ws=3)
    mapping(torch.randn(5, 4))
    assert mapping.w_avg.tolist() == [0, 0]
    batch = torch.tensor([[[1.0, 2.0]], [[3.0, 6.0]]]).expand(-1, 3, -1)
    mapping.update_w_avg(batch, beta=0.75)
    # The mean of the batch is (2, 4), and a quarter of it is taken.
    assert mapping.w_avg.tolist() == [0.5, 1]
    mapping.update_w_avg(batch, beta=0.75)
    assert mapping.w_avg.tolist() == [0.875, 1.75]


def test_mapping_depends_on_directions_of_its_inputs_only() -> None:
    mapping = MappingNetwork(4, 3, 8, num_ws=2)
    z, c = torch.randn(5, 4), torch.randn(5, 3)
    ws = mapping(z, c)
    assert ws.shape == (5, 2, 8)
    assert torch.equal(ws[:, 0], ws[:, 1])
    # The label's embedding has no bias at the start, so its length drops out as well.
    torch.testing.assert_close(mapping(10 * z, 10 * c), ws, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(mapping(z, -c), ws)


def test_mapping_of_labels_alone_keeps_two_dimensions_and_no_mean() -> None:
    mapping = MappingNetwork(0, 3, 8, num_ws=None)
    assert mapping(None, torch.randn(5, 3)).shape == (5, 8)
    assert "w_avg" not in mapping.state_dict()


def test_mapping_names_the_missing_input() -> None:
    mapping = MappingNetwork(4, 3, 8, num_ws=2)
    with pytest.raises(ValueError, match=r"nothing for c, but needs \[B, 3\]"):
        mapping(torch.randn(5, 4))
    with pytest.raises(ValueError, match=r"shape \[5, 3\] for z, but needs \[B, 4\]"):
        mapping(torch.randn(5, 3), torch.randn(5, 3))
    with pytest.raises(ValueError, match="both 0"):
        MappingNetwork(0, 0, 8, num_ws=2)


def test_each_layer_reads_its_own_latent() -> None:
    network = small_synthesis(16)
    assert network.num_ws == 6
    # Of b4: conv1 0, torgb 1; b8: conv0 1, conv1 2, torgb 3; b16: conv0 3, conv1 4, torgb 5.
    readers = {
        "b4.conv1": 0, "b4.torgb": 1, "b8.conv0": 1, "b8.conv1": 2, "b8.torgb": 3,
        "b16.conv0": 3, "b16.conv1": 4, "b16.torgb": 5,
    }  # fmt: skip
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if name.endswith(".affine"):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.update({name.removesuffix(".affine"): args[0]})
            )
    ws = torch.randn(2, 6, 8)
    network(ws)
    assert set(seen) == set(readers)
    for name, index in readers.items():
        assert torch.equal(seen[name], ws[:, index]), name


def test_images_of_all_sizes_are_added_up() -> None:
    network = small_synthesis(8)
    ws = torch.randn(2, network.num_ws, 8)
    with torch.no_grad():
        for block in (network.block(4), network.block(8)):
            block.torgb.weight.zero_()
            block.torgb.bias.fill_(1.0)
        image = network(ws)
    # One from each block; at the border the upsampling of the smaller image fades: 1 + 3/4.
    assert image[:, :, 1:-1, 1:-1].eq(2).all()
    assert image[0, 0, 0, 1:-1].eq(1.75).all()


def test_noise_modes() -> None:
    network = small_synthesis()
    ws = torch.randn(2, 6, 8)
    with torch.no_grad():
        silent = network(ws, "none")
        # Noise strengths start at zero.
        assert torch.equal(network(ws, "const"), silent)
        set_noise(network, 0.5)
        assert torch.equal(network(ws, "none"), silent)
        constant = network(ws, "const")
        assert torch.equal(network(ws), constant)
        assert not torch.allclose(constant, silent)
        assert not torch.allclose(network(ws, "random"), network(ws, "random"))


def test_strength_of_noise_by_hand() -> None:
    layer = small_synthesis(4).block(4).conv1
    with torch.no_grad():
        layer.weight.zero_()
        layer.noise_strength.fill_(0.5)
        layer.bias.fill_(3.0)
        layer.noise_const.fill_(2.0)
        y = layer(torch.randn(1, 8, 4, 4), torch.randn(1, 8), "const")
        # sqrt(2) * (0.5 * 2 + 3)
        torch.testing.assert_close(y, torch.full_like(y, 4 * 2**0.5))
        layer.bias.zero_()
        big = SynthesisNetwork(8, 4, 3, channel_base=256, channel_max=64).block(4).conv1
        big.weight.zero_()
        big.noise_strength.fill_(0.5)
        noise = big(torch.randn(64, 64, 4, 4), torch.randn(64, 8), "random")
    # All channels of a sample share the noise, samples do not.
    assert torch.equal(noise[:, 0], noise[:, 1])
    assert not torch.allclose(noise[0], noise[1])
    before = torch.where(noise > 0, noise, noise / 0.2) / 2**0.5
    assert before[:, 0].std().item() == pytest.approx(0.5, rel=0.1)


def test_stored_noise_has_one_size() -> None:
    layer = small_synthesis(4).block(4).conv1
    with pytest.raises(ValueError, match="4 px only, but the layer works at"):
        layer(torch.randn(1, 8, 5, 4), torch.randn(1, 8), "const")


def test_clamp_limits_activations_and_colours() -> None:
    torgb = ToRGB(4, 3, 8, clamp=0.5)
    y = torgb(100 * torch.randn(2, 4, 5, 5), torch.randn(2, 8))
    assert y.abs().max() == 0.5
    layer = small_synthesis(4, clamp=0.25).block(4).conv1
    y = layer(100 * torch.randn(2, 8, 4, 4), torch.randn(2, 8), "none")
    assert y.abs().max() == 0.25


def test_forms_of_modulation_agree_in_values_and_gradients() -> None:
    network = small_synthesis(16, modulation="activations").double()
    other = small_synthesis(16, modulation="weights").double()
    set_noise(network, 0.5)
    other.load_state_dict(network.state_dict())
    ws = torch.randn(2, 6, 8, dtype=torch.float64)
    images = [net(ws) for net in (network, other)]
    torch.testing.assert_close(images[0], images[1])
    cotangent = torch.randn_like(images[0])
    gradients = [
        torch.autograd.grad(image, list(net.parameters()), cotangent)
        for image, net in zip(images, (network, other), strict=True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradient_of_every_parameter_by_finite_differences() -> None:
    network = SynthesisNetwork(3, 8, 2, channel_base=16, channel_max=2).double()
    set_noise(network, 0.5)
    ws = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    network(ws).square().sum().backward()
    step = 1e-6
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        direction = torch.randn_like(parameter)
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * step)
                values.append(network(ws).square().sum())
                parameter.sub_(direction, alpha=sign * step)
        slope = (values[0] - values[1]) / (2 * step)
        expected = (parameter.grad * direction).sum()
        torch.testing.assert_close(slope, expected, atol=1e-5, rtol=1e-5, msg=name)


def test_samples_of_a_batch_are_independent() -> None:
    network = small_synthesis().double()
    ws = torch.randn(3, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(network(ws)[1:2], network(ws[1:2]))


def test_channels_shrink_with_size() -> None:
    network = SynthesisNetwork(8, 32, 6, channel_base=128, channel_max=16)
    assert [network.block(r).torgb.weight.shape[1] for r in (4, 8, 16, 32)] == [
        16, 16, 8, 4,
    ]  # fmt: skip


def test_initial_planes_have_moderate_size() -> None:
    # Every torgb adds about unit variance, five of them at 64 px.
    network = SynthesisNetwork(64, 64, 96, channel_base=2048, channel_max=64)
    with torch.no_grad():
        planes = network(torch.randn(4, network.num_ws, 64))
    assert 1 < planes.std() < 4


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="resolution is 48, but must be a power of two"):
        small_synthesis(48)
    with pytest.raises(ValueError, match=r"ws has shape \[2, 5, 8\], but must be \[B, 6, W\]"):
        small_synthesis()(torch.randn(2, 5, 8))


def test_backbone_maps_to_as_many_latents_as_its_synthesis_reads() -> None:
    backbone = Backbone(4, 3, 8, 16, 6, channel_base=64, channel_max=8)
    ws = backbone.mapping(torch.randn(2, 4), torch.randn(2, 3))
    assert backbone.synthesis(ws).shape == (2, 6, 16, 16)


def test_training_precision_is_for_training_only() -> None:
    torch.manual_seed(0)
    network = small_synthesis()
    ws = torch.randn(2, network.num_ws, 8)
    precise = network(ws, "none")
    network.training_dtype = torch.bfloat16
    assert torch.equal(network.eval()(ws, "none"), precise)
    rough = network.train()(ws, "none")
    assert rough.dtype == torch.float32
    assert 1e-5 < (rough - precise).norm() / precise.norm() < 0.02


def test_gradients_in_bfloat16_point_the_same_way() -> None:
    torch.manual_seed(0)
    network = small_synthesis()
    ws = torch.randn(2, network.num_ws, 8)
    direction = torch.randn(2, 6, 16, 16)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        network.zero_grad()
        network.training_dtype = dtype
        (network(ws, "none") * direction).sum().backward()
        used = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        found.append(torch.cat(used))
    assert 1e-5 < (found[1] - found[0]).norm() / found[0].norm() < 0.1
