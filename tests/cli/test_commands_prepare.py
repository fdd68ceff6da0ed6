"""`gan3d prepare`: what comes out of a folder of photographs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nerfstudio_gan3d.data import estimators
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.prepare_options import PrepareOptions
from tests.cli.test_commands_data import refuse, succeed
from tests.data.onnx_file import bright_is_foreground
from tests.data.sets import encode, write_folder

JPEG = 12
"""Largest change of a grey value beside a sharp border that JPEG of this quality makes."""


class Rows:
    """Stands for a depth network: the farther up, the farther away."""

    def __init__(self, model: str, kind: str) -> None:
        assert (model, kind) == (PrepareOptions.depth_model, "disparity")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        return np.repeat(np.arange(height, 0, -1, dtype=np.float32)[:, None], width, 1)


class Bright:
    """Stands for a foreground network: what is brighter than 128."""

    def __init__(self, model: str) -> None:
        assert model == "u2net"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return (image[..., 0] > 128).astype(np.float32)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimators, "DepthEstimator", Rows)
    monkeypatch.setattr(estimators, "ForegroundEstimator", Bright)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A dark photograph with a bright square of 20 pixels, wide and in two folders."""
    pixels = np.full((40, 60, 3), 30, np.uint8)
    pixels[10:30, 5:25] = 240
    content = {"cars/a.png": encode(pixels), "dogs/b.jpg": encode(pixels, "JPEG")}
    return write_folder(tmp_path / "photos", content)


def names(folder: Path | str) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


@pytest.mark.usefixtures("networks")
def test_photographs_become_a_set(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = succeed(capsys, "prepare", photos, "out/set", "--size", 40)
    assert "out/set: 2 photographs of 40 x 40 pixels with depth, ready for the data parser" in told
    expected = ["cars/a.jpg", "cars/a_depth.png", "dogs/b.jpg", "dogs/b_depth.png"]
    assert names("out/set") == expected
    images = ImageSet("out/set")
    # The middle of the photograph begins at column 10: of the square 15 columns are left.
    picture = images.image(0)
    assert np.abs(picture[12:28, :13].astype(int) - 240).max() <= JPEG
    assert np.abs(picture[:, 18:].astype(int) - 30).max() <= JPEG
    with Image.open("out/set/cars/a_depth.png") as depth:
        values = np.array(depth)
    assert values.dtype == np.uint16
    np.testing.assert_array_equal(values[:, 7], np.rint(np.arange(39, -1, -1) * 65535 / 39))
    told = succeed(capsys, "data", "check", "out/set")
    assert "2 images of 40 x 40 pixels, all readable" in told
    assert "depth range: 0.0000 to 1.0000 (relative, 0 is near)" in told

    before = Path("out/set/cars/a.jpg").read_bytes()
    told = refuse(capsys, "prepare", photos, "out/set", "--size", 20)
    assert "cars/a.jpg: is there already; give another folder, or --overwrite" in told
    assert Path("out/set/cars/a.jpg").read_bytes() == before
    succeed(capsys, "prepare", photos, "out/set", "--size", 20, "--overwrite")
    assert names("out/set") == expected
    assert ImageSet("out/set").size == 20


@pytest.mark.usefixtures("networks")
def test_subject_alone(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--remove-background", "--crop", "subject", "--background", "grey", "--size", 24]
    succeed(capsys, "prepare", photos / "cars" / "a.png", "out", *words)
    assert names("out") == ["a.jpg", "a_depth.png"]
    picture = np.array(Image.open("out/a.jpg")).astype(int)
    values = np.array(Image.open("out/a_depth.png"))
    # 20 pixels and two on each side.
    inside = np.zeros((24, 24), bool)
    inside[2:22, 2:22] = True
    assert np.abs(picture[4:20, 4:20] - 240).max() <= JPEG
    assert np.abs(picture[~inside] - 128).max() <= JPEG
    assert (values[~inside] == 65535).all()
    np.testing.assert_array_equal(values[2:22, 9], np.rint(np.arange(19, -1, -1) * 65535 / 19))


@pytest.mark.usefixtures("networks")
def test_what_cannot_be_prepared_is_refused(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--size is 8; it must lie" in refuse(capsys, "prepare", photos, "out", "--size", 8)
    told = refuse(capsys, "prepare", photos, "out", "--crop", "subject")
    assert "--crop subject needs --remove-background" in told
    assert "nowhere: no such file or folder" in refuse(capsys, "prepare", "nowhere", "out")
    # Cut off in the middle: its header is good, so that the first photograph is written before.
    whole = (photos / "dogs" / "b.jpg").read_bytes()
    (photos / "dogs" / "b.jpg").write_bytes(whole[:-40])
    told = refuse(capsys, "prepare", photos, "out", "--size", 20)
    assert "dogs/b.jpg: truncated or damaged image" in told
    assert names("out") == ["cars/a.jpg", "cars/a_depth.png"]
    (photos / "dogs" / "b.jpg").write_bytes(encode(np.zeros((30, 30, 3), np.uint8)))
    told = refuse(capsys, "prepare", photos / "dogs", "new", "--remove-background")
    assert "b.jpg: no foreground was found" in told
    assert not Path("new").exists()


def test_with_the_real_packages(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.data.test_estimators import tiny_depth_model

    tiny_depth_model(Path("depth-model"))
    Path("bright.onnx").write_bytes(bright_is_foreground())
    # Black and white: where resampling overshoots, a grey background would be foreground a little.
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 5:25] = 255
    (photos / "cars" / "a.png").write_bytes(encode(pixels))
    words = ["--remove-background", "--background-model", "bright.onnx", "--size", 40]
    succeed(capsys, "prepare", photos, "out", *words, "--depth-model", "depth-model")
    values = np.array(Image.open("out/cars/a_depth.png"))
    picture = np.array(Image.open("out/cars/a.jpg")).astype(int)
    picture_inside, picture_outside = picture[12:28, :13], picture[:, 18:]
    assert picture_inside.min() >= 255 - JPEG
    assert picture_outside.min() >= 255 - JPEG
    inside = np.zeros((40, 40), bool)
    inside[10:30, :15] = True
    assert (values[~inside] == 65535).all()
    assert (values[inside].min(), values[inside].max()) == (0, 65535)
    told = refuse(capsys, "prepare", photos, "new", "--depth-model", "out")
    assert "depth model 'out': cannot be loaded" in told
    assert not Path("new").exists()
