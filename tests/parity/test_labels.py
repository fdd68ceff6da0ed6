"""Official full-size pix2pix3D networks: label map in, images and labels out, both discriminators.

`GAN3D_FIXTURES` names another folder with fixtures; without it the copies beside this file serve.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays
from nerfstudio_gan3d.losses.labels import (
    cross_view_loss,
    edge_reconstruction,
    label_channels,
    label_cross_entropy,
    reduce_nearest,
)
from nerfstudio_gan3d.models.bound_field import BoundField
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.models.label_images import as_label_map, label_ids
from nerfstudio_gan3d.models.label_objective import cross_view
from nerfstudio_gan3d.models.scene_generator import Images
from nerfstudio_gan3d.networks.discriminator import resize_antialias
from nerfstudio_gan3d.networks.label_encoder import encode_labels
from nerfstudio_gan3d.networks.stylegan2 import truncate
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import Jitter, render
from nerfstudio_gan3d.scene import Condition, Scene
from tests.parity.fill import Fixture, procedural_image
from tests.parity.official import filled_discriminator, filled_generator, fixtures_with

pytestmark = pytest.mark.slow

# LOOSE holds between planes and images: single precision over many layers and samples.
LOOSE = (2e-4, 1e-4)
TIGHT = (1e-5, 1e-5)
LOSS = (2e-5, 1e-3)


def close(actual: Tensor, expected: Tensor, tolerance: tuple[float, float] = LOOSE) -> None:
    """Compares within (absolute, relative) tolerances."""
    atol, rtol = tolerance
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


@dataclass
class Case:
    """One fixture with its network; what several tests look at is made once."""

    fixture: Fixture
    generator: Generator

    def __getitem__(self, name: str) -> Tensor:
        return self.fixture[name]

    def need(self, *names: str) -> None:
        """Skips a test of arrays that a fixture from elsewhere does not hold; those beside this
        file hold all."""
        missing = [name for name in names if name not in self.fixture.tensors]
        if missing:
            pytest.skip(f"the fixture does not hold {', '.join(missing)}")

    @property
    def side(self) -> int:
        return self.fixture.config["neural_rendering_resolution"]

    @property
    def labels(self) -> LabelConfig:
        assert self.generator.labels is not None
        return self.generator.labels

    @property
    def jitter(self) -> Jitter:
        return Jitter(self["u_strat"][..., 0], self["u_imp"].unflatten(0, (len(self["z"]), -1)))

    @cached_property
    def label_map(self) -> Tensor:
        """The label map as the network takes it. Edge maps are stored so: +1 paper, -1 line."""
        if self.labels.kind == "edge":
            return self["mask"].float()
        return encode_labels(self["mask"], self.labels.kind, self.labels.classes)

    @cached_property
    def condition(self) -> Condition:
        return Condition(self["z"], None, self["pose"], self.label_map)

    @cached_property
    def latents(self) -> Latents:
        # Where only truncated latents are stored, they are what was rendered.
        whole = "ws_trunc" in self.fixture.tensors
        given = {} if whole else self.fixture.config["truncation"]
        return self.generator.map(self.condition, given.get("psi", 1.0), given.get("cutoff"))

    @cached_property
    def scene(self) -> Scene:
        return self.generator.scene(self.latents)

    @cached_property
    def images(self) -> Images:
        """The Scene as `c` sees it."""
        return self.generator.finish(self.scene, self.march(self["c"]), self.side, self.side)

    def march(self, pose: Tensor, scene: Scene | None = None) -> Rendering:
        rays = pixel_rays(pose, self.side, self.side)
        return render(scene or self.scene, *rays, self.generator.settings, self.jitter)

    def labels_from(
        self, pose: Tensor, scene: Scene | None = None, raw_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Label images from another camera, final and raw, without the colours beside them.

        With ``raw_only`` both are the raw one where it does not depend on super-resolution.
        """
        scene = scene or self.scene
        found = self.march(pose, scene)
        features, raw = self.generator.label_images(found, self.side, self.side)
        upsampler = self.generator.superresolution_labels
        assert features is not None
        assert raw is not None
        assert upsampler is not None
        assert scene.style is not None
        if raw_only and self.side != upsampler.input_size:
            return raw, raw
        out = upsampler(features, raw, scene.style[:, None])
        return out.image, out.mutated_raw

    @cached_property
    def own_view(self) -> tuple[Tensor, Tensor]:
        """Label images, final and raw, from the pose of the label map."""
        return self.labels_from(self["pose"])

    def image(self, values: Tensor) -> Tensor:
        """Values of rays [B, R, C] as an image."""
        return values.mT.unflatten(2, (self.side, self.side))

    def sub(self, image: Tensor, name: str) -> Tensor:
        """Every n-th pixel of an image, as the fixture stores it."""
        stride = self.fixture.config["strides"][name]
        return image[:, :, ::stride, ::stride]


