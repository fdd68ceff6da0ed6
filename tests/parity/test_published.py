"""The published systems as benchmarks restate them, against the originals' outputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.published.networks import Fakes, generated, judged, resized
from benchmarks.published.rendering import Sizes
from benchmarks.published.training import Training
from benchmarks.published.weights import first_discriminator, first_generator
from tests.parity.fill import Fixture, fill_value, key_list, procedural_image

NAMES = ["eg3d_tiny64", "ballgan_tiny64"]


def filled(name: str, config: dict) -> dict[str, Tensor]:
    """Tensors under official names, of which parameters are leaves."""
    weights = {}
    for key, shape, kind in key_list(name):
        value = fill_value(key, shape, config["density_offset"], config["salt"])
        if value is not None:
            weights[key] = torch.from_numpy(value).requires_grad_(kind == "P")
    return weights


def images(fixture: Fixture, weights: dict[str, Tensor]) -> Fakes:
    """The fixture's images with a graph."""
    return generated(
        weights,
        fixture["z"],
        fixture["c_cond"],
        fixture["c"],
        fixture.tensors.get("z_bg"),
        noise="const",
        jitter=fixture["u_strat"],
        draws=fixture["u_imp"],
    )


def close(found: Tensor, expected: Tensor, atol: float = 2e-4, rtol: float = 1e-4) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize("name", NAMES)
def test_images_and_losses_with_their_gradients_are_the_originals(name: str) -> None:
    fixture = Fixture(name)
    weights, judge = (filled(key, fixture.config) for key in (f"{name}_G", "eg3d_tiny64_D"))
    found = images(fixture, weights)
    close(found.image, fixture["image_sub"])
    close(found.raw, fixture["image_raw"])
    close(found.march.weights.sum(2).mT.reshape(-1, 1, 32, 32), fixture["render_wsum"])
    logits = judged(judge, found.image, found.raw, fixture["c"], 4)
    close(logits, fixture["D_logits_fake"], 2e-5, 1e-3)
    losses = {"nonsat": F.softplus(-logits).mean(), "linear": -logits.mean()}
    if "L_bg" in fixture.tensors:
        left = found.march.left
        losses["Lbg"] = torch.minimum(left, 1 - left).mean()
    parameters = [weights[key] for key in fixture.config["param_names"]]
    for kind, loss in losses.items():
        close(loss, fixture[f"loss_{kind}"][0], 2e-5, 1e-3)
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norms = [0.0 if g is None else float(g.norm()) for g in gradients]
        # -1 stands for a parameter that is not part of the graph.
        expected = fixture[f"gradnorm_{kind}"].clamp(min=0)
        signed = torch.tensor(["noise_strength" in key for key in fixture.config["param_names"]])
        # A noise strength's gradient is a signed sum over a feature map, which can cancel.
        slack = 1e-6 + 5e-3 * expected + signed * 1e-3 * expected[signed].max()
        wrong = (torch.tensor(norms, dtype=expected.dtype) - expected).abs() > slack
        assert not wrong.any(), [fixture.config["param_names"][i] for i in wrong.nonzero()]


@pytest.mark.parametrize("name", NAMES)
def test_depth_of_the_foreground_is_the_original(name: str) -> None:
    fixture = Fixture(name)
    with torch.no_grad():
        depth = images(fixture, filled(f"{name}_G", fixture.config)).march.depth
    expected = fixture["only_fg_depth" if "z_bg" in fixture.tensors else "render_depth"]
    close(depth.mT.reshape(-1, 1, 32, 32), expected)


def test_logits_and_penalty_of_reals_are_the_originals() -> None:
    fixture = Fixture("eg3d_tiny64")
    judge = filled("eg3d_tiny64_D", fixture.config)
    image = torch.stack([procedural_image(64, phase) for phase in (0.0, 1.0)])
    raw = resized(image, 32)
    pair = image.requires_grad_(), raw.requires_grad_()
    logits = judged(judge, *pair, fixture["c"], 4)
    close(logits, fixture["D_logits_real"], 2e-5, 1e-3)
    slopes = torch.autograd.grad(logits.sum(), pair)
    penalty = slopes[0].square().sum((1, 2, 3)) + slopes[1].square().sum((1, 2, 3))
    close(penalty, fixture["r1_penalty"], 1e-6, 5e-3)


