"""The rasteriser of splats against loops, gsplat's own projection and values known by hand."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, split_labels
from nerfstudio_gan3d.rendering.splatting import (
    DENSEST,
    FAINTEST,
    HIDDEN,
    LOW_PASS,
    Splats,
    project_splats,
    rasterize,
    rotations,
    splat_pixels,
)

SIDE = 12
FOCAL = 1.5


def camera(azimuth: float = 0.0, elevation: float = 0.0) -> Tensor:
    """A camera two units from the origin; z-depth of the origin is 2."""
    angles = (torch.tensor([value], dtype=torch.float64) for value in (azimuth, elevation))
    return orbit_labels(*angles, radius=2.0, focal=FOCAL)


def cloud(count: int = 30, seed: int = 0) -> Splats:
    """Gaussians of all shapes about the origin, some of them beside the picture."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return Splats(
        (uniform(count, 3) - 0.5) * 1.4,
        uniform(count, 4) - 0.5,
        0.02 + 0.2 * uniform(count, 3),
        0.05 + 0.9 * uniform(count),
        uniform(count, 3),
    )


def looped(splats: Splats, label: Tensor, height: int, width: int) -> Tensor:
    """Pixel by pixel and splat by splat, from the definition."""
    cam2world, intrinsics = split_labels(label)
    centre, covariance, depth = [], [], []
    for row in range(len(splats)):
        local = cam2world[0, :3, :3].T @ (splats.means[row] - cam2world[0, :3, 3])
        fx, fy = intrinsics[0, 0, 0] * width, intrinsics[0, 1, 1] * height
        cx, cy = intrinsics[0, 0, 2] * width, intrinsics[0, 1, 2] * height
        x, y, z = local
        centre.append(torch.stack([fx * x / z + cx, fy * y / z + cy]))
        zero = torch.zeros_like(z)
        # No splat stands farther out than 1.3 half fields of view.
        a = (x / z).clamp(-cx / fx - 0.15 * width / fx, (width - cx) / fx + 0.15 * width / fx)
        b = (y / z).clamp(-cy / fy - 0.15 * height / fy, (height - cy) / fy + 0.15 * height / fy)
        jacobian = torch.stack(
            [torch.stack([fx / z, zero, -fx * a / z]), torch.stack([zero, fy / z, -fy * b / z])]
        )
        turn = rotations(splats.quaternions[row : row + 1])[0]
        spread = turn @ torch.diag(splats.scales[row] ** 2) @ turn.T
        view = jacobian @ cam2world[0, :3, :3].T
        covariance.append(view @ spread @ view.T + LOW_PASS * torch.eye(2, dtype=z.dtype))
        depth.append(float(z.detach()))
    order = sorted(range(len(splats)), key=lambda row: depth[row])
    pixels = []
    for row in range(height):
        for column in range(width):
            left, found = torch.ones((), dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
            for index in order:
                away = torch.tensor([column + 0.5, row + 0.5], dtype=torch.float64) - centre[index]
                power = away @ torch.linalg.inv(covariance[index]) @ away
                alpha = (splats.opacities[index] * torch.exp(-power / 2)).clamp(max=DENSEST)
                if float(alpha.detach()) < FAINTEST:
                    continue
                if float((left * (1 - alpha)).detach()) <= HIDDEN:
                    break
                value = torch.cat([splats.colours[index], torch.ones(1, dtype=torch.float64)])
                found = found + left * alpha * value
                left = left * (1 - alpha)
            pixels.append(found)
    return torch.stack(pixels).view(height, width, 4)


def learnable(splats: Splats) -> Splats:
    return Splats(
        **{
            item.name: getattr(splats, item.name).clone().requires_grad_()
            for item in fields(Splats)
        }
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_pictures_and_gradients_are_those_of_a_loop(seed: int):
    label = camera(0.4, 0.3)
    fast, slow = learnable(cloud(seed=seed)), learnable(cloud(seed=seed))
    found, expected = rasterize(fast, label, SIDE, SIDE + 3), looped(slow, label, SIDE, SIDE + 3)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-7)
    assert float(found[..., 3].detach().max()) > 0.9
    assert float(found[..., 3].detach().min()) < 0.5
    cotangent = torch.randn(found.shape, dtype=torch.float64)
    (found * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    for item in fields(Splats):
        gradients = [getattr(splats, item.name).grad for splats in (fast, slow)]
        torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-6)


def test_hidden_splats_are_left_out_as_in_a_loop():
    many = cloud(60)
    dense = replace(many, opacities=torch.full((60,), 0.97, dtype=torch.float64))
    found = rasterize(dense, camera(), 6, 6)
    torch.testing.assert_close(found, looped(dense, camera(), 6, 6), atol=1e-9, rtol=1e-7)


def one(**changes: object) -> Splats:
    """A round splat of half a pixel in the middle of a picture of SIDE pixels."""
    # A pixel is 2 / (1.5 SIDE) units wide at the origin.
    alone = Splats(
        torch.zeros(1, 3, dtype=torch.float64),
        torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
        torch.full((1, 3), 0.5 * 2 / (FOCAL * SIDE), dtype=torch.float64),
        torch.tensor([0.8], dtype=torch.float64),
        torch.tensor([[0.2, 0.5, 1.0]], dtype=torch.float64),
    )
    return replace(alone, **changes)


def test_one_splat_is_a_gaussian_of_its_size_and_the_low_pass():
    found = rasterize(one(), camera(), SIDE, SIDE)
    # Variance 0.25 + 0.3 pixels^2; the four middle pixels' centres are half a pixel away on both
    # axes: q = 2 * 0.25 / 0.55.
    alpha = 0.8 * math.exp(-0.5 / 0.55 / 2)
    middle = found[SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1]
    expected = torch.tensor([0.2 * alpha, 0.5 * alpha, alpha, alpha], dtype=torch.float64)
    torch.testing.assert_close(middle, expected.expand(2, 2, 4))
    # Two and a half pixels away on one axis and half a one on the other: 0.8 exp(-6.5 / 1.1) is
    # below 1/255.
    assert 0.8 * math.exp(-6.5 / 1.1) < FAINTEST
    assert float(found[SIDE // 2, SIDE // 2 + 2, 3]) == 0
    far = 0.8 * math.exp(-2.5 / 1.1)
    assert float(found[SIDE // 2, SIDE // 2 + 1, 3]) == pytest.approx(far)
    assert int((found[..., 3] > 0).sum()) == 16


def test_nearer_splats_stand_in_front():
    # Both are dense and wide; the camera stands at z = 2.
    pair = Splats(
        torch.tensor([[0.0, 0, -0.2], [0.0, 0, 0.2]]),
        torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4),
        torch.full((2, 3), 1.0),
        torch.tensor([1.0, 0.5]),
        torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]),
    )
    label = camera().float()
    front = rasterize(pair, label, 3, 3)[1, 1]
    torch.testing.assert_close(front, torch.tensor([0.4995, 0, 0.5, 0.9995]), atol=1e-3, rtol=0)
    back = rasterize(pair, camera(math.pi).float(), 3, 3)[1, 1]
    torch.testing.assert_close(back, torch.tensor([0.999, 0, 0.0005, 0.9995]), atol=1e-3, rtol=0)


def test_projection_is_gsplats():
    splats, label = cloud(200), camera(2.0, -0.4)
    label[:, 17] = 0.0
    cam2world, intrinsics = split_labels(label)
    covariances, _ = _quat_scale_to_covar_preci(splats.quaternions, splats.scales, True, False)
    assert covariances is not None
    size = intrinsics.new_tensor([[SIDE], [SIDE], [1.0]])
    # Wider than the picture, so that gsplat culls none.
    radii, centres, depths, conics, _ = _fully_fused_projection(
        splats.means, covariances, torch.linalg.inv(cam2world), intrinsics * size, SIDE, SIDE
    )
    found = project_splats(splats, label, SIDE, SIDE)
    seen = radii[0] > 0
    assert int(seen.sum()) > 150
    torch.testing.assert_close(found.centres[seen], centres[0][seen])
    torch.testing.assert_close(found.depths[seen], depths[0][seen])
    xx, xy, yy = found.covariances.unbind(-1)
    inverse = torch.stack([yy, -xy, xx], -1) / (xx * yy - xy * xy)[:, None]
    torch.testing.assert_close(inverse[seen], conics[0][seen])


def test_what_is_behind_the_camera_or_too_faint_is_not_seen():
    behind = one(means=torch.tensor([[0.0, 0, 2.5]], dtype=torch.float64))
    faint = one(opacities=torch.tensor([0.9 / 255], dtype=torch.float64))
    beside = one(means=torch.tensor([[5.0, 0, 0]], dtype=torch.float64))
    for splats in (behind, faint, beside, one().rows(torch.zeros(1, dtype=torch.bool))):
        splats = learnable(splats)
        found = rasterize(splats, camera(), SIDE, SIDE)
        assert not found.any()
        found.sum().backward()
        assert splats.means.grad is not None
        assert bool(splats.means.grad.isfinite().all())


def test_pairs_are_sorted_in_large_pictures_too():
    # More than 2^16 pixels are sorted by two digits.
    splats = cloud(5)
    footprints = project_splats(splats, camera(), 300, 300)
    splat, pixel = splat_pixels(footprints, splats.opacities, 300, 300)
    keys = pixel.double() + footprints.depths[splat] / 10
    assert len(keys) > 10_000
    assert int(pixel.max()) > 2**16
    assert bool((keys.diff() > 0).all())


def test_rotations_turn_as_quaternions_do():
    # A quarter turn about y takes z to x.
    turn = rotations(torch.tensor([[0.5**0.5, 0.0, 0.5**0.5, 0.0]]) * 3)[0]
    torch.testing.assert_close(turn[:, 2], torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-6, rtol=0)
