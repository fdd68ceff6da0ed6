"""A training step: each loss with its value, its schedule and the player that learns from it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from nerfstudio_gan3d.data.augment import AugmentConfig
from nerfstudio_gan3d.losses.adversarial import (
    camera_loss,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from nerfstudio_gan3d.losses.geometry import background_loss, distortion_loss
from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.models.objective import Objective
from nerfstudio_gan3d.models.objective_config import AdaConfig, LossConfig, ScheduleConfig
from nerfstudio_gan3d.models.scene_generator import Images
from nerfstudio_gan3d.networks.blur import gaussian_blur
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator, Judgement, resize_antialias
from nerfstudio_gan3d.scene import Condition
from tests.models.tiny import images, labels, make_generator

ONLY_ADVERSARIAL = {"r1_gamma": 0.0, "background": 0.0, "density_variation": 0.0}


def make_objective(
    losses: dict[str, Any] | None = None,
    schedule: dict[str, Any] | None = None,
    ada: AdaConfig | None = None,
    size: int = 8,
    patch: int | None = None,
    dual: bool = False,
) -> Objective:
    """An objective whose losses are the adversarial ones and those that are given."""
    weights = LossConfig(**{**ONLY_ADVERSARIAL, **(losses or {})})
    discriminator = DualDiscriminator(
        patch or size,
        dual=dual,
        channel_base=64,
        channel_max=8,
        mbstd_group=2,
        mapping_layers=2,
        mapping_lr_multiplier=0.1,
        camera_head=weights.camera > 0,
    )
    plan = ScheduleConfig(**{"blur_sigma": 0.0, **(schedule or {})})
    return Objective(discriminator, weights, plan, ada or AdaConfig(), size, patch or size)


class Record:
    """What a step hands to the generator and to the discriminator, and what they return."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, objective: Objective, generator: Generator
    ) -> None:
        self.conditions: list[Condition] = []
        self.latents: list[Latents] = []
        self.cameras: list[Tensor] = []
        self.fakes: list[Images] = []
        self.judged: list[tuple[Tensor, Tensor | None, Tensor]] = []
        self.judgements: list[Judgement] = []
        self.watch(monkeypatch, generator, "map", self.on_map)
        self.watch(monkeypatch, generator, "scene", self.on_scene)
        self.watch(monkeypatch, generator, "render", self.on_render)
        self.watch(monkeypatch, objective.discriminator, "judge", self.on_judge)

    def watch(
        self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, note: Callable[..., None]
    ) -> None:
        plain = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = plain(*args, **kwargs)
            note(result, *args)
            return result

        monkeypatch.setattr(owner, name, watched)

    def on_map(self, result: Latents, condition: Condition, *_: Any) -> None:
        self.conditions.append(condition)

    def on_scene(self, result: Any, latents: Latents) -> None:
        self.latents.append(latents)

    def on_render(self, result: Images, scene: Any, cameras: Tensor, *_: Any) -> None:
        self.cameras.append(cameras)
        self.fakes.append(result)

    def on_judge(
        self, result: Judgement, image: Tensor, raw: Tensor | None, label: Tensor, *_: Any
    ) -> None:
        self.judged.append((image, raw, label))
        self.judgements.append(result)


