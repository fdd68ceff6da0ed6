"""The Python interface: Scenes, pictures, meshes, and what is refused in one sentence."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trimesh.visual import ColorVisuals

import nerfstudio_gan3d
from nerfstudio_gan3d.api import Gan
from nerfstudio_gan3d.api_outputs import chosen_outputs
from nerfstudio_gan3d.cameras import labels_to_cameras
from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.latents import LabelView, SceneRequest
from nerfstudio_gan3d.method_configs.pix2pix3d import gan3d_pix2pix3d_edge_tiny
from nerfstudio_gan3d.pretrained import fresh_model
from nerfstudio_gan3d.run import MODEL_PREFIX
from nerfstudio_gan3d.scene import Bounds, Scene
from nerfstudio_gan3d.training.checkpoints import checkpoint_path, save_atomic
from tests.cli.g3dr_run import untrained_g3dr
from tests.export.analytic import Balls, scene_of
from tests.models.tiny_g3dr import kept_images
from tests.rendering.scenes import Backdrop, Ball, LabelledBall
from tests.training.micro import micro_config

SIZE = 17
"""An odd side has a pixel in the middle, whose ray goes through the origin."""
BOUNDS = Bounds((1.0, 1.0, 1.0), 1.1, 2.7)
RADIUS = 1.9
"""Distance of the bundled cars' cameras."""


@pytest.fixture(scope="module")
def ballgan() -> Gan:
    return nerfstudio_gan3d.load("ballgan-cars64", "cpu")


@pytest.fixture(scope="module")
def pix2pix3d() -> Gan:
    return nerfstudio_gan3d.load("pix2pix3d-cars64", "cpu")


@pytest.fixture(scope="module")
def g3dr(tmp_path_factory: pytest.TempPathFactory) -> Gan:
    config = untrained_g3dr(tmp_path_factory.mktemp("g3dr") / "run")
    return nerfstudio_gan3d.load(config.parent, torch.device("cpu"))


@pytest.fixture
def finely(ballgan: Gan, monkeypatch: pytest.MonkeyPatch) -> Gan:
    """The same with samples every few thousandths, so that what is known shows."""
    generator = ballgan.run.generator
    monkeypatch.setattr(generator, "settings", dataclasses.replace(generator.settings, samples=400))
    return ballgan


def same_field(found: Scene, expected: Scene) -> None:
    positions = torch.rand(1, 50, 3) - 0.5
    parts = [one.field.query(positions) for one in (found, expected)]
    assert torch.equal(parts[0].raw_density, parts[1].raw_density)
    assert torch.equal(parts[0].features, parts[1].features)


def test_three_lines_show_what_the_run_shows(ballgan: Gan) -> None:
    scene = ballgan.scene(seed=3, truncation=0.7)
    images = ballgan.render(scene, [(30, 15), (120, 15)])
    run = ballgan.run
    request = SceneRequest(seed=3, truncation=0.7)
    expected = run.render(run.scene(request), run.orbit([30.0, 120.0]))
    np.testing.assert_array_equal(images.rgb, expected["rgb"].numpy())
    np.testing.assert_array_equal(images.depth, expected["depth"][..., 0].numpy())
    np.testing.assert_array_equal(images.alpha, expected["accumulation"][..., 0].numpy())
    assert images.rgb.shape == (2, 64, 64, 3)
    assert images.rgb.dtype == images.depth.dtype == images.alpha.dtype == np.float32
    assert images.labels is None
    assert images.rgba is None
    assert "gan3d-ballgan-tiny" in repr(ballgan)
    assert ballgan.size == 64
    # Cars of the data set cover 9 to 44 % of an image, and look different from two sides.
    covered = (images.alpha > 0.5).mean((1, 2))
    assert ((covered > 0.05) & (covered < 0.5)).all()
    assert np.abs(images.rgb[0] - images.rgb[1]).mean() > 0.02


