"""`gan3d pack` and `gan3d view`: one file of a run, its picture and papers, the viewer on it."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.scripts.viewer import run_viewer
from PIL import Image
from safetensors import safe_open

from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.pretrained import read_header, unpack_file
from nerfstudio_gan3d.run import Run, load_run
from tests.export.full_disk import full_disk

PATIENCE = 120.0
"""Seconds that a viewer may take to answer on a busy machine."""


@pytest.fixture(scope="module")
def packed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    (folder / "figures.json").write_text('{"results": {"distance": 3.5}, "checkpoint": "/home"}')
    words = ["--licence", "CC-BY-4.0", "--author", "A. Person", "--note", "own photographs"]
    words += ["--figures", str(folder / "figures.json")]
    file = folder / "cars.safetensors"
    assert main(["pack", str(trained), "--output", str(file), *words]) == 0
    return file


def test_a_packed_run_says_where_it_comes_from(packed: Path) -> None:
    header = read_header(packed)
    assert header["licence"] == "CC-BY-4.0"
    assert header["figures"] == {"distance": 3.5}
    told = header["provenance"]
    # The name of the data set, and not where it lay on this machine.
    assert (told["data"], told["author"], told["note"]) == ("set", "A. Person", "own photographs")
    assert told["torch"] == torch.__version__
    with safe_open(packed, framework="pt") as opened:
        assert "/" not in "".join(f"{name}{told[name]}" for name in told)
        assert str(packed.parent) not in "".join(opened.metadata().values())


def test_its_picture_shows_the_first_scenes(packed: Path, run: Run) -> None:
    with safe_open(packed, framework="pt") as opened:
        kind, content = opened.metadata()["modelspec.thumbnail"].split(",")
    assert kind == "data:image/png;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert picture.shape == (128, 4 * 128, 3)
    scene = run.scene(SceneRequest(seed=2, truncation=0.7))
    expected = run.render(scene, run.orbit([30.0]), ["rgb"], 128)["rgb"][0]
    found = torch.from_numpy(picture[:, 256:384].copy()) / 255
    assert (found - expected).abs().max() < 1 / 255


def test_it_opens_as_the_run_that_it_was(packed: Path, run: Run, tmp_path: Path) -> None:
    unpack_file(packed, tmp_path / "opened")
    opened = load_run(tmp_path / "opened")
    request, cameras = SceneRequest(5), run.orbit([70.0])
    pictures = [one.render(one.scene(request), cameras, ["rgb"])["rgb"] for one in (opened, run)]
    assert (pictures[0] - pictures[1]).abs().max() < 0.5 / 255


def test_packing_again_names_no_data_set(packed: Path, tmp_path: Path) -> None:
    """An unpacked run no longer knows it."""
    unpack_file(packed, tmp_path / "opened")
    file = tmp_path / "again.safetensors"
    assert main(["pack", str(tmp_path / "opened"), "--output", str(file)]) == 0
    assert "data" not in read_header(file)["provenance"]
    assert read_header(file)["licence"] == ""


def test_what_cannot_be_packed_or_viewed_is_refused(
    packed: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.tex").touch()
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"nothing of the kind")
    kept = packed.read_bytes()
    figures = tmp_path / "figures.json"
    figures.write_text("{")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    gone = tmp_path / "gone.safetensors"
    for words, sentence in (
        (["pack", str(trained), "--output", str(tmp_path / "a.zip")], "ends in .safetensors"),
        (["pack", str(tmp_path), "--output", str(other)], "config.yml"),
        (["pack", str(trained), "--output", str(packed), "--figures", str(figures)], "not JSON"),
        (["view", str(other)], "not a packed run"),
        (["pack", str(gone), "--output", str(folder)], "which is a folder"),
        (["pack", str(gone), "--output", "/proc/a.safetensors"], "nothing can be written to"),
        (["pack", str(gone), "--output", str(other), "--figures", str(gone)], "--figures is"),
        (["view", str(gone)], "not a packed run (no such file)"),
        (["view", str(folder)], "not a packed run (a folder); give a file that gan3d pack wrote"),
        (["view", "cars"], "or one of 3dgen-cars64, ballgan-cars64, "),
        (["view", str(packed), "--keep", str(other)], "which is a file; give a folder"),
        (["view", str(packed), "--keep", "/proc/new"], "nothing can be written to"),
        (["view", str(packed), "--port", "70000"], "--port is 70000"),
        (["view", str(packed), "--keep", str(used)], "not an empty folder"),
    ):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert sentence in told
        assert told.count("\n") == 1
    with full_disk(bytes_left=1000):
        assert main(["pack", str(trained), "--output", str(packed)]) == 2
    assert f"{packed}: could not be written (" in capsys.readouterr().err
    assert not [path for path in packed.parent.iterdir() if path.name.startswith(".")]
    assert packed.read_bytes() == kept
    assert sorted(path.name for path in used.iterdir()) == ["thesis.tex"]


def test_a_viewer_on_a_bundled_checkpoint_is_told_where_to_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def start(config, pipeline, step: int) -> None:
        started.append((config, pipeline, step))

    monkeypatch.setattr(run_viewer, "_start_viewer", start)
    keep = tmp_path / "kept"
    words = ["--port", "7322", "--host", "0.0.0.0", "--keep", str(keep)]
    assert main(["view", "ballgan-cars64", *words]) == 0
    ((config, pipeline, step),) = started
    assert (config.viewer.websocket_host, config.viewer.websocket_port) == ("0.0.0.0", 7322)
    assert config.viewer.image_format == "png"
    assert step == 19074
    assert pipeline.model.config.image_resolution == 64
    assert (keep / "config.yml").is_file()
    told = capsys.readouterr().out
    assert "method: gan3d-ballgan-tiny after 610400 images" in told
    assert "licence: Apache-2.0" in told


def test_the_viewer_answers_and_leaves_nothing_behind(packed: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-m", "nerfstudio_gan3d.cli", "view", str(packed)]
    process = subprocess.Popen(
        [*words, "--port", str(port)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + PATIENCE
        page = b""
        while not page and time.monotonic() < end and process.poll() is None:
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10) as answer:
                    page = answer.read()
            except OSError:
                continue
        assert b"<html" in page.lower()
        assert list(tmp_path.glob("gan3d-view-*/config.yml"))
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 143
    assert "author: A. Person" in told
    assert not list(tmp_path.glob("gan3d-view-*"))
