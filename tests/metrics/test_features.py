"""Feature extractors: TorchScript files made here, and the Inception network on random weights."""

import hashlib
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

from nerfstudio_gan3d.metrics import features
from nerfstudio_gan3d.metrics.features import (
    EVALUATOR_OUTPUTS,
    InceptionExtractor,
    TorchScriptExtractor,
    resize_square,
    to_eight_bit,
)
from tests.metrics.reader import MeanColour, Reader, save


def test_eight_bit_rounds_and_clips():
    values = torch.tensor([-2.0, -1, 0.001, 0.5 / 127.5 * 1.1, 1, 3]).reshape(1, 1, 1, 6)
    expected = [0, 0, 128, 128, 255, 255]
    assert to_eight_bit(values.expand(1, 3, 1, 6))[0, 0, 0].tolist() == expected


def test_resize_is_a_box_mean_down_and_bilinear_up():
    image = torch.tensor([[0.0, 1.0], [-1.0, 0.4]]).expand(1, 3, 2, 2)
    assert resize_square(image, 1).flatten().tolist() == pytest.approx([0.1] * 3)
    grown = resize_square(torch.tensor([[-1.0, 1.0]] * 2).expand(1, 3, 2, 2), 4)
    assert grown[0, 0, 0].tolist() == pytest.approx([-1, -0.5, 0.5, 1])
    with pytest.raises(ValueError, match="4x2; evaluation needs square"):
        resize_square(torch.zeros(1, 3, 2, 4), 2)


def test_a_file_that_returns_one_tensor_gives_features(tmp_path: Path):
    path = save(MeanColour(), tmp_path / "colour.pt")
    extractor = TorchScriptExtractor(path, input_size=8)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert extractor.name == f"torchscript:colour.pt@sha256:{digest}"
    assert extractor.outputs == ("features",)
    image = torch.rand(5, 3, 16, 16) * 2 - 1
    extraction = extractor(image)
    torch.testing.assert_close(extraction.features, image.mean(dim=(2, 3)))
    assert extraction.depth is None
    assert extraction.azimuth_sincos is None


def test_six_outputs_have_default_names_and_can_be_renamed(tmp_path: Path):
    path = save(Reader(), tmp_path / "reader.pt")
    extractor = TorchScriptExtractor(path, input_size=8)
    assert extractor.outputs == EVALUATOR_OUTPUTS
    seen = extractor(torch.full((2, 3, 8, 8), 0.5))
    assert seen.azimuth_sincos is not None
    torch.testing.assert_close(seen.azimuth_sincos, torch.full((2, 2), 0.5**0.5))
    assert seen.depth is not None
    assert seen.depth.unique().tolist() == [2]

    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x[:, :1] * 3, x.mean(dim=(2, 3))

    path = save(Two(), tmp_path / "two.pt")
    seen = TorchScriptExtractor(path, ("mask_logit", "features"), input_size=8)(
        torch.full((2, 3, 8, 8), 0.5)
    )
    assert seen.mask_logit is not None
    assert seen.mask_logit.unique().tolist() == [1.5]

    class Classifier(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.mean(dim=(2, 3)), x[:, :, 0, 0].repeat(1, 2)

    sure = save(Classifier(), tmp_path / "classifier.pt")
    seen = TorchScriptExtractor(sure, ("features", "class_logits"), input_size=8)(
        torch.full((2, 3, 8, 8), 0.5)
    )
    assert seen.class_logits is not None
    assert seen.class_logits.tolist() == [[0.5] * 6] * 2
    with pytest.raises(ValueError, match=r"returns 2 output\(s\) and evaluator_outputs names 0"):
        TorchScriptExtractor(path, input_size=8)
    with pytest.raises(ValueError, match=r"features with shape \(2, 1, 8, 8\).*check the order"):
        TorchScriptExtractor(path, ("features", "mask_logit"), input_size=8)


def test_files_that_cannot_serve_are_refused_with_the_reason(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no file .*missing\.pt"):
        TorchScriptExtractor(tmp_path / "missing.pt")
    text = tmp_path / "text.pt"
    text.write_text("no network")
    with pytest.raises(ValueError, match=r"text\.pt does not open as TorchScript"):
        TorchScriptExtractor(text)
    weights = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, weights)
    with pytest.raises(ValueError, match=r"weights\.pt does not open as TorchScript"):
        TorchScriptExtractor(weights)
    path = save(MeanColour(), tmp_path / "colour.pt")
    for names in (("colour",), ("features", "features"), ("depth",)):
        with pytest.raises(ValueError, match="name each output once, features among them"):
            TorchScriptExtractor(path, names, input_size=8)
    flat = save(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), tmp_path / "flat.pt", size=8)
    with pytest.raises(ValueError, match=r"fails on images of 16 pixels.*evaluator_size"):
        TorchScriptExtractor(flat, input_size=16)


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the real network, in a file named after its hash."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "none.pth")
    torch.manual_seed(0)
    with mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
        net = FeatureExtractorInceptionV3(
            "x", ["2048"], feature_extractor_weights_path=str(folder / "none.pth")
        )
    torch.save(net.state_dict(), folder / "plain.pth")
    digest = hashlib.sha256((folder / "plain.pth").read_bytes()).hexdigest()[:8]
    return (folder / "plain.pth").rename(folder / f"weights-{digest}.pth")


