"""Whole generators against the outputs of the official EG3D and BallGAN implementations.

`GAN3D_FIXTURES` names another folder with fixtures; without it the copies beside this file serve.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from nerfstudio_gan3d.cameras import pixel_rays
from nerfstudio_gan3d.fields.sphere import sphere_angles, sphere_distance
from nerfstudio_gan3d.fields.triplane import PreparedPlanes
from nerfstudio_gan3d.losses.adversarial import discriminator_loss, generator_loss
from nerfstudio_gan3d.losses.geometry import background_loss
from nerfstudio_gan3d.models.generator import Generator, Latents
from nerfstudio_gan3d.models.scene_generator import Images
from nerfstudio_gan3d.rendering.compositing import midpoint_weights
from nerfstudio_gan3d.rendering.finishing import Rendering
from nerfstudio_gan3d.rendering.renderer import Jitter, render
from nerfstudio_gan3d.rendering.samplers import reference_importance, reference_stratified
from nerfstudio_gan3d.scene import Condition, Scene
from nerfstudio_gan3d.snapshots.official_names import generator_state, place
from tests.parity.fill import Fixture, key_list
from tests.parity.official import (
    filled_discriminator,
    filled_generator,
    fixtures_with,
    make_generator,
)

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
    """One fixture with its generator, Scene, rays and draws."""

    fixture: Fixture
    generator: Generator
    latents: Latents
    scene: Scene
    origins: Tensor
    directions: Tensor
    jitter: Jitter

    @property
    def side(self) -> int:
        return self.fixture.config["neural_rendering_resolution"]

    def sub(self, values: Tensor) -> Tensor:
        """Every n-th ray, as the fixture stores them."""
        return values[:, :: self.fixture.config["strides"]["rays"]]

    def image(self, values: Tensor) -> Tensor:
        """Values of rays [B, R, C] as an image."""
        return values.mT.unflatten(2, (self.side, self.side))

    def latents_with_graph(self) -> Latents:
        arrays = self.fixture.tensors
        return self.generator.map(Condition(arrays["z"], arrays.get("z_bg"), arrays["c_cond"]))

    def render(self, scene: Scene) -> Rendering:
        settings = self.generator.settings
        return render(scene, self.origins, self.directions, settings, self.jitter)

    def finish(self, rendering: Rendering, scene: Scene | None = None) -> Images:
        return self.generator.finish(scene or self.scene, rendering, self.side, self.side)


@lru_cache
def load(name: str) -> Case:
    fixture = Fixture(name)
    config = fixture.config
    generator = filled_generator(config)
    arrays = fixture.tensors
    condition = Condition(arrays["z"], arrays.get("z_bg"), arrays.get("c_cond", arrays["c"]))
    batch, side = len(arrays["z"]), config["neural_rendering_resolution"]
    torch.manual_seed(config["seed"])
    jitter = Jitter.draw(batch, side**2, generator.settings, torch.device("cpu"))
    # Where only truncated latents are stored, they are what was rendered.
    truncation = config["truncation"] if "ws_trunc" not in arrays else {"psi": 1.0, "cutoff": None}
    with torch.no_grad():
        latents = generator.map(condition, truncation["psi"], truncation["cutoff"])
        scene = generator.scene(latents)
    origins, directions = pixel_rays(arrays["c"], side, side)
    return Case(fixture, generator, latents, scene, origins, directions, jitter)


@lru_cache
def rendered(name: str) -> Rendering:
    with torch.no_grad():
        return load(name).render(load(name).scene)


def cases(*arrays: str) -> pytest.MarkDecorator:
    """Runs a test for every fixture that holds these arrays."""
    return pytest.mark.parametrize("name", fixtures_with(*arrays))


@cases("u_strat", "u_imp")
def test_draws_come_in_the_official_order(name: str) -> None:
    case = load(name)
    assert torch.equal(case.jitter.coarse, case.fixture["u_strat"][..., 0])
    assert torch.equal(case.jitter.fine.flatten(0, 1), case.fixture["u_imp"])


@cases("ws")
def test_latents(name: str) -> None:
    case = load(name)
    close(case.latents.foreground, case.fixture["ws"], TIGHT)
    if "ws_bg" in case.fixture.tensors:
        assert case.latents.background is not None
        close(case.latents.background, case.fixture["ws_bg"], TIGHT)


@cases("ws_trunc", "c_cond")
def test_truncated_latents(name: str) -> None:
    case = load(name)
    truncation, arrays = case.fixture.config["truncation"], case.fixture.tensors
    condition = Condition(arrays["z"], arrays.get("z_bg"), arrays["c_cond"])
    with torch.no_grad():
        found = case.generator.map(
            condition, truncation["psi"], truncation["cutoff"], truncation["bg_psi"]
        )
    close(found.foreground, arrays["ws_trunc"], TIGHT)
    if "ws_bg_trunc" in arrays:
        assert found.background is not None
        close(found.background, arrays["ws_bg_trunc"], TIGHT)


@cases("planes_sub")
def test_planes(name: str) -> None:
    case = load(name)
    stride = case.fixture.config["strides"]["planes_sub"]
    with torch.no_grad():
        prepared = case.generator.field.prepare(case.latents.foreground)
    assert isinstance(prepared, PreparedPlanes)
    close(prepared.planes.flatten(1, 2)[:, :, ::stride, ::stride], case.fixture["planes_sub"])


@cases("pts", "pts_sigma", "pts_feat")
def test_density_and_features_at_points(name: str) -> None:
    case = load(name)
    with torch.no_grad():
        found = case.scene.field.query(case.fixture["pts"])
    close(found.raw_density, case.fixture["pts_sigma"])
    close(found.features, case.fixture["pts_feat"])


@cases("ray_o_sub", "ray_d_sub")
def test_rays(name: str) -> None:
    case = load(name)
    close(case.sub(case.origins), case.fixture["ray_o_sub"], TIGHT)
    close(case.sub(case.directions), case.fixture["ray_d_sub"], TIGHT)


@cases("depths_coarse_sub", "weights_coarse_sub", "depths_fine_sub")
def test_sample_distances_and_coarse_weights(name: str) -> None:
    case = load(name)
    bounds = case.scene.bounds
    coarse = case.sub(
        reference_stratified(
            torch.full_like(case.jitter.coarse[..., :1], bounds.near),
            torch.full_like(case.jitter.coarse[..., :1], bounds.far),
            case.jitter.coarse,
        )
    )
    close(coarse, case.fixture["depths_coarse_sub"][..., 0])
    weights = midpoint_weights(raw_density(case, coarse), coarse).weights
    close(weights, case.fixture["weights_coarse_sub"][..., 0])
    fine = reference_importance(coarse, weights, case.sub(case.jitter.fine))
    expected = case.fixture["depths_fine_sub"][..., 0]
    # A draw next to the border of a bin may fall into the neighbouring one.
    assert ((fine - expected).abs() <= 2e-4).float().mean() >= 0.999


def raw_density(case: Case, distances: Tensor) -> Tensor:
    origins, directions = case.sub(case.origins), case.sub(case.directions)
    points = origins[:, :, None] + distances[..., None] * directions[:, :, None]
    with torch.no_grad():
        found = case.scene.field.query(points.flatten(1, 2)).raw_density
    return found.view(distances.shape)


@cases("fg_sigma_sub", "depths_fine_sub")
def test_density_at_the_fine_samples(name: str) -> None:
    case = load(name)
    found = raw_density(case, case.fixture["depths_fine_sub"][..., 0])
    close(found, case.fixture["fg_sigma_sub"])


@cases("render_feat", "render_depth", "render_wsum")
def test_rendering(name: str) -> None:
    case, found = load(name), rendered(name)
    close(case.image(found.features * 2 - 1), case.fixture["render_feat"])
    close(case.image(found.distance), case.fixture["render_depth"])
    close(case.image(found.weights.sum(-1, keepdim=True)), case.fixture["render_wsum"])
    close(case.image(found.accumulation), case.fixture["render_wsum"])


@cases("image_raw", "depth", "image_sub")
def test_images(name: str) -> None:
    case, found = load(name), rendered(name)
    with torch.no_grad():
        images = case.finish(found)
    stride = case.fixture.config["strides"]["image_sub"]
    close(images.image[:, :, ::stride, ::stride], case.fixture["image_sub"])
    close(case.image(found.distance), case.fixture["depth"])
    close(plain_raw(case, found), case.fixture["image_raw"])


def plain_raw(case: Case, found: Rendering) -> Tensor:
    """The raw image as rendered: the stage of the 64 px fixtures does not write into its input.

    Official stages do where no resize comes before them, which `Images.raw` follows; the tests of
    the networks cover that.
    """
    return case.image(found.features[..., :3] * 2 - 1)


@cases("bg_theta", "bg_phi", "bg_dist", "bg_feat")
def test_background_of_the_view(name: str) -> None:
    case = load(name)
    expected = {key: case.fixture[f"bg_{key}"] for key in ("theta", "phi", "dist", "feat")}
    check_background(case, case.origins, case.directions, expected)


@cases("turn_dirs", "turn_theta", "turn_phi", "turn_dist", "turn_feat")
def test_background_all_around(name: str) -> None:
    case = load(name)
    directions = case.fixture["turn_dirs"].expand(len(case.fixture["z"]), -1, -1)
    expected = {key: case.fixture[f"turn_{key}"] for key in ("theta", "phi", "dist", "feat")}
    check_background(case, torch.full_like(directions, 0.1), directions, expected)


def check_background(
    case: Case, origins: Tensor, directions: Tensor, expected: dict[str, Tensor]
) -> None:
    assert case.scene.background is not None
    assert case.generator.background is not None
    radius = case.generator.background.radius
    distance = sphere_distance(origins, directions, radius)
    close(distance[..., 0], expected["dist"].expand(distance.shape[:2]), TIGHT)
    theta, phi = sphere_angles((origins + distance * directions) / radius).unbind(-1)
    close(theta, expected["theta"].expand_as(theta), TIGHT)
    # 0 and 2 pi are the same azimuth.
    turn = torch.remainder(phi - expected["phi"] + math.pi, 2 * math.pi) - math.pi
    close(turn, torch.zeros_like(turn), TIGHT)
    with torch.no_grad():
        close(case.scene.background.query(origins, directions), expected["feat"])


@cases("fg_weight_sum", "bg_transmittance", "alpha_sub")
def test_opacity_and_transmittance(name: str) -> None:
    case, found = load(name), rendered(name)
    close(found.weights.sum(-1), case.fixture["fg_weight_sum"])
    close(found.transmittance[..., 0], case.fixture["bg_transmittance"])
    through = 1 - found.weights.cumsum(-1) + found.weights
    close(case.sub(found.weights / through), case.fixture["alpha_sub"][..., 0])


@cases("only_fg_image_sub", "only_fg_image_raw", "only_fg_depth")
def test_foreground_alone(name: str) -> None:
    case = load(name)
    with torch.no_grad():
        found = case.render(case.scene.with_background(None))
        images = case.finish(found)
    stride = case.fixture.config["strides"]["only_image_sub"]
    close(images.image[:, :, ::stride, ::stride], case.fixture["only_fg_image_sub"])
    close(plain_raw(case, found), case.fixture["only_fg_image_raw"])
    close(case.image(found.distance), case.fixture["only_fg_depth"])
    both = rendered(name)
    close(both.foreground, found.features)
    close(both.foreground_distance, found.distance)


@cases("only_bg_image_sub", "only_bg_image_raw")
def test_background_alone_as_the_foreground_lets_it_through(name: str) -> None:
    case, found = load(name), rendered(name)
    assert found.background is not None
    behind = replace(found, features=found.transmittance * found.background)
    with torch.no_grad():
        images = case.finish(behind)
    stride = case.fixture.config["strides"]["only_image_sub"]
    close(images.image[:, :, ::stride, ::stride], case.fixture["only_bg_image_sub"])
    close(plain_raw(case, behind), case.fixture["only_bg_image_raw"])


@cases("L_bg")
def test_background_loss(name: str) -> None:
    case, found = load(name), rendered(name)
    for transmittance, expected in zip(found.transmittance, case.fixture["L_bg"], strict=True):
        loss = background_loss(transmittance[None])
        close(loss, expected[0], LOSS)


@cases("reg_pts", "reg_pts_moved", "density_reg")
def test_density_variation(name: str) -> None:
    case = load(name)
    with torch.no_grad():
        raw = [case.scene.field.query(case.fixture[key]) for key in ("reg_pts", "reg_pts_moved")]
    difference = (raw[0].raw_density - raw[1].raw_density).abs().mean()
    weight = case.fixture.config["rendering_kwargs"]["density_reg"]
    close(weight * difference, case.fixture["density_reg"][0], LOSS)


def losses_of(case: Case) -> tuple[dict[str, Tensor], Tensor]:
    """The fixture's losses with a graph, and the logits of the generated images."""
    scene = case.generator.scene(case.latents_with_graph())
    found = case.render(scene)
    image, raw = case.finish(found, scene).image, plain_raw(case, found)
    logits = filled_discriminator(case.fixture.config)(image, raw, case.fixture["c"])
    losses = {
        "nonsat": generator_loss(logits),
        "linear": -logits.mean(),
        "pixel": image.square().mean() + raw.square().mean(),
    }
    if "loss_Lbg" in case.fixture.tensors:
        losses["Lbg"] = background_loss(found.transmittance)
    return losses, logits


