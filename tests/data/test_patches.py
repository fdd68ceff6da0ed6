"""Patches and their cameras: a point of the scene stays on the pixel that shows it."""

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import PosePrior, pixel_rays, split_labels
from nerfstudio_gan3d.data.patches import PatchPlan, ScaledPatches, smallest_scale

CPU = torch.device("cpu")


def project(labels: Tensor, points: Tensor, size: int) -> Tensor:
    """Pixel positions of one point a camera."""
    cam2world, intrinsics = split_labels(labels)
    local = torch.linalg.solve(cam2world[:, :3, :3], points - cam2world[:, :3, 3])
    pixel = (intrinsics @ local[..., None])[..., 0]
    return pixel[:, :2] / pixel[:, 2:] * size


def labels(count: int) -> Tensor:
    found = PosePrior().sample(count).double()
    found[:, 17], found[:, 18], found[:, 21] = 0.02, 0.47, 0.55
    return found


def test_crop_camera_sees_a_point_where_the_crop_shows_it() -> None:
    plan = PatchPlan.draw(5, 1.0, 64, 16, CPU)
    cameras, points = labels(5), torch.rand(5, 3, dtype=torch.float64) - 0.5
    full = project(cameras, points, 64)
    cropped = project(plan.labels(cameras), points, 16)
    torch.testing.assert_close(cropped, full - plan.offset)


def test_crop_rays_are_the_rays_of_its_pixels() -> None:
    plan = PatchPlan.draw(3, 1.0, 32, 8, CPU)
    cameras = labels(3)
    full = pixel_rays(cameras, 32, 32)[1].unflatten(1, (32, 32))
    found = pixel_rays(plan.labels(cameras), 8, 8)[1].unflatten(1, (8, 8))
    for index, (left, top) in enumerate(plan.offset.tolist()):
        torch.testing.assert_close(
            found[index], full[index, top : top + 8, left : left + 8], atol=1e-9, rtol=0
        )


def test_crops_are_cut_out_and_whole_images_are_averaged() -> None:
    images = torch.randn(4, 3, 16, 16)
    plan = PatchPlan.draw(4, 0.5, 16, 4, CPU)
    assert plan.cropped.tolist() == [True, True, False, False]
    found = plan.images(images)
    for index, (left, top) in enumerate(plan.offset[:2].tolist()):
        assert torch.equal(found[index], images[index, :, top : top + 4, left : left + 4])
    blocks = images[2:].unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5))
    torch.testing.assert_close(found[2:], blocks)
    cameras = labels(4)
    assert torch.equal(plan.labels(cameras)[2:], cameras[2:])


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_share_of_crops(share: float, count: int) -> None:
    assert PatchPlan.draw(8, share, 64, 16, CPU).cropped.sum() == count


def test_crops_lie_everywhere_in_the_image_and_only_there() -> None:
    offset = PatchPlan.draw(4000, 1.0, 20, 17, CPU).offset
    for axis in range(2):
        counts = torch.bincount(offset[:, axis])
        # Four places; 16.3 is the 99.9th percentile with 3 degrees of freedom.
        assert len(counts) == 4
        assert ((counts - 1000.0).square() / 1000).sum() < 16.3


def test_patch_of_the_full_size_changes_nothing() -> None:
    plan = PatchPlan.draw(2, 1.0, 8, 8, CPU)
    images, cameras = torch.randn(2, 3, 8, 8), labels(2)
    assert torch.equal(plan.images(images), images)
    assert torch.equal(plan.labels(cameras), cameras)


def scaled(scale: list[float], shift: list[list[float]], image: int, patch: int) -> ScaledPatches:
    return ScaledPatches(torch.tensor(scale), torch.tensor(shift), image, patch)


def test_scaled_patches_look_images_up() -> None:
    """Pixel values x + 10 y of a 5 px image: the whole image on a grid of 3 has every second pixel,
    its right lower half on a grid of 3 starts in the middle."""
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    image = (x + 10 * y)[None, None].expand(2, -1, -1, -1)
    found = scaled([1.0, 0.5], [[0.0, 0.0], [0.5, 0.5]], 5, 3).images(image)
    whole = torch.tensor([[0.0, 2.0, 4.0], [20.0, 22.0, 24.0], [40.0, 42.0, 44.0]])
    half = torch.tensor([[22.0, 23.0, 24.0], [32.0, 33.0, 34.0], [42.0, 43.0, 44.0]])
    torch.testing.assert_close(found[:, 0], torch.stack([whole, half]))


def test_rays_of_scaled_patches_go_through_their_points() -> None:
    """Each ray is the bilinear mean of the rays of the pixels about it, before these have unit
    length: where images and rays are looked up must be the same place."""
    torch.manual_seed(0)
    plan = ScaledPatches.draw(6, 0.2, 32, 8, CPU)
    plan = ScaledPatches(plan.scale.double(), plan.shift.double(), 32, 8)
    cameras = labels(6)
    forward = split_labels(cameras)[0][:, :3, 2]

    def planar(directions: Tensor) -> Tensor:
        return directions / (directions * forward[:, None]).sum(-1, keepdim=True)

    full = planar(pixel_rays(cameras, 32, 32)[1]).mT.unflatten(2, (32, 32))
    expected = plan.images(full)
    found = planar(pixel_rays(plan.labels(cameras), 8, 8)[1]).mT.unflatten(2, (8, 8))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_scaled_patches_stay_in_the_image() -> None:
    torch.manual_seed(1)
    plan = ScaledPatches.draw(500, 0.25, 64, 32, CPU)
    assert plan.scale.min() >= 0.25
    assert plan.scale.max() <= 1
    assert (plan.shift.abs() + plan.scale[:, None] <= 1 + 1e-6).all()
    assert plan.scale.mean() == pytest.approx(0.625, abs=0.03)


def test_patches_grow_smaller() -> None:
    """GRAF: 0.9 until exp(-t) is below, then falling, 0.25 in the end."""
    assert smallest_scale(0.0, 0.9, 0.25, 1000.0) == 0.9
    assert smallest_scale(693.147, 0.9, 0.25, 1000.0) == pytest.approx(0.5, abs=1e-5)
    assert smallest_scale(1e5, 0.9, 0.25, 1000.0) == 0.25
    assert smallest_scale(0.0, 0.9, 0.25, 0.0) == 0.25
