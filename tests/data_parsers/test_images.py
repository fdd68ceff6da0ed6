"""Data parser gan3d-images."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from nerfstudio_gan3d.cameras import PosePrior, cameras_to_labels
from nerfstudio_gan3d.data.dataset import DataError
from nerfstudio_gan3d.data.sample_data import bundled_cars
from nerfstudio_gan3d.data_parsers.images import (
    Gan3dImagesDataParser,
    Gan3dImagesDataParserConfig,
    split_images,
)
from tests.data.sets import encode, files, image, labels, write_folder, write_zip


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_outputs(tmp_path: Path, kind: str):
    if kind == "folder":
        path = write_folder(tmp_path / "set", files(20))
    else:
        path = write_zip(tmp_path / "set.zip", files(20))
    parser = Gan3dImagesDataParserConfig(data=path).setup()
    train = parser.get_dataparser_outputs("train")
    name = "images/00000/img00000007.png"
    assert train.image_filenames[7] == path / name
    torch.testing.assert_close(cameras_to_labels(train.cameras), torch.tensor(labels(20)))
    assert (int(train.cameras.width[0]), int(train.cameras.height[0])) == (8, 8)
    assert train.dataparser_scale == 1
    assert train.metadata["gan3d"] == {
        "path": str(path),
        "indices": list(range(20)),
        "size": 8,
        "has_labels": True,
        "classes": ["background", "body", "wheel"],
        "palette": [[0, 0, 0], [255, 0, 0], [0, 0, 255]],
    }
    shown = parser.get_dataparser_outputs("test")
    assert shown.metadata["gan3d"]["indices"] == [0, 2, 5, 7, 10, 12, 15, 17]
    assert shown.image_filenames[1] == train.image_filenames[2]


def test_camera_in_nerfstudio_world(tmp_path: Path):
    # The object's front (+z, azimuth 0) and up (+y) become nerfstudio's -y and +z.
    content = {"a.png": encode(image(0, 10))}
    row = "[1,0,0,0, 0,-1,0,0, 0,0,-1,3, 0,0,0,1, 1.5,0,0.5, 0,1.5,0.5, 0,0,1]"
    content["dataset.json"] = f'{{"labels": [["a.png", {row}]]}}'.encode()
    path = write_folder(tmp_path / "set", content)
    cameras = Gan3dImagesDataParserConfig(data=path).setup().get_dataparser_outputs().cameras
    # Camera at (0, 0, 3), looking along -z: at (0, -3, 0), right +x, up +z, looking along +y.
    expected = [[1, 0, 0, 0], [0, 0, -1, -3], [0, 1, 0, 0]]
    torch.testing.assert_close(cameras.camera_to_worlds[0], torch.tensor(expected).float())
    assert cameras.fx[0, 0] == 15
    assert cameras.cx[0, 0] == 5


def test_bundled_cars_are_the_default():
    parser = Gan3dImagesDataParser.config.setup()
    outputs = parser.get_dataparser_outputs()
    assert Gan3dImagesDataParser.config.data is None
    assert outputs.metadata["gan3d"]["path"] == str(bundled_cars())
    assert len(outputs.image_filenames) == 2000


def test_images_alone_get_cameras_of_the_prior(tmp_path: Path):
    path = write_folder(tmp_path / "set", {f"{i}.png": encode(image(i)) for i in range(12)})
    prior = PosePrior(elevation_deg=(10.0, 30.0), radius=2.5, fov_deg=20.0)
    config = Gan3dImagesDataParserConfig(data=path, prior=prior)
    first, second = (config.setup().get_dataparser_outputs() for _ in range(2))
    assert first.metadata["gan3d"]["has_labels"] is False
    torch.testing.assert_close(first.cameras.camera_to_worlds, second.cameras.camera_to_worlds)
    places = first.cameras.camera_to_worlds[:, :, 3]
    torch.testing.assert_close(places.norm(dim=1), torch.full((12,), 2.5))
    elevation = torch.rad2deg(torch.asin(places[:, 2] / 2.5))
    assert elevation.min() >= 9.99
    assert elevation.max() <= 30.01


def test_split_by_object():
    objects = [0, 1, 2, 3, 0, 1, 2, 3, 9]
    assert split_images(9, objects, 2, 0.0) == ([0, 1, 2, 4, 5, 6], [3, 7, 8])
    # Two fifths of five objects are two.
    assert split_images(9, objects, 0, 0.4) == split_images(9, objects, 2, 0.0)
    assert split_images(9, objects, 0, 0.01)[1] == [8]


def test_split_without_objects_takes_the_last_names():
    assert split_images(10, None, 0, 0.25) == ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9])


def test_nothing_held_out_still_gives_evaluation_images():
    assert split_images(3, None, 0, 0.0) == ([0, 1, 2], [0, 1, 2])
    assert split_images(16, None, 0, 0.0) == (list(range(16)), [0, 2, 4, 6, 8, 10, 12, 14])


@pytest.mark.parametrize(
    ("objects", "held", "fraction", "message"),
    [
        ([0, 1], 1, 0.5, "set one of them"),
        (None, 1, 0.0, "names no objects; use eval_fraction"),
        (None, 0, 1.0, "eval_fraction = 1.0: give at least 0 and less than 1"),
        (None, 0, -0.1, "eval_fraction = -0.1"),
        ([0, 1], 2, 0.0, "2 of 2 objects or images held out: at least one must be left"),
        ([0, 1], 0, 0.9, "2 of 2 objects or images held out"),
    ],
)
def test_bad_splits(objects: list[int] | None, held: int, fraction: float, message: str):
    with pytest.raises(ValueError, match=message):
        split_images(2, objects, held, fraction)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        Gan3dImagesDataParserConfig(data=tmp_path / "nowhere").setup().get_dataparser_outputs()


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_folder(tmp_path / "set", files())
    monkeypatch.chdir(tmp_path)
    config = Gan3dImagesDataParserConfig(data=Path("set"))
    assert config.data == tmp_path / "set"
    config.data = Path("set/images")
    assert config.data == tmp_path / "set/images"
    config.data = Path("~/cars")
    assert config.data == Path(os.path.expanduser("~/cars"))
    monkeypatch.chdir("/")
    config.data = tmp_path / "set"
    assert len(config.setup().get_dataparser_outputs().image_filenames) == 6


def test_config_survives_yaml(tmp_path: Path):
    prior = PosePrior(kind="gaussian", radius=2.7)
    config = Gan3dImagesDataParserConfig(data=tmp_path, eval_fraction=0.1, prior=prior)
    loaded = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert loaded == config
    assert loaded.prior.radius == 2.7
