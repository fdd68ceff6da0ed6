"""Figures of a Scene made from one image: hand-worked values, published ones, analytic planes."""

import math

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import look_at, make_intrinsics, make_labels, orbit_labels, pixel_rays
from nerfstudio_gan3d.metrics.reconstruction import (
    depth_accuracy,
    inception_score,
    non_flatness,
    plane_warp,
    psnr,
    transparent_below_quantile,
)
from tests.parity.fill import Fixture


def test_psnr_of_known_differences() -> None:
    # In [-1, 1]: off by 0.2, (2 / 0.2)^2 = 100 is 20 dB; off by 2 everywhere is 0 dB.
    target = torch.zeros(3, 3, 4, 5)
    image = target + torch.tensor([0.2, 2.0, 0.0])[:, None, None, None]
    found = psnr(image, target)
    assert found[:2].tolist() == pytest.approx([20, 0], abs=1e-5)
    assert found[2] == math.inf
    # In [0, 1] the same 0.1 that is 20 dB there is 26.02 dB here.
    found = psnr(target[:1] + 0.1, target[:1], span=1.0)
    assert found.item() == pytest.approx(20, abs=1e-5)
    assert psnr(target[:1] + 0.1, target[:1]).item() == pytest.approx(26.0206, abs=1e-4)


def test_psnr_of_masked_pixels_sees_no_others() -> None:
    target = torch.zeros(2, 3, 2, 2)
    image = torch.full_like(target, math.inf)
    image[:, :, 0, 0] = 0.2
    mask = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    mask[0, :, 0, 0] = True
    found = psnr(image, target, mask)
    assert found[0].item() == pytest.approx(20, abs=1e-5)
    assert found[1].isnan()


def test_depth_up_to_scale_and_shift_is_exact_and_inside_out_shows() -> None:
    target = 4 + 2 * torch.rand(3, 1, 8, 8)
    depth = target * torch.tensor([0.5, 30.0, -2.0])[:, None, None, None] - 7
    error, correlation = depth_accuracy(depth, target)
    assert error.max() < 1e-5
    assert correlation.tolist() == pytest.approx([1, 1, -1], abs=1e-6)


def test_depth_accuracy_of_hand_worked_pixels() -> None:
    # x 0, 1, 2 and y 0, 0, 3: cov 1, var x 2/3, var y 2; the line is y = 1.5 x - 0.5, off by
    # 0.5, 1, 0.5, and the correlation 1 / sqrt(4/3) = 0.8660. The masked pixel is far off.
    depth = torch.tensor([0.0, 1, 2, 99]).view(1, 1, 2, 2)
    target = torch.tensor([0.0, 0, 3, math.nan]).view(1, 1, 2, 2)
    mask = torch.tensor([True, True, True, False]).view(1, 1, 2, 2)
    error, correlation = depth_accuracy(depth, target, mask)
    assert error.item() == pytest.approx(2 / 3)
    assert correlation.item() == pytest.approx(0.75**0.5)


def test_flat_depth_is_no_better_than_the_targets_mean() -> None:
    # The mean of 4, 6 is off by 1 from both; 5.1 is no dyadic number, so its mean is rounded.
    target = torch.tensor([4.0, 6, 4, 6]).view(1, 1, 2, 2)
    flat = torch.full_like(target, 5.1)
    assert [value.item() for value in depth_accuracy(flat, target)] == pytest.approx([1, 0])
    assert [value.item() for value in depth_accuracy(target, flat)] == pytest.approx(
        [0, 0], abs=1e-6
    )
    assert [value.item() for value in depth_accuracy(flat, flat)] == pytest.approx([0, 0], abs=1e-6)
    # 1e-4 of relief is relief, in single precision too.
    slight = flat + 1e-4 * (target - 5)
    error, correlation = depth_accuracy(slight, target)
    assert error.item() < 0.02
    assert correlation.item() > 0.999
    nothing = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    assert all(value.isnan().all() for value in depth_accuracy(target, flat, nothing))


