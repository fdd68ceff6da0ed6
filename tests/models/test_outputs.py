"""What nerfstudio is shown of a Scene: frames, backdrops, depth, normals."""

from dataclasses import dataclass, replace

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from nerfstudio_gan3d.cameras import labels_to_cameras, object_to_nerfstudio, orbit_labels
from nerfstudio_gan3d.models import gan
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.generator import Generator
from nerfstudio_gan3d.models.outputs import Backdrop, SceneOutputs, surface_normals
from nerfstudio_gan3d.rendering.occupancy import build_occupancy
from nerfstudio_gan3d.scene import Bounds, Condition, FieldSamples, Scene
from tests.models.tiny import LATENT, labels, make_generator, upsampled_config
from tests.rendering import scenes

BOUNDS = Bounds((1.0, 1.0, 1.0), near=1.0, far=3.0)


@dataclass(frozen=True)
class SoftBall:
    """A ball whose density falls with the distance from its centre."""

    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float = 0.3

    def query(self, positions: Tensor, directions: Tensor | None = None) -> FieldSamples:
        away = (positions - positions.new_tensor(self.centre)).norm(dim=-1, keepdim=True)
        colour = positions.new_tensor((0.2, 0.6, 0.9)).expand_as(positions)
        return FieldSamples(1000 * (self.radius - away), colour)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return make_generator()


def outputs(generator: Generator, scene: Scene, backdrop: Backdrop | None = None) -> SceneOutputs:
    return SceneOutputs(generator, scene, backdrop or Backdrop())


def front(size: int = 16) -> Cameras:
    """A camera on the object world's +z."""
    return labels_to_cameras(orbit_labels(torch.zeros(1), torch.zeros(1), 2.0), size, size)


def sphere_scene(field: object | None = None) -> Scene:
    return Scene(field or SoftBall(), BOUNDS, 1, scenes.Backdrop())  # type: ignore[arg-type]


