"""The decoder against its formula, and what an untrained field shows."""

import math

import pytest
import torch

from nerfstudio_gan3d.fields.decoder import (
    Decoder,
    LabelActivation,
    LabelDecoder,
    Palette,
    PaletteDecoder,
    initial_ball,
)
from nerfstudio_gan3d.fields.two_layers import colour_range


def test_colours_reach_a_little_beyond_zero_and_one() -> None:
    found = colour_range(torch.tensor([-1e4, 0.0, 1e4]))
    torch.testing.assert_close(found, torch.tensor([-0.001, 0.5, 1.001]))


def test_decoder_is_softplus_between_two_layers() -> None:
    decoder = Decoder(2, 3, hidden_dim=4)
    state = {name: torch.randn_like(value) for name, value in decoder.state_dict().items()}
    decoder.load_state_dict(state)
    feature = torch.randn(2, 5, 2)
    # Weights are stored for a unit learning rate: they act divided by sqrt(inputs).
    hidden = feature @ state["hidden.weight"].T / math.sqrt(2) + state["hidden.bias"]
    hidden = torch.log1p(hidden.exp())
    out = hidden @ state["out.weight"].T / math.sqrt(4) + state["out.bias"]
    raw, colour = decoder(feature)
    torch.testing.assert_close(raw, out[..., :1])
    torch.testing.assert_close(colour, torch.sigmoid(out[..., 1:]) * 1.002 - 0.001)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_decoder_computes_in_the_precision_of_features(dtype: torch.dtype) -> None:
    decoder = Decoder(2, 3, hidden_dim=4)
    with torch.no_grad():
        decoder.out.weight[0] = 1
    feature = torch.randn(2, 5, 2)
    found = decoder(feature.to(dtype))
    assert found[0].dtype == found[1].dtype == dtype
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    for ours, expected in zip(found, decoder(feature), strict=True):
        torch.testing.assert_close(ours.float(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(decoder.raw_density(feature.to(dtype)), found[0])


def test_density_starts_at_zero_everywhere_and_can_be_learned() -> None:
    decoder = Decoder(4, 3)
    raw, colour = decoder(torch.randn(2, 7, 4))
    assert (raw == 0).all()
    assert colour.std() > 0.01
    raw.sum().backward()
    gradient = decoder.out.weight.grad
    assert gradient is not None
    assert (gradient[0] != 0).any()


@pytest.mark.parametrize(("radius", "raw"), [(0.0, 0.0), (0.5, -2.0), (0.25, -0.5)])
def test_initial_ball_is_thickest_in_the_middle(radius: float, raw: float) -> None:
    directions = torch.nn.functional.normalize(torch.randn(1, 5, 3), dim=-1)
    found = initial_ball(directions * radius)
    torch.testing.assert_close(found, torch.full((1, 5, 1), raw), atol=1e-5, rtol=0)


def test_label_decoder_is_two_networks_side_by_side() -> None:
    torch.manual_seed(0)
    decoder = LabelDecoder(4, 3, 2, LabelActivation("scores", 2), hidden_dim=8)
    with torch.no_grad():
        decoder.label_out.weight.normal_()
    feature = torch.randn(2, 5, 4)
    raw, colour, labels = decoder(feature)
    softplus = torch.nn.functional.softplus
    shown = decoder.out(softplus(decoder.hidden(feature.flatten(0, 1))))
    said = decoder.label_out(softplus(decoder.label_hidden(feature.flatten(0, 1))))
    torch.testing.assert_close(colour.flatten(0, 1), torch.sigmoid(shown) * 1.002 - 0.001)
    torch.testing.assert_close(raw.flatten(0, 1), said[:, :1])
    torch.testing.assert_close(labels.flatten(0, 1), said[:, 1:])


def test_colours_and_geometry_do_not_share_weights() -> None:
    decoder = LabelDecoder(4, 3, 2, LabelActivation("scores", 2), hidden_dim=8)
    raw, colour, labels = decoder(torch.randn(1, 5, 4))
    colour.sum().backward()
    assert decoder.label_hidden.weight.grad is None
    decoder.zero_grad()
    (raw.sum() + labels.sum()).backward()
    assert decoder.hidden.weight.grad is None


def test_edge_labels_are_values_and_official_weights_have_a_row_that_says_nothing() -> None:
    torch.manual_seed(0)
    decoder = LabelDecoder(4, 3, 2, LabelActivation("values", 1), hidden_dim=8, dead_row=True)
    assert decoder.out.weight.shape == (4, 8)
    feature = torch.randn(1, 5, 4) * 100
    _, before, labels = decoder(feature)
    assert bool((labels >= -0.001).all())
    assert bool((labels <= 1.001).all())
    with torch.no_grad():
        decoder.out.weight[0] += 1
        decoder.out.bias[0] += 1
    assert torch.equal(decoder(feature)[1], before)


def test_shares_are_probabilities_of_the_classes_alone() -> None:
    raw = torch.tensor([[0.0, math.log(3.0), 7.0], [2.0, 2.0, -5.0]])
    found = LabelActivation("shares", 2)(raw)
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75, 7.0], [0.5, 0.5, -5.0]]))
    assert torch.equal(LabelActivation("scores", 2)(raw), raw)
    torch.testing.assert_close(LabelActivation("values", 1)(raw), colour_range(raw))


def test_palette_mixes_colours_of_the_scene_by_hand() -> None:
    palette = torch.tensor([[[0.0, 1.0], [2.0, -1.0]]])
    # A shade, then raw shares: equal ones, and three quarters of the second colour.
    shares = torch.tensor([[[0.0, 5.0, 5.0], [1.0, 0.0, math.log(3)]]])
    found = Palette.mix(shares, palette)
    expected = torch.tensor([[[1.0, 0.0], [0.75 * 2 + 1, 0.25 * 1 - 0.75 + 1]]])
    torch.testing.assert_close(found, colour_range(expected))


def test_palette_follows_its_latent_and_shares_follow_the_position() -> None:
    torch.manual_seed(0)
    decoder = PaletteDecoder(4, 3, 8, w_dim=5, colours=6).double()
    feature = torch.randn(2, 7, 4, dtype=torch.float64)
    w = torch.randn(2, 5, dtype=torch.float64)
    palette = decoder.palette.prepare(w)
    assert palette.shape == (2, 6, 3)
    raw, colour = decoder(feature, palette)
    assert (raw == 0).all()
    one = decoder(feature, palette[:1].expand(2, -1, -1))[1]
    torch.testing.assert_close(one[0], colour[0])
    assert not torch.allclose(one[1], colour[1])
    # One colour, whatever the shares, but for the shade.
    flat = decoder(feature, palette[:, :1].expand(-1, 6, -1))[1]
    logits = torch.logit((flat + 0.001) / 1.002)
    differences = (logits - logits[..., :1]).std(dim=1)
    torch.testing.assert_close(differences, torch.zeros_like(differences), atol=1e-9, rtol=0)


def test_gradients_of_the_palette() -> None:
    torch.manual_seed(0)
    shares = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    palette = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Palette.mix, (shares, palette))
