"""Summary, pose histogram and the two data commands."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.data.check import check_set, pose_counts, pose_histogram, pose_range
from nerfstudio_gan3d.data.commands import data_check
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from tests.data.sets import encode, files, image, rgbd_files, write_folder, write_zip


def degrees(*values: float) -> torch.Tensor:
    return torch.deg2rad(torch.tensor(values, dtype=torch.float64)).float()


def test_pose_range_by_hand():
    labels = orbit_labels(
        degrees(-30, 90, 170), degrees(5, 45, -20), torch.tensor([1.5, 2.0, 3.0]), focal=1.25
    )
    found = pose_range(labels)
    assert found.focal == (1.25, 1.25)
    assert found.radius == pytest.approx((1.5, 3.0))
    assert found.azimuth == pytest.approx((-30, 170), abs=1e-4)
    assert found.elevation == pytest.approx((-20, 45), abs=1e-4)


def test_pose_counts_by_hand():
    labels = orbit_labels(degrees(-173, 2, 3, 100), degrees(-80, 1, 2, 50), 2.0)
    counts = pose_counts(labels)
    # Bins of 15 degrees: azimuth -173 is bin 0, 2 and 3 bin 12, 100 bin 18;
    # elevation -80 is bin 0, 1 and 2 bin 6, 50 bin 9.
    expected = np.zeros((24, 12), int)
    expected[0, 0], expected[12, 6], expected[18, 9] = 1, 2, 1
    np.testing.assert_array_equal(counts, expected)


def test_histogram_shows_where_the_cameras_are(tmp_path: Path):
    share = {}
    for side in (-1, 1):
        azimuth = side * degrees(*np.linspace(40, 140, 60))
        labels = orbit_labels(azimuth, degrees(*np.linspace(5, 60, 60)), 2.0)
        file = pose_histogram(labels, tmp_path / f"new/{side}.png")
        with Image.open(file) as opened:
            assert opened.format == "PNG"
            _, green, blue = np.asarray(opened.convert("RGB")).astype(int).transpose(2, 0, 1)
        # Cells with cameras are green to yellow, empty ones purple, everything else grey or blue.
        filled = (green > 100) & (green - blue > 20)
        # The map covers 7 to 58 % of the width; the scale, which has these colours too, comes next.
        width = filled.shape[1]
        share[side] = [
            filled[:, int(a * width) : int(b * width)].mean()
            for a, b in ((0.07, 0.32), (0.34, 0.58))
        ]
    assert share[-1][0] > 0.01
    assert share[1][1] > 0.01
    assert share[-1][1] == share[1][0] == 0


def test_histogram_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    labels = orbit_labels(degrees(0), degrees(0), 2.0)
    with pytest.raises(DataError, match=r"file/h.png: cannot write the pose histogram"):
        pose_histogram(labels, tmp_path / "file" / "h.png")


def test_summary_of_a_whole_set(tmp_path: Path):
    path = write_folder(tmp_path / "set", files())
    summary = check_set(ImageSet(path))
    assert (summary.count, summary.size, summary.objects) == (6, 8, 3)
    assert (summary.has_masks, summary.has_depth, summary.has_label_maps) == (True, True, True)
    assert summary.class_ids == (0, 1, 2)
    assert summary.poses is not None
    # tests/data/sets.py: azimuth -3 to 3, elevation 0.1 to 0.7 radians, radius 2.
    assert summary.poses.azimuth == pytest.approx((-math.degrees(3), math.degrees(3)), abs=1e-3)
    assert summary.poses.elevation == pytest.approx(
        (math.degrees(0.1), math.degrees(0.7)), abs=1e-3
    )
    text = summary.text()
    for part in (
        "6 images of 8 x 8 pixels, all readable",
        "masks: yes   depth: yes   label maps: yes",
        # Image i has (10000 + 100 * (0 to 63) + i) / 10000.
        "depth range: 1.0000 to 1.6305 scene units",
        # Label map i is (ramp + i) % 3 of 64 pixels: each class is first in two of six maps.
        "classes: 0 background 33.3 %, 1 body 33.3 %, 2 wheel 33.3 %\n",
        "objects: 3",
        "focal length  1.5000 image widths",
        "radius        2.0000",
        "azimuth       -171.9 to 171.9 degrees",
        "elevation     5.7 to 40.1 degrees",
    ):
        assert part in text


def test_command_on_a_zip_of_images_alone(tmp_path: Path):
    path = write_zip(tmp_path / "set.zip", {"a.png": encode(image(0)), "b.png": encode(image(1))})
    text = data_check(path)
    assert f"{path}: 2 images of 8 x 8 pixels" in text
    assert "masks: no   depth: no   label maps: no" in text
    assert "camera labels: no" in text
    with pytest.raises(DataError, match="no camera labels, so there is no pose histogram"):
        data_check(path, histogram=tmp_path / "h.png")
    assert not (tmp_path / "h.png").exists()


def test_set_with_relative_depth(tmp_path: Path):
    path = write_folder(tmp_path / "set", rgbd_files())
    summary = check_set(ImageSet(path))
    # Image i has (512 * (0 to 63) + i) / 65536.
    assert (summary.depth_kind, summary.has_depth) == ("relative", True)
    assert summary.depth_range == (0, (512 * 63 + 3) / 65536)
    text = data_check(path)
    assert f"{path}: 4 images of 8 x 8 pixels, all readable\nmasks: no   depth: yes" in text
    assert "depth range: 0.0000 to 0.4922 (relative, 0 is near)\n" in text
    assert text.endswith("camera labels: no (gan3d-rgbd gives every image the same camera)")
    (path / "2/1554_depth.png").write_bytes(encode(np.zeros((8, 8), np.uint8)))
    with pytest.raises(DataError, match=r"2/1554_depth.png: a depth map of mode L; expected 16"):
        data_check(path)


def test_background_does_not_count_in_the_depth_range(tmp_path: Path):
    empty, half = np.zeros((8, 8), np.uint16), np.zeros((8, 8), np.uint16)
    half[:, 4:] = 15000
    content = {f"images/{n}.png": encode(image(0)) for n in "ab"}
    content |= {"depth/a.png": encode(empty), "depth/b.png": encode(half)}
    path = write_folder(tmp_path / "set", content)
    assert check_set(ImageSet(path)).depth_range == (1.5, 1.5)
    (path / "depth/b.png").write_bytes(encode(empty))
    assert check_set(ImageSet(path)).depth_range is None


def test_command_writes_the_histogram(tmp_path: Path):
    path = write_folder(tmp_path / "set", files())
    text = data_check(path, histogram=tmp_path / "h.png")
    assert text.endswith(f"pose histogram: {tmp_path / 'h.png'}")
    assert Image.open(tmp_path / "h.png").size[0] > 500


def test_classes_beyond_those_of_the_meta_file(tmp_path: Path):
    # Of five maps of 64 pixels the classes have 107, 107 and 106, and the sixth map is class 4.
    content = files()
    content["label/00000/img00000005.png"] = encode(np.full((8, 8), 4, np.uint8))
    path = write_folder(tmp_path / "set", content)
    text = data_check(path, num_classes=5)
    assert "classes: 0 background 27.9 %, 1 body 27.9 %, 2 wheel 27.6 %, 4 16.7 %\n" in text
    summary = check_set(ImageSet(path), num_classes=5)
    assert summary.class_shares == (107 / 384, 107 / 384, 106 / 384, 64 / 384)
    assert (summary.label_kind, summary.line_share) == ("seg", None)


def edge_set(dark: int) -> dict[str, bytes]:
    """Two drawings of 64 pixels, of which ``dark`` each are lines."""
    drawing = np.where(np.arange(64).reshape(8, 8) < dark, 0, 255).astype(np.uint8)
    content = {f"images/{n}.png": encode(image(0)) for n in "ab"}
    return content | {f"label/{n}.png": encode(drawing) for n in "ab"}


def test_share_of_lines(tmp_path: Path):
    content = edge_set(16) | {"labels.json": b'{"kind": "edge"}'}
    path = write_folder(tmp_path / "set", content)
    summary = check_set(ImageSet(path))
    assert (summary.label_kind, summary.line_share, summary.class_ids) == ("edge", 0.25, ())
    assert "edge maps: 25.0 % of the pixels are lines\ncamera labels: no" in summary.text()
    with pytest.raises(
        DataError, match=r"edge maps .* no classes; leave the number of classes out"
    ):
        check_set(ImageSet(path), num_classes=2)


def test_white_lines_on_black_are_noticed(tmp_path: Path):
    content = edge_set(48) | {"label/labels.json": b'{"kind": "edge"}'}
    text = data_check(write_folder(tmp_path / "set", content))
    assert "edge maps: 75.0 % of the pixels are lines\n  more than half: " in text
    assert "dark lines on white; invert these" in text


def test_drawings_that_no_file_calls_edge_maps_are_noticed(tmp_path: Path):
    text = data_check(write_folder(tmp_path / "set", edge_set(16)))
    assert "classes: 0 25.0 %, 255 75.0 %\n" in text
    assert 'if these are edge maps, write {"kind": "edge"} into labels.json' in text