def test_non_flatness_equals_the_published_values() -> None:
    stored = Fixture("losses")
    found = non_flatness(stored["nfs_depth"][:, None], 4.0, 6.0)
    torch.testing.assert_close(found.float(), stored["nfs_per_map"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.mean().float(), stored["nfs"][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found.log().float(), stored["nfs_entropy"], rtol=1e-5, atol=1e-6)


def test_non_flatness_of_flat_stepped_and_even_maps() -> None:
    flat = torch.full((64,), 4.7)
    even = 4 + 2 * (torch.arange(64) + 0.5) / 64
    # One quarter in one bin and three quarters in another: 2^2 / 3^(3/4) bins.
    stepped = torch.where(torch.arange(64) < 16, 4.5, 5.5)
    # Half before near, half behind far: two bins.
    outside = torch.where(torch.arange(64) < 32, -3.0, 9.0)
    maps = torch.stack([flat, even, stepped, outside]).view(4, 1, 8, 8)
    expected = [1, 64, 4 / 3**0.75, 2]
    assert non_flatness(maps, 4.0, 6.0).tolist() == pytest.approx(expected, rel=1e-6)
    assert non_flatness(maps, 4.0, 6.0, bins=8)[1].item() == pytest.approx(8)
    with pytest.raises(ValueError, match="far must be the larger"):
        non_flatness(maps, 6.0, 6.0)
    with pytest.raises(ValueError, match="depth holds NaN"):
        non_flatness(maps / 0, 4.0, 6.0)


def test_densities_below_the_quantile_are_emptied() -> None:
    # Sorted 0, 1, 2, 2.5, 3, 10, over the whole batch and not each row: the middle is 2.25.
    density = torch.tensor([[3.0, 0, 2], [10, 1, 2.5]])[:, :, None]
    found = transparent_below_quantile(density)
    assert found[..., 0].tolist() == [[3, 0, 0], [10, 0, 2.5]]
    # Sorted 0, 1, 2, 3, 10: the middle is 2, which stays.
    five = torch.tensor([3.0, 0, 2, 10, 1])
    assert transparent_below_quantile(five).tolist() == [3, 0, 2, 10, 0]
    # 0.3 lies 1.2 steps from the least: 1 + 0.2 (2 - 1) = 1.2.
    assert transparent_below_quantile(five, 0.3).tolist() == [3, 0, 2, 10, 0]
    assert transparent_below_quantile(five, 0.25).tolist() == [3, 0, 2, 10, 1]
    assert transparent_below_quantile(five, 1.0).tolist() == [0, 0, 0, 10, 0]
    assert transparent_below_quantile(five, 0.0).tolist() == five.tolist()
    raw = transparent_below_quantile(five - 5, empty=-1e3)
    assert raw.tolist() == [-2, -1e3, -3, 5, -1e3]
    assert transparent_below_quantile(torch.ones(4)).tolist() == [1] * 4
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="quantile is"):
            transparent_below_quantile(five, wrong)
    with pytest.raises(ValueError, match="quantile of no densities"):
        transparent_below_quantile(torch.zeros(0))


def test_the_cut_is_that_of_torch_quantile() -> None:
    density = torch.randn(7, 11).exp()
    for quantile in (0.05, 0.33, 0.5, 0.9):
        expected = torch.where(density < density.quantile(quantile), 0, density)
        assert torch.equal(transparent_below_quantile(density, quantile), expected)


def view(azimuth: float, elevation: float, radius: float = 3.0) -> Tensor:
    angles = torch.tensor([[azimuth], [elevation]], dtype=torch.float64)
    return orbit_labels(angles[0], angles[1], radius, focal=1.4)


def test_warp_into_the_same_camera_changes_nothing() -> None:
    image = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    camera = torch.cat([view(0.3, -0.2), view(1.0, 0.4)])
    warped, valid = plane_warp(image, camera, camera, torch.tensor([0.7, 5.0]).double())
    assert valid.all()
    torch.testing.assert_close(warped, image)


def test_warp_of_a_step_aside_is_a_shift_by_whole_pixels() -> None:
    # At distance 2 with focal length 1 a step of 0.5 to the image's right moves it by 1/4, that
    # is 2 of 8 pixels to the left.
    front = look_at(torch.tensor([[0.0, 0, 3]]), torch.zeros(1, 3))
    aside = front.clone()
    aside[:, 0, 3] += 0.5
    source, target = (make_labels(pose, make_intrinsics(1.0, 1)) for pose in (front, aside))
    image = torch.rand(1, 3, 4, 8)
    warped, valid = plane_warp(image, source, target, torch.tensor([2.0]))
    torch.testing.assert_close(warped[..., :6], image[..., 2:])
    assert valid[0, 0].tolist() == [[True] * 6 + [False] * 2] * 4
    assert warped[..., 6:].abs().max() == 0
    # Twice as far it moves by half as much.
    warped, valid = plane_warp(image, source, target, torch.tensor([4.0]))
    torch.testing.assert_close(warped[..., :7], image[..., 1:])
    # A step forward from 2 to 1 shows the middle half of the image.
    closer = front.clone()
    closer[:, 2, 3] -= 1
    target = make_labels(closer, make_intrinsics(1.0, 1))
    ramp = (torch.arange(8.0) + 0.5).expand(1, 3, 8, 8)
    warped, valid = plane_warp(ramp, source, target, torch.tensor([2.0]))
    assert valid.all()
    torch.testing.assert_close(warped[0, 0, 0], 2 + (torch.arange(8.0) + 0.5) / 2)


def seen(camera: Tensor, source: Tensor, distance: float, size: int) -> tuple[Tensor, Tensor]:
    """A smooth texture on the plane before the source, and where on the plane each pixel looks."""
    pose = source[0, :16].view(4, 4)
    right, down, forward, centre = (pose[:3, k] for k in range(4))
    origin, direction = (t[0] for t in pixel_rays(camera, size, size))
    middle = centre + distance * forward
    length = ((middle - origin) @ forward) / (direction @ forward)
    points = origin + length[:, None] * direction - middle
    a, b = points @ right, points @ down
    texture = torch.stack([(3 * a + 1).sin(), (2 * b - a).cos(), a * b])
    return texture.view(1, 3, size, size), torch.stack([a, b, length]).view(3, size, size)


def test_warp_of_a_textured_plane_is_its_other_view() -> None:
    size, distance = 96, 2.6
    source, target = view(0.2, 0.1), view(0.55, -0.15, 3.3)
    image, _ = seen(source, source, distance, size)
    expected, places = seen(target, source, distance, size)
    warped, valid = plane_warp(image, source, target, torch.tensor([distance]).double())
    # The image reaches to where the source sees its borders: half a width of 0.5 / 1.4 * distance.
    half = 0.5 / 1.4 * distance
    inside = (places[:2].abs() <= half).all(0)
    assert torch.equal(valid[0, 0], inside)
    assert 0.5 < inside.double().mean() < 0.99
    difference = (warped - expected).abs().amax(1)[0]
    # Bilinear between pixels of 0.019: less than 0.019^2 / 8 times the curvature of 9, twice.
    within = (places[:2].abs() <= half * (1 - 1 / size)).all(0)
    assert difference[within].max() < 1e-3
    assert expected.std() > 0.3


def test_warp_does_not_show_backs_or_what_lies_behind() -> None:
    image = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    source, distance = view(0.0, 0.0), torch.tensor([3.0]).double()
    for target in (view(math.pi, 0.0), view(2.5, 0.2)):
        warped, valid = plane_warp(image, source, target, distance)
        assert not valid.any()
        assert warped.abs().max() == 0
    # Exactly along the plane nothing is divided by zero.
    warped, valid = plane_warp(image, source, view(math.pi / 2, 0.0), distance)
    assert warped.isfinite().all()
    with pytest.raises(ValueError, match="must lie in front"):
        plane_warp(image, source, source, -distance)


def test_inception_score_of_known_classifiers() -> None:
    unsure = torch.full((40, 5), 0.2)
    assert inception_score(unsure, 4) == pytest.approx((1, 0))
    # Sure of each image, and all classes equally many in every part.
    sure = torch.eye(5).repeat(8, 1)
    assert inception_score(sure, 4) == pytest.approx((5, 0))
    # Sure, but always of the same.
    assert inception_score(sure[:1].expand(40, 5), 4) == pytest.approx((1, 0))
    # One part that is unsure, and one with two classes of equal share: 1 and 2.
    mixed = torch.cat([torch.full((4, 2), 0.5), torch.eye(2).repeat(2, 1)])
    assert inception_score(mixed, 2) == pytest.approx((1.5, 0.5))
    # All of them as one: the mean is even, and half of the images have log 2 against it.
    assert inception_score(mixed, 1) == pytest.approx((2**0.5, 0))


def test_inception_score_uses_every_image_and_refuses_what_is_none() -> None:
    # Five images in two parts: two, then three. The parts' mean shares are 1/2 and 1/3, 2/3.
    rows = torch.eye(2)[[0, 1, 0, 1, 1]].double()
    second = 3 / 2 ** (2 / 3)
    assert inception_score(rows, 2).mean == pytest.approx((2 + second) / 2)
    with pytest.raises(ValueError, match="5 images in 10 parts"):
        inception_score(rows)
    for wrong in (rows * 2, rows - 1, torch.full((5, 2), math.nan)):
        with pytest.raises(ValueError, match="no probabilities"):
            inception_score(wrong, 1)