@pytest.mark.parametrize("kind", ["eg3d_tiny64_G", "ballgan_tiny64_G", "eg3d_tiny64_D"])
def test_untrained_weights_have_the_original_names_and_shapes(kind: str) -> None:
    if kind.endswith("G"):
        found = first_generator(kind.startswith("ballgan"))
    else:
        found = first_discriminator()
    expected = {name: shape for name, shape, role in key_list(kind) if role == "P"}
    assert {name: tuple(value.shape) for name, value in found.items()} == expected


def trained(name: str) -> Training:
    """A training with the fixture's weights and few samples a ray."""
    config = Fixture(name).config
    players = filled(f"{name}_G", config), filled("eg3d_tiny64_D", config)
    return Training(*players, name.startswith("ballgan"), Sizes(coarse=6, fine=6))


@pytest.mark.parametrize("name", NAMES)
def test_density_variation_is_the_original(name: str) -> None:
    fixture, training = Fixture(name), trained(name)
    points = fixture["reg_pts"], fixture["reg_pts_moved"]
    given = fixture["z"], fixture["c_cond"], *points
    found = training.density_variation(*given, noise="const")
    close(found, fixture["density_reg"][0], 2e-5, 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_teaches_both_players_and_moves_the_average(name: str) -> None:
    torch.manual_seed(0)
    training = trained(name)
    players = training.generator, training.discriminator
    before = [{key: value.detach().clone() for key, value in p.items()} for p in players]
    training.images_seen = 998
    training.step(torch.rand(2, 3, 64, 64) * 2 - 1, Fixture(name)["c"], 0)
    for player, old in zip(players, before, strict=True):
        for key, value in player.items():
            assert value.isfinite().all(), key
            changed = not torch.equal(value.detach(), old[key])
            # Super-resolution takes no noise.
            unused = key.startswith("superresolution") and key.endswith("noise_strength")
            assert changed == (value.requires_grad and not unused), key
    # After 1,000 images the half-life is a twentieth of them, and two have come.
    for key, value in training.average.items():
        expected = torch.lerp(before[0][key], players[0][key].detach(), 1 - 0.5 ** (2 / 50))
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("name", "regularisers"), [("eg3d_tiny64", 1), ("ballgan_tiny64", 2)])
def test_phases_are_due_when_they_should_be(
    name: str, regularisers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trained(name)
    steps: list[int] = []
    monkeypatch.setattr(training, "_learn", lambda player, loss: steps.append(player))
    images, cameras = torch.rand(2, 3, 64, 64) * 2 - 1, Fixture(name)["c"]
    counts = []
    for index in (0, 1, 4, 16):
        steps.clear()
        training.step(images, cameras, index)
        counts.append((steps.count(0), steps.count(1)))
    lazy = 1 + regularisers
    assert counts == [(lazy, 2), (1, 1), (lazy, 1), (lazy, 2)]


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_a_step_are_the_originals(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = Fixture(name)
    players = filled(f"{name}_G", fixture.config), filled("eg3d_tiny64_D", fixture.config)
    training = Training(*players, name.startswith("ballgan"), gamma=0.5)
    fakes = images(fixture, training.generator)
    losses: list[float] = []
    monkeypatch.setattr(training, "fakes", lambda cameras: fakes)
    monkeypatch.setattr(training, "density_variation", lambda *given: torch.tensor(3.0))
    monkeypatch.setattr(training, "_learn", lambda player, loss: losses.append(float(loss)))
    reals = torch.stack([procedural_image(64, phase) for phase in (0.0, 1.0)])
    training.step(reals, fixture["c"], 0)
    expected = [fixture["loss_nonsat"][0], 4 * 3.0]
    if training.background:
        expected.append(4 * 0.1 * fixture["loss_Lbg"][0])
    expected += [fixture["loss_D"][0], 16 * 0.5 / 2 * fixture["r1_penalty"].mean()]
    assert losses == pytest.approx([float(value) for value in expected], rel=5e-3)