def test_all_ways_to_name_cameras_are_the_same(ballgan: Gan) -> None:
    scene = ballgan.scene(1)
    angles = [(90.0, 0.0), (200.0, 40.0)]
    labels = ballgan.orbit([90.0, 200.0], [0.0, 40.0])
    # The first stands at +x, and looks at the origin.
    torch.testing.assert_close(
        labels[0, [3, 7, 11]], torch.tensor([RADIUS, 0, 0]), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(labels[0, [2, 6, 10]], torch.tensor([-1.0, 0, 0]), atol=1e-5, rtol=0)
    expected = ballgan.render(scene, angles, 12)
    nerfstudios = labels_to_cameras(labels, 12, 12)
    for cameras in (
        np.array(angles),
        torch.tensor(angles),
        labels,
        labels.numpy(),
        labels.tolist(),
    ):
        np.testing.assert_array_equal(ballgan.render(scene, cameras, 12).rgb, expected.rgb)
    found = ballgan.render(scene, nerfstudios)
    np.testing.assert_array_equal(found.rgb, expected.rgb)
    np.testing.assert_array_equal(found.depth, expected.depth)
    # One camera of a batch, and pictures that are no squares: the middle columns of a wider one.
    one = ballgan.render(scene, nerfstudios[1])
    np.testing.assert_array_equal(one.rgb[0], expected.rgb[1])
    wide = labels_to_cameras(labels, 12, 12)
    wide.width.fill_(20)
    wide.cx += 4
    found = ballgan.render(scene, wide)
    assert found.alpha.shape == (2, 12, 20)
    np.testing.assert_allclose(found.alpha[:, :, 4:16], expected.alpha, atol=1e-5)


def test_depth_and_alpha_of_a_known_scene(finely: Gan) -> None:
    ball = Ball()
    images = finely.render(Scene(ball, BOUNDS, 1), [(0, 0), (50, 30)], SIZE, ["rgba"])
    assert images.rgba is not None
    middle = SIZE // 2
    # Light comes from 1 / sigma below the surface, in the mean; sigma = softplus(100 - 1).
    below = 1 / 99
    for view in range(2):
        assert images.alpha[view, middle, middle] == pytest.approx(1, abs=1e-4)
        near = RADIUS - ball.radius + below
        assert images.depth[view, middle, middle] == pytest.approx(near, abs=0.003)
        np.testing.assert_allclose(images.rgb[view, middle, middle], ball.colour, atol=1e-3)
        np.testing.assert_allclose(images.rgba[view, middle, middle, :3], ball.colour, atol=1e-3)
        # Beside the ball is nothing, which is black, from the camera to where samples end.
        assert images.alpha[view, 0, 0] == 0
        assert images.depth[view, 0, 0] == pytest.approx(BOUNDS.far)
        assert images.rgb[view, 0, 0].max() == 0
        assert images.rgba[view, 0, 0].max() == 0
    # Two pixels beside the middle: distance along the ray, which is not depth along the axis.
    across = 2 / SIZE / finely.run.settings.view_focal
    cosine = 1 / math.sqrt(1 + across**2)
    sine = across * cosine
    expected = RADIUS * cosine - math.sqrt(ball.radius**2 - (RADIUS * sine) ** 2) + below
    assert images.depth[0, middle, middle + 2] == pytest.approx(expected, abs=0.003)
    assert images.depth[0, middle - 2, middle] == pytest.approx(expected, abs=0.003)


def test_the_foreground_has_its_own_colours(finely: Gan) -> None:
    """A ball that light goes through: sigma = softplus(2 - 1) = 1.313 over 0.6 is 55 % opaque."""
    ball = Ball(inside=2.0)
    scene = Scene(ball, BOUNDS, 1, background=Backdrop((1.0, 0.4, 0.0)))
    middle = SIZE // 2
    for background, behind in ((None, (1.0, 0.4, 0.0)), ((0.0, 1.0, 0.5), (0.0, 1.0, 0.5))):
        images = finely.render(scene, [(20, 10)], SIZE, ("rgba",), background)
        assert images.rgba is not None
        alpha = images.alpha[0, middle, middle]
        assert alpha == pytest.approx(1 - math.exp(-1.3133 * 0.6), abs=0.01)
        assert images.rgba[0, middle, middle, 3] == alpha
        np.testing.assert_allclose(images.rgba[0, middle, middle, :3], ball.colour, atol=1e-5)
        mixed = alpha * np.array(ball.colour) + (1 - alpha) * np.array(behind)
        np.testing.assert_allclose(images.rgb[0, middle, middle], mixed, atol=1e-5)
        np.testing.assert_allclose(images.rgb[0, 0, 0], behind, atol=1e-6)


def test_labels_are_class_ids(pix2pix3d: Gan) -> None:
    assert pix2pix3d.labels is not None
    assert pix2pix3d.labels.classes == 6
    glass = LabelledBall(labels=(0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
    scene = Scene(glass, BOUNDS, 1, behind_labels=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    labels = pix2pix3d.render(scene, [(0, 0)], SIZE).labels
    assert labels is not None
    assert labels.dtype == np.uint8
    assert labels[0, SIZE // 2, SIZE // 2] == 2
    assert labels[0, 0, 0] == 0
    assert set(np.unique(labels)) == {0, 2}
    assert pix2pix3d.render(scene, [(0, 0)], SIZE, outputs=()).labels is None


def test_grey_values_of_edge_maps(tmp_path: Path) -> None:
    config = micro_config(
        tmp_path,
        tmp_path / "outputs",
        gan3d_pix2pix3d_edge_tiny,
        pipeline__model__labels__encoder_base=128,
        pipeline__model__labels__encoder_max=8,
        pipeline__model__labels__geometry_layers=2,
        pipeline__model__view_radius=2.0,
        pipeline__model__view_focal=1.5,
        pipeline__model__field__near=1.0,
        pipeline__model__field__far=3.0,
    )
    state = {MODEL_PREFIX + name: one for name, one in fresh_model(config).state_dict().items()}
    config.save_config()
    save_atomic({"step": 0, "pipeline": state}, checkpoint_path(config.get_checkpoint_dir(), 0))
    gan = nerfstudio_gan3d.load(config.get_base_dir(), "cpu")
    drawing = np.full((16, 16), 255, np.uint8)
    drawing[3:9, 7] = 0
    scene = gan.scene(2, label_map=drawing)
    view = LabelView(torch.from_numpy(drawing)[None, None], gan.orbit([0.0], 0.0))
    same_field(scene, gan.run.scene(SceneRequest(2, label=view)))
    labels = gan.render(scene, [(0, 0)]).labels
    grey = gan.run.render(scene, gan.orbit([0.0], 0.0), ["labels"])["labels"][..., 0]
    assert labels is not None
    np.testing.assert_array_equal(labels, (grey * 255).round().numpy())
    with pytest.raises(ValueError, match="edge maps have no classes"):
        gan.mesh(scene, color="labels")


def test_scenes_are_those_of_requests(ballgan: Gan, pix2pix3d: Gan) -> None:
    scene = ballgan.scene(2, 0.5, other_seed=9, interpolation=0.25, mix_seed=4, mix_levels=[1, 2])
    request = SceneRequest(
        2, None, 0.5, other_seed=9, interpolation=0.25, mix_seed=4, mix_levels=(1, 2)
    )
    same_field(scene, ballgan.run.scene(request))
    behind = ballgan.scene(2, background_seed=5).background
    expected = ballgan.scene(5).background
    rays = torch.zeros(1, 4, 3), torch.nn.functional.normalize(torch.randn(1, 4, 3), dim=-1)
    assert behind is not None
    assert expected is not None
    assert torch.equal(behind.query(*rays), expected.query(*rays))
    # A label map as a number, and at the far end of an interpolation.
    scene = pix2pix3d.scene(1, label_map=3, other_label_map=7, interpolation=0.5)
    run = pix2pix3d.run
    views = run.label_view(3), run.label_view(7)
    request = SceneRequest(1, label=views[0], other_label=views[1], interpolation=0.5)
    same_field(scene, run.scene(request))
    # Neither Scenes nor pictures record gradients.
    assert not scene.field.query(torch.zeros(1, 1, 3)).features.requires_grad


def test_a_label_map_in_any_form(pix2pix3d: Gan, tmp_path: Path) -> None:
    view = pix2pix3d.run.label_view(3)
    ids = view.map[0, 0].numpy()
    assert pix2pix3d.labels is not None
    colours = np.array(pix2pix3d.labels.palette, np.uint8)[ids]
    Image.fromarray(ids).save(tmp_path / "map.png")
    expected = pix2pix3d.scene(1, label_map=3)
    wide = torch.from_numpy(ids.astype(np.int64))
    for given in (ids, wide, colours, Image.fromarray(ids), tmp_path / "map.png", view.map[0, 0]):
        same_field(pix2pix3d.scene(1, label_map=given, label_camera=view.pose), expected)
    same_field(pix2pix3d.scene(1, label_map=view), expected)
    # Where it is seen from may be angles; without any it is the front.
    front = LabelView(view.map, pix2pix3d.orbit([0.0], 0.0))
    expected = pix2pix3d.run.scene(SceneRequest(1, label=front))
    same_field(pix2pix3d.scene(1, label_map=ids), expected)
    same_field(
        pix2pix3d.scene(1, label_map=str(tmp_path / "map.png"), label_camera=(0, 0)), expected
    )


def test_scenes_of_images(g3dr: Gan) -> None:
    images, distances = kept_images()
    expected = g3dr.run.scene(SceneRequest(image=3))
    same_field(g3dr.scene(image=3), expected)
    # Depth of 1 to 3 in a box between 1 and 3: the share of the way.
    relative = (distances[3, 0].numpy() - 1) / 2
    pixels = images[3].permute(1, 2, 0).numpy()
    found = g3dr.render(g3dr.scene(image=pixels, depth=relative), [(0, 0)])
    seen = g3dr.render(expected, [(0, 0)])
    np.testing.assert_allclose(found.rgb, seen.rgb, atol=1e-4)
    np.testing.assert_allclose(found.depth, seen.depth, atol=1e-3)


def test_meshes(ballgan: Gan, pix2pix3d: Gan) -> None:
    mesh = ballgan.mesh(scene_of(Balls()), 40, level=math.log(2))
    np.testing.assert_allclose(mesh.extents, 0.6, atol=0.01)
    assert isinstance(mesh.visual, ColorVisuals)
    # Colours are places in the unit box.
    expected = np.round((np.asarray(mesh.vertices) + 0.5) * 255)
    shown = np.asarray(mesh.visual.vertex_colors)[:, :3]
    np.testing.assert_allclose(shown.astype(float), expected, atol=1)
    scene = pix2pix3d.scene(0)
    mesh = pix2pix3d.mesh(scene, 24, color="labels", largest_component=True)
    palette = pix2pix3d.run.labels().palette
    expected = extract_mesh(scene, 24, "auto", "labels", True, palette=palette)
    np.testing.assert_array_equal(mesh.vertices, expected.vertices)
    assert isinstance(mesh.visual, ColorVisuals)
    ids = mesh.vertex_attributes["label"]
    shown = np.asarray(mesh.visual.vertex_colors)[:, :3]
    np.testing.assert_array_equal(shown, np.array(palette)[ids])


def test_what_a_method_does_not_have_is_refused(ballgan: Gan, pix2pix3d: Gan, g3dr: Gan) -> None:
    def refused(match: str, gan: Gan, *values: object, **given: object) -> None:
        with pytest.raises(ValueError, match=match):
            gan.scene(*values, **given)  # type: ignore[arg-type]

    refused("label_map: .* a method without labels", ballgan, label_map=0)
    refused("image: .* not made of photographs", ballgan, image=0)
    refused("depth: it is that of an image", ballgan, depth="a.png")
    refused(
        "appearance_seed = 3: this generator has no appearance code", ballgan, appearance_seed=3
    )
    refused("^seed is -1; it must lie between 0 and", ballgan, seed=-1)
    refused("^other_seed is 1000000000000000000; ", ballgan, other_seed=10**18)
    refused("mix_seed = 3 and mix_levels = .*mixing needs", ballgan, mix_seed=3)
    refused("label_map: only its camera is given", pix2pix3d, label_camera=(0, 0))
    refused("label_map: a kept map", pix2pix3d, label_map=0, label_camera=(0, 0))
    refused("keeps 16 of them", pix2pix3d, label_map=16)
    wrong = np.full((64, 64), 6, np.uint8)
    refused("label_map: class id 6 is out of range", pix2pix3d, label_map=wrong)
    refused("label_map: 32 x 64 pixels", pix2pix3d, label_map=wrong[:, :32])
    refused("label_map: an array of float64; give integers", pix2pix3d, label_map=wrong / 2)
    refused("it must lie between 0 and 255", pix2pix3d, label_map=wrong.astype(int) - 7)
    refused(r"label_map has the shape \[4096\]", pix2pix3d, label_map=wrong.ravel())
    turned = [(0, 0), (90, 0)]
    refused("camera: 2 cameras; give one", pix2pix3d, label_map=wrong, label_camera=turned)
    refused("seed = 3: .* a method without seeds", g3dr, 3)
    refused(r"truncation = 0\.5: .* a method without seeds", g3dr, truncation=0.5)
    refused("keeps 16 of them", g3dr, image=16)
    refused("depth: a kept image, or an ImageView, has its own", g3dr, image=1, depth="a.png")
    scene = Scene(Ball(), BOUNDS, 1)
    with pytest.raises(ValueError, match=r"outputs has 'labels': .* a method without labels"):
        ballgan.render(scene, [(0, 0)], outputs=["labels"])
    with pytest.raises(ValueError, match="outputs has 'normals', which is none; choose from rgb"):
        chosen_outputs(ballgan.run, ["rgb", "normals"])
    cameras = labels_to_cameras(ballgan.orbit([0.0]), 8, 8)
    with pytest.raises(ValueError, match="size = 12: nerfstudio Cameras have a size of their own"):
        ballgan.render(scene, cameras, 12)
    with pytest.raises(ValueError, match="size = 0: give a positive number"):
        ballgan.render(scene, [(0, 0)], 0)
    with pytest.raises(ValueError, match="scene holds 2 Scenes; give one"):
        ballgan.render(Scene(Ball(), BOUNDS, 2), [(0, 0)])
    with pytest.raises(ValueError, match=r"color = labels: .* a method without labels"):
        ballgan.mesh(scene, color="labels")


@pytest.mark.gpu
def test_a_gpu_shows_the_same(ballgan: Gan) -> None:
    gan = nerfstudio_gan3d.load("ballgan-cars64", "cuda")
    assert gan.device.type == "cuda"
    images = gan.render(gan.scene(3), [(30, 15)])
    expected = ballgan.render(ballgan.scene(3), [(30, 15)])
    np.testing.assert_allclose(images.rgb, expected.rgb, atol=5e-3)
    assert nerfstudio_gan3d.load("ballgan-cars64").device.type == "cuda"
