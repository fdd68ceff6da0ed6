"""Depth and foreground by the real packages, with tiny networks that a test makes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from nerfstudio_gan3d.data.dataset import DataError
from nerfstudio_gan3d.data.estimators import DepthEstimator, ForegroundEstimator
from tests.data.onnx_file import bright_is_foreground


def tiny_depth_model(folder: Path) -> Any:
    """A Depth Anything of four channels that sees 28 x 28 pixels; returns the network."""
    backbone = transformers.Dinov2Config(
        image_size=28,
        patch_size=14,
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_indices=[1, 2, 3, 4],  # pyright: ignore[reportCallIssue]
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=8,
        neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4,
        head_hidden_size=4,
    )
    network = transformers.DepthAnythingForDepthEstimation(config).eval()
    # Fresh weights are so small that every photograph would look flat, and the ReLU at the end
    # would cut values off.
    for weight in (p for p in network.parameters() if p.ndim == 4):
        torch.nn.init.normal_(weight, std=0.3)
    bias = network.head.conv3.bias
    assert bias is not None
    torch.nn.init.constant_(bias, 5.0)
    network.save_pretrained(folder)
    transformers.DPTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    return network


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("depth")
    torch.manual_seed(0)
    return SimpleNamespace(folder=folder, network=tiny_depth_model(folder))


def test_depth_is_that_of_the_network(depth_model: SimpleNamespace):
    photo = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    estimator = DepthEstimator(str(depth_model.folder))
    # The plain way: the processor resizes nothing at this size, scales to 0..1 and takes off its
    # mean and deviation (0.5 both).
    inputs = (torch.from_numpy(photo).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    with torch.no_grad():
        disparity = depth_model.network(inputs).predicted_depth[0].numpy()
    assert disparity.std() > 1e-4
    np.testing.assert_allclose(estimator(photo), -disparity, rtol=0, atol=1e-5)
    farther = DepthEstimator(str(depth_model.folder), "depth")
    np.testing.assert_array_equal(farther(photo), -estimator(photo))
    # The map has the size of the photograph.
    assert estimator(np.zeros((40, 60, 3), np.uint8)).shape == (40, 60)


def test_depth_models_that_cannot_be_used(
    depth_model: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty': cannot be loaded .* estimation model of tra"):
        DepthEstimator(str(tmp_path / "empty"))
    other = tmp_path / "other"
    depth_model.network.backbone.save_pretrained(other)
    transformers.DPTImageProcessor().save_pretrained(other)
    with pytest.raises(DataError, match=r"other': cannot be loaded .*Unrecognized"):
        DepthEstimator(str(other))
    # A file without some of the weights would be filled up with random ones.
    part = tmp_path / "part"
    state = {k: v for k, v in depth_model.network.state_dict().items() if "conv3" not in k}
    depth_model.network.save_pretrained(part, state_dict=state)
    transformers.DPTImageProcessor().save_pretrained(part)
    with pytest.raises(DataError, match=r"part': its file lacks 2 weights, such as head.conv3.b"):
        DepthEstimator(str(part))

    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(DataError) as caught:
        DepthEstimator("nobody/no-such-model")
    for part in (
        "depth model 'nobody/no-such-model': no such folder, not in ",
        "(Name or service not known); run `hf download nobody/no-such-model`",
        "give --depth-model a folder with the model's config.json",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"and copy that folder here, or load a depth map$"):
        DepthEstimator("nobody/no-such-model", instead="load a depth map")


def bright_square() -> tuple[np.ndarray, np.ndarray]:
    """A photograph of a white square on black, and where that is."""
    inside = np.zeros((160, 120), bool)
    inside[40:100, 20:80] = True
    return np.where(inside[..., None], 255, 0).repeat(3, -1).astype(np.uint8), inside


def check_mask(found: np.ndarray) -> None:
    _, inside = bright_square()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found >= 0.5, inside)
    assert found[45:95, 25:75].min() > 0.97
    assert found[120:, :].max() < 0.03


def test_foreground_of_a_file(tmp_path: Path):
    (tmp_path / "mine.onnx").write_bytes(bright_is_foreground())
    photo, _ = bright_square()
    estimator = ForegroundEstimator(str(tmp_path / "mine.onnx"))
    check_mask(estimator(photo))
    # The same brightness everywhere is no foreground, rather than a division by zero.
    assert (estimator(np.full((20, 20, 3), 90, np.uint8)) < 0.5).all()


@pytest.mark.parametrize("place", ["u2net.onnx", "models/u2net/u2net.onnx"])
def test_foreground_of_a_model_in_its_home(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(bright_is_foreground())
    check_mask(ForegroundEstimator("u2net")(bright_square()[0]))


def test_a_file_named_as_a_model_is_run_as_that_model(tmp_path: Path):
    # isnet-general-use sees 1024 x 1024 pixels, U2-Net 320 x 320: a line of one pixel in 1000
    # vanishes in the smaller picture.
    photo = np.zeros((1000, 1000, 3), np.uint8)
    photo[500] = 255
    found = {}
    for name in ("isnet-general-use", "other"):
        (tmp_path / f"{name}.onnx").write_bytes(bright_is_foreground())
        mask = ForegroundEstimator(str(tmp_path / f"{name}.onnx"))(photo)
        found[name] = int((mask[:, 500] > 0.5).sum())
    assert found["isnet-general-use"] <= 2
    assert found["other"] >= 3


def test_foreground_models_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from rembg.sessions.u2net import U2netSession

    with pytest.raises(DataError, match=r"no.onnx: no such file; --background-model is"):
        ForegroundEstimator(str(tmp_path / "no.onnx"))
    with pytest.raises(DataError, match=r"'sam': give an .onnx file or one of .*u2net, u2net_hum"):
        ForegroundEstimator("sam")
    (tmp_path / "bad.onnx").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"bad.onnx: not a usable ONNX file"):
        ForegroundEstimator(str(tmp_path / "bad.onnx"))

    def unreachable(*args: object, **kwargs: object) -> str:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(U2netSession, "download_models", unreachable)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError) as caught:
        ForegroundEstimator()
    for part in (
        f"{tmp_path / 'home/u2net.onnx'}: not there and cannot be downloaded (Name or service",
        "leave out --remove-background",
    ):
        assert part in str(caught.value)


def test_photographs_are_what_networks_see(depth_model: SimpleNamespace):
    # The estimator takes RGB: swapping red and blue changes its answer.
    photo = np.zeros((28, 28, 3), np.uint8)
    photo[:14, :, 0] = 255
    estimator = DepthEstimator(str(depth_model.folder))
    assert np.abs(estimator(photo) - estimator(photo[..., ::-1].copy())).max() > 1e-4
