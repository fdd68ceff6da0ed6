"""Dual discriminator: statistics of a batch, conditioning, second derivatives and errors."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nerfstudio_gan3d.networks import ops
from nerfstudio_gan3d.networks.discriminator import (
    DiscriminatorBlock,
    DualDiscriminator,
    StridedBlock,
    minibatch_std,
)
from nerfstudio_gan3d.networks.ops import Conv2d


def small(**options) -> DualDiscriminator:
    options = {
        "img_resolution": 16,
        "channel_base": 64,
        "channel_max": 8,
        "mapping_layers": 2,
        **options,
    }
    return DualDiscriminator(**options)


def batch(size: int = 4, resolution: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    raw = torch.randn(size, 3, resolution // 2, resolution // 2)
    return torch.randn(size, 3, resolution, resolution), raw, torch.randn(size, 25)


def test_minibatch_std_by_hand() -> None:
    x = torch.tensor([1.0, 10.0, 5.0, 10.0])[:, None, None, None].expand(4, 2, 1, 1)
    y = minibatch_std(x, group_size=2)
    assert y.shape == (4, 3, 1, 1)
    assert torch.equal(y[:, :2], x)
    # Groups are {0, 2} with values 1 and 5, deviation 2, and {1, 3} with 10 and 10.
    torch.testing.assert_close(y[:, 2, 0, 0], torch.tensor([2.0, 1e-4, 2.0, 1e-4]))
    # All four: mean 6.5, variance (5.5^2 + 3.5^2 + 1.5^2 + 3.5^2) / 4 = 14.25.
    expected = torch.full((4,), 14.25**0.5)
    torch.testing.assert_close(minibatch_std(x, group_size=8)[:, 2, 0, 0], expected)


def test_minibatch_std_is_a_mean_over_features_and_pixels() -> None:
    x = torch.zeros(2, 2, 2, 1)
    x[1, 0, 0] = 8.0
    # One of four values deviates by 4, three by 1e-4.
    assert minibatch_std(x, 2)[0, 2, 0, 0].item() == pytest.approx((4 + 3e-4) / 4)


def test_groups_do_not_see_each_other() -> None:
    discriminator = small(mbstd_group=2)
    image, raw, c = batch(4)
    image.requires_grad_()
    logits = discriminator(image, raw, c)
    (gradient,) = torch.autograd.grad(logits[0, 0], image)
    reached = gradient.flatten(1).any(dim=1)
    assert reached.tolist() == [True, False, True, False]


def test_block_equals_its_definition() -> None:
    block = small().block(16).double()
    assert isinstance(block, DiscriminatorBlock)
    x = torch.randn(2, 6, 16, 16, dtype=torch.float64)

    def plain(layer: Conv2d, x: Tensor, stride: int, pad: int, gain: float) -> Tensor:
        weight = layer.weight / (layer.weight[0].numel()) ** 0.5
        if stride == 2:
            kernel = layer.resample_filter.expand(x.shape[1], 1, 4, 4)
            x = F.conv2d(F.pad(x, [pad] * 4), kernel, groups=x.shape[1])
        y = F.conv2d(x, weight, layer.bias, stride, padding=0 if stride == 2 else pad)
        return gain * (F.leaky_relu(y, 0.2) if layer.activation == "lrelu" else y)

    assert block.fromrgb is not None
    features = plain(block.fromrgb, x, 1, 0, 2**0.5)
    main = plain(block.conv1, plain(block.conv0, features, 1, 1, 2**0.5), 2, 2, 1.0)
    expected = plain(block.skip, features, 2, 1, 0.5**0.5) + main
    torch.testing.assert_close(block(x), expected)


def test_strided_block_equals_its_definition() -> None:
    block = small(blocks="strided", conv_clamp=0.5).block(16).double()
    assert isinstance(block, StridedBlock)
    assert block.fromrgb is not None
    torch.nn.init.normal_(block.bias)
    x = torch.randn(2, 6, 16, 16, dtype=torch.float64)

    def plain(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        y = F.conv2d(x, weight / weight[0].numel() ** 0.5, bias, stride, padding=1)
        return (2**0.5 * F.leaky_relu(y, 0.2)).clamp(-0.5, 0.5)

    features = plain(x, block.fromrgb.weight, block.fromrgb.bias, 1)
    expected = plain(features, block.weight, block.bias, 2)
    assert expected.shape == (2, 8, 8, 8)
    torch.testing.assert_close(block(x), expected)


def test_logit_is_a_projection_on_the_label() -> None:
    discriminator = small()
    assert discriminator.mapping is not None
    image, raw, c = batch()
    seen: list[Tensor] = []
    discriminator.b4.register_forward_hook(lambda *args: seen.append(args[2][0]))
    logits = discriminator(image, raw, c)
    label = discriminator.mapping(None, c)
    expected = torch.einsum("bf,bf->b", seen[0], label)[:, None] / 8**0.5
    torch.testing.assert_close(logits, expected)
    assert not torch.allclose(discriminator(image, raw, -c), logits)


def test_raw_image_of_any_size_is_compared_at_the_size_of_the_image() -> None:
    discriminator = small()
    image, raw, c = batch()
    expected = discriminator(image, F.interpolate(raw, (16, 16), mode="bilinear"), c)
    torch.testing.assert_close(discriminator(image, raw, c), expected)
    large = torch.randn(4, 3, 48, 48)
    reduced = F.interpolate(large, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(discriminator(image, large, c), discriminator(image, reduced, c))


@pytest.mark.parametrize(("c_dim", "dual"), [(0, True), (25, False), (0, False)])
def test_without_cameras_or_raw_image(c_dim: int, dual: bool) -> None:
    discriminator = small(c_dim=c_dim, dual=dual)
    image, raw, c = batch()
    logits = discriminator(image, raw if dual else None, c if c_dim else None)
    assert logits.shape == (4, 1)
    first = discriminator.block(16).fromrgb
    assert first is not None
    assert first.weight.shape[1] == (6 if dual else 3)
    assert any(name.startswith("mapping") for name in discriminator.state_dict()) == (c_dim > 0)


def penalty(discriminator: DualDiscriminator, *inputs: Tensor) -> Tensor:
    """R1 penalty of the sum of both image inputs."""
    image, raw, c = inputs
    logits = discriminator(image, raw, c)
    gradients = torch.autograd.grad(logits.sum(), (image, raw), create_graph=True)
    return sum((g.square().sum() for g in gradients), torch.zeros((), dtype=image.dtype))


def test_gradient_of_the_r1_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    discriminator = small(conv_clamp=256.0).double()
    image, raw, c = (x.double() for x in batch())
    image.requires_grad_()
    raw.requires_grad_()
    parameters = {
        name: parameter
        for name, parameter in discriminator.named_parameters()
        if name != "b4.out.bias"
    }
    values = [penalty(discriminator, image, raw, c)]
    gradients = [torch.autograd.grad(values[0], list(parameters.values()))]
    with monkeypatch.context() as patch:
        # The twin is torch's own convolution with its general second derivative.
        patch.setattr(ops, "conv2d", F.conv2d)
        patch.setattr(
            ops,
            "filter2d",
            lambda x, k, padding: F.conv2d(
                x, k.expand(x.shape[1], 1, 4, 4), padding=padding, groups=x.shape[1]
            ),
        )
        patch.setattr(
            ops,
            "downsample2d",
            lambda x, k: F.conv2d(x, k.expand(x.shape[1], 1, 4, 4), None, 2, 1, groups=x.shape[1]),
        )
        values.append(penalty(discriminator, image, raw, c))
        gradients.append(torch.autograd.grad(values[1], list(parameters.values())))
    torch.testing.assert_close(values[0], values[1])
    for name, actual, expected in zip(parameters, *gradients, strict=True):
        torch.testing.assert_close(actual, expected, msg=name)


@pytest.mark.parametrize("blocks", ["residual", "strided"])
def test_second_derivatives_by_finite_differences(blocks: str) -> None:
    discriminator = small(
        img_resolution=8, channel_base=8, channel_max=2, c_dim=3, blocks=blocks
    ).double()
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    raw = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    c = torch.randn(2, 3, dtype=torch.float64)
    penalty(discriminator, image, raw, c).backward()
    step = 1e-6
    for name, parameter in discriminator.named_parameters():
        if name == "b4.out.bias":
            # The logit is linear in it, so no gradient with respect to an image contains it.
            assert parameter.grad is None
            continue
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1, 0):
            parameter.data.add_(direction, alpha=sign * step)
            values.append(penalty(discriminator, image, raw, c).detach())
            parameter.data.sub_(direction, alpha=sign * step)
        assert parameter.grad is not None
        slope = (values[0] - values[1]) / (2 * step)
        expected = (parameter.grad * direction).sum()
        torch.testing.assert_close(slope, expected, atol=1e-6, rtol=1e-5, msg=name)


def test_camera_head() -> None:
    image, raw, c = batch()
    assert small().judge(image, raw, c).camera is None
    discriminator = small(camera_head=True)
    logits, camera, _ = discriminator.judge(image, raw, c)
    assert camera is not None
    assert camera.shape == (4, 3)
    assert torch.equal(logits, discriminator(image, raw, c))
    # The camera is read off the images, so another label changes the logits only.
    other = discriminator.judge(image, raw, -c)
    assert other.camera is not None
    assert torch.equal(other.camera, camera)
    assert not torch.allclose(other.logits, logits)


@pytest.mark.parametrize("blocks", ["residual", "strided"])
def test_every_parameter_has_a_gradient(blocks: str) -> None:
    discriminator = small(blocks=blocks)
    discriminator(*batch()).square().sum().backward()
    missing = [
        name
        for name, parameter in discriminator.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not missing


@pytest.mark.parametrize("blocks", ["residual", "strided"])
def test_initial_logits_have_unit_size(blocks: Literal["residual", "strided"]) -> None:
    discriminator = DualDiscriminator(
        32, channel_base=1024, channel_max=64, mapping_layers=2, blocks=blocks
    )
    with torch.no_grad():
        logits = discriminator(*batch(64, 32))
    assert 0.2 < logits.std() < 5


def test_noise_on_labels_is_for_training_only() -> None:
    discriminator = small(disc_c_noise=0.5)
    image, raw, c = batch(4)
    seen: list[Tensor] = []
    assert discriminator.mapping is not None
    discriminator.mapping.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    discriminator.eval()(image, raw, c)
    assert torch.equal(seen[0], c)
    constant = c.clone()
    constant[:, 0] = 7.0
    discriminator.train()(image, raw, constant)
    # Entries that are equal in the batch get none; the others half their deviation.
    assert seen[1][:, 0].eq(7).all()
    noise = (seen[1] - constant)[:, 1:] / constant[:, 1:].std(dim=0)
    assert noise.std().item() == pytest.approx(0.5, rel=0.25)


def test_batches_that_cannot_be_grouped_are_refused() -> None:
    discriminator = small(mbstd_group=4)
    for size in (1, 2, 3, 4, 8):
        discriminator.validate_batch(size)
    for size in (0, 5, 6, 7):
        with pytest.raises(ValueError, match=f"A batch of {size} images"):
            discriminator.validate_batch(size)
    with pytest.raises(ValueError, match="A batch of 6 images cannot be split"):
        discriminator(*batch(6))
    with pytest.raises(ValueError, match="disc_c_noise needs the deviation"):
        small(disc_c_noise=0.1).validate_batch(1)


def test_wrong_inputs_are_refused() -> None:
    image, raw, c = batch()
    with pytest.raises(ValueError, match="needs image_raw"):
        small()(image, None, c)
    with pytest.raises(ValueError, match="takes no image_raw"):
        small(dual=False)(image, raw, c)
    with pytest.raises(ValueError, match=r"shape \[4, 3, 8, 8\]"):
        small()(raw, raw, c)
    with pytest.raises(ValueError, match="nothing for c"):
        small()(image, raw)
    with pytest.raises(ValueError, match="img_resolution is 20"):
        small(img_resolution=20)
    with pytest.raises(ValueError, match="mbstd_group is 0"):
        small(mbstd_group=0)
    with pytest.raises(ValueError, match="disc_c_noise is -1"):
        small(disc_c_noise=-1.0)


def test_other_labels_judge_the_same_images() -> None:
    discriminator = small(camera_head=True)
    image, raw, c = batch()
    plain = discriminator.judge(image, raw, c)
    assert plain.elsewhere is None
    both = discriminator.judge(image, raw, c, c.roll(1, 0))
    assert both.elsewhere is not None
    assert torch.equal(both.logits, plain.logits)
    torch.testing.assert_close(both.elsewhere, discriminator(image, raw, c.roll(1, 0)))


@pytest.mark.parametrize("blocks", ["residual", "strided"])
def test_bfloat16_gives_nearly_the_same_logits_and_gradients(blocks: str) -> None:
    torch.manual_seed(0)
    discriminator = small(blocks=blocks)
    image, raw, c = batch(8)
    image.requires_grad_()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        discriminator.zero_grad()
        logits = discriminator.judge(image, raw, c, dtype=dtype).logits
        assert logits.dtype == torch.float32
        (gradient,) = torch.autograd.grad(logits.sum(), image, retain_graph=True)
        logits.sum().backward()
        weights = torch.cat(
            [p.grad.flatten() for p in discriminator.parameters() if p.grad is not None]
        )
        found.append((logits.detach(), gradient, weights))
    # Eight bits of mantissa: some hundredths after all layers. Equal values: nothing was
    # computed in bfloat16.
    for precise, rough in zip(*found, strict=True):
        error = (rough - precise).norm() / precise.norm()
        assert 1e-5 < error < 0.1
