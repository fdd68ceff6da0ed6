"""Splats of Scenes whose surface and colours are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_gan3d.export.level import NoSurfaceError
from nerfstudio_gan3d.export.splat_refine import chosen_rasterizer, refine_splats
from nerfstudio_gan3d.export.splat_views import (
    Surroundings,
    over_white,
    scene_views,
    splat_psnr,
)
from nerfstudio_gan3d.export.splats import (
    FLATNESS,
    OPACITY,
    make_splats,
    quick_splats,
    surface_points,
    surface_splats,
    turned_to,
)
from nerfstudio_gan3d.rendering.renderer import RenderSettings
from nerfstudio_gan3d.rendering.splatting import Splats, rasterize, rotations
from nerfstudio_gan3d.scene import Scene
from tests.export.analytic import Balls, Full, Parts, color_at, scene_of
from tests.export.shapes import solid
from tests.rendering.scenes import Backdrop, Ball

SETTINGS = RenderSettings(samples=32, importance_samples=32)
AROUND = Surroundings(radius=1.9, focal=1.5)
SIDE = 32
SURFACE = math.log(2)


def ball() -> Scene:
    """A solid ball of radius 0.3 whose colour is the position."""
    # Rays are half opaque 0.004 below the surface.
    return scene_of(Balls(slope=1e5))


def test_splats_of_one_side_lie_where_it_is_seen() -> None:
    """From distance d a ball of radius r is seen where z > r^2 / d. The box is twice as wide as
    deep, and its 32 cells are counted along the depth: each is 1/64."""
    around = Surroundings(radius=1.9, focal=1.5, azimuth_deg=(0.0, 0.0), elevation_deg=(0.0, 0.0))
    assert around.one_sided
    assert not AROUND.one_sided
    scene = scene_of(Balls(radii=(0.2,), slope=1e5), (1.0, 1.0, 0.5))
    cameras = around.training(1)
    splats = surface_splats(scene, 800, resolution=32, level=SURFACE, seen_from=cameras)
    assert len(splats) == 800
    # Triangles at the horizon and their neighbours reach beyond it by two cells at most.
    assert float(splats.means[:, 2].min()) > 0.2**2 / 1.9 - 2 / 64
    # Chords as long as a cell's diagonal lie up to 3 / 64^2 / (8 * 0.2) below the ball.
    assert float((splats.means.norm(dim=-1) - 0.2).abs().max()) < 3 / 64**2 / (8 * 0.2)
    with pytest.raises(ValueError, match=r"resolution is 600: .* give at most 512"):
        surface_splats(scene, 800, resolution=600, level=SURFACE, seen_from=cameras)
    quick = quick_splats(scene, SETTINGS, around, 200)
    assert 100 < len(quick) <= 200
    assert float(quick.means[:, 2].median()) > 0.05


def test_splats_lie_flat_on_a_ball_and_have_its_colours():
    splats = surface_splats(ball(), 800, 0.5, resolution=32, level=SURFACE)
    assert len(splats) == 800
    radii = splats.means.norm(dim=-1)
    # Chords of cells of 1/32 lie up to 1/32^2 / (8 * 0.3) = 0.0004 below the ball.
    assert float((radii - 0.3).abs().max()) < 2e-3
    outwards = splats.means / radii[:, None]
    thin = rotations(splats.quaternions)[:, :, 2]
    assert float((thin * outwards).sum(-1).min()) > 0.99
    torch.testing.assert_close(splats.scales[:, 2], FLATNESS * splats.scales[:, 0])
    torch.testing.assert_close(
        splats.colours, color_at(splats.means), atol=0.5 / 255 + 1e-6, rtol=0
    )
    assert bool((splats.opacities == OPACITY).all())
    # Each stands for 4 pi r^2 / 800 of the ball; the four nearest are about as far as its side.
    spacing = math.sqrt(4 * math.pi * 0.09 / 800)
    assert float(splats.scales[:, 0].mean()) == pytest.approx(0.5 * spacing, rel=0.15)
    larger = surface_splats(ball(), 800, 1.0, resolution=32, level=SURFACE)
    torch.testing.assert_close(larger.scales, 2 * splats.scales)


def test_points_are_spread_by_area():
    # A cube's lids have equal areas.
    points, normals = surface_points(trimesh.creation.box((1, 1, 1)), 600)
    faces = np.abs(np.abs(points) - 0.5) < 1e-9
    assert (faces.sum(1) == 1).all()
    assert [int(count) for count in faces.sum(0)] == [200, 200, 200]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-9)


def test_turns_take_the_z_axis_to_a_direction():
    ways = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1)
    ways = torch.cat([ways, torch.tensor([[0.0, 0, 1], [0, 0, -1]])])
    torch.testing.assert_close(rotations(turned_to(ways))[:, :, 2], ways, atol=1e-5, rtol=0)


def test_pictures_are_those_of_the_foreground_alone():
    cameras = AROUND.training(2)
    scene = Scene(Ball(), ball().bounds, 1, Backdrop())
    pictures = scene_views(scene, SETTINGS, cameras, SIDE)
    colour = torch.tensor([0.2, 0.5, 0.9, 1.0])
    torch.testing.assert_close(pictures[:, SIDE // 2, SIDE // 2], colour.expand(2, 4))
    assert not pictures[:, 0, 0].any()
    assert bool((over_white(pictures)[:, 0, 0] == 1).all())
    # What is behind the plane z = 0.1 is cut off; from the front the ball's cap covers a disc of
    # radius sqrt(0.08).
    front = replace(AROUND, azimuth_deg=(0.0, 0.0), elevation_deg=(0.0, 0.0)).cameras(1)
    cut = scene_views(scene, SETTINGS, front, 64, behind=0.1)[0, ..., 3]
    # Seen from 1.8 in front of the plane.
    radius = math.sqrt(0.08) / 1.8 * 1.5 * 64
    assert float(cut.sum()) == pytest.approx(math.pi * radius**2, rel=0.03)


def test_held_out_views_are_other_ones_within_the_same_limits():
    around = Surroundings(1.9, 1.5, (0.0, 0.1, 0.0), elevation_deg=(-5.0, 50.0))
    training, held_out = around.training(32), around.held_out()
    places = [
        labels[:, [3, 7, 11]] - torch.tensor([0.0, 0.1, 0.0]) for labels in (training, held_out)
    ]
    for seen in places:
        torch.testing.assert_close(seen.norm(dim=-1), torch.full((len(seen),), 1.9))
        assert float(torch.rad2deg((seen[:, 1] / 1.9).asin()).min()) > -5
        assert float(torch.rad2deg((seen[:, 1] / 1.9).asin()).max()) < 50
    assert len(places[1]) == 20
    assert float(torch.cdist(places[0], places[1]).min()) > 0.05


def test_a_ball_looks_like_itself_directly_and_better_refined():
    scene, cameras = ball(), AROUND.training(8)
    held_out = AROUND.held_out(4)
    pictures = scene_views(scene, SETTINGS, held_out)
    direct, refined = (
        splat_psnr(
            make_splats(scene, SETTINGS, cameras, 600, 0.5, steps=steps, side=48, resolution=32),
            held_out,
            pictures,
        )
        for steps in (0, 40)
    )
    assert float(direct.min()) > 23
    assert float(refined.min()) > 29


def test_surfaces_are_found_alike():
    scene = solid(Balls(surface_raw=0.0))
    splats = surface_splats(scene, 300, resolution=32)
    assert float((splats.means.norm(dim=-1) - 0.3).abs().max()) < 2e-3


def test_labels_give_exactly_their_colours():
    palette = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    scene = replace(scene_of(Parts(slope=1e5)), behind_labels=(9.0, 0.0, 0.0, 0.0, 0.0))
    splats = make_splats(
        scene, SETTINGS, AROUND.training(4), 200, steps=4, side=16, resolution=16, palette=palette
    )
    colours = {tuple(colour) for colour in splats.colours.tolist()}
    assert colours == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    direct = surface_splats(scene, 200, resolution=16, palette=palette)
    x, y, _ = direct.means.unbind(-1)
    right = (x > 0.02) & (y < 0)
    assert bool((direct.colours[right] == torch.tensor([0.0, 0, 1])).all())
    # Half covered pixels have the colour of the foreground's class, never that of what is behind.
    pictures = scene_views(scene, SETTINGS, AROUND.training(1), 16, palette)
    lower = pictures[0, 8:]
    assert bool((lower[..., 0] < 1e-6).all())
    torch.testing.assert_close(lower[..., :3].sum(-1), lower[..., 3])


def test_what_is_behind_is_left_out():
    splats = surface_splats(ball(), 200, resolution=32, behind=0.1)
    assert float(splats.means[:, 2].min()) > 0.1
    with pytest.raises(
        NoSurfaceError, match=r"nothing of the Scene's surface lies before z = 0\.4"
    ):
        surface_splats(ball(), 200, resolution=32, behind=0.4)


def test_one_splat_is_as_large_as_the_surface():
    (scale,) = surface_splats(ball(), 1, 0.5, resolution=32).scales[:, 0].tolist()
    assert scale == pytest.approx(0.5 * math.sqrt(4 * math.pi * 0.09), rel=0.02)


def test_a_scene_without_a_surface_is_refused():
    with pytest.raises(NoSurfaceError, match="the Scene has no surface"):
        surface_splats(scene_of(Full(raw=-50.0)), 100, resolution=16)


def known_splats() -> Splats:
    return surface_splats(ball(), 60, resolution=16)


def test_refinement_finds_colours_and_opacities_again_and_drops_what_nobody_sees():
    splats, cameras = known_splats(), AROUND.training(6)
    pictures = torch.stack([rasterize(splats, one, 24, 24) for one in cameras.split(1)])
    grey = replace(
        splats,
        colours=torch.full_like(splats.colours, 0.5),
        opacities=torch.full_like(splats.opacities, 0.5),
    )
    before = splat_psnr(grey, cameras, pictures)
    found = refine_splats(grey, cameras, pictures, 60)
    assert float((splat_psnr(found, cameras, pictures) - before).min()) > 10
    assert bool((found.colours >= 0).all())
    assert bool((found.colours <= 1).all())
    # The given ones are as they were.
    assert bool((grey.colours == 0.5).all())
    # Before black nothing is left to be seen.
    gone = refine_splats(
        replace(splats, opacities=0.02 * splats.opacities), cameras, pictures * 0, 60
    )
    assert len(gone) == 0
    assert bool(splat_psnr(gone, cameras, pictures * 0).isinf().all())
    assert refine_splats(splats, cameras, pictures, 0) is splats


def test_gsplat_is_refused_without_a_gpu():
    assert chosen_rasterizer("auto", torch.device("cpu")) == "torch"
    assert chosen_rasterizer("auto", torch.device("cuda")) == "gsplat"
    cameras = AROUND.training(1)
    with pytest.raises(ValueError, match="rasterizer gsplat needs a CUDA GPU"):
        refine_splats(known_splats(), cameras, torch.zeros(1, 8, 8, 4), 1, rasterizer="gsplat")


@pytest.mark.gpu
def test_gsplat_draws_and_refines_as_torch_does():
    from nerfstudio_gan3d.export.splat_refine import _gsplat_look, _torch_look
    from nerfstudio_gan3d.rendering.splatting import LOW_PASS

    cameras = AROUND.training(8)
    splats = known_splats()
    pictures = torch.stack([rasterize(splats, one, 48, 48) for one in cameras.split(1)])
    there = pictures.cuda()
    drawn = _gsplat_look(cameras.cuda(), there)(splats.to("cuda"), list(range(8)), LOW_PASS)
    torch.testing.assert_close(drawn.cpu(), pictures, atol=2e-3, rtol=0)
    again = _torch_look(cameras.cuda(), there)(splats.to("cuda"), [3], LOW_PASS)
    torch.testing.assert_close(again[0].cpu(), pictures[3], atol=2e-3, rtol=0)
    grey = replace(splats, colours=torch.full_like(splats.colours, 0.5))
    found = refine_splats(grey.to("cuda"), cameras.cuda(), there, 100, rasterizer="gsplat")
    better = splat_psnr(found.to("cpu"), cameras, pictures) - splat_psnr(grey, cameras, pictures)
    assert float(better.min()) > 10
