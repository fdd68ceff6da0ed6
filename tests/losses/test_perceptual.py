"""LPIPS on a VGG-16 of random weights, against the formula written out, and weights that lack."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional.image.lpips as kept
from torch import Tensor, nn

from nerfstudio_gan3d.losses import perceptual
from nerfstudio_gan3d.losses.perceptual import PerceptualDistance

# Outputs and inputs of the 3x3 convolutions of VGG-16 by their position in torchvision's list.
CONVOLUTIONS = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
POOLED = (4, 9, 16, 23)
TAPPED = (3, 8, 15, 22, 29)


def random_weights() -> dict[str, Tensor]:
    """Weights of torchvision's names and shapes. Expanded, so that the file stays at 7 MB."""
    weights = {}
    for position, (outputs, inputs) in CONVOLUTIONS.items():
        # Nine equal taps of neighbouring pixels add up, so this keeps activations from vanishing
        # and from growing.
        core = torch.randn(outputs, inputs, 1, 1) * (2 / inputs) ** 0.5 / 9
        weights[f"features.{position}.weight"] = core.expand(outputs, inputs, 3, 3)
        weights[f"features.{position}.bias"] = 0.1 * torch.randn(outputs)
    weights["classifier.6.bias"] = torch.zeros(1000)
    return weights


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "weights.pth"
    torch.save(random_weights(), path)
    return path


@pytest.fixture(scope="module")
def distance(vgg: Path) -> PerceptualDistance:
    return PerceptualDistance(vgg)


def written_out(
    image: Tensor,
    target: Tensor,
    weights: dict[str, Tensor],
    factors: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """LPIPS as the paper has it, layer by layer."""
    linear = torch.load(Path(kept.__file__).parent / "lpips_models" / "vgg.pth", map_location="cpu")
    mean = torch.tensor([-0.030, -0.088, -0.188]).double().view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(3, 1, 1)
    x = (torch.cat([image, target]) - mean) / scale
    total = torch.zeros(len(image), dtype=torch.float64)
    layer = 0
    for position in range(30):
        if position in POOLED:
            x = F.max_pool2d(x, 2)
        elif position in CONVOLUTIONS:
            weight, bias = (
                weights[f"features.{position}.{n}"].double() for n in ("weight", "bias")
            )
            x = F.conv2d(x, weight, bias, padding=1)
        else:
            x = x.relu()
        if position in TAPPED:
            # Relative to the features' length the library's 1e-8 under the root is nothing.
            unit = x / x.norm(dim=1, keepdim=True)
            difference = (unit[: len(image)] - unit[len(image) :]).square()
            importance = linear[f"lin{layer}.model.1.weight"].double().view(-1, 1, 1)
            total = total + factors[layer] * (importance * difference).sum(1).mean((1, 2))
            layer += 1
    assert layer == 5
    return total


def images(*shape: int) -> tuple[Tensor, Tensor]:
    first, second = (2 * torch.rand(2, *shape, dtype=torch.float64) - 1).unbind()
    return first, second


def test_distance_equals_the_formula_for_each_image(
    vgg: Path, distance: PerceptualDistance
) -> None:
    image, target = images(3, 3, 20, 32)
    found = distance(image, target)
    expected = written_out(image, target, torch.load(vgg))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    # Three images, three distances that are far from zero and from each other.
    assert expected.min() > 1e-3
    assert expected.std() > 1e-4
    single = distance(image.float(), target.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("factors", [(0.0, 0.0, 0.0, 1.0, 1.0), (0.5, 0.0, 2.0, 0.0, 0.25)])
def test_layers_are_weighed_one_by_one(vgg: Path, factors: tuple[float, ...]) -> None:
    image, target = images(2, 3, 16, 20)
    found = PerceptualDistance(vgg, layers=factors)(image, target)
    expected = written_out(image, target, torch.load(vgg), factors)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert ((expected - written_out(image, target, torch.load(vgg))).abs() > 1e-3).all()


def test_all_layers_alike_are_the_distance_itself(vgg: Path, distance: PerceptualDistance) -> None:
    image, target = images(2, 3, 16, 16)
    image.requires_grad_()
    found = PerceptualDistance(vgg, layers=(1.0, 1.0, 1.0, 1.0, 1.0))(image, target)
    expected = distance(image, target)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), image), torch.autograd.grad(expected.sum(), image)
    )


@pytest.mark.parametrize(
    "wrong", [(1.0, 1.0), (0.0,) * 5, (1.0, 1.0, 1.0, 1.0, -1.0), (1.0, 1.0, 1.0, 1.0, math.inf)]
)
def test_layers_that_mean_nothing_are_refused(vgg: Path, wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"LPIPS layers .*: give 5 factors of 0 or more"):
        PerceptualDistance(vgg, layers=wrong)


def test_sentences_name_the_option_of_the_method_that_asks(vgg: Path, tmp_path: Path) -> None:
    own = "--pipeline.model.losses.lpips 0"
    with pytest.raises(ValueError, match=f"train without them: {own}$"):
        PerceptualDistance(tmp_path / "own.pth", without=own)
    broken = tmp_path / "broken.pth"
    for content in (b"text", None):
        if content is None:
            torch.save({}, broken)
        else:
            broken.write_bytes(content)
        with pytest.raises(ValueError, match=f"train without it: {own}$"):
            PerceptualDistance(broken, without=own)
    small = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match=f"train without it: {own}$"):
        PerceptualDistance(vgg, without=own)(small, small)


