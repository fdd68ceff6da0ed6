"""Files that are whole or not there, and whether they can be written at all."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import numpy as np
import pytest

from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.export.mesh import extract_mesh, write_mesh
from nerfstudio_gan3d.export.pictures import write_gif, write_png, write_video
from nerfstudio_gan3d.export.targets import check_folder, check_target, existing
from tests.export.analytic import Balls, scene_of
from tests.export.full_disk import full_disk

NOWHERE = Path("/proc/gan3d")
"""Nobody can make a folder there, whatever permissions say."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old.ply").write_text("old")
    check_target("--output", tmp_path / "old.ply", [tmp_path / "old.mtl"])
    check_target("--output", tmp_path / "new" / "folder" / "a.ply")
    check_folder("--output", tmp_path)
    check_folder("--output", tmp_path / "new" / "folder")
    assert names(tmp_path) == ["old.ply"]
    assert (tmp_path / "old.ply").read_text() == "old"


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    for path, beside, sentence in (
        (folder, [], f"--output is {folder}, which is a folder; give the name of a file."),
        (tmp_path / "a.png", [file, folder], f"a.png, but {folder} is a folder, and a file of"),
        (file / "new" / "a.png", [], f"a.png, but {file} is a file and no folder."),
        (NOWHERE / "a.png", [], "but nothing can be written to the folder /proc (No such file"),
        (NOWHERE, [], "but nothing can be written to the folder /proc (No such file"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            check_target("--output", path, beside)
    for path, inside, sentence in (
        (file, [], f"--keep is {file}, which is a file; give a folder."),
        (tmp_path, [folder], f"but {folder} is a folder, and a file of that name is written"),
        (file / "new", [], f"new, but {file} is a file and no folder."),
        (NOWHERE, [], "but nothing can be written to the folder /proc (No such file"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            check_folder("--keep", path, inside)
    assert existing(file / "new" / "folder") == file


def test_a_name_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 251}.ply"
    with replaced(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".ply")
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == [path.name]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "new" / "a.ply"
    sentence = f"^{tmp_path / 'file'} is a file, so {path} cannot be written into it"
    with pytest.raises(ValueError, match=sentence), replaced(path):
        pass


def test_errors_speak_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_text("old")
    full = OSError(errno.ENOSPC, "No space left on device")
    sentence = r"a\.ply: could not be written \(No space left on device\); see whether the disk"
    with pytest.raises(ValueError, match=sentence), replaced(path):
        raise full
    # Of another file that is read meanwhile.
    with pytest.raises(FileNotFoundError), replaced(path):
        (tmp_path / "gone").read_bytes()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.ply"]


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.mp4", "a.obj", "a.ply", "a.glb"])
def test_a_full_disk_keeps_what_was_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("old")
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    mesh = extract_mesh(scene_of(Balls()), 16)
    write = {
        "a.png": lambda: write_png(frames[0], path),
        "a.gif": lambda: write_gif(iter(frames), path),
        "a.mp4": lambda: write_video(iter(frames), path),
    }.get(name, lambda: write_mesh(mesh, path))
    with full_disk(bytes_left=100), pytest.raises(ValueError, match=rf"{name}: could not be wri"):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == [name]


def test_errors_of_whoever_renders_a_video_are_their_own(tmp_path: Path) -> None:
    def frames():
        yield np.zeros((8, 8, 3), np.uint8)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_video(frames(), tmp_path / "a.mp4")
    assert not names(tmp_path)


def test_an_object_and_its_texture_change_together(tmp_path: Path) -> None:
    mesh = extract_mesh(scene_of(Balls()), 8, texture=16)
    (tmp_path / "a.obj").write_text("old")
    (tmp_path / "a.mtl").write_text("old")
    (tmp_path / "a_texture.png").mkdir()
    with pytest.raises(ValueError, match=r"a_texture\.png is a folder"):
        write_mesh(mesh, tmp_path / "a.obj")
    assert names(tmp_path) == ["a.mtl", "a.obj", "a_texture.png"]
    assert (tmp_path / "a.obj").read_text() == (tmp_path / "a.mtl").read_text() == "old"
