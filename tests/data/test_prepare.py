"""Photographs to squares with depth: cropping, colours and scale worked by hand, files written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from nerfstudio_gan3d.data.decode import decode_photo
from nerfstudio_gan3d.data.prepare import (
    Square,
    centre_square,
    plan,
    prepare_photo,
    scale_depth,
    subject_square,
    write_pair,
)
from nerfstudio_gan3d.data.prepare_options import BackgroundColor
from tests.data.sets import encode, image, write_folder


def test_centre_square():
    assert centre_square(40, 60) == Square(left=10, top=0, side=40)
    assert centre_square(61, 40) == Square(left=0, top=10, side=40)


def test_subject_square_has_a_margin_and_may_stick_out():
    coverage = np.zeros((50, 90), np.float32)
    coverage[10:30, 30:70] = 0.5
    coverage[40, 80] = 0.49
    # 40 wide and a tenth of that on each side: 48, about column 50 and row 20.
    assert subject_square(coverage) == Square(left=26, top=-4, side=48)


def test_what_sticks_out_is_filled():
    pixels = np.arange(6).reshape(2, 3)
    assert Square(-1, 1, 3).cut(pixels, 9).tolist() == [[9, 3, 4], [9, 9, 9], [9, 9, 9]]
    assert Square(1, 0, 2).cut(pixels, 9).tolist() == [[1, 2], [4, 5]]
    assert Square(-1, 1, 3).clipped(2, 3) == (slice(1, 2), slice(0, 2))


def test_scale_by_hand():
    distance = np.array([[1, 2], [3, 5]], np.float32)
    # 65535 times 0, 1/4, 1/2 (32767.5, to the even one) and 1.
    everything = np.ones((2, 2), bool)
    assert scale_depth(distance, everything).tolist() == [[0, 16384], [32768, 65535]]
    # The scale is that of the foreground; background is the farthest, wherever it was.
    assert scale_depth(distance, distance < 5).tolist() == [[0, 32768], [65535, 65535]]
    assert scale_depth(distance, distance > 1).tolist() == [[65535, 0], [21845, 65535]]
    with pytest.raises(DataError, match=r"x.jpg: the depth model sees no shape in it"):
        scale_depth(distance, distance == 3, "x.jpg")


def columns(pixels: np.ndarray) -> np.ndarray:
    """A depth function: distance grows from left to right."""
    height, width = pixels.shape[:2]
    return np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))


def test_photo_in_the_middle():
    photo = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    seen = []

    def depth(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels)
        return columns(pixels)

    picture, values = prepare_photo(photo, 4, depth)
    # At its own size nothing is resampled: columns 1 to 4, and the network sees just those.
    np.testing.assert_array_equal(picture, photo[:, 1:5])
    np.testing.assert_array_equal(seen, [photo[:, 1:5]])
    assert (values.dtype, values[2].tolist()) == (np.uint16, [0, 21845, 43690, 65535])


def test_photo_is_resized_without_stripes():
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[:, ::2] = 255
    picture, values = prepare_photo(stripes, 20, columns)
    assert abs(picture[:, 2:-2].astype(int) - 127).max() < 25
    # A ramp stays one: steps of 65535 / 19 but for the filter at the borders.
    assert np.abs(np.diff(values[3].astype(int))[2:-2] - 65535 / 19).max() < 150


@pytest.mark.parametrize(("background", "grey"), [("white", 255), ("black", 0), ("grey", 128)])
def test_removed_background(background: BackgroundColor, grey: int):
    photo = np.full((4, 4, 3), 200, np.uint8)
    coverage = np.zeros((4, 4), np.float32)
    coverage[1:3, :] = 1
    coverage[0, 0], coverage[3, 3] = 0.5, 0.4
    picture, values = prepare_photo(photo, 4, columns, lambda _: coverage, "centre", background)
    half = round(0.5 * 200 + 0.5 * grey)
    assert picture[..., 0].tolist() == [
        [half, grey, grey, grey],
        [200] * 4,
        [200] * 4,
        [grey, grey, grey, round(0.4 * 200 + 0.6 * grey)],
    ]
    ramp = [0, 21845, 43690, 65535]
    assert values.tolist() == [[0, 65535, 65535, 65535], ramp, ramp, [65535] * 4]


def test_subject_at_the_border_of_the_photo():
    # A subject of 10 x 10 in the upper right corner: 12 pixels from row -1 and column 9 on.
    photo = np.full((20, 20, 3), 50, np.uint8)
    coverage = np.zeros((20, 20), np.float32)
    coverage[:10, 10:] = 1
    seen = []

    def depth(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels.shape)
        return columns(pixels)

    picture, values = prepare_photo(photo, 12, depth, lambda _: coverage, "subject")
    inside = np.zeros((12, 12), bool)
    inside[1:11, 1:11] = True
    np.testing.assert_array_equal(picture[..., 1], np.where(inside, 50, 255))
    # The network sees what there is: 11 rows and 11 columns.
    assert seen == [(11, 11, 3)]
    assert values[5].tolist() == [65535, *np.rint(np.arange(10) * 65535 / 9).astype(int), 65535]
    assert (values[~inside] == 65535).all()


def test_photo_without_a_subject():
    nothing = np.full((4, 4), 0.4, np.float32)
    with pytest.raises(DataError, match=r"x.jpg: no foreground was found; remove the photograph"):
        prepare_photo(image(0, 4), 4, columns, lambda _: nothing, where="x.jpg")


def test_photos_are_turned_upright(tmp_path: Path):
    stored = np.zeros((2, 3, 3), np.uint8)
    stored[0, 0] = [255, 0, 0]
    exif = Image.Exif()
    # 6: the photograph has to be turned clockwise, so its upper left corner comes to the right.
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = decode_photo((tmp_path / "a.png").read_bytes(), "a.png")
    assert upright.shape == (3, 2, 3)
    assert upright[0, 1].tolist() == [255, 0, 0]


def test_plan_keeps_folders(tmp_path: Path):
    content = {f"{n}": encode(image(0)) for n in ("b/2.PNG", "a/1.x.jpg", "3.webp", ".hidden.png")}
    content |= {"note.txt": b"", ".cache/x.png": b"", "b/4.bmp": b""}
    photos = write_folder(tmp_path / "photos", content)
    out = tmp_path / "out"
    assert plan(photos, out) == [
        (photos / "3.webp", out / "3"),
        (photos / "a/1.x.jpg", out / "a/1.x"),
        (photos / "b/2.PNG", out / "b/2"),
    ]
    assert plan(photos / "3.webp", out) == [(photos / "3.webp", out / "3")]
    assert not out.exists()


def test_plan_refuses(tmp_path: Path):
    photos = write_folder(tmp_path / "photos", {"a.jpg": encode(image(0)), "x.txt": b""})
    out = tmp_path / "out"

    def refused(source: Path, target: Path, overwrite: bool = False) -> str:
        with pytest.raises(DataError) as caught:
            plan(source, target, overwrite)
        return str(caught.value)

    assert "nowhere: no such file or folder" in refused(tmp_path / "nowhere", out)
    assert "x.txt: not a photograph" in refused(photos / "x.txt", out)
    (tmp_path / "empty").mkdir()
    assert "empty: no photographs; expected files" in refused(tmp_path / "empty", out)
    assert "lies among the photographs" in refused(photos, photos / "out")
    assert "x.txt: is a file; give a folder" in refused(photos / "a.jpg", photos / "x.txt")
    write_folder(out, {"a_depth.png": b"old"})
    assert "a_depth.png: is there already; give another folder, or" in refused(photos, out)
    assert len(plan(photos, out, overwrite=True)) == 1
    # A photograph is never replaced by its own result.
    told = refused(photos / "a.jpg", photos, overwrite=True)
    assert told.endswith("photos/a.jpg: is there already; give another folder")
    (photos / "a.png").write_bytes(encode(image(0)))
    assert "a.png: has the name of a.jpg" in refused(photos, tmp_path / "new")
    (photos / "a.png").rename(photos / "b_depth.png")
    assert "b_depth.png: _depth.png ends the names" in refused(photos, tmp_path / "new")
    (photos / "b_depth.png").rename(photos / "b.png")
    (photos / "b.png").write_bytes(b"hello")
    assert "b.png: not a readable image" in refused(photos, tmp_path / "new")


def test_pair_is_a_set(tmp_path: Path):
    depth = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
    flat = np.full((8, 8, 3), 90, np.uint8)
    write_pair(tmp_path / "set/1/a.b", flat, depth)
    assert sorted(p.name for p in (tmp_path / "set/1").iterdir()) == ["a.b.jpg", "a.b_depth.png"]
    images = ImageSet(tmp_path / "set")
    assert (images.names, images.depth_kind) == (["1/a.b.jpg"], "relative")
    np.testing.assert_array_equal(images.image(0), flat)
    np.testing.assert_array_equal(images.relative_depth(0) * 65536, depth)


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = Image.Image.save

    def broken(self: Image.Image, file: Path, kind: str, **options: int) -> None:
        original(self, file, kind, **options)
        if kind == "PNG":
            raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="No space left"):
        write_pair(tmp_path / "a", image(0), np.zeros((8, 8), np.uint16))
    assert list(tmp_path.iterdir()) == []
