"""The pipeline: what is drawn and how often, colours, labels and second derivatives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import mirror_labels
from nerfstudio_gan3d.data.augment import Augment, AugmentConfig
from nerfstudio_gan3d.data.augment_color import ColorDraws, apply_color, color_map


def _augment(p: float, config: AugmentConfig | None = None, **changes: Any) -> Augment:
    augment = Augment(replace(config or AugmentConfig.off(), **changes))
    augment.p.fill_(p)
    return augment


def _batch(count: int, channels: int = 3, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(count, channels, size, size, generator=generator) * 2 - 1
    return image, torch.randn(count, 25, generator=generator)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PRESETS = {
    "corrected": AugmentConfig.corrected,
    "full": AugmentConfig.full,
    "geometry_color": AugmentConfig.geometry_color,
    "light": AugmentConfig.light,
}
every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())


@every_preset
def test_nothing_happens_at_p_0(preset) -> None:
    image, labels = _batch(4)
    state = torch.get_rng_state()
    out, out_labels = _augment(0, preset())(image, labels)
    assert out is image
    assert out_labels is labels
    assert torch.equal(torch.get_rng_state(), state)


@every_preset
def test_same_generator_same_result_and_both_triples_agree(preset) -> None:
    image, labels = _batch(16, channels=6)
    augment = _augment(0.7, preset())
    both, both_labels = augment(image, labels, _seeded(3))
    assert not torch.equal(both, image)
    for triple in (slice(0, 3), slice(3, 6)):
        alone, alone_labels = augment(image[:, triple], labels, _seeded(3))
        torch.testing.assert_close(both[:, triple], alone, atol=1e-5, rtol=0)
        assert torch.equal(both_labels, alone_labels)
    assert torch.equal(augment(image, labels, _seeded(3))[0], both)
    assert not torch.equal(augment(image, labels, _seeded(4))[0], both)
    torch.manual_seed(11)
    first = augment(image, labels)[0]
    torch.manual_seed(11)
    assert torch.equal(augment(image, labels)[0], first)


WHOLE_PIXELS = {"x_flip": True, "rot90": True, "integer_translation": 0.5, "hue": 180.0}


@pytest.mark.parametrize("preset", [*PRESETS, "whole_pixels"])
def test_second_derivatives(preset: str) -> None:
    image, labels = _batch(4, size=5)
    image = image.double().requires_grad_()
    if preset == "whole_pixels":
        augment = _augment(0.7, **WHOLE_PIXELS)
    else:
        augment = _augment(0.7, PRESETS[preset]())

    def through_a_discriminator(images: Tensor) -> Tensor:
        return augment(images, labels, _seeded(5))[0].tanh().sum(dim=1)

    assert torch.autograd.gradcheck(through_a_discriminator, (image,), fast_mode=True)
    assert torch.autograd.gradgradcheck(through_a_discriminator, (image,), fast_mode=True)


def test_r1_of_a_linear_discriminator_by_hand() -> None:
    """D(x) = sum(a x) under contrast c has the gradient a c: R1 = n a^2 c^2, dR1/da = 2 n a c^2."""
    image, labels = _batch(1, size=2)
    image.requires_grad_()
    weight = torch.tensor(0.7, requires_grad=True)
    out, _ = _augment(1.0, contrast=0.5)(image, labels, _seeded(0))
    contrast = (out / image).detach()[0, 0, 0, 0].item()
    (gradient,) = torch.autograd.grad((weight * out).sum(), image, create_graph=True)
    gradient.square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(2 * 0.7 * contrast**2 * 12, rel=1e-5)


def test_images_for_which_nothing_was_drawn_come_out_bit_for_bit() -> None:
    image, labels = _batch(2000, size=4)
    out, _ = _augment(0.05, AugmentConfig.corrected())(image, labels, _seeded(0))
    untouched = (out == image).flatten(1).all(1).float().mean()
    # Ten transformations at 5 %: 0.95^10 = 0.599; four standard deviations are 0.044.
    assert untouched == pytest.approx(0.599, abs=0.044)


def test_choosing_rows_gives_what_computing_all_rows_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The CPU chooses the drawn images, other devices compute all and choose afterwards."""
    image, labels = _batch(12)
    augment = _augment(0.3, AugmentConfig.full())
    together, _ = augment(image, labels, _seeded(2))
    monkeypatch.setattr("nerfstudio_gan3d.data.augment._change", _change_all)
    apart, _ = augment(image, labels, _seeded(2))
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=0)


def _change_all(image: Tensor, active: Tensor, transform, *parameters: Tensor) -> Tensor:
    return torch.where(active[:, None, None, None], transform(image, *parameters), image)


