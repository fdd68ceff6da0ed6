"""Edge maps drawn from photographs, and the sets that hold them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label

from nerfstudio_gan3d.data import edges
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from nerfstudio_gan3d.data.edges import edge_drawing, without_background, write_edge_set
from tests.data.sets import encode, files, write_folder, write_zip


def square(first: int = 8, last: int = 24, size: int = 32) -> np.ndarray:
    """White from pixel ``first`` up to ``last``, black around it."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[first:last, first:last] = 255
    return pixels


def test_the_outline_of_a_square():
    drawing = edge_drawing(square())
    assert set(np.unique(drawing)) == {0, 255}
    lines = drawing == 0
    # Closed: paper falls into the inside and the outside, which do not touch along an edge.
    regions = np.asarray(label(~lines, connectivity=1))
    assert regions.max() == 2
    assert regions[16, 16] != regions[0, 0]
    # The step lies between pixels 7 and 8: no line is farther from it than one pixel.
    row, column = np.nonzero(lines)
    for places in (row, column):
        assert places.min() in (7, 8)
        assert places.max() in (23, 24)
    assert (regions[9:23, 9:23] == regions[16, 16]).all()
    # A line is a pixel or two wide.
    assert lines[:16, 16].sum() in (1, 2)
    assert lines[16, 16:].sum() in (1, 2)


def test_the_border_of_a_photograph_is_no_line():
    assert (edge_drawing(np.full((32, 32, 3), 200, np.uint8)) == 255).all()
    half = np.zeros((32, 32, 3), np.uint8)
    half[16:] = 255
    lines = edge_drawing(half) == 0
    assert set(np.nonzero(lines.any(1))[0]) <= {15, 16}


def test_thresholds_choose_which_steps_are_lines():
    # A step of height h has a gradient of (0.399 + 0.242) * 4 h = 2.56 h at sigma 1.
    height = 0.2
    pixels = np.full((32, 32, 3), 100, np.uint8)
    pixels[:, 16:] += int(255 * height)
    assert (edge_drawing(pixels, high=0.50) == 0).any()
    assert not (edge_drawing(pixels, high=0.53) == 0).any()


def test_smoothing_leaves_out_texture():
    # Stripes of two pixels over one broad step.
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 180
    pixels[:, ::4] += 30
    pixels[:, 1::4] += 30
    few = np.nonzero((edge_drawing(pixels, sigma=4.0) == 0).any(0))[0]
    assert len(few)
    assert few.min() >= 29
    assert few.max() <= 34
    assert (edge_drawing(pixels, sigma=0.8) == 0).any(0).sum() > 20


def test_lines_of_the_background_are_left_out():
    # A stripe of lines in columns 2 and 20, and one along row 5; the thing is columns 8 to 15.
    drawing = np.full((24, 24), 255, np.uint8)
    drawing[:, [2, 20]] = drawing[5] = 0
    mask = np.zeros((24, 24), np.float32)
    mask[:, 8:16] = 1
    mask[:, [7, 16]] = 0.49
    found = without_background(drawing, mask)
    expected = np.full((24, 24), 255, np.uint8)
    expected[5, 6:18] = 0
    np.testing.assert_array_equal(found, expected)
    # Around a single pixel there is room for a circle of radius 2.
    dot = np.zeros((24, 24), np.float32)
    dot[10, 10] = 0.5
    rows, columns = np.nonzero(without_background(np.zeros((24, 24), np.uint8), dot) == 0)
    assert len(rows) == 13
    assert ((rows - 10) ** 2 + (columns - 10) ** 2).max() == 4
    assert (without_background(drawing, np.zeros_like(mask)) == 255).all()


def test_the_outline_of_a_thing_stays_without_what_is_behind_it(tmp_path: Path):
    # The square of the mask before a stripe that ends well beside it.
    pixels, mask = square(size=48), np.zeros((48, 48), np.uint8)
    outline = edge_drawing(pixels)
    mask[8:24, 8:24] = 255
    pixels[:, 40:] = 255
    content = {"images/a.png": encode(pixels), "mask/a.png": encode(mask)}
    source = write_folder(tmp_path / "set", content)
    write_edge_set(source, tmp_path / "all")
    write_edge_set(source, tmp_path / "thing", foreground_only=True)
    everything_drawn = ImageSet(tmp_path / "all").edge_map(0)
    assert (everything_drawn[1:-1, 39:41] == 0).any(1).all()
    np.testing.assert_array_equal(ImageSet(tmp_path / "thing").edge_map(0), outline)