def test_distance_is_symmetric_and_zero_for_equal_images(distance: PerceptualDistance) -> None:
    image, target = images(2, 3, 16, 16)
    assert distance(image, image.clone()).tolist() == [0, 0]
    torch.testing.assert_close(distance(image, target), distance(target, image))


def test_distance_grows_with_the_change_of_an_image(distance: PerceptualDistance) -> None:
    image, other = images(1, 3, 32, 32)
    steps = [float(distance(image, image + t * (other - image))) for t in (0.1, 0.3, 0.6, 1.0)]
    assert steps == sorted(steps)
    assert steps[0] < 0.2 * steps[-1]


def test_gradient_of_the_first_image_is_that_of_finite_differences(
    distance: PerceptualDistance,
) -> None:
    image, target = images(2, 3, 16, 16)
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(distance(image, target).sum(), image)
    assert torch.isfinite(gradient).all()
    with torch.no_grad():
        for pixel in ((0, 0, 3, 3), (0, 2, 15, 0), (1, 1, 8, 11), (1, 2, 0, 7)):
            step = torch.zeros_like(image)
            step[pixel] = 1e-6
            ahead, behind = distance(image + step, target), distance(image - step, target)
            slope = (ahead - behind).sum() / 2e-6
            torch.testing.assert_close(gradient[pixel], slope, rtol=1e-4, atol=1e-8)


def test_nothing_of_it_is_trained_or_saved_with_its_holder(distance: PerceptualDistance) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lpips = distance
            self.own = nn.Linear(1, 1)

    holder = Holder().train()
    assert list(holder.state_dict()) == ["own.weight", "own.bias"]
    assert len(list(holder.parameters())) == 2
    image, target = images(1, 3, 16, 16)
    # Dropout of the network would make two answers differ.
    assert torch.equal(distance(image, target), distance(image, target))
    assert not distance(image, target).requires_grad


def test_opening_it_leaves_the_random_numbers_alone(vgg: Path) -> None:
    before = torch.get_rng_state()
    PerceptualDistance(vgg)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_that_cannot_be_compared_are_refused(distance: PerceptualDistance) -> None:
    small = torch.zeros(1, 3, 16, 15)
    with pytest.raises(ValueError, match=r"15 x 16 pixels: it needs at least 16 x 16"):
        distance(small, small)


def test_missing_weights_are_named_with_place_source_and_way_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    with pytest.raises(ValueError, match="are not at") as caught:
        PerceptualDistance()
    sentence = str(caught.value)
    for part in (str(place), perceptual.VGG_URL, "--pipeline.model.label-losses.lpips 0"):
        assert part in sentence
    assert "\n" not in sentence
    assert not place.parent.exists()
    # A place that the user named is not written to.
    with pytest.raises(ValueError, match=r"are not at .*own\.pth"):
        PerceptualDistance(tmp_path / "own.pth", allow_download=True)
    assert not list(tmp_path.iterdir())


def test_download_only_on_request_and_with_the_right_hash(
    vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    forged = tmp_path / "vgg16-00000000.pth"
    forged.write_bytes(vgg.read_bytes())
    monkeypatch.setattr(perceptual, "VGG_URL", forged.as_uri())
    with pytest.raises(
        ValueError, match=r"could not be fetched from .*hash.*label-losses\.lpips 0"
    ):
        PerceptualDistance(allow_download=True)
    from nerfstudio_gan3d.metrics.features import file_digest

    true = vgg.rename(tmp_path / f"vgg16-{file_digest(vgg)}.pth")
    try:
        monkeypatch.setattr(perceptual, "VGG_URL", true.as_uri())
        PerceptualDistance(allow_download=True)
        PerceptualDistance()
    finally:
        true.rename(vgg)


def test_files_that_are_no_vgg_weights_are_refused(vgg: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content in (b"", b"text", vgg.read_bytes()[:100000]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights\.pth: truncated or unreadable") as caught:
            PerceptualDistance(path)
        assert "\n" not in str(caught.value)
        assert perceptual.VGG_URL in str(caught.value)
    weights = random_weights()
    missing = {name: value for name, value in weights.items() if name != "features.28.bias"}
    wider = weights | {"features.28.bias": torch.zeros(513)}
    for content in (missing, wider, torch.zeros(3), [weights]):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"not the weights of torchvision's VGG-16"):
            PerceptualDistance(path)
    torch.save(missing, path)
    with pytest.raises(ValueError, match=r"features\.28\.bias has the shape \[512\]"):
        PerceptualDistance(path)


def test_weights_are_not_unpickled_freely(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    path = tmp_path / "harmful.pth"
    torch.save({"features.0.weight": Harmful()}, path)
    with pytest.raises(ValueError, match=r"harmful\.pth: truncated or unreadable"):
        PerceptualDistance(path)
    assert not (tmp_path / "ran").exists()
