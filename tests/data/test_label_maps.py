"""Label maps and edge maps: of a set with its labels.json, and from a user's own files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from nerfstudio_gan3d.data.label_maps import (
    LabelKind,
    check_label_maps,
    mirror_table,
    read_label_file,
    read_label_map,
    read_label_maps,
)
from nerfstudio_gan3d.data.palettes import colorize, default_palette
from tests.data.sets import encode, files, image, write_folder, write_zip

RAMP = np.arange(64).reshape(8, 8)


def one_drawing(tmp_path: Path, picture: Image.Image, name: str = "a.png") -> Path:
    """A set of one image whose label file is this picture."""
    path = write_folder(tmp_path / "set", {"images/a.png": encode(image(0))})
    (path / "label").mkdir()
    picture.save(path / "label" / name, quality=95)
    return path


def drawing_modes() -> dict[str, tuple[Image.Image, np.ndarray]]:
    """Pictures in every mode that a drawing comes in, and the grey values that they mean."""
    grey = (4 * RAMP).astype(np.uint8)
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2] = 255
    alpha[5] = 128
    # Black ink of this opacity on white paper: 255 - alpha.
    ink = 255 - alpha
    palette = Image.fromarray((RAMP == 3).astype(np.uint8), "P")
    palette.putpalette([255, 255, 255, 10, 10, 10])
    hidden = np.zeros((8, 8, 4), np.uint8)
    hidden[..., 0] = 200
    hidden[4] = [50, 50, 50, 255]
    return {
        "L": (Image.fromarray(grey), grey),
        "RGB": (Image.fromarray(np.repeat(grey[..., None], 3, -1)), grey),
        "1": (Image.fromarray(RAMP > 20), np.where(RAMP > 20, 255, 0)),
        "LA": (Image.fromarray(np.stack([0 * alpha, alpha], -1)), ink),
        "RGBA": (Image.fromarray(np.stack([0 * alpha] * 3 + [alpha], -1)), ink),
        "P": (palette, np.where(RAMP == 3, 10, 255)),
        # What is fully transparent shows paper, whatever colour is stored below.
        "hidden colour": (Image.fromarray(hidden), np.where(RAMP // 8 == 4, 50, 255)),
    }


@pytest.mark.parametrize("mode", drawing_modes())
def test_drawings(tmp_path: Path, mode: str):
    picture, expected = drawing_modes()[mode]
    found = ImageSet(one_drawing(tmp_path, picture)).edge_map(0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    read = read_label_file(tmp_path / "set/label/a.png", "edge", 1, (), 8)
    np.testing.assert_array_equal(read, expected)


def test_a_jpeg_drawing(tmp_path: Path):
    grey = np.where(RAMP % 8 < 4, 0, 255).astype(np.uint8)
    path = one_drawing(tmp_path, Image.fromarray(grey).convert("RGB"), "a.jpg")
    assert np.abs(ImageSet(path).edge_map(0).astype(int) - grey).max() < 8


def test_a_coloured_drawing_is_refused(tmp_path: Path):
    pixels = np.full((8, 8, 3), 255, np.uint8)
    pixels[6, 2] = 204, 0, 0
    path = one_drawing(tmp_path, Image.fromarray(pixels))
    with pytest.raises(DataError) as caught:
        ImageSet(path).edge_map(0)
    assert str(caught.value) == (
        f"{path}/label/a.png: an edge map with the colour 204, 0, 0 (column 2, row 6); an edge map "
        "is one grey channel, dark lines on white: save it as grey"
    )


def test_other_bad_drawings_are_refused(tmp_path: Path):
    small = Image.fromarray(np.zeros((4, 8), np.uint8))
    with pytest.raises(DataError, match="8 x 4 pixels, but its image has 8 x 8; save it at"):
        ImageSet(one_drawing(tmp_path / "1", small)).edge_map(0)
    deep = Image.fromarray(np.zeros((8, 8), np.uint16))
    with pytest.raises(DataError, match=r"a.png: an image of mode I;16; save it with 8 bits"):
        ImageSet(one_drawing(tmp_path / "2", deep)).edge_map(0)
    plain = ImageSet(write_folder(tmp_path / "3", {"a.png": encode(image(0))}))
    with pytest.raises(DataError, match="the set has no label/ beside its images"):
        plain.edge_map(0)


def test_the_pixel_of_a_class_out_of_range_is_named(tmp_path: Path):
    ids = np.zeros((8, 8), np.uint8)
    ids[5, 1] = 7
    images = ImageSet(
        write_folder(tmp_path, files(1) | {"label/00000/img00000000.png": encode(ids)})
    )
    with pytest.raises(DataError, match=r"class id 7 is out of range; .* \(column 1, row 5\)"):
        images.label_map(0)
    assert images.label_map(0, num_classes=8).max() == 7


INFO = {
    "kind": "seg",
    "classes": ["skin", "left eye", "right eye"],
    "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    "mirror_classes": [[1, 2]],
}


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize("wrap", ["", "cars/"])
@pytest.mark.parametrize("place", ["labels.json", "label/labels.json"])
def test_labels_json(tmp_path: Path, container: str, wrap: str, place: str):
    content = files() | {place: json.dumps(INFO).encode()}
    del content["meta.json"]
    content = {wrap + name: data for name, data in content.items()}
    if container == "zip":
        images = ImageSet(write_zip(tmp_path / "set.zip", content))
    else:
        images = ImageSet(write_folder(tmp_path / "set", content))
    assert images.label_kind == "seg"
    assert images.classes == INFO["classes"]
    assert images.palette == INFO["palette"]
    assert images.mirror_classes == [(1, 2)]
    assert images.objects is None
    assert len(images) == 6


def test_the_folder_of_images_finds_labels_json(tmp_path: Path):
    content = files() | {"labels.json": b'{"kind": "edge"}'}
    write_folder(tmp_path, content)
    assert ImageSet(tmp_path / "images").label_kind == "edge"


def test_meta_and_labels_json_add_up(tmp_path: Path):
    meta = {"classes": INFO["classes"], "kind": "cars", "mirror_classes": [[1, 2]]}
    rest = {"palette": INFO["palette"], "classes": INFO["classes"]}
    content = files() | {
        "meta.json": json.dumps(meta).encode(),
        "labels.json": json.dumps(rest).encode(),
    }
    images = ImageSet(write_folder(tmp_path, content))
    assert (images.classes, images.palette) == (INFO["classes"], INFO["palette"])
    assert images.mirror_classes == [(1, 2)]
    # Other entries of meta.json are free, and say nothing about label maps.
    assert images.label_kind is None


def test_colours_without_names_are_a_number_of_classes(tmp_path: Path):
    content = files() | {"meta.json": b'{"palette": [[0, 0, 0], [9, 9, 9]]}'}
    images = ImageSet(write_folder(tmp_path, content))
    with pytest.raises(DataError, match="class id 2 is out of range; there are 2 classes"):
        images.label_map(0)


def test_class_ids_at_another_resolution_are_those_in_the_middle(tmp_path: Path):
    ids = (RAMP % 7).astype(np.uint8)
    content = files(1) | {"label/00000/img00000000.png": encode(ids)}
    images = ImageSet(write_folder(tmp_path, content))
    for resolution, places in {
        8: range(8),
        # Middles of cells of two lie between pixels 0 and 1, 2 and 3 and so on.
        4: [1, 3, 5, 7],
        16: np.repeat(np.arange(8), 2),
        # 8/3 pixels each: middles at 1.33, 4 and 6.67.
        3: [1, 4, 6],
    }.items():
        found = read_label_map(images, 0, "seg", 7, resolution)
        np.testing.assert_array_equal(found, ids[np.ix_(places, places)])
        pillow = Image.fromarray(ids).resize((resolution, resolution), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(found, np.asarray(pillow))


def test_drawings_at_another_resolution_are_antialiased(tmp_path: Path):
    grey = np.full((8, 8), 255, np.uint8)
    grey[2] = 0
    images = ImageSet(one_drawing(tmp_path, Image.fromarray(grey)))
    # A line of one pixel covers half of a cell of two.
    half = read_label_map(images, 0, "edge", None, 4)
    assert half.tolist() == [[255] * 4, [128] * 4, [255] * 4, [255] * 4]
    maps = read_label_maps(images, [0, 0, 0], "edge", None, 4)
    assert maps.shape == (3, 1, 4, 4)
    np.testing.assert_array_equal(maps[2, 0], half)


def test_mirrored_classes():
    table = mirror_table([(4, 5), (9, 2)])
    assert table[[4, 5, 9, 2]].tolist() == [5, 4, 2, 9]
    others = [i for i in range(256) if i not in (4, 5, 9, 2)]
    assert table[others].tolist() == others


@pytest.mark.parametrize(
    ("info", "kind", "classes", "message"),
    [
        (None, "seg", 3, "no label/ beside its images, but the method learns from maps of class"),
        (None, "edge", None, "no label/ beside its images, but the method learns from edge maps"),
        ({"kind": "edge"}, "seg", 6, '"kind" in labels.json is "edge", but the method learns from'),
        ({"kind": "seg"}, "edge", 1, '"kind" in labels.json is "seg", but the method learns from'),
        ({"classes": ["a", "b", "c"]}, "seg", 2, "names 3 classes, but the method has 2; give it"),
        ({"mirror_classes": [[0, 5]]}, "seg", 5, "names class 5, but the method has 5 classes"),
    ],
)
def test_sets_that_a_method_cannot_learn_from(
    tmp_path: Path, info: dict | None, kind: LabelKind, classes: int | None, message: str
):
    content = files()
    del content["meta.json"]
    if info is None:
        content = {n: d for n, d in content.items() if not n.startswith("label/")}
    else:
        content["labels.json"] = json.dumps(info).encode()
    images = ImageSet(write_folder(tmp_path, content))
    with pytest.raises(DataError, match=message) as caught:
        check_label_maps(images, kind, classes)
    assert str(caught.value).startswith(str(tmp_path))
    check_label_maps(images, "none", classes)


def test_sets_that_a_method_can_learn_from(tmp_path: Path):
    images = ImageSet(write_folder(tmp_path, files()))
    check_label_maps(images, "seg", 3)
    check_label_maps(images, "seg", 6)
    check_label_maps(images, "seg")
    check_label_maps(images, "edge", 1)
    with pytest.raises(ValueError, match="num_classes = 257: give 1 to 256"):
        check_label_maps(images, "seg", 257)


IDS = (RAMP % 6).astype(np.uint8)


def indexed(ids: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(ids, "P")
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def user_files() -> dict[str, Image.Image]:
    """The same classes in every form that a user may give them in."""
    colours = default_palette(6)
    rgb = Image.fromarray(colorize(IDS, colours))
    rgba = rgb.convert("RGBA")
    # Class 0 is white: it may as well be left transparent.
    rgba.putalpha(Image.fromarray(np.where(IDS == 0, 0, 255).astype(np.uint8)))
    return {
        "grey": Image.fromarray(IDS),
        "indices in class colours": indexed(IDS, list(colours)),
        "indices in other colours": indexed(IDS, [(i, 9, 9) for i in range(6)]),
        "colours": rgb,
        "colours on nothing": rgba,
    }


@pytest.mark.parametrize("form", user_files())
def test_files_of_a_user(tmp_path: Path, form: str):
    user_files()[form].save(tmp_path / "a.png")
    for palette in ((), default_palette(6)):
        found = read_label_file(tmp_path / "a.png", "seg", 6, palette, 8)
        np.testing.assert_array_equal(found, IDS)


def save(pixels: np.ndarray, name: str = "a.png") -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(pixels).save(folder / name)


def save_reordered(folder: Path) -> None:
    # As a painting program does that sorts the colours of the picture by itself.
    colours = default_palette(6)
    indexed(5 - IDS, list(colours[::-1])).save(folder / "a.png")


PAINTED = np.full((8, 8, 3), 255, np.uint8)
PAINTED[0, 7] = 200, 4, 0


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda folder: None, ["a.png: cannot be read (No such file or directory)"]),
        (lambda folder: (folder / "a.png").write_text("hello"), ["not a readable image"]),
        (save(np.zeros((8, 9), np.uint8)), ["9 x 8 pixels", "square, 8 x 8", "without smoothing"]),
        (save(np.zeros((16, 16), np.uint8)), ["16 x 16 pixels", "square, 8 x 8"]),
        (save(IDS + 1), ["class id 6 is out of range", "6 classes, 0 to 5", "column 5, row 0"]),
        (save(PAINTED), ["200, 4, 0 (column 7, row 0)", "6 class colours", "204, 0, 0 of class 1"]),
        (save(np.zeros((8, 8), np.uint16)), ["mode I;16"]),
        (save_reordered, ["column 0, row 0 has the index 5 but the colour of class 0", "as RGB"]),
    ],
)
def test_bad_files_of_a_user(tmp_path: Path, write: Callable[[Path], object], words: list[str]):
    write(tmp_path)
    with pytest.raises(DataError) as caught:
        read_label_file(tmp_path / "a.png", "seg", 6, (), 8)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "a.png"))
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_palette_for_other_classes(tmp_path: Path):
    save(IDS)(tmp_path)
    with pytest.raises(ValueError, match="5 colours for 6 classes: give one each"):
        read_label_file(tmp_path / "a.png", "seg", 6, default_palette(5), 8)
