"""Networks against the tensor names and the outputs of the official implementations."""

import pytest
import torch
from torch import Tensor, nn

from nerfstudio_gan3d.networks.discriminator import DualDiscriminator, resize_antialias
from nerfstudio_gan3d.networks.stylegan2 import Backbone, MappingNetwork, truncate
from nerfstudio_gan3d.networks.superresolution import SuperResolution
from tests.parity.fill import Fixture, filled, key_list, procedural_image

FIXTURES = ("eg3d_tiny64", "ballgan_tiny64")


def tiny_backbone() -> Backbone:
    return Backbone(512, 25, 512, 64, 96, channel_base=4096, channel_max=128)


def tiny_superresolution() -> SuperResolution:
    return SuperResolution(32, 64, clamp=256.0)


def tiny_discriminator() -> DualDiscriminator:
    return DualDiscriminator(64, channel_base=4096, channel_max=128, conv_clamp=256.0)


def full_backbone() -> Backbone:
    return Backbone(512, 25, 512, 256, 96)


KEYS = [
    ("eg3d_tiny64_G", "backbone.", tiny_backbone),
    ("eg3d_tiny64_G", "superresolution.", tiny_superresolution),
    ("eg3d_tiny64_D", "", tiny_discriminator),
    ("ballgan_tiny64_G", "backbone.", tiny_backbone),
    ("ballgan_tiny64_G", "superresolution.", tiny_superresolution),
    ("ballgan_tiny64_G", "BG_mapping.", lambda: MappingNetwork(512, 0, 512, 5, 8)),
    ("eg3d_ffhq512_G", "backbone.", full_backbone),
    ("eg3d_ffhq512_G", "superresolution.", lambda: SuperResolution.reference("8XDC")),
    ("eg3d_ffhq512_D", "", lambda: DualDiscriminator(512, conv_clamp=256.0)),
    ("eg3d_cars128_G", "backbone.", full_backbone),
    ("eg3d_cars128_G", "superresolution.", lambda: SuperResolution.reference("2X")),
    ("eg3d_cars128_D", "", lambda: DualDiscriminator(128, conv_clamp=256.0)),
]


@pytest.mark.parametrize(("model", "prefix", "build"), KEYS)
def test_tensor_names_shapes_kinds_and_order_are_official(model: str, prefix: str, build) -> None:
    with torch.device("meta"):
        module: nn.Module = build()
    parameters = dict(module.named_parameters())
    own = [
        (prefix + name, tuple(value.shape), "P" if name in parameters else "B")
        for name, value in module.state_dict().items()
    ]
    assert own == [entry for entry in key_list(model) if entry[0].startswith(prefix)]


def close(actual: Tensor, expected: Tensor, atol: float, rtol: float) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


@pytest.fixture(scope="module", params=FIXTURES)
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return Fixture(request.param)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return filled(tiny_backbone(), "backbone.")


@pytest.fixture(scope="module")
def discriminator() -> DualDiscriminator:
    return filled(tiny_discriminator())


def test_latents(fixture: Fixture, backbone: Backbone) -> None:
    ws = backbone.mapping(fixture["z"], fixture["c_cond"])
    close(ws, fixture["ws"], 1e-5, 1e-5)
    psi, cutoff = fixture.config["truncation"]["psi"], fixture.config["truncation"]["cutoff"]
    close(truncate(ws, backbone.mapping.w_avg, psi, cutoff), fixture["ws_trunc"], 1e-5, 1e-5)


def test_background_latents() -> None:
    fixture = Fixture("ballgan_tiny64")
    mapping = filled(MappingNetwork(512, 0, 512, num_ws=5, num_layers=8), "BG_mapping.")
    ws = mapping(fixture["z_bg"])
    close(ws, fixture["ws_bg"], 1e-5, 1e-5)
    psi = fixture.config["truncation"]["bg_psi"]
    close(truncate(ws, mapping.w_avg, psi), fixture["ws_bg_trunc"], 1e-5, 1e-5)


def test_planes(fixture: Fixture, backbone: Backbone) -> None:
    with torch.no_grad():
        planes = backbone.synthesis(fixture["ws"], "const")
        silent = backbone.synthesis(fixture["ws"], "none")
    close(planes[:, :, ::4, ::4], fixture["planes_sub"], 2e-4, 1e-4)
    close(silent[:, :, ::8, ::8], fixture["planes_nonoise_sub"], 2e-4, 1e-4)


def test_planes_in_the_other_form_of_modulation(fixture: Fixture) -> None:
    network = Backbone(512, 25, 512, 64, 96, 4096, 128, modulation="weights")
    with torch.no_grad():
        planes = filled(network, "backbone.").synthesis(fixture["ws"])
    close(planes[:, :, ::4, ::4], fixture["planes_sub"], 2e-4, 1e-4)


def test_superresolution(fixture: Fixture) -> None:
    features, ws = fixture["render_feat"], fixture["ws"]
    network = filled(tiny_superresolution(), "superresolution.")
    with torch.no_grad():
        out = network(features, features[:, :3], ws)
    close(out.image, fixture["image_sub"], 2e-4, 1e-4)


def test_discriminator_of_fakes(fixture: Fixture, discriminator: DualDiscriminator) -> None:
    with torch.no_grad():
        logits = discriminator(fixture["image_sub"], fixture["image_raw"], fixture["c"])
    close(logits, fixture["D_logits_fake"], 2e-5, 1e-3)


def test_discriminator_of_reals(fixture: Fixture, discriminator: DualDiscriminator) -> None:
    image = torch.stack([procedural_image(64, phase) for phase in (0.0, 1.0)])
    raw = resize_antialias(image, (32, 32))
    close(raw, fixture["real_raw"], 1e-6, 0)
    image.requires_grad_()
    raw.requires_grad_()
    logits = discriminator(image, raw, fixture["c"])
    close(logits, fixture["D_logits_real"], 2e-5, 1e-3)
    with torch.no_grad():
        single = discriminator(image[:1], raw[:1], fixture["c"][:1])
    close(single, fixture["D_logits_real_single0"], 2e-5, 1e-3)
    grad_image, grad_raw = torch.autograd.grad(logits.sum(), (image, raw), create_graph=True)
    penalty = grad_image.square().sum((1, 2, 3))
    close(penalty, fixture["r1_penalty_image"], 1e-6, 5e-3)
    close(penalty + grad_raw.square().sum((1, 2, 3)), fixture["r1_penalty"], 1e-6, 5e-3)
