"""Super-resolution: sizes, resize rules, which latent counts, and the raw image."""

import pytest
import torch
from torch import nn

from nerfstudio_gan3d.networks.superresolution import ReferenceVariant, SuperResolution


def small(input_size: int = 8, output_size: int = 16, **options) -> SuperResolution:
    options = {"in_channels": 4, "block_channels": (6, 5), "w_dim": 8, **options}
    return SuperResolution(input_size, output_size, **options)


def inputs(height: int, width: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
    features = torch.randn(batch, 4, height, width)
    return features, features[:, :3], torch.randn(batch, 3, 8)


@pytest.mark.parametrize(
    ("output_size", "channels", "upsample"),
    [
        (8, (6, 5), [False, False]),
        (16, (6, 5), [False, True]),
        (32, (6, 5), [True, True]),
        (64, (6, 5, 4), [True, True, True]),
    ],
)
def test_blocks_of_each_factor(
    output_size: int, channels: tuple[int, ...], upsample: list[bool]
) -> None:
    network = small(8, output_size, block_channels=channels)
    assert [network.block(i).upsample for i in range(network.num_blocks)] == upsample
    factor = output_size // 8
    for height, width in ((8, 8), (8, 5), (3, 13)):
        image = network(*inputs(height, width), resize=False).image
        assert image.shape == (2, 3, height * factor, width * factor)


def test_result_away_from_the_border_does_not_depend_on_what_lies_beyond() -> None:
    network = small().double()
    features, _, ws = (x.double() for x in inputs(9, 41, batch=1))
    whole = network(features, features[:, :3], ws, resize=False).image
    part = features[..., :31]
    cropped = network(part, part[:, :3], ws, resize=False).image
    assert cropped.shape[3] == 62
    torch.testing.assert_close(cropped[..., :46], whole[..., :46])
    assert not torch.allclose(cropped[..., -4:], whole[..., 58:62])


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        ("different", (8, 8), (16, 16)),
        ("different", (5, 5), (16, 16)),
        ("different", (12, 12), (16, 16)),
        ("different", (12, 18), (16, 24)),
        ("different", (10, 5), (32, 16)),
        ("smaller", (5, 5), (16, 16)),
        ("smaller", (12, 12), (24, 24)),
        ("smaller", (4, 6), (16, 24)),
    ],
)
def test_resize_rules(rule, given: tuple[int, int], expected: tuple[int, int]) -> None:
    image = small(resize=rule)(*inputs(*given)).image
    assert tuple(image.shape[2:]) == expected


@pytest.mark.parametrize(
    ("variant", "input_size", "output_size", "rule"),
    [
        ("2X", 64, 128, "different"),
        ("4X", 128, 256, "smaller"),
        ("8X", 128, 512, "different"),
        ("8XDC", 128, 512, "different"),
    ],
)
def test_reference_variants(
    variant: ReferenceVariant, input_size: int, output_size: int, rule: str
) -> None:
    network = SuperResolution.reference(variant)
    assert (network.input_size, network.output_size) == (input_size, output_size)
    assert network.resize == rule
    features = torch.randn(1, 32, 16, 16)
    with torch.no_grad():
        out = network(features, features[:, :3], torch.randn(1, 14, 512), resize=False)
    assert out.image.shape[2] == 16 * output_size // input_size
    assert out.image.shape[2] == out.image.shape[3]


def silence(network: SuperResolution) -> None:
    """Without to-RGB outputs only the path of the raw colour is left."""
    for index in range(network.num_blocks):
        nn.init.zeros_(network.block(index).torgb.weight)


def test_raw_colour_passes_through() -> None:
    network = small()
    silence(network)
    features, _, ws = inputs(8, 8)
    rgb = torch.tensor([0.25, -0.5, 1.0])[None, :, None, None].expand(2, 3, 8, 8)
    with torch.no_grad():
        image = network(features, rgb, ws).image
        resized = network(features[..., :5, :5], rgb[..., :5, :5], ws).image
    for result in (image, resized):
        for channel, value in enumerate((0.25, -0.5, 1.0)):
            inner = result[:, channel, 1:-1, 1:-1]
            torch.testing.assert_close(inner, torch.full_like(inner, value))


def test_only_the_last_latent_counts() -> None:
    features, rgb, ws = inputs(8, 8)
    ws.requires_grad_()
    small()(features, rgb, ws).image.square().sum().backward()
    assert ws.grad is not None
    assert ws.grad[:, :-1].eq(0).all()
    assert ws.grad[:, -1].ne(0).all()


def test_mutated_raw_is_what_the_first_block_wrote() -> None:
    features, rgb, ws = inputs(8, 8)
    before = features.clone()
    network = small()
    with torch.no_grad():
        out = network(features, rgb, ws)
        latents = ws[:, -1:].expand(-1, 3, -1)
        _, added = network.block(0)(features, torch.zeros_like(rgb), latents, "none")
    torch.testing.assert_close(out.mutated_raw, rgb + added)
    assert not torch.allclose(out.mutated_raw, rgb)
    # Official code writes into its input; this one must not.
    assert torch.equal(features, before)


@pytest.mark.parametrize(("output_size", "height"), [(16, 6), (32, 8)])
def test_raw_colour_is_kept_where_official_code_keeps_it(output_size: int, height: int) -> None:
    # Either the input is resized first, or the first block doubles the size.
    features, rgb, ws = inputs(height, height)
    assert small(8, output_size)(features, rgb, ws).mutated_raw is rgb


def test_other_image_channels() -> None:
    features, _, ws = inputs(8, 8)
    image = small(image_channels=1)(features, features[:, :1], ws).image
    assert image.shape == (2, 1, 16, 16)


def test_every_parameter_has_a_gradient() -> None:
    network = small()
    network(*inputs(8, 8), noise_mode="const").image.square().sum().backward()
    missing = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not missing


def test_impossible_sizes_are_refused() -> None:
    for output_size in (12, 24, 4, 0):
        with pytest.raises(ValueError, match="the input times a power of two"):
            small(8, output_size)
    with pytest.raises(ValueError, match="8 to 64 px takes 3 blocks"):
        small(8, 64)


def test_training_precision_is_for_training_only() -> None:
    torch.manual_seed(0)
    network = SuperResolution(8, 16, 4, (8, 8), w_dim=6)
    features, rgb, ws = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 6)
    precise = network(features, rgb, ws).image
    network.training_dtype = torch.bfloat16
    assert torch.equal(network.eval()(features, rgb, ws).image, precise)
    rough = network.train()(features, rgb, ws).image
    assert rough.dtype == torch.float32
    assert 1e-5 < (rough - precise).norm() / precise.norm() < 0.02
