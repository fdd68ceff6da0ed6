"""What the players are shown: cameras, crops, blur, resolution and latents."""

import pytest
import torch
from torch.nn.functional import softplus

from nerfstudio_gan3d.data.augment import AugmentConfig
from nerfstudio_gan3d.losses.adversarial import camera_loss, generator_loss
from nerfstudio_gan3d.models.objective_config import AdaConfig
from nerfstudio_gan3d.networks.blur import gaussian_blur
from nerfstudio_gan3d.networks.discriminator import resize_antialias
from tests.models.objectives import Record, gradients_of, make_objective, step
from tests.models.tiny import images, labels, make_generator


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


def test_blur_reaches_the_raw_image_of_reals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make_generator(super_resolution=True)
    objective = make_objective(schedule={"blur_sigma": 3.0}, size=16, dual=True)
    record = Record(monkeypatch, objective, generator)
    step(objective, generator)
    (_, fake, _), (_, real, _) = record.judged
    assert fake is not None
    assert real is not None
    torch.testing.assert_close(fake, record.fakes[0].raw)
    expected = gaussian_blur(resize_antialias(images(4, 16), (8, 8)), 3.0)
    torch.testing.assert_close(real, expected)


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
