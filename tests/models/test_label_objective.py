"""pix2pix3D's training step: who is seen from where, what is compared, and who learns from it."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.losses.labels import (
    cross_view_loss,
    image_reconstruction,
    label_cross_entropy,
)
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.gan import GanModelConfig, make_generator, make_objective
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.label_images import as_label_map
from nerfstudio_gan3d.models.label_objective import (
    LabelLossConfig,
    LabelObjective,
    cross_view,
)
from nerfstudio_gan3d.models.objective_config import LossConfig, ScheduleConfig
from nerfstudio_gan3d.networks.discriminator import resize_antialias
from nerfstudio_gan3d.networks.label_encoder import LabelMappingNetwork, encode_labels
from nerfstudio_gan3d.scene import Condition, Scene
from tests.models.tiny import field_config, images, labels, model_config

CLASSES = 3
NOTHING: dict[str, Any] = {
    "image_l1": 0.0,
    "lpips": 0.0,
    "labels": 0.0,
    "adversarial": 0.0,
    "cross_view": 0.0,
}


def label_config(kind: str = "seg", **changes: Any) -> LabelConfig:
    return LabelConfig(
        **{
            "kind": kind,
            "classes": CLASSES if kind == "seg" else 0,
            "feature_dim": 4,
            "encoder_base": 64,
            "encoder_max": 8,
            **changes,
        }
    )


def config(
    kind: str = "seg",
    representation: str = "triplane",
    super_resolution: bool = False,
    label_losses: dict[str, Any] | None = None,
    schedule: dict[str, Any] | None = None,
    **changes: Any,
) -> GanModelConfig:
    """16 px, of which 8 are rendered where there is super-resolution."""
    return model_config(
        representation=representation,
        image_resolution=16,
        neural_resolution=8 if super_resolution else 16,
        field=field_config(5 if super_resolution else 3),
        labels=label_config(kind),
        label_losses=LabelLossConfig(**{**NOTHING, **(label_losses or {})}),
        losses=LossConfig(r1_gamma=0.0, background=0.0, density_variation=0.0),
        schedule=ScheduleConfig(**{"blur_sigma": 0.0, **(schedule or {})}),
        **changes,
    )


def maps(count: int, kind: str = "seg") -> Tensor:
    source = torch.Generator().manual_seed(5)
    top = CLASSES if kind == "seg" else 256
    return torch.randint(0, top, (count, 1, 16, 16), generator=source, dtype=torch.uint8)


def build(settings: GanModelConfig) -> tuple[Generator, LabelObjective]:
    torch.manual_seed(0)
    generator, objective = make_generator(settings), make_objective(settings)
    assert isinstance(objective, LabelObjective)
    return generator, objective


def step(
    objective: LabelObjective, generator: Generator, number: int = 0, batch: int = 4
) -> dict[str, Tensor]:
    found, _ = objective(
        generator,
        images(batch, 16),
        labels(batch, 1),
        labels(batch, 2),
        number,
        1,
        maps(batch, objective.labels.kind),
    )
    return found


class Watch:
    """Cameras and results of every rendering."""

    def __init__(self, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cameras: list[Tensor] = []
        self.made: list[Any] = []
        plain = generator.render

        def render(scene: Any, cameras: Tensor, *rest: Any, **named: Any) -> Any:
            self.cameras.append(cameras)
            self.made.append(plain(scene, cameras, *rest, **named))
            return self.made[-1]

        monkeypatch.setattr(generator, "render", render)


def test_every_scene_is_seen_from_its_own_pose_and_from_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator, objective = build(config(schedule={"scenes_per_batch": 2}))
    watch = Watch(generator, monkeypatch)
    step(objective, generator)
    own, other = labels(4, 1), labels(4, 2)
    # Cameras 0 and 2 see Scene 0, cameras 1 and 3 Scene 1.
    expected = torch.stack([own[0], other[1], other[2], own[1]])
    torch.testing.assert_close(watch.cameras[0], expected)
    assert len(watch.cameras) == 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_random_poses_is_kept_with_one_camera_a_scene(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, objective = build(config(label_losses={"random_pose": share, "labels": 1.0}))
    watch = Watch(generator, monkeypatch)
    found = step(objective, generator)
    torch.testing.assert_close(watch.cameras[0], labels(4, 2 if share else 1))
    # What is not seen from its own pose is not compared.
    assert (float(found["label_map"]) == 0) == bool(share)


def test_only_images_from_their_own_pose_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"labels": 2.0, "image_l1": 3.0}
    generator, objective = build(config(label_losses=weights, schedule={"scenes_per_batch": 2}))
    watch = Watch(generator, monkeypatch)
    found = step(objective, generator)
    made = watch.made[0]
    # Images 0 and 3 are those; half of all count, which halves the published strength.
    rows, scenes = [0, 3], [0, 1]
    expected = 2.0 * 0.5 * label_cross_entropy(made.labels[rows], maps(4)[scenes])
    torch.testing.assert_close(found["label_map"], expected)
    expected = 3.0 * 0.5 * image_reconstruction(made.image[rows], images(4, 16)[scenes])
    torch.testing.assert_close(found["image_l1"], expected)


@pytest.mark.parametrize("raw_only", [False, True])
def test_super_resolved_images_are_compared_at_both_sizes(
    raw_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"labels": 1.0, "random_pose": 0.0, "raw_only": raw_only}
    generator, objective = build(config(super_resolution=True, label_losses=weights))
    watch = Watch(generator, monkeypatch)
    found = step(objective, generator)
    made = watch.made[0]
    assert made.raw_labels.shape == (4, CLASSES, 8, 8)
    assert made.labels.shape == (4, CLASSES, 16, 16)
    expected = label_cross_entropy(made.raw_labels, maps(4))
    if not raw_only:
        expected = expected + label_cross_entropy(made.labels, maps(4))
    torch.testing.assert_close(found["label_map"], expected)


@pytest.mark.parametrize("colours", [False, True])
def test_the_label_discriminator_teaches_labels_and_colours_if_told_to(colours: bool) -> None:
    weights = {"adversarial": 1.0, "adversarial_colours": colours}
    generator, objective = build(config(label_losses=weights))
    # Without the image discriminator's verdict nothing is left that looks at colours.
    with torch.no_grad():
        for parameter in objective.discriminator.parameters():
            parameter.zero_()
    found = step(objective, generator)
    found["generator"].backward()
    decoder: Any = generator.field.decoder
    assert decoder.label_out.weight.grad.abs().max() > 0
    assert bool(decoder.out.weight.grad.any()) == colours
    assert all(p.grad is None for p in objective.parameters())


def test_both_discriminators_can_judge_in_bfloat16() -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        generator, objective = build(config(label_losses={"adversarial": 1.0}))
        objective.dtype = dtype
        torch.manual_seed(1)
        losses = step(objective, generator)
        sum(losses.values(), torch.zeros(())).backward()
        critic = objective.label_discriminator
        assert critic is not None
        for part in (generator, objective.discriminator, critic):
            gradients = [p.grad.flatten() for p in part.parameters() if p.grad is not None]
            assert all(gradient.dtype == torch.float32 for gradient in gradients)
            found.append(torch.cat(gradients))
    # Eight bits of mantissa; equal values would say that nothing was computed with them.
    for precise, rough in zip(found[:3], found[3:], strict=True):
        error = (rough - precise).norm() / precise.norm()
        assert 1e-5 < error < 0.1


@pytest.mark.parametrize("kind", ["seg", "edge"])
@pytest.mark.parametrize("representation", ["triplane", "hashgrid"])
@pytest.mark.parametrize("super_resolution", [False, True])
def test_every_parameter_gets_a_gradient(
    kind: str, representation: str, super_resolution: bool
) -> None:
    weights = {"adversarial": 0.1, "image_l1": 1.0, "labels": 1.0, "cross_view": 0.1}
    generator, objective = build(
        config(kind, representation, super_resolution, weights, {"scenes_per_batch": 2})
    )
    with torch.no_grad():
        # Its zero density output keeps gradients from the networks behind it in the first step.
        last: Any = generator.field.decoder if representation == "triplane" else generator.field
        (last.label_out if representation == "triplane" else last.out).weight.normal_()
    sum(step(objective, generator).values(), torch.zeros(())).backward()
    for name, parameter in [*generator.named_parameters(), *objective.named_parameters()]:
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()) or not name.startswith("mapping."), name


def test_cross_view_compares_with_the_scene_of_the_labels_seen_from_elsewhere() -> None:
    generator, _ = build(config())
    maps_in, pose, other = encode_labels(maps(2), "seg", CLASSES), labels(2, 1), labels(2, 2)
    condition = Condition(torch.randn(2, 16), torch.randn(2, 16), pose, maps_in)
    decoder: Any = generator.field.decoder
    with torch.no_grad():
        decoder.label_out.weight.normal_()
        scene = generator.scene(generator.map(condition))
        labels_there: Any = generator.render(scene, other).labels
        seen = labels_there.argmax(1, keepdim=True)
        anew = encode_labels(seen.to(torch.uint8), "seg", CLASSES)
        again = Condition(condition.z, condition.z_background, other, anew)
        recovered = generator.render(generator.scene(generator.map(again)), pose).raw_labels
        reference = generator.render(scene, pose).raw_labels
        assert recovered is not None
        assert reference is not None
        expected = cross_view_loss(recovered, reference)
    found = cross_view(generator, condition, scene, other)
    assert float(expected) > 1e-4
    torch.testing.assert_close(found, expected)
    # The first Scene is what the second one is held against: nothing learns through it.
    scene_ws = generator.map(condition)
    scene = generator.scene(scene_ws)
    (gradient,) = torch.autograd.grad(
        cross_view(generator, condition, scene, other), scene_ws.foreground, allow_unused=True
    )
    assert gradient is None


def plain_cross_view(
    generator: Generator, condition: Condition, scene: Scene, others: Tensor
) -> Tensor:
    """The same with whole images, of which only labels are looked at."""
    pose, settings = condition.camera_label, generator.labels
    assert pose is not None
    assert settings is not None
    with torch.no_grad():
        seen: Any = generator.render(scene, others, jitter=True).labels
        wanted: Any = generator.render(scene, pose, jitter=True).raw_labels
    anew = replace(condition, label_map=as_label_map(seen, settings), camera_label=others)
    again: Any = generator.render(generator.scene(generator.map(anew)), pose, jitter=True)
    return cross_view_loss(again.raw_labels, wanted)


@pytest.mark.parametrize(("kind", "representation"), [("seg", "triplane"), ("edge", "hashgrid")])
@pytest.mark.parametrize("super_resolution", [False, True])
def test_cross_view_has_value_and_gradients_of_whole_images(
    kind: Any, representation: str, super_resolution: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, _ = build(config(kind, representation, super_resolution))
    decoder: Any = generator.field.decoder if representation == "triplane" else generator.field
    with torch.no_grad():
        (decoder.label_out if representation == "triplane" else decoder.out).weight.normal_()
    maps_in = encode_labels(maps(2, kind), kind, CLASSES)
    behind = torch.randn(2, 16) if generator.background is not None else None
    condition = Condition(torch.randn(2, 16), behind, labels(2, 1), maps_in)
    enlarged: list[Any] = []
    if generator.superresolution_labels is not None:
        generator.superresolution_labels.register_forward_hook(lambda *_: enlarged.append(1))
    results = []
    for compute in (plain_cross_view, partial(cross_view, jitter=True)):
        if compute is not plain_cross_view and super_resolution:
            # Colours are not made larger at all, and labels once.
            monkeypatch.delattr(generator, "superresolution")
            enlarged.clear()
        torch.manual_seed(3)
        loss = compute(
            generator, condition, generator.scene(generator.map(condition)), labels(2, 2)
        )
        assert float(loss) > 1e-5
        parameters = list(generator.mapping.parameters()) + list(generator.field.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        results.append((loss, found, float(torch.rand(()))))
    assert len(enlarged) == int(super_resolution)
    (loss, gradients, after), (plain_loss, plain_gradients, plain_after) = results
    torch.testing.assert_close(loss, plain_loss)
    assert after == plain_after
    assert any(gradient is not None and gradient.any() for gradient in gradients)
    for gradient, plain in zip(gradients, plain_gradients, strict=True):
        assert (gradient is None) == (plain is None)
        if gradient is not None and plain is not None:
            torch.testing.assert_close(gradient, plain)


def test_cross_view_is_not_computed_without_weight_or_between_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for weight, interval, number, renders in ((0.0, 1, 0, 1), (1.0, 2, 0, 4), (1.0, 2, 1, 1)):
        given = {"cross_view": weight, "cross_view_interval": interval}
        generator, objective = build(config(label_losses=given))
        calls, plain = [], generator.label_images

        def counted(*given: Any, calls: Any = calls, plain: Any = plain) -> Any:
            calls.append(given)
            return plain(*given)

        monkeypatch.setattr(generator, "label_images", counted)
        found = step(objective, generator, number)
        assert len(calls) == renders
        assert ("cross_view" in found) == (renders == 4)


def test_a_few_steps_bring_the_labels_towards_the_map() -> None:
    generator, objective = build(config(label_losses={"labels": 1.0, "random_pose": 0.0}))
    mapping = generator.mapping
    assert isinstance(mapping, LabelMappingNetwork)
    optimizer = torch.optim.Adam(generator.parameters(), 0.01)
    target = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    target[0, 0, 4:12, 4:12] = 1
    target[1, 0, 4:12, 4:12] = 2
    scores = []
    for number in range(25):
        optimizer.zero_grad()
        found, _ = objective(
            generator, images(2, 16), labels(2, 1), labels(2, 1), number, 1, target
        )
        found["label_map"].backward()
        optimizer.step()
        scores.append(float(found["label_map"]))
    assert scores[-1] < 0.6 * scores[0]


def test_lpips_is_refused_until_its_network_is_loaded() -> None:
    generator, objective = build(config(label_losses={"lpips": 1.0}))
    with pytest.raises(ValueError, match=r"prepare\(\)"):
        step(objective, generator)
    objective.perceptual = lambda a, b: (a - b).abs().mean((1, 2, 3))
    found = step(objective, generator)
    assert 0 < float(found["lpips"]) < 2
    assert not any("perceptual" in name for name in objective.state_dict())


@pytest.mark.parametrize("rows", [[0, 3], [1], []])
def test_lpips_sees_only_images_that_count(rows: list[int]) -> None:
    _, objective = build(config(label_losses={"lpips": 1.0}))
    seen: list[int] = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        seen.append(len(a))
        return ((a - b) ** 2).mean((1, 2, 3)) + a.amax((1, 2, 3))

    objective.perceptual = distance
    counted = torch.zeros(4).index_fill(0, torch.tensor(rows, dtype=torch.long), 1.0)
    real, image = images(4, 16), images(4, 8).flip(2).requires_grad_()
    found = objective._lpips(image, real, counted)
    (gradient,) = torch.autograd.grad(found, image)
    assert seen == ([len(rows)] if rows else [])
    every = distance(image, resize_antialias(real, (8, 8)))
    expected = (every * counted).sum() / max(len(rows), 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, image)[0])
    assert bool(gradient.any()) == bool(rows)


def test_a_faint_object_cannot_outvote_what_is_behind_it() -> None:
    generator, _ = build(config())
    maps_in = encode_labels(maps(1), "seg", CLASSES)
    condition = Condition(torch.randn(1, 16), torch.randn(1, 16), labels(1), maps_in)
    decoder: Any = generator.field.decoder
    with torch.no_grad():
        # Everywhere class 2, as surely as can be, in a thin haze of one density.
        decoder.label_out.weight.zero_()
        decoder.label_out.bias.copy_(torch.tensor([-1.0, 0.0, 0.0, 1000.0]))
        made = generator.render(generator.scene(generator.map(condition)), labels(1))
    opacity = made.rendering.accumulation.mT.unflatten(2, (16, 16))[:, 0]
    assert 0.05 < float(opacity.max()) < 0.9
    assert made.labels is not None
    shares = made.labels.exp() - 1e-3
    torch.testing.assert_close(shares[:, 2], opacity, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shares[:, 0], 1 - opacity, atol=1e-4, rtol=1e-4)
