"""Splats from Python: of a ball that is known, of classes, and what is refused in one sentence."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import nerfstudio_gan3d
from nerfstudio_gan3d.api import Gan
from nerfstudio_gan3d.export.level import NoSurfaceError
from nerfstudio_gan3d.export.splat_files import read_splats, write_splats
from nerfstudio_gan3d.export.splat_views import surroundings
from nerfstudio_gan3d.export.splats import make_splats
from nerfstudio_gan3d.rendering.splatting import Splats
from nerfstudio_gan3d.scene import Bounds, Scene
from tests.cli.g3dr_run import untrained_g3dr
from tests.export.analytic import Balls, color_at
from tests.rendering.scenes import Backdrop

BOUNDS = Bounds((1.0, 1.0, 1.0), 1.1, 2.7)
SURFACE = math.log(2)


@pytest.fixture(scope="module")
def ballgan() -> Gan:
    return nerfstudio_gan3d.load("ballgan-cars64", "cpu")


@pytest.fixture(scope="module")
def pix2pix3d() -> Gan:
    return nerfstudio_gan3d.load("pix2pix3d-cars64", "cpu")


@pytest.fixture(scope="module")
def g3dr(tmp_path_factory: pytest.TempPathFactory) -> Gan:
    return nerfstudio_gan3d.load(untrained_g3dr(tmp_path_factory.mktemp("g3dr") / "run"), "cpu")


def ball(background: Backdrop | None = None) -> Scene:
    """A solid ball of radius 0.3 whose colour is the position."""
    return Scene(Balls(slope=1e5), BOUNDS, 1, background)


def same(found: Splats, expected: Splats) -> None:
    for name, values in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), values, atol=0, rtol=0)


def test_a_ball_computed_directly(ballgan: Gan, tmp_path: Path) -> None:
    found = ballgan.splats(ball(), 500, steps=0, resolution=32, level=SURFACE)
    assert len(found) == 500
    # Chords of cells of 1/32 lie up to 1/32^2 / (8 * 0.3) = 0.0004 below the ball.
    assert float((found.means.norm(dim=-1) - 0.3).abs().max()) < 2e-3
    torch.testing.assert_close(found.colours, color_at(found.means), atol=0.5 / 255 + 1e-6, rtol=0)
    larger = ballgan.splats(ball(), 500, size=1.6, steps=0, resolution=32, level=SURFACE)
    torch.testing.assert_close(larger.scales, 2 * found.scales)
    write_splats(found, tmp_path / "ball.ply")
    torch.testing.assert_close(read_splats(tmp_path / "ball.ply").means, found.means)


def test_they_are_refined_from_where_the_scenes_are_looked_at(ballgan: Gan) -> None:
    run = ballgan.run
    options = {"steps": 2, "resolution": 24, "level": SURFACE}
    found = ballgan.splats(ball(Backdrop()), 60, **options)
    cameras = surroundings(run.settings).training(32)
    expected = make_splats(ball(), run.generator.settings, cameras, 60, **options)
    # The background is no part of them.
    same(found, expected)
    assert not found.means.requires_grad
    direct = ballgan.splats(ball(), 60, steps=0, resolution=24, level=SURFACE)
    assert float((found.means - direct.means).abs().max()) > 0


def test_classes_keep_their_colours(pix2pix3d: Gan) -> None:
    found = pix2pix3d.splats(pix2pix3d.scene(0), 200, steps=0, resolution=24, color="labels")
    palette = torch.tensor(pix2pix3d.run.labels().palette) / 255
    # By matrix products, equal colours could be 3e-4 apart.
    apart = torch.cdist(found.colours, palette, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(apart.amin(1).max()) < 1e-6
    assert len(apart.argmin(1).unique()) > 1


def test_what_lies_behind_is_left_out(g3dr: Gan) -> None:
    # The box is 2 deep: 0.1 half sides behind the origin is z = -0.1, before it z = 0.1.
    assert g3dr.run.settings.box[2] == 2
    for behind in (0.1, -0.1):
        found = g3dr.splats(ball(), 300, steps=0, resolution=32, level=SURFACE, behind=behind)
        assert float(found.means[:, 2].min()) == pytest.approx(-behind, abs=0.05)
        assert float(found.means[:, 2].min()) > -behind
    with pytest.raises(NoSurfaceError, match=r"lies before z = 0\.5"):
        g3dr.splats(ball(), 300, steps=0, resolution=32, level=SURFACE, behind=-0.5)


def test_refused_in_one_sentence(ballgan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = ball()
    cases = {
        "count = 0: give a positive number of splats": {"count": 0},
        r"size = 0\.0: it must be positive": {"size": 0.0},
        "steps = -1: give 0, which refines nothing, or more": {"steps": -1},
        r"^behind is 1\.0; it must lie between -1 and 1": {"behind": 1.0},
        "^behind: .* not made of photographs": {"behind": 0.6},
        "color = labels: .* a method without labels": {"color": "labels"},
    }
    for match, given in cases.items():
        with pytest.raises(ValueError, match=match):
            ballgan.splats(scene, **given)
    with pytest.raises(ValueError, match="scene holds 2 Scenes; give one"):
        ballgan.splats(Scene(Balls(), BOUNDS, 2))
    empty = Scene(Balls(surface_raw=-500.0), BOUNDS, 1)
    with pytest.raises(NoSurfaceError):
        ballgan.splats(empty, resolution=16)
    with pytest.raises(ValueError, match="gsplat needs a CUDA GPU"):
        ballgan.splats(scene, 20, resolution=16, level=SURFACE, rasterizer="gsplat")
    monkeypatch.setattr(ballgan.run.settings, "view_focal", 0.0)
    with pytest.raises(ValueError, match="both must be positive to place a camera"):
        ballgan.splats(scene)
