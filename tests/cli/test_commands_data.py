"""`gan3d data edges` and `gan3d data check` on label maps: what comes out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label

from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.data_parsers.images import Gan3dImagesDataParserConfig
from tests.data.sets import encode, labels, write_folder


def succeed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def refuse(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("gan3d: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Two photographs of a white square on black with their cameras."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[8:24, 8:24] = 255
    entries = [[f"{n}.png", row] for n, row in zip("ab", labels(2), strict=True)]
    content = {f"images/{n}.png": encode(pixels) for n in "ab"}
    content["images/dataset.json"] = json.dumps({"labels": entries}).encode()
    return write_folder(tmp_path / "squares", content)


def test_edge_maps_of_a_set(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = succeed(capsys, "data", "edges", squares, "out/edges")
    assert "edges: 2 images of 32 x 32 pixels with their edge maps" in told
    assert sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.*")) == [
        "edges/images/a.png",
        "edges/images/b.png",
        "edges/images/dataset.json",
        "edges/label/a.png",
        "edges/label/b.png",
        "edges/labels.json",
    ]
    for name in ("images/a.png", "images/b.png", "images/dataset.json"):
        assert Path("out/edges", name).read_bytes() == (squares / name).read_bytes()
    with Image.open("out/edges/label/a.png") as picture:
        assert picture.mode == "L"
        drawing = np.array(picture)
    # Dark lines on white: a closed outline no farther than a pixel from the square's border,
    # which lies between pixels 7 and 8 and between 23 and 24.
    assert set(np.unique(drawing)) == {0, 255}
    regions = np.asarray(label(drawing == 255, connectivity=1))
    assert regions.max() == 2
    row, column = np.nonzero(drawing == 0)
    for places in (row, column):
        assert places.min() in (7, 8)
        assert places.max() in (23, 24)
    assert (regions[9:23, 9:23] == regions[16, 16]).all()
    assert regions[16, 16] != regions[0, 0]

    # It is a set like any other.
    share = 100 * (drawing == 0).mean()
    told = succeed(capsys, "data", "check", "out/edges")
    assert f"edge maps: {share:.1f} % of the pixels are lines" in told
    assert "camera labels: yes" in told
    outputs = Gan3dImagesDataParserConfig(data=Path("out/edges")).setup().get_dataparser_outputs()
    assert len(outputs.image_filenames) == 2


def test_options_of_the_detector(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The step of the square's border is 1, with a gradient of 2.56 at sigma 1.
    told = succeed(capsys, "data", "edges", squares, "none", "--low", 0, "--high", 3.9)
    assert "0.0 % of the pixels are lines\n2 of the edge maps have no line at all" in told
    told = succeed(capsys, "data", "edges", squares, "some", "--low", 2.4, "--high", 2.5)
    assert "no line" not in told
    told = succeed(capsys, "data", "edges", squares, "wide", "--sigma", 8, "--high", 1.5)
    assert "2 of the edge maps have no line at all" in told


def test_what_cannot_be_drawn_is_refused(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: no such file or folder" in refuse(capsys, "data", "edges", "nowhere", "out")
    told = refuse(capsys, "data", "edges", squares, squares.parent)
    assert "exists and is not an empty folder; give another one" in told
    assert "lies in the set" in refuse(capsys, "data", "edges", squares, squares / "edges")
    words = ["data", "edges", squares, "out"]
    assert "--sigma is 0.0" in refuse(capsys, *words, "--sigma", 0)
    assert "--sigma is nan" in refuse(capsys, *words, "--sigma", "nan")
    assert "--low is 0.3 and --high is 0.2" in refuse(capsys, *words, "--low", 0.3)
    assert "--low is -1.0" in refuse(capsys, *words, "--low", -1)
    assert "--high is inf" in refuse(capsys, *words, "--high", "inf")
    Path("file").write_text("")
    assert "file" in refuse(capsys, "data", "edges", squares, "file/out")
    (squares / "images" / "b.png").write_bytes(b"hello")
    assert "b.png: not a readable image" in refuse(capsys, *words)
    assert {p.name for p in Path().iterdir()} == {"file"}


def test_edges_of_the_foreground_alone(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "edges", squares, "out", "--foreground-only"]
    assert "squares: has no masks" in refuse(capsys, *words)
    mask = np.zeros((32, 32), np.uint8)
    mask[:16, :16] = 255
    write_folder(squares, {f"mask/{n}.png": encode(mask) for n in "ab"})
    succeed(capsys, *words)
    succeed(capsys, "data", "edges", squares, "all")
    found, drawn = (np.array(Image.open(f"{name}/label/a.png")) for name in ("out", "all"))
    # Two pixels beyond the mask; near its corner nothing is drawn.
    expected = np.full((32, 32), 255, np.uint8)
    expected[:18, :16], expected[:16, :18] = drawn[:18, :16], drawn[:16, :18]
    np.testing.assert_array_equal(found, expected)
    assert (drawn != found).sum() > 20


def test_check_of_label_maps(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = np.zeros((32, 32), np.uint8)
    ids[8:24, 8:24] = 1
    write_folder(squares, {f"label/{n}.png": encode(ids) for n in "ab"})
    (squares / "labels.json").write_text('{"classes": ["paper", "square"]}')
    told = succeed(capsys, "data", "check", squares)
    assert "classes: 0 paper 75.0 %, 1 square 25.0 %" in told
    (squares / "labels.json").write_text('{"classes": ["paper"]}')
    told = refuse(capsys, "data", "check", squares)
    assert "label/a.png: class id 1 is out of range; there are 1 classes, 0 to 0" in told
    (squares / "labels.json").write_text('{"classes": ["paper", "square"], "pallete": []}')
    assert "labels.json: has an entry 'pallete'" in refuse(capsys, "data", "check", squares)


def test_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "edges", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("edge map of each photograph", "--sigma", "--low", "--foreground-only"):
        assert part in text