@cases("loss_nonsat", "gradnorm_nonsat", "gradnorm_linear", "gradnorm_pixel", "D_logits_real")
def test_losses_and_gradients_of_every_parameter(name: str) -> None:
    case = load(name)
    arrays = case.fixture.tensors
    losses, logits = losses_of(case)
    close(logits, arrays["D_logits_fake"], LOSS)
    both = discriminator_loss(logits, arrays["D_logits_real"])
    close(both, arrays["loss_D"][0], LOSS)
    parameters = dict(case.generator.named_parameters())
    for key, loss in losses.items():
        close(loss, arrays[f"loss_{key}"][0], LOSS)
        gradients = torch.autograd.grad(
            loss, list(parameters.values()), retain_graph=True, allow_unused=True
        )
        assert not different_norms(case, key, dict(zip(parameters, gradients, strict=True)))
        assert max(arrays[f"gradnorm_{key}"].tolist()) > 1e-3


def different_norms(
    case: Case, loss: str, gradients: dict[str, Tensor | None]
) -> list[tuple[str, float, float]]:
    """Parameters whose gradient norm is not the stored one: official name, ours, theirs."""
    names = case.fixture.config["param_names"]
    # -1 stands for a parameter that official code leaves out of the graph.
    stored = case.fixture[f"gradnorm_{loss}"].clamp(min=0).tolist()
    strengths = [n for name, n in zip(names, stored, strict=True) if "noise_strength" in name]
    wrong = []
    for name, expected in zip(names, stored, strict=True):
        found = place(name)
        assert found is not None
        gradient = gradients[found.name]
        if gradient is not None and gradient.ndim:
            gradient = gradient[found.rows]
        norm = 0.0 if gradient is None else gradient.norm().item()
        tolerance = 1e-6 + 5e-3 * expected
        if "noise_strength" in name:
            # A signed sum over a whole feature map, which can cancel: double precision gives
            # 8.1e-4 where the official single precision stored 8.9e-4.
            tolerance += 1e-3 * max(strengths)
        if abs(norm - expected) > tolerance:
            wrong.append((name, norm, expected))
    return wrong