@pytest.mark.parametrize("p", [0.25, 1.0])
def test_how_often_and_how_strongly_brightness_and_contrast_change(p: float) -> None:
    count, grey = 4000, torch.full((4000, 3, 2, 2), 0.5)
    labels = torch.zeros(count, 25)
    four_sigma = 4 * math.sqrt(p * (1 - p) / count)
    moved = _augment(p, brightness=0.2)(grey, labels, _seeded(0))[0][:, 0, 0, 0] - 0.5
    drawn = moved != 0
    assert drawn.float().mean() == pytest.approx(p, abs=four_sigma)
    assert moved[drawn].mean() == pytest.approx(0, abs=0.03)
    assert moved[drawn].std() == pytest.approx(0.2, rel=0.1)
    factor = _augment(p, contrast=0.5)(grey, labels, _seeded(1))[0][:, 0, 0, 0] / 0.5
    drawn = factor != 1
    assert drawn.float().mean() == pytest.approx(p, abs=four_sigma)
    assert factor[drawn].log2().mean() == pytest.approx(0, abs=0.07)
    assert factor[drawn].log2().std() == pytest.approx(0.5, rel=0.1)


def test_flips_come_in_half_of_the_drawn_images() -> None:
    count = 4000
    image, labels = torch.linspace(-1, 1, 2).expand(count, 3, 2, 2), torch.zeros(count, 25)
    out, _ = _augment(0.4, x_flip=True)(image, labels, _seeded(0))
    flipped = (out == image.flip(3)).flatten(1).all(1)
    assert torch.equal(out[~flipped], image[~flipped])
    assert flipped.float().mean() == pytest.approx(0.2, abs=0.026)
    grey = torch.full((count, 3, 2, 2), 0.5)
    out, _ = _augment(0.4, luma_flip=True)(grey, labels, _seeded(0))
    assert (out[:, 0, 0, 0] < 0).float().mean() == pytest.approx(0.2, abs=0.026)


def test_whole_pixel_shifts_are_uniform_and_bounded() -> None:
    count = 3000
    ramp = torch.arange(32.0).expand(count, 3, 32, 32)
    labels = torch.zeros(count, 25)
    out, _ = _augment(1.0, integer_translation=0.125)(ramp, labels, _seeded(0))
    shift = 16 - out[:, 0, 16, 16]
    # Rounding U(-4, 4) puts 1/8 on each of -3..3, and half as much on -4 and 4.
    share = torch.stack([(shift == step).float().mean() for step in range(-4, 5)])
    expected = torch.tensor([1, 2, 2, 2, 2, 2, 2, 2, 1]) / 16
    torch.testing.assert_close(share, expected, atol=0.025, rtol=0)
    assert torch.equal(shift, shift.round())


def test_the_two_rotations_together_are_drawn_with_p() -> None:
    image, labels = _batch(3000, size=3)
    out, _ = _augment(0.5, rotation=180.0)(image, labels, _seeded(0))
    changed = (out != image).flatten(1).any(1).float().mean()
    assert changed == pytest.approx(0.5, abs=0.037)


@pytest.mark.parametrize("setting", ["isotropic_scale", "anisotropic_scale"])
def test_scales_are_log_normal_and_keep_their_axes(setting: str) -> None:
    changes: dict[str, Any] = {setting: 0.2}
    count = 500
    position = torch.arange(24.0) - 11.5
    x, y = position.expand(24, 24), position[:, None].expand(24, 24)
    image = torch.stack([x, y, x]).expand(count, 3, 24, 24)
    out, _ = _augment(1.0, **changes)(image, torch.zeros(count, 25), _seeded(0))
    # The slope of the ramps at the centre is 1 / magnification.
    wide = -(out[:, 0, 12, 12] - out[:, 0, 12, 11]).log2()
    tall = -(out[:, 1, 12, 12] - out[:, 1, 11, 12]).log2()
    assert wide.std() == pytest.approx(0.2, rel=0.15)
    sign = 1 if setting == "isotropic_scale" else -1
    torch.testing.assert_close(tall, sign * wide, atol=1e-3, rtol=0)


def _homogeneous_twin(draws: ColorDraws, row: int) -> Tensor:
    """The product of 4x4 matrices of Karras et al. 2020, appendix B."""
    identity, matrix = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    v = torch.tensor([1, 1, 1, 0], dtype=torch.float64) / math.sqrt(3)
    outer = torch.outer(v, v)
    if draws.brightness is not None:
        step = identity.clone()
        step[:3, 3] = draws.brightness[row]
        matrix = step @ matrix
    if draws.contrast is not None:
        scale = draws.contrast[row].expand(3)
        matrix = torch.diag(torch.cat([scale, torch.ones(1).double()])) @ matrix
    if draws.luma_flip is not None and draws.luma_flip[row]:
        matrix = (identity - 2 * outer) @ matrix
    if draws.hue is not None:
        x, y, z = v[:3]
        cross = torch.zeros(4, 4, dtype=torch.float64)
        cross[0, 1], cross[0, 2], cross[1, 2] = -z, y, -x
        cross = cross - cross.T
        matrix = torch.linalg.matrix_exp(draws.hue[row] * cross) @ matrix
    if draws.saturation is not None:
        matrix = (outer + (identity - outer) * draws.saturation[row]) @ matrix
        matrix[3] = torch.tensor([0, 0, 0, 1])
    return matrix