@pytest.fixture(scope="module", params=fixtures_with("z", "pose", "mask", models=("pix2pix3d",)))
def case(request: pytest.FixtureRequest) -> Case:
    fixture = Fixture(request.param)
    return Case(fixture, filled_generator(fixture.config))


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_draws_come_in_the_official_order(case: Case) -> None:
    case.need("u_strat", "u_imp")
    torch.manual_seed(case.fixture.config["seed"])
    settings = case.generator.settings
    drawn = Jitter.draw(len(case["z"]), case.side**2, settings, torch.device("cpu"))
    assert torch.equal(drawn.coarse, case.jitter.coarse)
    assert torch.equal(drawn.fine, case.jitter.fine)


def test_the_label_map_is_the_stated_one(case: Case) -> None:
    size = case.fixture.config["img_resolution"]
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    cells = row // (size // 8) + column // (size // 8)
    classes = case.labels.classes
    expected = 1 - 2 * (cells % 2) if case.labels.kind == "edge" else cells % classes
    assert torch.equal(case["mask"][0, 0].long(), expected)


def test_latents_of_map_and_pose(case: Case) -> None:
    case.need("ws")
    close(case.latents.foreground, case["ws"], TIGHT)


def test_truncation_pulls_geometry_as_well(case: Case) -> None:
    case.need("ws_trunc")
    truncation = case.fixture.config["truncation"]
    found = truncate(
        case.latents.foreground,
        case.generator.mapping.w_avg,
        truncation["psi"],
        truncation.get("cutoff"),
    )
    close(found, case["ws_trunc"], TIGHT)


def test_planes(case: Case) -> None:
    case.need("planes_sub")
    field = case.scene.field
    assert isinstance(field, BoundField)
    close(case.sub(field.prepared.planes.flatten(1, 2), "planes_sub"), case["planes_sub"])


def test_points(case: Case) -> None:
    case.need("pts", "pts_sigma", "pts_feat")
    found = case.scene.field.query(case["pts"])
    close(found.raw_density, case["pts_sigma"])
    close(found.channels, case["pts_feat"])


def test_rays(case: Case) -> None:
    case.need("ray_o_sub", "ray_d_sub")
    stride = case.fixture.config["strides"]["rays"]
    origins, directions = pixel_rays(case["c"], case.side, case.side)
    close(origins[:, ::stride], case["ray_o_sub"], TIGHT)
    close(directions[:, ::stride], case["ray_d_sub"], TIGHT)


def test_rendering(case: Case) -> None:
    case.need("render_feat", "render_wsum", "depth")
    found = case.images.rendering
    assert found.labels is not None
    both = torch.cat([found.features, found.labels], dim=-1)
    close(case.image(both * 2 - 1), case["render_feat"])
    close(case.image(found.weights.sum(-1, keepdim=True)), case["render_wsum"])
    close(case.image(found.accumulation), case["render_wsum"])
    close(case.image(found.distance), case["depth"])


def test_images_and_labels(case: Case) -> None:
    case.need("image_raw", "semantic_raw", "image_sub", "semantic_sub")
    found = case.images
    assert found.labels is not None
    assert found.raw_labels is not None
    close(found.raw, case["image_raw"])
    close(found.raw_labels, case["semantic_raw"])
    close(case.sub(found.image, "image_sub"), case["image_sub"])
    close(case.sub(found.labels, "semantic_sub"), case["semantic_sub"])


