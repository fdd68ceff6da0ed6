"""G3DR's Scene of one image against what the official code renders of it, and its gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import orbit_labels, split_labels
from nerfstudio_gan3d.fields.multiplane import MultiPlane, to_published_frame
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.models.image_generator import ImageGenerator, expected_distance, opacity
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import DepthGuide, Jitter, RenderSettings, render
from nerfstudio_gan3d.scene import Bounds, Scene
from tests.parity.fill import Fixture, fill_value
from tests.parity.g3dr import filled_unet
from tests.parity.official import fixtures_with

FIXTURES = fixtures_with("novel_rgb", "canonical_near_rgb", models=("g3dr",))
CLOSE = (1e-5, 1e-5)
LOOSE = (2e-4, 1e-4)
FOCAL = 0.5 / math.tan(math.radians(9))
RADIUS = 5.0


def close(actual: Tensor, expected: Tensor, tolerance: tuple[float, float] = LOOSE) -> None:
    """Compares within (absolute, relative) tolerances."""
    atol, rtol = tolerance
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


class Official(NamedTuple):
    """The generator of a fixture, and the planes of its image, which ask for gradients."""

    fixture: Fixture
    generator: ImageGenerator
    planes: Tensor

    def scene(self) -> Scene:
        generator = self.generator
        prepared = generator.field.prepare(self.planes)
        field = BoundField(generator.field, prepared, generator.bounds.box)
        return Scene(field, generator.bounds, 1)

    def rays(self, azimuth: float, elevation: float, side: int) -> tuple[Tensor, Tensor]:
        angles = torch.tensor([azimuth]), torch.tensor([elevation])
        return self.generator.rays(orbit_labels(*angles, RADIUS, focal=FOCAL), side, side)

    def rendered(self, view: tuple[float, float], guide: DepthGuide | None) -> Rendering:
        side = self.fixture.config["render_size"]
        # The published code draws into a permuted tensor, sample by sample, and the fixture
        # stores the draws ray by ray as a plain one gets them.
        drawn = self.fixture["u_strat"].flatten().view(-1, side * side).T[None]
        jitter = Jitter(drawn, self.fixture["u_imp"][None])
        rays = self.rays(*view, side)
        return render(self.scene(), *rays, self.generator.settings, jitter, guide=guide)


def filled_decoder(field: MultiPlane, density_offset: float) -> None:
    """The decoder's weights by the fill rule, under their official names."""
    names = {"hidden": "net.0", "out": "net.2"}
    for own, official in names.items():
        layer = getattr(field.decoder, own)
        for kind in ("weight", "bias"):
            tensor = getattr(layer, kind)
            value = fill_value(f"decoder.{official}.{kind}", tuple(tensor.shape), density_offset)
            assert value is not None
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(value))


@pytest.fixture(params=FIXTURES, scope="module")
def official(request: pytest.FixtureRequest) -> Official:
    fixture = Fixture(request.param)
    field = MultiPlane(64, 3, 64, 3, axes="xy_xz_zx", rows_down=False)
    filled_decoder(field, fixture.config["density_offset"])
    corner = math.sqrt(3)
    settings = RenderSettings(32, 32, "reference", "box")
    bounds = Bounds((2.0, 2.0, 2.0), RADIUS - corner, RADIUS + corner)
    unet = filled_unet()
    generator = ImageGenerator(unet, field, bounds, RADIUS, FOCAL, 1.0, settings, 128, "reference")
    with torch.no_grad():
        planes = unet(torch.cat([fixture["rgb"], fixture["depth"]], dim=1))
    return Official(fixture, generator, planes.requires_grad_())


def test_the_fixture_is_here() -> None:
    assert FIXTURES


@pytest.mark.slow
def test_query_points(official: Official) -> None:
    published = official.fixture["pts"]
    # From the published world to ours: the inverse of (x, y, z) -> (-z, y, x).
    own = torch.stack([published[..., 2], published[..., 1], -published[..., 0]], dim=-1)
    assert torch.equal(to_published_frame(own), published)
    found = official.scene().field.query(own)
    close(found.raw_density, official.fixture["pts_sigma"])
    close(found.features, official.fixture["pts_rgb"])


@pytest.mark.slow
@pytest.mark.parametrize("view", ["canonical", "novel"])
def test_cameras_and_rays(official: Official, view: str) -> None:
    fixture = official.fixture
    yaw, pitch = fixture.config["canonical" if view == "canonical" else "novel_yaw_pitch"]
    azimuth, elevation = math.pi / 2 - yaw, math.pi / 2 - pitch
    angles = torch.tensor([azimuth]), torch.tensor([elevation])
    pose = split_labels(orbit_labels(*angles, RADIUS, focal=FOCAL))[0]
    expected = fixture[f"cam2world_{view}"]
    close(to_published_frame(pose[:, None, :3, 3])[:, 0], expected[:, :3, 3], CLOSE)
    # Their cameras look along -z with y up, ours along z with y down.
    axes = to_published_frame(pose[:, :3, :3].mT).mT * torch.tensor([1.0, -1.0, -1.0])
    close(axes, expected[:, :3, :3], CLOSE)
    stride = fixture.config["strides"]["rays"]
    origins, directions = official.rays(azimuth, elevation, fixture.config["render_size"])
    wanted = fixture[f"ray_d_{view}_sub"]
    close(to_published_frame(directions[:, ::stride]), wanted, CLOSE)
    if view == "novel":
        close(to_published_frame(origins[:, ::stride]), fixture["ray_o_novel_sub"], CLOSE)


# Views, whether fine samples lie about the known depth, and whether gradients are scaled.
RENDERINGS = {
    "novel": (None, False),
    "canonical_near": (0.05, True),
    "canonical_near_noscale": (0.05, False),
    "canonical_pdf": (None, True),
    "canonical_pdf_noscale": (None, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RENDERINGS)
def test_rendering_and_gradients(official: Official, name: str) -> None:
    fixture, side = official.fixture, official.fixture.config["render_size"]
    half_width, scale = RENDERINGS[name]
    known = fixture["depth_ref"]
    view, guide = (0.0, 0.0), None
    if name == "novel":
        view = (-0.3, 0.1)
    else:
        guide = DepthGuide(known.flatten(2).mT, half_width, scale)
    found = official.rendered(view, guide)
    rgb = (found.features * 2 - 1).mT.unflatten(2, (side, side))
    depth = expected_distance(found).mT.unflatten(2, (side, side))
    covered = opacity(found).mT.unflatten(2, (side, side))
    stored = name.removesuffix("_noscale")
    close(rgb, fixture[f"{stored}_rgb"])
    close(depth, fixture[f"{stored}_depth"])
    close(covered, fixture[f"{stored}_opacity"])
    middle = ((found.edges[..., 1:] + found.edges[..., :-1]) / 2)[
        :, :: fixture.config["strides"]["rays"]
    ]
    wanted = fixture[f"{stored}_tmid_sub"][..., 0]
    near = (middle - wanted).abs() <= 2e-4
    assert near.float().mean() >= 0.999
    loss = (rgb - fixture["target"]).abs().mean() + (1 - covered).mean()
    loss = loss + 2 * (depth - known).abs().mean()
    close(loss[None], fixture[f"{stored}_loss"], (2e-5, 1e-3))
    (gradient,) = torch.autograd.grad(loss, official.planes)
    norms = gradient[0].flatten(1).norm(dim=1)
    close(norms, fixture[f"{name}_plane_gradnorm"], (1e-9, 5e-3))
    close(gradient[:, :, ::8, 4::16, 4::16], fixture[f"{name}_plane_grad_sub"], (1e-9, 5e-3))