def step(
    objective: Objective, generator: Generator, number: int = 0, batch: int = 4
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    size = objective.image_resolution
    return objective(generator, images(batch, size), labels(batch, 1), labels(batch, 2), number)


def gradients_of(module: torch.nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]


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


def test_crops_start_at_their_time_and_are_cut_out_of_the_real_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = make_generator()
    schedule = {"crop_share": 0.5, "crop_start_kimg": 1.0}
    objective = make_objective(schedule=schedule, size=16, patch=8)
    record = Record(monkeypatch, objective, generator)
    step(objective, generator)
    whole = torch.nn.functional.avg_pool2d(images(4, 16), 2)
    torch.testing.assert_close(record.judged[-1][0], whole)
    assert torch.equal(record.cameras[-1], labels(4, 2))
    objective.images_seen.fill_(1000)
    step(objective, generator)
    seen, _, cameras = record.judged[-1]
    torch.testing.assert_close(seen[2:], whole[2:])
    assert torch.equal(cameras[2:], labels(4, 1)[2:])
    for index in range(2):
        # The crop's principal point tells where it was taken: (c * 16 - offset) / 8 with c = 0.5.
        left, top = (8 - cameras[index, [18, 21]] * 8).round().int().tolist()
        crop = images(4, 16)[index, :, top : top + 8, left : left + 8]
        assert torch.equal(seen[index], crop)
    # Fakes are rendered from the cameras that the discriminator is told.
    assert torch.equal(record.cameras[-1], record.judged[-2][2])
    torch.testing.assert_close(record.cameras[-1][:, 16], torch.tensor([3.0, 3, 1.5, 1.5]))


@pytest.mark.parametrize(("kimg", "sigma"), [(0.0, 4.0), (0.5, 2.0), (1.0, 0.0), (3.0, 0.0)])
def test_blur_fades_for_reals_and_fakes_alike(
    monkeypatch: pytest.MonkeyPatch, kimg: float, sigma: float
) -> None:
    generator = make_generator()
    objective = make_objective(schedule={"blur_sigma": 4.0, "blur_fade_kimg": 1.0})
    objective.images_seen.fill_(int(kimg * 1000))
    record = Record(monkeypatch, objective, generator)
    step(objective, generator)
    for (seen, _, _), source in zip(
        record.judged, (record.fakes[0].image.detach(), images(4)), strict=True
    ):
        expected = gaussian_blur(source, sigma) if sigma else source
        torch.testing.assert_close(seen.detach(), expected)


def test_style_mixing_swaps_the_fine_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make_generator()
    for share, fewest, most in ((0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)):
        objective = make_objective(schedule={"style_mixing": share})
        record = Record(monkeypatch, objective, generator)
        step(objective, generator, batch=40)
        mixed = 0
        for latents in record.latents:
            for ws in latents.foreground:
                changes = (ws[1:] != ws[:-1]).any(-1)
                assert changes.sum() <= 1
                mixed += int(changes.any())
        assert fewest <= mixed <= most


@pytest.mark.parametrize(
    ("kimg", "final", "low", "high"),
    [(0.0, 0.0, 1.0, 1.0), (1.0, 0.0, 0.3, 0.7), (2.0, 0.0, 0.0, 0.0), (9.0, 0.5, 0.3, 0.7)],
)
def test_generator_is_told_another_pose_with_the_scheduled_probability(
    monkeypatch: pytest.MonkeyPatch, kimg: float, final: float, low: float, high: float
) -> None:
    generator = make_generator(pose_conditioning=True)
    objective = make_objective(schedule={"pose_swap_final": final, "pose_swap_fade_kimg": 2.0})
    objective.images_seen.fill_(int(kimg * 1000))
    record = Record(monkeypatch, objective, generator)
    step(objective, generator, batch=64)
    told, own = record.conditions[0].camera_label, labels(64, 2)
    assert told is not None
    kept = (told == own).all(1)
    swapped = (told == own.roll(1, 0)).all(1)
    assert (kept ^ swapped).all()
    assert low <= swapped.float().mean() <= high


def test_one_scene_can_be_seen_by_several_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make_generator()
    objective = make_objective(schedule={"scenes_per_batch": 2})
    record = Record(monkeypatch, objective, generator)
    step(objective, generator)
    assert len(record.conditions[0].z) == 2
    assert record.fakes[0].image.shape[0] == 4
    assert torch.equal(record.cameras[0], labels(4, 2))


def test_rendered_resolution_follows_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make_generator(super_resolution=True)
    schedule = {"neural_resolution_final": 16, "neural_resolution_fade_kimg": 2.0}
    objective = make_objective(schedule=schedule, size=16, dual=True)
    sizes = [objective.neural_resolution(generator, kimg) for kimg in (0.0, 1.0, 2.0, 5.0)]
    assert sizes == [8, 12, 16, 16]
    objective.images_seen.fill_(1000)
    record = Record(monkeypatch, objective, generator)
    step(objective, generator)
    # Real raw images follow.
    assert [raw.shape[2:] for _, raw, _ in record.judged if raw is not None] == [(12, 12)] * 2


def test_running_mean_of_latents_is_updated() -> None:
    generator = make_generator()
    step(make_objective(), generator)
    assert generator.mapping.w_avg.abs().max() > 0


def sure_of_reals(objective: Objective) -> None:
    """Makes every logit 1: the last layer gives the label's own direction, scaled."""
    critic = objective.discriminator
    assert isinstance(critic, DualDiscriminator)
    with torch.no_grad():
        critic.b4.out.weight.zero_()
        critic.b4.out.bias.fill_(1)
        assert critic.mapping is not None
        for name, parameter in critic.mapping.named_parameters():
            parameter.fill_(1.0 if name.endswith("fc1.bias") else 0.0)


def test_adaptive_augmentation_rises_while_reals_are_recognised() -> None:
    generator = make_generator()
    ada = AdaConfig("adaptive", interval=2, kimg=1.0, max_p=0.01, transforms=AugmentConfig.off())
    objective = make_objective(ada=ada)
    sure_of_reals(objective)
    found = [step(objective, generator, number)[1]["augment_p"].item() for number in range(4)]
    # Every second step p rises by 4 * 2 / 1000, up to max_p.
    assert found == pytest.approx([0, 0.008, 0.008, 0.01])
    assert objective.augment is not None
    assert objective.augment.p.item() == pytest.approx(0.01)


def test_fixed_augmentation_stays_and_acts_on_reals_and_fakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = make_generator()
    transforms = AugmentConfig.off()
    transforms.brightness = 0.5
    objective = make_objective(ada=AdaConfig("fixed", initial_p=1.0, transforms=transforms))
    record = Record(monkeypatch, objective, generator)
    figures = step(objective, generator)[1]
    assert figures["augment_p"] == 1
    sources = (record.fakes[0].image.detach(), images(4))
    for (seen, _, _), source in zip(record.judged, sources, strict=True):
        shift = (seen.detach() - source).flatten(1)
        # Brightness adds one number to all pixels of an image, another to each image.
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-5, rtol=0)
        assert (shift[:, 0].abs() > 1e-4).all()


