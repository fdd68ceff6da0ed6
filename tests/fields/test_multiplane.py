"""Planes at several resolutions: pyramids by hand, a plain twin, the frame and the axes."""

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, orbit_positions, pixel_rays
from nerfstudio_gan3d.fields.multiplane import (
    Frustum,
    MultiPlane,
    MultiPlaneAxes,
    PreparedImage,
    plane_pyramid,
    to_published_frame,
)
from nerfstudio_gan3d.fields.styled_table import StyledTable

# Antialiased bilinear reduction weighs texels by a triangle as wide as the output's texel to either
# side, and by what of it lies in the plane. From 4 to 2: 0.75 at half a texel, 0.25 at one and a
# half, so 3 3 1 of 7. From 4 to 1: 1 - 0.5 / 4 and 1 - 1.5 / 4, so 5 7 7 5 of 24.
HALF = torch.tensor([[3, 3, 1, 0], [0, 1, 3, 3]], dtype=torch.float64) / 7
QUARTER = torch.tensor([[5, 7, 7, 5]], dtype=torch.float64) / 24


def test_a_pyramid_of_four_texels_by_hand() -> None:
    planes = torch.randint(-9, 9, (2, 3, 2, 4, 4)).double()
    whole, half, quarter = plane_pyramid(planes, 3)
    assert torch.equal(whole, planes)
    torch.testing.assert_close(half, HALF @ planes @ HALF.T)
    # Of the planes themselves: the half's half would be another one.
    torch.testing.assert_close(quarter, QUARTER @ planes @ QUARTER.T)
    twice = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert (quarter - twice @ half @ twice.T).abs().max() > 0.05


def test_a_pyramid_in_the_middle_of_a_plane_by_hand() -> None:
    # One texel of 1 in a row of eight texels, the columns all alike: it weighs 3 / 8 in the half's
    # texel above it and 1 / 8 in the next one. In the quarter's first texel, whose triangle of
    # (1.5 .5 .5 1.5 2.5 3.5) / 4 off has the sum 3.5, the fourth texel weighs 0.625.
    row = torch.zeros(8)
    row[3] = 1
    planes = row[:, None].expand(1, 3, 1, 8, 8)
    _, half, quarter = plane_pyramid(planes, 3)
    torch.testing.assert_close(half[0, 0, 0, :, 0], torch.tensor([0, 3 / 8, 1 / 8, 0]))
    assert quarter[0, 0, 0, 0, 0].item() == pytest.approx(0.625 / 3.5)


def test_constant_planes_stay_constant() -> None:
    for copy in plane_pyramid(torch.full((1, 3, 2, 8, 8), 2.5), 4):
        torch.testing.assert_close(copy, torch.full_like(copy, 2.5))
    sides = [copy.shape[-1] for copy in plane_pyramid(torch.zeros(1, 3, 1, 8, 8), 4)]
    assert sides == [8, 4, 2, 1]


@pytest.mark.parametrize("resolutions", [0, -1, 5])
def test_resolutions_that_planes_do_not_have_are_refused(resolutions: int) -> None:
    with pytest.raises(ValueError, match=f"planes at {resolutions} resolutions.* 8 .* 1 to 4"):
        plane_pyramid(torch.zeros(1, 3, 1, 8, 8), resolutions)