def test_normals_of_a_ball_point_away_from_its_centre() -> None:
    scene = sphere_scene(SoftBall((0.1, 0.0, -0.1)))
    positions = torch.randn(1, 9, 3)
    away = torch.nn.functional.normalize(positions - torch.tensor([0.1, 0.0, -0.1]), dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(surface_normals(scene, positions), away)


def test_image_equals_the_generators_own(generator: Generator) -> None:
    latents = generator.map(Condition(torch.randn(1, LATENT), torch.randn(1, LATENT)))
    scene, label = generator.scene(latents), labels(1)
    own = generator.render(scene, label, 12).image[0].permute(1, 2, 0) / 2 + 0.5
    found = outputs(generator, scene).camera(labels_to_cameras(label, 12, 12))["rgb"]
    torch.testing.assert_close(found, own.clamp(0, 1), atol=1e-4, rtol=1e-4)


def test_image_after_super_resolution_equals_the_generators_own() -> None:
    generator = make_generator(super_resolution=True)
    latents = generator.map(Condition(torch.randn(1, LATENT), torch.randn(1, LATENT)))
    scene, label = generator.scene(latents), labels(1)
    own = generator.render(scene, label).image[0].permute(1, 2, 0) / 2 + 0.5
    found = outputs(generator, scene).camera(labels_to_cameras(label, 16, 16))
    torch.testing.assert_close(found["rgb"], own.clamp(0, 1), atol=1e-4, rtol=1e-4)
    large = outputs(generator, scene).camera(labels_to_cameras(label, 30, 20))
    assert {value.shape[:2] for value in large.values()} == {(20, 30)}


@pytest.mark.parametrize(
    ("centre", "row", "column"),
    [((0.0, 0.3, 0.0), 3.5, 7.5), ((0.3, 0.0, 0.0), 7.5, 11.5)],
)
def test_up_and_right_of_the_object_are_up_and_right_in_the_image(
    generator: Generator, centre, row: float, column: float
) -> None:
    scene = sphere_scene(SoftBall(centre, 0.1))
    alpha = outputs(generator, scene).camera(front())["accumulation"][..., 0]
    places = torch.arange(16.0)
    mean_row = (alpha.sum(1) * places).sum() / alpha.sum()
    mean_column = (alpha.sum(0) * places).sum() / alpha.sum()
    # 0.3 / 2 * 1.5 * 16 pixels = 3.6 from the middle, 7.5.
    assert mean_row.item() == pytest.approx(row, abs=0.6)
    assert mean_column.item() == pytest.approx(column, abs=0.6)


@pytest.mark.parametrize(
    ("backdrop", "behind"),
    [
        (Backdrop("own", (0.0, 0.0, 1.0)), scenes.Backdrop().colour),
        (Backdrop("colour", (0.0, 0.0, 1.0)), (0.0, 0.0, 1.0)),
        (Backdrop("removed", (0.0, 0.0, 1.0)), (0.0, 0.0, 0.0)),
    ],
)
def test_backdrop_stands_behind_the_foreground(
    generator: Generator, backdrop: Backdrop, behind: tuple[float, ...]
) -> None:
    found = outputs(generator, sphere_scene(), backdrop).camera(front())
    corner, middle = found["rgb"][0, 0], found["rgb"][8, 8]
    torch.testing.assert_close(corner, torch.tensor(behind), atol=1e-4, rtol=0)
    torch.testing.assert_close(middle, torch.tensor((0.2, 0.6, 0.9)), atol=0.02, rtol=0)
    torch.testing.assert_close(found["background"][8, 8], torch.tensor(behind))
    # The foreground is shown on the plain colour, whatever stands behind rgb.
    torch.testing.assert_close(found["foreground"][0, 0], torch.tensor((0.0, 0.0, 1.0)))


def test_depth_is_that_of_the_surface_or_of_the_background(generator: Generator) -> None:
    found = outputs(generator, sphere_scene()).camera(front())
    assert found["depth"][8, 8].item() == pytest.approx(1.7, abs=0.1)
    assert found["depth"][0, 0].item() == pytest.approx(3)
    scene = sphere_scene().with_background(None)
    assert outputs(generator, scene).camera(front())["depth"][0, 0].item() == 3


def test_a_thin_veil_is_not_taken_for_a_surface(generator: Generator) -> None:
    # softplus(0.2 - 1) = 0.37, which stops a fifth of the light on 0.6 of its way.
    veil = sphere_scene(scenes.Ball(inside=0.2))
    found = outputs(generator, veil).camera(front())
    assert 0.05 < found["accumulation"][8, 8].item() < 0.5
    assert found["depth"][8, 8].item() == pytest.approx(3)


def test_normals_are_in_nerfstudios_world_and_only_made_when_shown(generator: Generator) -> None:
    scene = sphere_scene()
    found = outputs(generator, scene).camera(front(17))["normals"]
    # The middle of the ball faces the camera: +z of the object world, which is -y of nerfstudio's.
    expected = object_to_nerfstudio() @ torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(found[8, 8] * 2 - 1, expected, atol=0.02, rtol=0)
    torch.testing.assert_close(found[0, 0], torch.full((3,), 0.5))
    for shown, made in (("rgb", False), ("normals", True), (None, True)):
        image = SceneOutputs(generator, scene, Backdrop(), shown).camera(front(17))["normals"]
        assert bool((image != 0.5).any()) == made


def test_chunks_make_no_difference(generator: Generator) -> None:
    shown = outputs(generator, sphere_scene())
    whole, pieces = shown.camera(front()), shown.camera(front(), chunk=37)
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, msg=name)


def test_crop_box_hides_what_lies_outside(generator: Generator) -> None:
    scene = sphere_scene()
    # nerfstudio's world is z up: its upper half is the object's upper half.
    box = OrientedBox(torch.eye(3), torch.tensor([0.0, 0.0, 0.5]), torch.tensor([2.0, 2.0, 1.0]))
    found = outputs(generator, scene).camera(front(), box)["accumulation"][..., 0]
    plain = outputs(generator, scene).camera(front())["accumulation"][..., 0]
    torch.testing.assert_close(found[4:7, 8], plain[4:7, 8], atol=0.05, rtol=0)
    assert plain[9:11, 8].min() > 0.9
    assert found[10:, 8].max() < 0.2