def test_camera_loss_asks_for_the_camera_of_the_image_that_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = make_generator()
    transforms = AugmentConfig.off()
    transforms.x_flip = True
    ada = AdaConfig("fixed", initial_p=1.0, transforms=transforms)
    objective = make_objective({"camera": 2.0}, ada=ada)
    record = Record(monkeypatch, objective, generator)
    losses, figures = step(objective, generator, batch=16)
    # Some of the images are mirrored, and their cameras with them.
    flipped = (record.judged[1][2] != labels(16, 1)).any(1)
    assert 0 < flipped.sum() < 16
    for kind, judgement, (_, _, shown) in zip(
        ("fake", "real"), record.judgements, record.judged, strict=True
    ):
        assert judgement.camera is not None
        expected = camera_loss(judgement.camera, shown)
        torch.testing.assert_close(figures[f"camera_{kind}"], expected)
    torch.testing.assert_close(losses["camera"], 2 * figures["camera_real"])
    adversarial = generator_loss(record.judgements[0].logits)
    torch.testing.assert_close(losses["generator"], adversarial + 2 * figures["camera_fake"])


def test_real_images_with_wrong_cameras_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make_generator()
    objective = make_objective({"wrong_camera": 0.5})
    record = Record(monkeypatch, objective, generator)
    losses, _ = step(objective, generator)
    image, raw, cameras = record.judged[1]
    wrong = objective.discriminator(image, raw, cameras.roll(1, 0))
    torch.testing.assert_close(losses["wrong_camera"], 0.5 * softplus(wrong).mean())
    losses["wrong_camera"].backward()
    assert not any(gradient.any() for gradient in gradients_of(generator))
    assert any(gradient.any() for gradient in gradients_of(objective.discriminator))


def test_neighbours_with_the_same_camera_are_not_wrong() -> None:
    generator = make_generator()
    objective = make_objective({"wrong_camera": 0.5})
    same = labels(1, 1).expand(4, -1)
    losses, _ = objective(generator, images(4, 8), same, labels(4, 2), 0)
    assert losses["wrong_camera"] == 0


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