def test_inception_gives_2048_features_of_eight_bit_images(inception_weights: Path):
    extractor = InceptionExtractor(inception_weights)
    # Weights other than the published ones must not pass for the space that FID is defined in.
    assert extractor.name.startswith("inception-v3:weights-")
    assert extractor.outputs == ("features", "class_logits")
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    extraction = extractor(image)
    found, logits = extraction.features, extraction.class_logits
    assert found.shape == (2, 2048)
    # The last layer without its bias.
    last = torch.load(inception_weights)["fc.weight"]
    assert logits is not None
    torch.testing.assert_close(logits, found @ last.T)
    assert found[0].sub(found[1]).abs().max() > 0
    # Differences below the step of 8 bits do not reach the network.
    rounded = to_eight_bit(image).float() / 127.5 - 1
    torch.testing.assert_close(extractor(rounded + 0.001).features, found, rtol=0, atol=0)


def test_inception_download_only_on_request_and_with_the_right_hash(
    inception_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(features, "INCEPTION_URL", inception_weights.as_uri())
    place = tmp_path / "home" / "hub" / "checkpoints" / inception_weights.name
    with pytest.raises(ValueError, match=rf"not at {place}.*features to none"):
        InceptionExtractor()
    assert not place.exists()
    assert InceptionExtractor(allow_download=True).name == "inception-v3-fid"
    assert place.exists()
    assert InceptionExtractor().name == "inception-v3-fid"

    forged = tmp_path / "weights-00000000.pth"
    forged.write_bytes(b"something else")
    monkeypatch.setattr(features, "INCEPTION_URL", forged.as_uri())
    with pytest.raises(ValueError, match=r"could not be fetched.*hash"):
        InceptionExtractor(allow_download=True)
    monkeypatch.setattr(features, "INCEPTION_URL", (tmp_path / "weights-1.pth").as_uri())
    with pytest.raises(ValueError, match="could not be fetched"):
        InceptionExtractor(allow_download=True)


def test_inception_weights_are_not_unpickled_freely(tmp_path: Path):
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    path = tmp_path / "harmful.pth"
    torch.save({"a": Harmful()}, path)
    with pytest.raises(ValueError, match="does not hold the weights of the 2015 Inception-v3"):
        InceptionExtractor(path)
    assert not (tmp_path / "ran").exists()
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not hold the weights"):
        InceptionExtractor(path)
    with pytest.raises(ValueError, match=r"not at .*absent\.pth"):
        InceptionExtractor(tmp_path / "absent.pth", allow_download=True)
