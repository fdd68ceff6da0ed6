"""A training step: each loss with its value, and the player that learns from it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from nerfstudio_gan3d.losses.geometry import background_loss, distortion_loss
from nerfstudio_gan3d.models.objective_config import AdaConfig
from nerfstudio_gan3d.networks.discriminator import Judgement, resize_antialias
from tests.models.objectives import Record, gradients_of, make_objective, step, sure_of_reals
from tests.models.tiny import images, labels, make_generator


def assert_all_close(found: list[Tensor], expected: tuple[Tensor | None, ...]) -> None:
    for value, twin in zip(found, expected, strict=True):
        twin = torch.zeros_like(value) if twin is None else twin
        torch.testing.assert_close(value, twin, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dual", [False, True])
def test_one_pass_trains_both_players_as_separate_passes_do(
    monkeypatch: pytest.MonkeyPatch, dual: bool
) -> None:
    generator = make_generator(super_resolution=dual)
    objective = make_objective(size=16 if dual else 8, dual=dual)
    record = Record(monkeypatch, objective, generator)
    losses, figures = step(objective, generator)
    assert set(losses) == {"generator", "discriminator"}
    assert len(record.fakes) == 1
    fakes = [record.fakes[0].image, record.fakes[0].raw][: 1 + dual]
    sum(losses.values(), torch.zeros(())).backward(retain_graph=True)

    critic = objective.discriminator
    reals = [images(4, objective.image_resolution)]
    if dual:
        reals.append(resize_antialias(reals[0], (8, 8)))

    def logits(inputs: list[Tensor], cameras: Tensor) -> Tensor:
        return critic(inputs[0], inputs[1] if dual else None, cameras)

    plain = generator_loss(logits(fakes, labels(4, 2)))
    torch.testing.assert_close(losses["generator"], plain)
    expected = torch.autograd.grad(plain, list(generator.parameters()), allow_unused=True)
    assert_all_close(gradients_of(generator), expected)
    assert max(g.abs().max() for g in gradients_of(generator)) > 1e-5

    real_logits = logits(reals, labels(4, 1))
    fake_logits = logits([x.detach() for x in fakes], labels(4, 2))
    plain = discriminator_loss(fake_logits, real_logits)
    torch.testing.assert_close(losses["discriminator"], plain)
    assert_all_close(gradients_of(critic), torch.autograd.grad(plain, list(critic.parameters())))
    torch.testing.assert_close(figures["logit_real"], real_logits.mean())
    torch.testing.assert_close(figures["logit_fake"], fake_logits.mean())
    torch.testing.assert_close(figures["sign_real"], real_logits.sign().mean())


def test_alternating_players_learn_only_on_their_turn() -> None:
    generator = make_generator()
    objective = make_objective({"background": 1.0}, {"update": "alternating"})
    for number, (learner, other, names) in enumerate(
        [
            (objective.discriminator, generator, {"discriminator"}),
            (generator, objective.discriminator, {"generator", "background"}),
        ]
    ):
        generator.zero_grad()
        objective.zero_grad()
        losses, _ = step(objective, generator, number)
        assert set(losses) == names
        sum(losses.values(), torch.zeros(())).backward()
        assert max(g.abs().max() for g in gradients_of(learner)) > 0
        assert all((g == 0).all() for g in gradients_of(other))
    # Both steps together have shown the real images once.
    assert objective.images_seen == 4


def test_lazy_terms_come_at_their_interval_with_its_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make_generator()
    losses = {"r1_gamma": 3.0, "r1_interval": 3, "density_variation": 0.5}
    objective = make_objective({**losses, "density_variation_interval": 2})
    due = [set(step(objective, generator, number)[0]) for number in range(6)]
    assert ["r1" in names for names in due] == [True, False, False, True, False, False]
    variation = ["density_variation" in names for names in due]
    assert variation == [True, False, True, False, True, False]
    record = Record(monkeypatch, objective, generator)
    found, figures = step(objective, generator)
    image, raw, label = record.judged[-1]
    image = image.detach().requires_grad_()
    penalty = r1_penalty(objective.discriminator(image, raw, label), [image]).mean()
    torch.testing.assert_close(found["r1"], 3.0 / 2 * 3 * penalty)
    torch.testing.assert_close(figures["r1_penalty"], penalty)


def test_lazy_terms_count_turns_when_players_alternate() -> None:
    generator = make_generator()
    objective = make_objective({"r1_gamma": 1.0, "r1_interval": 2}, {"update": "alternating"})
    due = ["r1" in step(objective, generator, number)[0] for number in range(8)]
    assert due == [True, False, False, False, True, False, False, False]


def test_density_variation_is_multiplied_by_weight_and_interval() -> None:
    generator = make_generator()
    with torch.no_grad():
        generator.get_parameter("field.decoder.out.weight")[0].normal_()
    found = []
    for weight, interval in ((1.0, 1), (0.25, 4), (0.5, 1)):
        objective = make_objective(
            {"density_variation": weight, "density_variation_interval": interval}
        )
        torch.manual_seed(1)
        found.append(step(objective, generator)[0]["density_variation"])
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], 2 * found[2])
    assert found[0] > 0


@pytest.mark.parametrize(("kimg", "share"), [(0.0, 0.0), (1.0, 0.25), (4.0, 1.0), (9.0, 1.0)])
def test_volume_losses_warm_up_to_their_weight(
    monkeypatch: pytest.MonkeyPatch, kimg: float, share: float
) -> None:
    generator = make_generator()
    objective = make_objective(
        {
            "background": 0.4,
            "background_warmup_kimg": 4.0,
            "foreground": 0.8,
            "foreground_warmup_kimg": 4.0,
        }
    )
    objective.images_seen.fill_(int(kimg * 1000))
    record = Record(monkeypatch, objective, generator)
    losses, figures = step(objective, generator)
    rendering = record.fakes[0].rendering
    expected = background_loss(rendering.transmittance)
    torch.testing.assert_close(losses["background"], 0.4 * share * expected)
    # Distances in diagonals of the box (0.8, 0.9, 1.0): sqrt(2.45).
    expected = distortion_loss(rendering.weights, rendering.edges / 2.45**0.5).mean()
    torch.testing.assert_close(losses["foreground"], 0.8 * share * expected)
    torch.testing.assert_close(figures["transmittance"], rendering.transmittance.mean())


def test_volume_losses_reach_the_foreground_only() -> None:
    generator = make_generator()
    objective = make_objective({"background": 1.0, "foreground": 1.0})
    losses, _ = step(objective, generator)
    (losses["background"] + losses["foreground"]).backward()
    assert generator.background is not None
    assert all((g == 0).all() for g in gradients_of(generator.background))
    assert all((g == 0).all() for g in gradients_of(objective.discriminator))
    assert max(g.abs().max() for g in gradients_of(generator.field)) > 1e-6


def test_images_seen_counts_the_batches_of_all_processes() -> None:
    objective, generator = make_objective(), make_generator()
    step(objective, generator)
    assert objective.images_seen == 4
    objective(generator, images(4), labels(4), labels(4), 1, world_size=3)
    assert objective.images_seen == 16


def test_running_mean_of_latents_is_updated() -> None:
    generator = make_generator()
    step(make_objective(), generator)
    assert generator.mapping.w_avg.abs().max() > 0


def test_precision_of_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make_generator()
    objective = make_objective({"r1_gamma": 1.0, "r1_interval": 2})
    objective.dtype = torch.bfloat16
    plain, used = objective.discriminator.judge, []

    def judge(*args: Any, **kwargs: Any) -> Judgement:
        used.append(kwargs["dtype"] if "dtype" in kwargs else args[4])
        return plain(*args, **kwargs)

    monkeypatch.setattr(objective.discriminator, "judge", judge)
    step(objective, generator, 0)
    step(objective, generator, 1)
    # Fakes, then reals; the reals of step 0 are differentiated twice.
    assert used == [torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16]


def test_state_of_training_is_in_the_state_dict() -> None:
    generator, ada = make_generator(), AdaConfig("adaptive", interval=2, kimg=1.0)
    first, second = make_objective(ada=ada), make_objective(ada=ada)
    sure_of_reals(first)
    for number in range(3):
        step(first, generator, number)
    second.load_state_dict(first.state_dict())
    assert second.images_seen == 12
    found = []
    for objective in (first, second):
        torch.manual_seed(4)
        found.append(step(objective, generator, 3))
    torch.testing.assert_close(found[0], found[1])
    assert found[1][1]["augment_p"] > 0.01