def test_raw_images_hold_the_first_block_where_nothing_is_resized(case: Case) -> None:
    """The published block writes into its input, so its output is what the losses see."""
    case.need("render_feat", "image_raw", "semantic_raw")
    upsampler = case.generator.superresolution
    assert upsampler is not None
    written = case.side == upsampler.input_size
    for image, first in (("image_raw", 0), ("semantic_raw", 32)):
        rendered = case["render_feat"][:, first : first + case[image].shape[1]]
        assert (float((case[image] - rendered).abs().max()) > 0.1) == written


def real_pair(case: Case) -> tuple[Tensor, Tensor]:
    """The stated photograph and its reduction to the rendered size."""
    config = case.fixture.config
    image = procedural_image(config["img_resolution"], config["real_image_phase"])[None]
    return image, resize_antialias(image, (case.side, case.side))


def test_discriminator_of_images(case: Case) -> None:
    case.need("D_logits_fake", "D_logits_real")
    judge = filled_discriminator(case.fixture.config)
    found = case.images
    close(judge(found.image, found.raw, case["c"]), case["D_logits_fake"], LOSS)
    close(judge(*real_pair(case), case["pose"]), case["D_logits_real"], LOSS)


def test_discriminator_of_images_with_labels(case: Case) -> None:
    """Fakes show probabilities of classes, reals one-hot maps; edges are shown as they are."""
    case.need("Dsem_logits_fake", "Dsem_logits_real")
    kind = case.labels.kind
    assert kind != "none"
    judge = filled_discriminator(case.fixture.config, 3 + case.labels.channels)
    found = case.images
    assert found.labels is not None
    assert found.raw_labels is not None
    fake = torch.cat([found.image, label_channels(found.labels, kind)], dim=1)
    fake_raw = torch.cat([found.raw, label_channels(found.raw_labels, kind)], dim=1)
    close(judge(fake, fake_raw, case["c"]), case["Dsem_logits_fake"], LOSS)
    real, real_raw = real_pair(case)
    reduced = reduce_nearest(case.label_map, (case.side, case.side))
    pair = torch.cat([real, case.label_map], dim=1), torch.cat([real_raw, reduced], dim=1)
    close(judge(*pair, case["pose"]), case["Dsem_logits_real"], LOSS)


def test_label_losses_from_the_pose_of_the_map(case: Case) -> None:
    case.need("recon_semantic_raw", "loss_label_raw", "loss_label_full")
    labels, raw = case.own_view
    close(raw, case["recon_semantic_raw"])
    for found, expected in ((raw, "loss_label_raw"), (labels, "loss_label_full")):
        if case.labels.kind == "edge":
            loss = edge_reconstruction(found, case.label_map)
        else:
            loss = label_cross_entropy(found, case["mask"])
        close(loss, case[expected][0], LOSS)


def test_cross_view_consistency(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels from elsewhere, encoded with the first pose, and seen from it again."""
    seg = case.labels.kind == "seg"
    case.need("second_view_semantic_sub", "ws_second_view", "cross_view_semantic_raw")
    case.need("loss_cross_view", *(["second_view_label"] if seg else []))
    labels, _ = case.labels_from(case["c_second"])
    close(case.sub(labels, "semantic_sub"), case["second_view_semantic_sub"])
    anew = as_label_map(labels, case.labels)
    if seg:
        # Where two classes come close, rounding may choose the other one.
        if float(case["second_view_label_margin_min"]) > 1e-3:
            assert torch.equal(label_ids(labels, case.labels), case["second_view_label"])
        anew = encode_labels(case["second_view_label"], "seg", case.labels.classes)
    latents = case.generator.map(Condition(case["z"], None, case["pose"], anew))
    close(latents.foreground[:, [0, 3, 6]], case["ws_second_view"], TIGHT)
    _, again = case.labels_from(case["pose"], case.generator.scene(latents), raw_only=True)
    close(again, case["cross_view_semantic_raw"])
    close(cross_view_loss(again, case.own_view[1]), case["loss_cross_view"][0], LOSS)
    if seg:
        return
    # The loss as training takes it, all in one; with classes it could meet a tie.
    monkeypatch.setattr(Jitter, "draw", staticmethod(lambda *_: case.jitter))
    given = case.condition, case.scene, case["c_second"], case.side
    close(cross_view(case.generator, *given, jitter=True), case["loss_cross_view"][0], LOSS)