TINY = {"img_resolution": 64, "plane_resolution": 64, "channel_base": 4096, "channel_max": 128}
FULL = {"channel_base": 32768, "channel_max": 512}
OFFICIAL = {
    "eg3d_tiny64": TINY,
    "ballgan_tiny64": TINY,
    "eg3d_ffhq512": {**FULL, "img_resolution": 512},
    "eg3d_cars128": {**FULL, "img_resolution": 128},
}


@pytest.mark.parametrize("model", OFFICIAL)
def test_every_official_tensor_has_its_place(model: str) -> None:
    config = {
        **OFFICIAL[model],
        "model": model.partition("_")[0],
        "bg_kwargs": {
            "R": 3,
            "hidden_size": 64,
            "n_blocks": 4,
            "mapping_kwargs": {"num_layers": 8},
        },
        "rendering_kwargs": {
            "box_warp": 1,
            "ray_start": 2.25,
            "ray_end": 3.3,
            "depth_resolution": 48,
            "depth_resolution_importance": 48,
        },
    }
    own = make_generator(config).state_dict()
    official = {key: torch.empty(shape) for key, shape, _ in key_list(f"{model}_G")}
    found = generator_state({**official, "dataset_label_std": torch.empty(25)})
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in own.items()
    }


def test_tensors_of_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"b64\.fromrgb\.weight.*give the state of G"):
        generator_state({"b64.fromrgb.weight": torch.zeros(1)})