def test_masks_that_are_asked_for_must_be_there(tmp_path: Path):
    source = write_folder(tmp_path / "set", {"a.png": encode(square())})
    with pytest.raises(DataError, match=r"set: has no masks.* leave out --foreground-only$"):
        write_edge_set(source, tmp_path / "new", foreground_only=True)
    assert not (tmp_path / "new").exists()


def photographs(root: str = "images/") -> dict[str, bytes]:
    """A whole set of three squares that differ in size."""
    content = files(3, 32, root)
    for index in range(3):
        content[f"{root}00000/img{index:08d}.png"] = encode(square(8 + index))
    return content


@pytest.mark.parametrize("container", ["folder", "zip", "wrapped", "top"])
def test_the_set_that_is_written(tmp_path: Path, container: str):
    content = photographs("" if container == "top" else "images/")
    if container == "zip":
        source = write_zip(tmp_path / "set.zip", content)
    else:
        wrap = "cars/" if container == "wrapped" else ""
        source = write_folder(tmp_path / "set", {wrap + n: d for n, d in content.items()})
    summary = write_edge_set(source, tmp_path / "new" / "edges")
    before, after = ImageSet(source), ImageSet(tmp_path / "new" / "edges")
    assert after.names == before.names
    assert before.labels is not None
    assert after.labels is not None
    assert after.labels.equal(before.labels)
    assert after.objects == [0, 1, 2]
    assert (after.label_kind, after.classes, after.palette) == ("edge", None, None)
    dark = 0
    for index in range(3):
        assert after.content(index) == before.content(index)
        assert after.content(index, "mask") == before.content(index, "mask")
        np.testing.assert_array_equal(after.depth(index), before.depth(index))
        expected = edge_drawing(square(8 + index))
        np.testing.assert_array_equal(after.edge_map(index), expected)
        dark += int((expected == 0).sum())
    with Image.open(after.file(0, "label")) as opened:
        assert (opened.format, opened.mode) == ("PNG", "L")
    assert summary.line_share == pytest.approx(dark / (3 * 32 * 32))
    assert (summary.count, summary.size, summary.blank) == (3, 32, 0)
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"edges"}
    assert {p.name for p in (tmp_path / "new" / "edges").iterdir()} == {
        "images", "label", "mask", "depth", "meta.json", "labels.json"
    }  # fmt: skip


def test_photographs_alone(tmp_path: Path):
    flat = encode(np.full((16, 16, 3), 9, np.uint8))
    source = write_folder(tmp_path / "set", {"b/a.jpg": encode(square(4, 12, 16)), "c.png": flat})
    output = tmp_path / "edges"
    output.mkdir()
    summary = write_edge_set(source, output)
    found = ImageSet(output)
    assert found.names == ["b/a.jpg", "c.png"]
    assert found.labels is None
    assert summary.blank == 1
    assert "1 of the edge maps have no line at all; try a lower --high" in summary.text()


def everything(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*")}


def test_nothing_is_left_when_it_fails(tmp_path: Path):
    content = photographs()
    content["images/00000/img00000002.png"] = b"hello"
    source = write_folder(tmp_path / "set", content)
    (tmp_path / "empty").mkdir()
    before = everything(tmp_path)
    for output in ("empty", "new", "a/b/new"):
        with pytest.raises(DataError, match=r"img00000002.png: not a readable image"):
            write_edge_set(source, tmp_path / output)
        assert everything(tmp_path) == before


def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> np.ndarray:
        raise KeyboardInterrupt

    source = write_folder(tmp_path / "set", photographs())
    before = everything(tmp_path)
    monkeypatch.setattr(edges, "edge_drawing", stop)
    with pytest.raises(KeyboardInterrupt):
        write_edge_set(source, tmp_path / "new")
    assert everything(tmp_path) == before


def test_places_that_cannot_be_written_to(tmp_path: Path):
    source = write_folder(tmp_path / "set", photographs())
    with pytest.raises(DataError, match=f"^{tmp_path}: exists and is not an empty folder"):
        write_edge_set(source, tmp_path)
    for inside in (source / "edges", source):
        with pytest.raises(DataError, match="lies in the set that is read; give a folder outside"):
            write_edge_set(source, inside)
    with pytest.raises(DataError, match="lies in the set that is read"):
        write_edge_set(source / "images", source / "edges")
    assert json.loads((source / "meta.json").read_text())["classes"]