def test_a_scene_in_front_of_another_background(generator: Generator) -> None:
    scene = sphere_scene()
    other = scene.with_background(scenes.Backdrop((0.1, 0.1, 0.1)))
    first, second = (outputs(generator, s).camera(front()) for s in (scene, other))
    assert torch.equal(first["foreground"], second["foreground"])
    assert not torch.allclose(first["background"], second["background"])
    assert replace(scene) == scene


def test_only_what_is_shown_is_super_resolved() -> None:
    generator = make_generator(super_resolution=True)
    scene = generator.scene(
        generator.map(Condition(torch.randn(1, LATENT), torch.randn(1, LATENT)))
    )
    every = SceneOutputs(generator, scene, Backdrop()).camera(front())
    shown = SceneOutputs(generator, scene, Backdrop(), "foreground").camera(front())
    assert torch.equal(shown["foreground"], every["foreground"])
    for name in ("rgb", "background"):
        assert shown[name].shape == every[name].shape
        assert not torch.allclose(shown[name], every[name], atol=1e-3)


def test_several_outputs_can_be_shown() -> None:
    generator = make_generator(super_resolution=True)
    scene = generator.scene(
        generator.map(Condition(torch.randn(1, LATENT), torch.randn(1, LATENT)))
    )
    every = SceneOutputs(generator, scene, Backdrop()).camera(front())
    shown = SceneOutputs(generator, scene, Backdrop(), {"rgb", "foreground"}).camera(front())
    for name in ("rgb", "foreground"):
        assert torch.equal(shown[name], every[name])
    assert not torch.allclose(shown["background"], every["background"], atol=1e-3)
    assert (shown["normals"] == 0.5).all()


def test_labels_are_super_resolved_where_they_are_shown() -> None:
    config = replace(
        upsampled_config(),
        labels=LabelConfig("seg", 3, feature_dim=4, palette=((9, 8, 7), (0, 255, 0), (1, 2, 3))),
    )
    generator = gan.make_generator(config)
    assert generator.superresolution_labels is not None
    # Fresh weights are shy: the background's share would outweigh all they say.
    with torch.no_grad():
        for name, weight in generator.superresolution_labels.named_parameters():
            if name.endswith("torgb.weight"):
                weight.mul_(30)
    condition = Condition(
        torch.randn(1, LATENT), torch.randn(1, LATENT), labels(1), torch.rand(1, 3, 16, 16)
    )
    scene = generator.scene(generator.map(condition))
    camera = labels_to_cameras(labels(1, seed=4), 16, 16)
    found = SceneOutputs(generator, scene, Backdrop(), {"labels"}).camera(camera)["labels"]
    own = generator.render(scene, labels(1, seed=4))
    assert own.labels is not None
    assert own.raw_labels is not None
    palette = torch.tensor(config.labels.palette) / 255
    expected = palette[own.labels[0].argmax(0)]
    assert len(expected.flatten(0, 1).unique(dim=0)) > 1
    # Where two scores are nearly equal, rounding decides.
    assert (found != expected).any(-1).float().mean() < 0.02
    raw = SceneOutputs(generator, scene, Backdrop(), "rgb").camera(camera)["labels"]
    coarse = palette[own.raw_labels[0].argmax(0)].repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert (raw != coarse).any(-1).float().mean() < 0.02
    assert (coarse != expected).any()


def test_rays_that_end_in_white_are_white_in_rgb() -> None:
    generator = make_generator(background=False)
    scene = replace(sphere_scene(), background=None, nothing=1.0)
    image = outputs(generator, scene).camera(front())
    assert (image["rgb"][0, 0] > 0.99).all()
    assert (outputs(generator, replace(scene, nothing=0.0)).camera(front())["rgb"][0, 0] == 0).all()


def test_known_empty_space_changes_a_picture_by_little(generator: Generator) -> None:
    scene = sphere_scene()
    settings = generator.settings
    generator.settings = replace(settings, samples=48, importance_samples=48)
    plain = outputs(generator, scene).camera(front(24))
    grid = build_occupancy(scene)
    quick = SceneOutputs(generator, scene, Backdrop(), occupancy=grid).camera(front(24), chunk=100)
    generator.settings = settings
    assert plain.keys() == quick.keys()
    assert (plain["rgb"] - quick["rgb"]).square().mean() < 1e-4
    assert (plain["depth"] - quick["depth"]).abs().median() < 0.01