def test_colour_map_equals_the_product_of_homogeneous_matrices() -> None:
    torch.manual_seed(0)
    draws = ColorDraws(
        brightness=torch.randn(5).double(),
        contrast=torch.rand(5).double() + 0.5,
        luma_flip=torch.tensor([True, False, True, False, True]),
        hue=torch.randn(5).double() * 2,
        saturation=torch.rand(5).double() * 2,
    )
    matrix, offset = color_map(draws, 5, torch.device("cpu"), torch.float64)
    for row in range(5):
        twin = _homogeneous_twin(draws, row)
        torch.testing.assert_close(matrix[row], twin[:3, :3])
        torch.testing.assert_close(offset[row].expand(3), twin[:3, 3])


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ({"brightness": torch.tensor([0.25])}, [1.15, 0.55, 0.25]),
        ({"contrast": torch.tensor([2.0])}, [1.8, 0.6, 0.0]),
        # The luma is 0.4; chroma (0.5, -0.1, -0.4).
        ({"luma_flip": torch.tensor([True])}, [0.1, -0.5, -0.8]),
        ({"luma_flip": torch.tensor([False])}, [0.9, 0.3, 0.0]),
        ({"hue": torch.tensor([math.pi])}, [-0.1, 0.5, 0.8]),
        ({"hue": torch.tensor([2 * math.pi / 3])}, [0.0, 0.9, 0.3]),
        ({"saturation": torch.tensor([0.0])}, [0.4, 0.4, 0.4]),
        ({"saturation": torch.tensor([2.0])}, [1.4, 0.2, -0.4]),
        # (0.9 + 0.1) * 3 and so on: contrast acts after brightness.
        ({"brightness": torch.tensor([0.1]), "contrast": torch.tensor([3.0])}, [3.0, 1.2, 0.3]),
    ],
)
def test_colours_worked_by_hand(draws: dict[str, Tensor], expected: list[float]) -> None:
    rgb = torch.tensor([0.9, 0.3, 0.0]).repeat(2).view(1, 6, 1, 1)
    mapping = color_map(ColorDraws(**draws), 1, torch.device("cpu"), torch.float32)
    out = apply_color(rgb.expand(1, 6, 2, 2), *mapping)
    torch.testing.assert_close(out[0, :, 1, 0], torch.tensor(expected * 2), atol=1e-6, rtol=0)


def test_a_flip_mirrors_the_label_of_the_same_image() -> None:
    image, labels = _batch(64)
    out, out_labels = _augment(1.0, x_flip=True)(image, labels, _seeded(0))
    flipped = (out == image.flip(3)).flatten(1).all(1)
    assert 10 < flipped.sum() < 54
    assert torch.equal(out_labels[~flipped], labels[~flipped])
    assert torch.equal(out_labels[flipped], mirror_labels(labels[flipped]))
    # Entry 3 is the x coordinate of the camera.
    assert torch.equal(out_labels[flipped, 3], -labels[flipped, 3])
    published = _augment(1.0, x_flip=True, label_true_flips=False)
    same, same_labels = published(image, labels, _seeded(0))
    assert torch.equal(same, out)
    assert same_labels is labels


def test_half_precision_comes_back_with_single_precision_inside() -> None:
    image, labels = _batch(8)
    augment = _augment(0.8, AugmentConfig.full())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = augment(image.bfloat16(), labels, _seeded(1))
    single, _ = augment(image.bfloat16().float(), labels, _seeded(1))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, single.bfloat16())


def test_presets_differ_where_they_say() -> None:
    full, corrected = AugmentConfig.full(), AugmentConfig()
    assert (full.rot90, full.rotation, full.label_true_flips) == (True, 180.0, False)
    assert (corrected.rot90, corrected.rotation, corrected.label_true_flips) == (False, 0.0, True)
    assert AugmentConfig.corrected() == corrected
    assert not AugmentConfig.off().moves
    assert not AugmentConfig.off().colors
    assert not AugmentConfig.geometry_color().x_flip
    assert AugmentConfig.light().resamples
    assert AugmentConfig.light().rotation == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("brightness", -0.1), ("contrast", math.nan), ("rotation", 181.0), ("saturation", math.inf)],
)
def test_impossible_strengths_are_refused_by_name(name: str, value: float) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"augment.{name} is {value}"):
        AugmentConfig(**changes)


def test_wrong_shapes_are_refused() -> None:
    augment = _augment(0.5, brightness=0.2)
    for shape in [(2, 4, 8, 8), (2, 3, 1, 8)]:
        with pytest.raises(ValueError, match="needs \\[B, 3 or 6, H, W\\]"):
            augment(torch.zeros(shape), torch.zeros(2, 25))
    with pytest.raises(ValueError, match="needs \\[2, 25\\]"):
        # Called directly, because the shape checks of the test runs would come first.
        augment._check(torch.zeros(2, 3, 8, 8), torch.zeros(1, 25))
    with pytest.raises(ValueError, match=r"augment\.rot90 needs square images"):
        _augment(0.5, rot90=True)(torch.zeros(2, 3, 8, 6), torch.zeros(2, 25))
