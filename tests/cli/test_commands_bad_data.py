"""`gan3d data check` on bad data: exit code 2 and one sentence on stderr, never a traceback."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nerfstudio_gan3d.cli import main
from tests.cli.test_commands_data import succeed
from tests.data.sets import files, write_folder, write_zip
from tests.data.test_bad_input import BAD, Content, bad_set, check_sentence
from tests.data.test_bad_zips import BAD_ZIPS, bad_zip, patch_directory


def check_refused(
    capsys: pytest.CaptureFixture[str], path: Path, words: list[str], *options: str
) -> None:
    code = main(["data", "check", str(path), *options])
    printed = capsys.readouterr()
    assert code == 2, printed
    assert printed.out == ""
    assert "Traceback" not in printed.err
    sentence = printed.err.removesuffix("\n")
    assert sentence.startswith("gan3d: ")
    # On its way to the terminal a sentence loses runs of spaces.
    check_sentence(sentence, [" ".join(word.split()) for word in words])


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize(("change", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_content(
    tmp_path: Path,
    container: str,
    change: Callable[[Content], None],
    words: list[str] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, expected = bad_set(tmp_path, change, words, container)
    check_refused(capsys, path, expected)


@pytest.mark.parametrize(
    ("kind", "change", "words"), [row[1:] for row in BAD_ZIPS], ids=[row[0] for row in BAD_ZIPS]
)
def test_bad_zips(
    tmp_path: Path,
    kind: int,
    change: Callable[[Path, int], None],
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_refused(capsys, bad_zip(tmp_path, kind, change), list(words))


def test_bombs_names_and_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = write_zip(tmp_path / "bomb.zip", {"a.png": bytes(4_000_000)}, zipfile.ZIP_DEFLATED)
    check_refused(capsys, bomb, [str(bomb), "a zip bomb (member 'a.png'"])
    overlap = write_zip(tmp_path / "overlap.zip", files())
    patch_directory(overlap, {20: 10_000_000})
    check_refused(capsys, overlap, [str(overlap), "a zip bomb (members of"])
    climbing = write_zip(tmp_path / "climbing.zip", files() | {"../evil.png": b""})
    check_refused(capsys, climbing, ["'../evil.png' leaves the archive"])
    steering = write_zip(tmp_path / "steering.zip", {"a\x1b[2J.png": b"hello"})
    check_refused(capsys, steering, [r"a\x1b[2J.png: not a readable image"])
    (tmp_path / "text").write_text("hello")
    check_refused(capsys, tmp_path / "text", ["text: neither a folder nor a zip file"])
    check_refused(capsys, tmp_path / "gone", ["gone: no such file or folder"])
    good = write_zip(tmp_path / "good.zip", files())
    check_refused(capsys, good, ["class id 2", "2 classes"], "--num-classes", "2")
    told = succeed(capsys, "data", "check", good)
    assert "6 images of 8 x 8 pixels, all readable" in told


def test_what_the_terminal_cannot_show_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of classes in another script, and a path that is no text."""
    path = tmp_path / "caf\udce9"
    meta = json.dumps({"classes": ["fond", "été", "車"]}).encode()
    write_folder(path, files() | {"meta.json": meta})
    streams = {}
    for name in ("stdout", "stderr"):
        streams[name] = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
        monkeypatch.setattr(sys, name, streams[name])

    def written(name: str) -> str:
        return streams[name].buffer.getvalue().decode("ascii")

    assert main(["data", "check", str(path)]) == 0
    assert r"caf\udce9: 6 images" in written("stdout")
    assert r"1 \xe9t\xe9 33.3 %, 2 \u8eca 33.3 %" in written("stdout")
    assert main(["data", "check", str(path / "gone")]) == 2
    assert written("stderr").startswith("gan3d: ")
    assert r"caf\udce9/gone: no such file or folder" in written("stderr")
