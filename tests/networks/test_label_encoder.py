"""Label maps as networks take them, and the latents that they become."""

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.networks.label_encoder import (
    LabelEncoder,
    LabelMappingNetwork,
    encode_labels,
)
from nerfstudio_gan3d.networks.stylegan2 import truncate


def test_class_ids_become_one_channel_a_class() -> None:
    maps = torch.tensor([[[[0, 2], [1, 2]]]], dtype=torch.uint8)
    found = encode_labels(maps, "seg", 3)
    assert found[0].tolist() == [[[1, 0], [0, 0]], [[0, 0], [1, 0]], [[0, 1], [0, 1]]]


def test_edges_are_blurred_over_nine_pixels_with_paper_at_one() -> None:
    maps = torch.full((1, 1, 5, 5), 255, dtype=torch.uint8)
    maps[0, 0, 2, 2] = 0
    found = encode_labels(maps, "edge", 1)[0, 0]
    # One of nine pixels is dark: (8 * 255 / 9) / 127.5 - 1 = 16 / 9 - 1.
    expected = torch.ones(5, 5)
    expected[1:4, 1:4] = 7 / 9
    torch.testing.assert_close(found, expected)
    # Beyond the border the picture is reflected about its outermost pixels.
    corner = torch.full((1, 1, 3, 3), 255, dtype=torch.uint8)
    corner[0, 0, 1, 1] = 0
    assert float(encode_labels(corner, "edge", 1)[0, 0, 0, 0]) == pytest.approx(2 * 5 / 9 - 1)


def test_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="class 3; there are classes 0 to 2"):
        encode_labels(torch.full((1, 1, 2, 2), 3, dtype=torch.uint8), "seg", 3)
    with pytest.raises(ValueError, match="takes no label maps"):
        encode_labels(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "none", 0)


def make_encoder(layers: int = 2, channels: int = 3) -> LabelEncoder:
    torch.manual_seed(0)
    return LabelEncoder(16, channels, layers, w_dim=6, channel_base=64, channel_max=8)


def make_mapping(layers: int = 2) -> LabelMappingNetwork:
    return LabelMappingNetwork(make_encoder(layers), z_dim=4, c_dim=0, w_dim=6, num_ws=5)


def test_the_projection_is_linear_in_the_last_features() -> None:
    encoder = make_encoder()
    features = torch.randn(2, 8, 4, 4)
    weight = encoder.projector.weight
    expected = torch.einsum("bihw,oihw->bo", features, weight) / (8 * 16) ** 0.5
    torch.testing.assert_close(encoder.projector(features), expected)


def test_latents_of_a_map_do_not_depend_on_its_neighbours() -> None:
    encoder = make_encoder()
    maps = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(encoder(maps)[1:2], encoder(maps[1:2]), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"must be \[B, 3, 16, 16\]"):
        encoder(maps[..., :8, :8])


def test_gradients_of_the_encoder_agree_with_finite_differences() -> None:
    encoder = make_encoder(1).double()
    maps = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(maps)
    weight = torch.randn(1, 1, 6, dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        return (encoder(x) * weight).sum()

    (gradient,) = torch.autograd.grad(value(maps), maps)
    step = 1e-6
    with torch.no_grad():
        slope = (value(maps + step * direction) - value(maps - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-9)


def test_the_first_latents_follow_the_map_and_the_others_the_noise() -> None:
    mapping = make_mapping()
    z, maps = torch.randn(2, 4), torch.randn(2, 3, 16, 16)
    ws = mapping(z, None, maps)
    assert ws.shape == (2, 5, 6)
    torch.testing.assert_close(ws[:, :2], mapping.geometry(maps))
    for level in (2, 3, 4):
        torch.testing.assert_close(ws[:, level], mapping.appearance(z))
    other = mapping(torch.randn(2, 4), None, maps)
    assert torch.equal(other[:, :2], ws[:, :2])
    assert not torch.equal(other[:, 2:], ws[:, 2:])


def test_the_mean_has_a_latent_for_each_layer_and_truncation_uses_it() -> None:
    mapping = make_mapping()
    ws = torch.randn(4, 5, 6)
    mapping.update_w_avg(ws, beta=0.75)
    torch.testing.assert_close(mapping.w_avg, 0.25 * ws.mean(0))
    mean = mapping.w_avg
    found = truncate(ws, mean, 0.5, 3)
    torch.testing.assert_close(found[:, :3], mean[:3] + 0.5 * (ws[:, :3] - mean[:3]))
    assert torch.equal(found[:, 3:], ws[:, 3:])


@pytest.mark.parametrize("layers", [5, 6])
def test_the_map_must_leave_latents_to_the_noise(layers: int) -> None:
    with pytest.raises(ValueError, match=r"geometry_layers = \d: .* 1 to 4"):
        make_mapping(layers)
