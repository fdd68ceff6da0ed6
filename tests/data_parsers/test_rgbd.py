"""Data parser gan3d-rgbd: one camera for every image, in nerfstudio's world and in batches."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from nerfstudio_gan3d.cameras import camera_angles, cameras_to_labels
from nerfstudio_gan3d.data.datamanager import GanDataManagerConfig
from nerfstudio_gan3d.data.dataset import DataError
from nerfstudio_gan3d.data_parsers.rgbd import (
    Gan3dRgbdDataParser,
    Gan3dRgbdDataParserConfig,
    canonical_label,
)
from tests.data.sets import encode, files, image, relative, rgbd_files, write_folder, write_zip


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_outputs(tmp_path: Path, kind: str):
    if kind == "folder":
        path = write_folder(tmp_path / "set", rgbd_files(20))
    else:
        path = write_zip(tmp_path / "set.zip", rgbd_files(20))
    outputs = Gan3dRgbdDataParserConfig(data=path).setup().get_dataparser_outputs("train")
    # The camera stands at (0, 0, 5) and looks along -z: in nerfstudio's world at (0, -5, 0).
    expected = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -5], [0, 1, 0, 0]])
    torch.testing.assert_close(outputs.cameras.camera_to_worlds, expected.repeat(20, 1, 1))
    # Half of 8 pixels over the tangent of 9 degrees.
    focal = 4 / math.tan(math.radians(9))
    np.testing.assert_allclose(outputs.cameras.fx, focal, rtol=1e-6)
    assert outputs.metadata["gan3d"] == {
        "path": str(path),
        "indices": list(range(20)),
        "size": 8,
        "has_labels": True,
        "classes": None,
        "palette": None,
    }
    assert outputs.scene_box.aabb.tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert outputs.image_filenames[0] == path / "1/1551.jpg"


def test_radius_view_and_held_out_images(tmp_path: Path):
    path = write_folder(tmp_path / "set", rgbd_files(10))
    config = Gan3dRgbdDataParserConfig(data=path, radius=2.7, fov_deg=90.0, eval_fraction=0.25)
    parser = config.setup()
    train, test = (parser.get_dataparser_outputs(split) for split in ("train", "test"))
    assert train.metadata["gan3d"]["indices"] == list(range(7))
    assert test.metadata["gan3d"]["indices"] == [7, 8, 9]
    labels = cameras_to_labels(test.cameras)
    azimuth, elevation, radius = camera_angles(labels)
    assert azimuth.tolist() == elevation.tolist() == [0, 0, 0]
    torch.testing.assert_close(radius, torch.full((3,), 2.7))
    torch.testing.assert_close(labels[:, 16], torch.full((3,), 0.5))
    torch.testing.assert_close(config.prior.sample(2), canonical_label(2.7, 90.0).repeat(2, 1))


def test_cameras_and_depth_reach_the_batches(tmp_path: Path):
    path = write_folder(tmp_path / "set", rgbd_files(6))
    manager = GanDataManagerConfig(
        data=path,
        dataparser=Gan3dRgbdDataParserConfig(),
        batch_size=4,
        mirror=True,
        with_depth=True,
        depth_range=(4.0, 6.0),
    ).setup()
    batch = manager.next_images(0)
    # The mirror image of the camera in front is that camera.
    torch.testing.assert_close(batch["label"], canonical_label(5.0, 18.0).repeat(4, 1))
    _, flips = manager.batches.order(0)
    assert batch["depth"] is not None
    for depth, index, flip in zip(batch["depth"], batch["index"].tolist(), flips, strict=True):
        wanted = 4 + relative(index).astype(np.float64) / 32768
        np.testing.assert_allclose(depth[0], wanted[:, ::-1] if flip else wanted, atol=1e-6)
    torch.testing.assert_close(manager.sample_labels(2, 0), canonical_label(5.0, 18.0).repeat(2, 1))
    _, distances, labels = manager.rgbd([3])
    np.testing.assert_allclose(distances[0, 0], 4 + relative(3) / 32768, atol=1e-6)
    torch.testing.assert_close(labels, canonical_label(5.0, 18.0))


def test_the_camera_stays_when_the_set_is_gone(tmp_path: Path):
    parser = Gan3dRgbdDataParserConfig(radius=3.0)
    config = GanDataManagerConfig(data=tmp_path / "gone", dataparser=parser)
    manager = config.setup(test_mode="test")
    assert manager.images_missing
    labels = cameras_to_labels(manager.train_dataset.cameras)
    torch.testing.assert_close(labels, canonical_label(3.0, 18.0).expand(len(labels), -1))


def test_sets_that_are_none(tmp_path: Path):
    with pytest.raises(DataError, match=r"no data set is given: gan3d-rgbd needs --data"):
        Gan3dRgbdDataParserConfig().setup().get_dataparser_outputs()
    for name, content in {"z": files(), "plain": {"a.png": encode(image(0))}}.items():
        path = write_folder(tmp_path / name, content)
        with pytest.raises(DataError, match=rf"{name}: no image has a file NAME_depth.png beside"):
            Gan3dRgbdDataParserConfig(data=path).setup().get_dataparser_outputs()
    path = write_folder(tmp_path / "set", rgbd_files())
    bad: list[tuple[dict[str, Any], str]] = [
        ({"radius": 0.0}, "radius = 0.0: give a positive distance"),
        ({"fov_deg": 180.0}, "field of view 180.0 degrees"),
        ({"eval_fraction": 1.0}, "eval_fraction = 1.0"),
    ]
    for options, message in bad:
        with pytest.raises(ValueError, match=message):
            Gan3dRgbdDataParserConfig(data=path, **options).setup().get_dataparser_outputs()


def test_config_survives_yaml(tmp_path: Path):
    config = Gan3dRgbdDataParserConfig(data=Path("set"), radius=2.5)
    again = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert again == config
    assert again.data.is_absolute()
    assert Gan3dRgbdDataParser.config.data is None
