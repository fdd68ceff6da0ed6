"""Each kind of bad data gives one sentence that names the file and the value."""

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from nerfstudio_gan3d.data.check import check_set
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from tests.data.sets import encode, files, image, write_folder, write_zip

JSON = "images/dataset.json"
LAST = "00000/img00000005.png"
Content = dict[str, bytes]


def edit_labels(content: Content, change: Callable[[list], object]) -> None:
    value = json.loads(content[JSON])
    change(value["labels"])
    content[JSON] = json.dumps(value).encode()


def set_value(position: int, value: object) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        edit_labels(content, lambda entries: entries[5][1].__setitem__(position, value))

    return change


def put(name: str, data: bytes) -> Callable[[Content], None]:
    return lambda content: content.__setitem__(name, data)


def drop(name: str) -> Callable[[Content], None]:
    return lambda content: content.__delitem__(name)


def flip_rotation(content: Content) -> None:
    def change(entries: list) -> None:
        for position in (0, 4, 8):
            entries[5][1][position] *= -1

    edit_labels(content, change)


def only_labels(content: Content) -> None:
    for name in [n for n in content if n.endswith(".png")]:
        del content[name]


def without_palette() -> bytes:
    """A PNG whose pixels are numbers of colours that it does not have."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", 8, 8, 8, 3, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(9 * 8))), (b"IEND", b"")):
        parts += [
            struct.pack(">I", len(data)),
            kind,
            data,
            struct.pack(">I", zlib.crc32(kind + data)),
        ]
    return b"".join(parts)


PNG = encode(image(5))
ID_7 = np.full((8, 8), 7, np.uint8)

# Each row: what is wrong, how to make it so, the words that the sentence must have.
BAD = [
    ("an image without its palette", put(f"images/{LAST}", without_palette()),
     [f"images/{LAST}", "its palette is missing"]),
    ("malformed JSON", put(JSON, b'{"labels": [\n["a.png" 3]]}'),
     [JSON, "malformed JSON at line 2, column 10"]),
    ("JSON that is not text", put(JSON, b"\xff\xfe\x00"), [JSON, "malformed JSON"]),
    ("JSON nested too deep", put(JSON, b"[" * 200_000), [JSON, "malformed JSON"]),
    ("JSON without labels", put(JSON, b'{"images": []}'), [JSON, 'has no "labels"']),
    ("labels of another type", put(JSON, b'{"labels": {"a": 1}}'), [JSON, "expected a list"]),
    ("an entry of another form", lambda c: edit_labels(c, lambda e: e.append(["x.png"])),
     [JSON, "entry 6", "x.png"]),
    ("an image without a label", lambda c: edit_labels(c, lambda e: e.pop()),
     [JSON, "no label for the image", LAST]),
    ("a label without an image", lambda c: edit_labels(c, lambda e: e.append(["x.png", e[0][1]])),
     [JSON, "a label for 'x.png'", "no such image"]),
    ("a label that climbs out", lambda c: edit_labels(c, lambda e: e.append(["../x.png", e[0][1]])),
     [JSON, "'../x.png'", "no such image"]),
    ("two labels for an image", lambda c: edit_labels(c, lambda e: e.append(e[5])),
     [JSON, "two labels for the image", LAST]),
    ("a class number for a label", lambda c: edit_labels(c, lambda e: e[5].__setitem__(1, 3)),
     [JSON, LAST, "is 3", "expected 25 numbers"]),
    ("a label too short", lambda c: edit_labels(c, lambda e: e[5][1].pop()),
     [JSON, LAST, "has 24 numbers", "expected 25"]),
    ("a NaN", set_value(3, float("nan")), [JSON, LAST, "not finite", "nan"]),
    ("an infinity", set_value(7, float("inf")), [JSON, LAST, "not finite", "inf"]),
    ("a number as text", set_value(0, "1.0"), [JSON, LAST, "'1.0'", "expected numbers"]),
    ("a number too large", set_value(0, 10**400), [JSON, "too large"]),
    ("a rotation that is not one", set_value(0, 2.5),
     [JSON, LAST, "rotation that is not one", "2.5"]),
    ("a reflection", flip_rotation, [JSON, LAST, "rotation that is not one", "right-handed"]),
    ("a wrong last row", set_value(15, 2.0), [JSON, LAST, "last matrix row", "2."]),
    ("a negative focal length", set_value(16, -1.5), [JSON, LAST, "focal length", "-1.5"]),
    ("a focal length of zero", set_value(20, 0), [JSON, LAST, "focal length", "0."]),
    ("intrinsics in pixels", set_value(18, 256), [JSON, LAST, "divide the intrinsics", "256"]),
    ("skewed intrinsics", set_value(17, 0.2), [JSON, LAST, "skewed", "0.2"]),
    ("an empty set", only_labels, ["no images"]),
    ("dataset.json elsewhere", put("a/b/dataset.json", b"{}"), None),
    ("an image that is none", put("images/" + LAST, b"hello"), [LAST, "not a readable image"]),
    ("a truncated image", put("images/" + LAST, PNG[:-30]), [LAST, "truncated or damaged"]),
    ("an image that is not square", put("images/" + LAST, encode(image(5)[:6])),
     [LAST, "8 x 6 pixels", "square"]),
    ("mixed sizes", put("images/" + LAST, encode(image(5, 16))), [LAST, "16 pixels", "has 8"]),
    ("a 16-bit image", put("images/" + LAST, encode(np.ones((8, 8), np.uint16))), [LAST, "8 bits"]),
    ("an image far too large", put("images/" + LAST, encode(np.zeros((1, 9000), np.uint8))),
     [LAST, "9000 x 1", "8192"]),
    ("two images of one name", put("images/" + LAST.replace("png", "webp"), PNG),
     ["two images of one name", LAST]),
    ("a missing mask", drop("mask/" + LAST), ["mask", LAST, "matched by name"]),
    ("a missing label map", drop("label/" + LAST), ["label", LAST, "matched by name"]),
    ("a mask of another size", put("mask/" + LAST, encode(np.zeros((4, 8), np.uint8))),
     ["mask", LAST, "8 x 4", "8 x 8"]),
    ("a coloured mask", put("mask/" + LAST, encode(image(5))), ["mask", LAST, "coloured"]),
    ("depth with 8 bits", put("depth/" + LAST, encode(ID_7)), ["depth", LAST, "16-bit"]),
    ("depth of another size", put("depth/" + LAST, encode(np.zeros((9, 9), np.uint16))),
     ["depth", LAST, "9 x 9"]),
    ("a class id out of range", put("label/" + LAST, encode(ID_7)),
     ["label", LAST, "class id 7", "3 classes"]),
    ("a coloured label map", put("label/" + LAST, encode(image(5))), ["label", LAST, "mode RGB"]),
    ("a label map as JPEG", put("label/" + LAST, encode(ID_7, "JPEG")),
     ["label", LAST, "JPEG", "save it as PNG"]),
    ("a label map of another size", put("label/" + LAST, encode(np.zeros((4, 8), np.uint8))),
     ["label", LAST, "8 x 4", "8 x 8", "save it at the size of its image"]),
    ("a label map with 16 bits", put("label/" + LAST, encode(np.ones((8, 8), np.uint16))),
     ["label", LAST, "mode I;16", "one 8-bit class id"]),
    ("a label map without an image", put("label/00000/other.png", encode(ID_7)),
     ["label/00000/other.png", "without an image", "remove it or add the image"]),
    ("two label maps of an image", put("label/" + LAST.replace("png", "bmp"), encode(ID_7, "BMP")),
     ["label/00000/img00000005", "a second label map beside", "keep one"]),
    ("an unknown entry", put("labels.json", b'{"colors": []}'),
     ["labels.json", "'colors'", "kind, classes, palette, mirror_classes"]),
    ("labels.json that is no object", put("labels.json", b"[]"), ["labels.json", "JSON object"]),
    ("malformed labels.json", put("label/labels.json", b"{"), ["label/labels.json", "malformed"]),
    ("an unknown kind", put("labels.json", b'{"kind": "lines"}'),
     ["labels.json", '"kind" is lines', '"seg"', '"edge"']),
    ("other classes than in meta.json", put("labels.json", b'{"classes": ["a", "b", "c"]}'),
     ["labels.json", '"classes" is', "meta.json says", "'wheel'", "remove one"]),
    ("colours for another number of classes", put("labels.json", b'{"palette": [[1, 2, 3]]}'),
     ["labels.json", '"palette" is [[1, 2, 3]]', "meta.json says"]),
    ("pairs of classes that are not there", put("labels.json", b'{"mirror_classes": [[1, 3]]}'),
     ["labels.json", '"mirror_classes" is [[1, 3]]', "class ids 0 to 2"]),
    ("a class in two pairs", put("labels.json", b'{"mirror_classes": [[0, 1], [2, 1]]}'),
     ["labels.json", "class 1 twice", "at most once"]),
    ("pairs of three", put("labels.json", b'{"mirror_classes": [[0, 1, 2]]}'),
     ["labels.json", "expected pairs"]),
    ("malformed meta.json", put("meta.json", b"{"), ["meta.json", "malformed JSON"]),
    ("classes that are no list", put("meta.json", b'{"classes": 6}'),
     ["meta.json", '"classes"', "6"]),
    ("a class of half a character", put("meta.json", b'{"classes": ["a", "\\ud800"]}'),
     ["meta.json", '"classes"', "'\\ud800'", "cannot be printed"]),
    ("a class that steers the terminal", put("meta.json", b'{"classes": ["a", "\\u001b[2J"]}'),
     ["meta.json", '"classes"', "'\\x1b[2J'", "cannot be printed"]),
    ("a class of two lines", put("meta.json", b'{"classes": ["background\\nbody"]}'),
     ["meta.json", '"classes"', "'background\\nbody'", "cannot be printed"]),
    ("a palette of another length", put("meta.json", b'{"classes": ["a"], "palette": []}'),
     ["meta.json", '"palette"']),
    ("colours as text", put("meta.json", b'{"classes": ["a"], "palette": ["red"]}'),
     ["meta.json", '"palette" is', "red", "whole numbers of 0 to 255"]),
    ("colours of 0 to 1", put("meta.json", b'{"classes": ["a"], "palette": [[0.5, 0.5, 1]]}'),
     ["meta.json", '"palette" is [[0.5, 0.5, 1]]', "whole numbers of 0 to 255"]),
    ("a colour without blue", put("meta.json", b'{"palette": [[1, 2, 3], [1, 2]]}'),
     ["meta.json", '"palette" is [[1, 2, 3], [1, 2]]', "one [r, g, b]"]),
    ("a colour above 255", put("meta.json", b'{"palette": [[1, 2, 256]]}'),
     ["meta.json", '"palette" is [[1, 2, 256]]', "0 to 255"]),
    ("257 classes", put("meta.json", json.dumps({"classes": ["a"] * 257}).encode()),
     ["meta.json", '"classes" has 257 names', "256"]),
    ("an image without its object",
     put("meta.json", json.dumps({"images": [{"file": "x.png", "object": 0}]}).encode()),
     ["meta.json", "object", "00000/img00000000.png"]),
]  # fmt: skip


def bad_set(
    folder: Path, change: Callable[[Content], None], words: list[str] | None, container: str
) -> tuple[Path, list[str]]:
    """A set of a row of `BAD`, and the words of its sentence."""
    content = files()
    change(content)
    if words is None:
        del content[JSON]
        words = ["a/b/dataset.json", "must lie at the top"]
    write = write_zip if container == "zip" else write_folder
    path = write(folder / ("set.zip" if container == "zip" else "set"), content)
    return path, [str(path), *words]


def check_sentence(message: str, words: Sequence[str]) -> None:
    for word in words:
        assert word in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize(("change", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_content(
    tmp_path: Path, container: str, change: Callable[[Content], None], words: list[str] | None
):
    path, expected = bad_set(tmp_path, change, words, container)
    with pytest.raises(DataError) as caught:
        check_set(ImageSet(path))
    check_sentence(str(caught.value), expected)


def test_names_of_classes_in_any_script_are_accepted(tmp_path: Path):
    names = ["été", "車", "سیارهٔ\u200cمن", "no\u00a0break", "🚗"]
    content = files() | {"meta.json": json.dumps({"classes": names}).encode()}
    assert ImageSet(write_zip(tmp_path / "set.zip", content)).classes == names


def test_the_same_content_unchanged_is_accepted(tmp_path: Path):
    assert check_set(ImageSet(write_folder(tmp_path / "set", files()))).count == 6


def test_two_files_about_the_label_maps(tmp_path: Path):
    content = files() | {"labels.json": b"{}", "label/labels.json": b"{}"}
    with pytest.raises(DataError, match=r"label/labels.json: a second labels.json; .* keep one"):
        ImageSet(write_zip(tmp_path / "set.zip", content))


def test_a_file_called_labels_without_label_maps_is_somebody_elses(tmp_path: Path):
    content = {n: d for n, d in files().items() if not n.startswith("label/")}
    content["labels.json"] = b'{"00000/img00000000.png": 3}'
    images = ImageSet(write_folder(tmp_path / "set", content))
    assert images.classes == ["background", "body", "wheel"]


def test_missing_path_and_other_files(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere: no such file or folder; give a folder or a zip"):
        ImageSet(tmp_path / "nowhere")
    text = tmp_path / "text.txt"
    text.write_text("hello")
    with pytest.raises(DataError, match=r"text.txt: neither a folder nor a zip file"):
        ImageSet(text)


def test_number_of_classes_can_be_given(tmp_path: Path):
    images = ImageSet(write_folder(tmp_path / "set", files()))
    with pytest.raises(DataError, match="class id 2 is out of range; there are 2 classes, 0 to 1"):
        check_set(images, num_classes=2)
    assert check_set(images, num_classes=3).class_ids == (0, 1, 2)
    with pytest.raises(DataError, match="num_classes = 0: give 1 to 256"):
        check_set(images, num_classes=0)


def test_training_gives_the_same_sentence(tmp_path: Path):
    from nerfstudio_gan3d.data.batches import ImageBatches

    content = files()
    content["images/" + LAST] = PNG[:-30]
    images = ImageSet(write_zip(tmp_path / "set.zip", content))
    batches = ImageBatches(images, batch_size=6, resolution=8)
    for _ in range(2):
        with pytest.raises(DataError, match=rf"{LAST}: truncated or damaged"):
            batches.batch(0)