def test_the_input_camera_stands_where_the_published_one_does() -> None:
    zero = torch.zeros(1)
    position = orbit_positions(zero, zero, 5.0)
    assert to_published_frame(position[None]).tolist() == [[[-5, 0, 0]]]
    # Seen from there, right is published +z, and up stays up.
    axes = to_published_frame(torch.eye(3)[None])[0]
    assert axes.tolist() == [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    assert torch.linalg.det(axes).item() == 1


def make_field(
    axes: MultiPlaneAxes = "xy_xz_zy",
    resolutions: int = 3,
    frustum: Frustum | None = None,
    rows_down: bool = False,
) -> MultiPlane:
    """A field of float64 whose density does not start at zero."""
    field = MultiPlane(4, 3, 8, resolutions, axes, frustum, rows_down).double()
    torch.nn.init.normal_(field.decoder.out.weight)
    torch.nn.init.normal_(field.decoder.out.bias)
    return field


def bilinear(plane: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A plane [C, S, S] at one place, as a sum over all texels; u, v in [-1, 1], zeros around."""
    size = plane.shape[-1]
    texels = torch.arange(size, dtype=plane.dtype)
    column, row = (((place + 1) / 2 * size - 0.5 - texels).abs() for place in (u, v))
    return torch.einsum("cij,i,j->c", plane, (1 - row).clamp(min=0), (1 - column).clamp(min=0))


def twin_feature(planes: Tensor, places: Tensor) -> Tensor:
    """Mean over planes of the sum over resolutions, [B, N, C], with corrected axes."""
    size = planes.shape[-1]
    rows = []
    for one, points in zip(planes, places, strict=True):
        levels = [
            torch.nn.functional.interpolate(one, size >> level, mode="bilinear", antialias=True)
            for level in range(3)
        ]
        for point in points:
            x, y, z = 2 * point  # [-1, 1] in the box
            # The published coordinates are (-z, y, x); its planes are x-y, x-z and z-y.
            pairs = (-z, y), (-z, x), (x, y)
            found = [bilinear(level[k], *pairs[k]) for level in levels for k in range(3)]
            rows.append(torch.stack(found).sum(0) / 3)
    return torch.stack(rows).view(*places.shape[:2], -1)


@pytest.mark.parametrize("follow_positions", [False, True])
def test_a_query_equals_the_plain_twin_in_values_and_gradients(follow_positions: bool) -> None:
    field = make_field()
    planes = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    # Some lie outside of the box, on one axis or on several.
    places = (torch.rand(2, 5, 3, dtype=torch.float64) - 0.5) * 1.3
    places.requires_grad_(follow_positions)
    found = field.query(field.prepare(planes), places)
    raw, colour = field.decoder(twin_feature(planes, places))
    torch.testing.assert_close(found.raw_density, raw)
    torch.testing.assert_close(found.features, colour)
    wanted = [planes, *field.parameters()] + ([places] if follow_positions else [])
    cotangent = torch.randn_like(raw), torch.randn_like(colour)
    outputs = (found.raw_density, found.features), (raw, colour)
    gradients = [torch.autograd.grad(both, wanted, cotangent) for both in outputs]
    torch.testing.assert_close(*gradients)
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients[0])
    alone = field.raw_density(field.prepare(planes), places)
    assert torch.equal(alone, found.raw_density)


def test_one_resolution_is_a_plain_tri_plane() -> None:
    field, planes = make_field(resolutions=1), torch.randn(1, 3, 4, 8, 8).double()
    prepared = field.prepare(planes)
    assert len(prepared.planes) == 1
    # A texel's centre gives the texel: (-z, y, x) = (-5, 1, 3) / 16 sides of the box is column 1
    # and row 4 of the first plane, column 1 and row 5 of the second, column 5 and row 4 of the
    # third.
    place = torch.tensor([[[3, 1, 5]]], dtype=torch.float64) / 16
    first, second, third = planes[0]
    feature = (first[:, 4, 1] + second[:, 5, 1] + third[:, 4, 5]) / 3
    raw, colour = field.decoder(feature[None, None])
    found = field.query(prepared, place)
    torch.testing.assert_close(found.raw_density, raw)
    torch.testing.assert_close(found.features, colour)


def test_nothing_is_found_outside_of_a_plane() -> None:
    field, planes = make_field(), torch.randn(1, 3, 4, 8, 8).double()
    far = torch.full((1, 1, 3), 0.9, dtype=torch.float64)
    raw, colour = field.decoder(torch.zeros(1, 1, 4).double())
    found = field.query(field.prepare(planes), far)
    torch.testing.assert_close(found.raw_density, raw)
    torch.testing.assert_close(found.features, colour)


def test_the_published_third_plane_repeats_the_second_one_transposed() -> None:
    planes = torch.randn(1, 3, 4, 8, 8).double()
    places = torch.rand(1, 20, 3).double() - 0.5
    first, second, third = planes[0]
    swapped = torch.stack([first, third.mT, second.mT])[None]
    colours = {}
    for axes in ("xy_xz_zx", "xy_xz_zy"):
        field = make_field(axes)
        colours[axes] = [
            field.query(field.prepare(value), places).features for value in (planes, swapped)
        ]
    torch.testing.assert_close(*colours["xy_xz_zx"])
    assert (colours["xy_xz_zy"][0] - colours["xy_xz_zy"][1]).abs().max() > 0.05


@pytest.mark.parametrize(("axes", "changes"), [("xy_xz_zx", True), ("xy_xz_zy", False)])
def test_only_corrected_axes_have_a_plane_parallel_to_the_image(
    axes: MultiPlaneAxes, changes: bool
) -> None:
    """Planes of which the third alone holds something: along the canonical view the corrected one
    does not change, and the published one does."""
    field = make_field(axes, resolutions=1)
    planes = torch.zeros(1, 3, 4, 8, 8).double()
    planes[:, 2] = torch.randn(4, 8, 8)
    depth = torch.linspace(-0.4, 0.4, 5).double()
    along = torch.stack([torch.full_like(depth, 0.1), torch.full_like(depth, -0.2), depth], dim=-1)
    raw = field.query(field.prepare(planes), along[None]).raw_density.flatten()
    assert bool((raw - raw[0]).abs().max() > 1e-6) == changes


def test_rows_that_run_down_are_the_same_planes_upside_down() -> None:
    torch.manual_seed(2)
    up, down = make_field(), make_field(rows_down=True)
    down.load_state_dict(up.state_dict())
    planes = torch.randn(1, 3, 4, 8, 8, dtype=torch.float64)
    positions = torch.rand(1, 30, 3, dtype=torch.float64) - 0.5
    mirrored = positions * torch.tensor([1.0, -1.0, 1.0])
    found = down.query(down.prepare(planes), positions)
    wanted = up.query(up.prepare(planes), mirrored)
    torch.testing.assert_close(found.features, wanted.features)
    torch.testing.assert_close(found.raw_density, wanted.raw_density)


def test_a_pixels_ray_stays_at_its_texel_of_the_camera_frame() -> None:
    """Row 1, column 5 of a plane parallel to the image is what the ray of that pixel finds."""
    radius, focal = 2.0, 1.5
    field = make_field(resolutions=1, frustum=Frustum(radius, focal), rows_down=True)
    planes = torch.zeros(1, 3, 4, 8, 8, dtype=torch.float64)
    planes[:, 2, :, 1, 5] = torch.tensor([3.0, -2.0, 1.0, 5.0], dtype=torch.float64)
    zero = torch.zeros(1)
    label = orbit_labels(zero, zero, radius, focal=focal).double()
    origins, directions = pixel_rays(label, 8, 8)
    alone, empty = planes[:, :, :, 1:2, 5:6].mean(1)[0, :, 0, 0], torch.zeros(4).double()
    for distance in (1.7, 2.0, 2.3):
        found = field.query(field.prepare(planes), origins + distance * directions)
        for pixel in range(64):
            feature = alone if pixel == 1 * 8 + 5 else empty
            raw, colour = field.decoder(feature[None, None])
            torch.testing.assert_close(found.raw_density[0, pixel], raw[0, 0])
            torch.testing.assert_close(found.features[0, pixel], colour[0, 0])


def test_beside_the_camera_frame_its_border_is_found() -> None:
    torch.manual_seed(3)
    frustum = Frustum(2.0, 1.5)
    field = make_field(frustum=frustum)
    prepared = field.prepare(torch.randn(1, 3, 4, 8, 8, dtype=torch.float64))
    # x = 0.59 at z = 0 is 1.5 * 0.59 / 2 = 0.4425 image sides to the right, beyond the centre of
    # the last texel of the finest plane (0.4375), and so of all copies.
    inside = torch.tensor([[[0.59, 0.1, 0.0]]], dtype=torch.float64)
    assert frustum.places(inside)[0, 0].tolist() == pytest.approx([0.4425, 0.075, 0.0])
    far = field.query(prepared, torch.tensor([[[5.0, 0.1, 0.0]]], dtype=torch.float64))
    near = field.query(prepared, inside)
    torch.testing.assert_close(far.features, near.features)
    middle = field.query(prepared, torch.tensor([[[0.3, 0.1, 0.0]]], dtype=torch.float64))
    assert not torch.allclose(middle.features, near.features)


def seen_by_decoder(field: MultiPlane, prepared: PreparedImage, places: Tensor) -> Tensor:
    """Features [B, N, C] that the decoder is given."""
    seen: list[Tensor] = []
    field.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    field.query(prepared, places)
    (feature,) = seen
    return feature


def make_detail() -> StyledTable:
    return StyledTable(6, 2, 3, 6, 8, 2, 5, implementation="torch", init_std=1.0)


@pytest.mark.parametrize("frustum", [None, Frustum(2.0, 1.5)])
def test_a_hash_grid_beside_the_planes(frustum: Frustum | None) -> None:
    """Its features follow the planes', at the position in the box or in the camera's view; each
    image has its own, and gradients reach what makes it so."""
    torch.manual_seed(5)
    detail = make_detail()
    field = MultiPlane(4, 3, 8, frustum=frustum, detail=detail)
    planes, style = torch.randn(1, 3, 4, 8, 8).expand(2, -1, -1, -1, -1), torch.randn(2, 6)
    prepared = field.prepare(planes, style)
    places = (torch.rand(1, 9, 3) - 0.5).expand(2, -1, -1) * 0.9
    feature = seen_by_decoder(field, prepared, places)
    at = places if frustum is None else frustum.places(places)
    # Rows run down: y is turned round in the grid too.
    at = at * torch.tensor([1.0, -1.0, 1.0]) + 0.5
    wanted = detail.encode(detail.mix(style[:, None].expand(-1, 2, -1)), at).flatten(2)
    torch.testing.assert_close(feature[..., 4:], wanted)
    assert torch.equal(feature[0, :, :4], feature[1, :, :4])
    assert not torch.allclose(feature[0, :, 4:], feature[1, :, 4:])
    torch.nn.init.normal_(field.decoder.out.weight)
    style.requires_grad_()
    found = field.query(field.prepare(planes, style), places)
    (found.raw_density.sum() + found.features.sum()).backward()
    assert style.grad is not None
    assert (style.grad.abs() > 0).all()
    gradients = [part.grad for part in detail.parameters()]
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients)


def test_a_wider_box_leaves_the_cameras_view_as_it_is() -> None:
    """The same place in sides of a box that is twice as wide: half of x and y."""
    place = torch.tensor([[[0.2, -0.3, 0.1]]], dtype=torch.float64)
    narrow, wide = Frustum(2.0, 1.5), Frustum(2.0, 1.5, width=2.0)
    half = place * torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(wide.places(half), narrow.places(place))
    # 1.5 * 0.2 / 1.9 and 1.5 * -0.3 / 1.9 by hand.
    assert narrow.places(place)[0, 0].tolist() == pytest.approx([0.3 / 1.9, -0.45 / 1.9, 0.1])
