"""`gan3d sample`: transparency, layers, sweeps, photographs behind, GIFs, and what files say."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.data.decode import decode_relative_depth
from nerfstudio_gan3d.export.metadata import read_text
from nerfstudio_gan3d.export.pictures import depth_range, write_gif
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.run import Run
from tests.cli.test_commands import GAP, SIDE, refuse, succeed


def pixels(file: str) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def levels(run: Run, request: SceneRequest, name: str, azimuth: float = 30.0) -> np.ndarray:
    """What the run shows, [H, W, C], in levels of 255."""
    found = run.render(run.scene(request), run.orbit([azimuth]), [name])  # type: ignore[list-item]
    return found[name][0].numpy() * 255


def test_a_folder_with_layers_beside_each_sample(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", trained, "--output", "many", "--seeds", "1,12"]
    succeed(capsys, *words, "--outputs", "rgb,depth16,matte,rgba")
    record = json.loads(Path("many/samples.json").read_text())
    endings = ["", "_depth", "_matte", "_rgba"]
    files = [f"seed{seed}{ending}.png" for seed in ("0001", "0012") for ending in endings]
    assert record["files"] == files
    assert {path.name for path in Path("many").iterdir()} == {
        *files,
        "samples.json",
        "samples.npz",
    }
    # 16 bits, as sets with images NAME and depth NAME_depth.png are read.
    near, far = depth_range(run)
    assert record["depth16"] == {"near": near, "far": far, "steps": 65536, "nothing": 0}
    file = Path("many/seed0012_depth.png")
    read = decode_relative_depth(file.read_bytes(), "depth")
    alpha = levels(run, SceneRequest(12), "accumulation")[..., 0] / 255
    depth = levels(run, SceneRequest(12), "depth")[..., 0] / 255
    solid = alpha > 0.5
    assert solid.any()
    assert (read[~solid] == 0).all()
    np.testing.assert_allclose(near + read[solid] * (far - near), depth[solid], atol=1e-4)
    # Grey of 8 bits, and colours with alpha.
    matte, rgba = pixels("many/seed0012_matte.png"), pixels("many/seed0012_rgba.png")
    assert matte.shape == (SIDE, SIDE)
    np.testing.assert_allclose(matte, alpha * 255, atol=0.51)
    np.testing.assert_array_equal(rgba[..., 3], matte)
    over_white = rgba[..., 3:] / 255 * rgba[..., :3] + 255 - rgba[..., 3:]
    foreground = levels(run, SceneRequest(12), "foreground")
    assert np.abs(over_white - foreground).max() <= 2


def test_a_transparent_grid_and_what_it_says(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", trained, "--output", "here/a.png", "--seeds", "2,5"]
    succeed(capsys, *words, "--outputs", "rgba", "--truncation", 0.5, "--views", 2)
    picture = pixels("here/a.png")
    # Two blocks of two views; between them is nothing.
    assert picture.shape == (2 * SIDE + GAP, 2 * SIDE + GAP, 4)
    assert (picture[SIDE : SIDE + GAP, :, 3] == 0).all()
    text = read_text(Path("here/a.png"))
    assert text["Seeds"] == "2,5"
    assert text["Truncation"] == "0.5"
    assert text["Run"] == trained.parent.name
    assert str(trained.parent.parent) not in "".join(text.values())
    # Beside the run's folder the command of the picture makes the same picture again.
    said = shlex.split(text["Command"])
    assert said[said.index("--output") + 1] == "a.png"
    place = said.index("--load-config") + 1
    assert Path(said[place]) == Path(trained.parent.name, trained.name)
    said[place] = str(trained.parent.parent / said[place])
    succeed(capsys, *said[1:])
    np.testing.assert_array_equal(pixels("a.png"), picture)


def test_truncations_are_columns(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", trained, "--truncations", "0,0.5,1"]
    told = succeed(capsys, *words, "--output", "sweep.png", "--seeds", "3,8")
    assert "2 seeds from 1 view at 3 truncations" in told
    picture, step = pixels("sweep.png"), SIDE + GAP
    assert picture.shape == (step + SIDE, 2 * step + SIDE, 3)
    for row, seed in enumerate((3, 8)):
        for column, psi in enumerate((0.0, 0.5, 1.0)):
            tile = picture[row * step :, column * step :][:SIDE, :SIDE]
            expected = levels(run, SceneRequest(seed, truncation=psi), "rgb")
            np.testing.assert_allclose(tile, expected, atol=0.51)
    assert json.loads(Path("sweep.json").read_text())["truncation"] == [0, 0.5, 1]
    assert read_text(Path("sweep.png"))["Truncation"] == "0,0.5,1"
    # One seed stays one row, and a folder has a file for each.
    succeed(capsys, *words, "--output", "row.png", "--seeds", 3)
    np.testing.assert_array_equal(pixels("row.png"), picture[:SIDE])
    succeed(capsys, *words, "--output", "many", "--seeds", 3)
    np.testing.assert_array_equal(
        pixels("many/seed0003_truncation0.5.png"), picture[:SIDE, step : step + SIDE]
    )
    assert read_text(Path("many/seed0003_truncation0.5.png"))["Truncation"] == "0.5"


def test_a_photograph_behind_the_object(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    # Twice as wide as high: the middle square is red over blue, its sides are green.
    photo = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    photo[..., 1] = 255
    photo[: SIDE // 2, SIDE // 2 : -SIDE // 2] = [255, 0, 0]
    photo[SIDE // 2 :, SIDE // 2 : -SIDE // 2] = [0, 0, 255]
    Image.fromarray(photo).save("photo.png")
    words = ["sample", "--load-config", trained, "--seeds", 4, "--over", "photo.png"]
    succeed(capsys, *words, "--output", "a.png")
    middle = photo[:, SIDE // 2 : -SIDE // 2].astype(float)
    alpha = levels(run, SceneRequest(4), "accumulation") / 255
    white = levels(run, SceneRequest(4), "foreground")
    expected = white + (1 - alpha) * (middle - 255)
    np.testing.assert_allclose(pixels("a.png"), expected, atol=0.51)
    Path("words.png").write_text("not a picture")
    told = refuse(capsys, *words[:-1], "words.png", "--output", "b.png")
    assert "words.png" in told
    assert not Path("b.png").exists()


def test_a_turntable_as_gif(trained: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--load-config", trained, "--output", "turn.gif", "--seeds", 0]
    succeed(capsys, *words, "--turntable", "--views", 3, "--outputs", "foreground")
    with Image.open("turn.gif") as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
        assert film.info["loop"] == 0
        for index in range(3):
            film.seek(index)
            assert film.info["duration"] == 40
            shown = np.asarray(film.convert("RGB")).astype(float)
            expected = levels(run, SceneRequest(0), "foreground", 30.0 + 120.0 * index)
            # 256 pixels have a palette of 256 colours; rounding and dithering are all that is left.
            assert np.abs(shown - expected).mean() < 6
    assert len(json.loads(Path("turn.json").read_text())["views"]) == 3


def test_an_interrupted_gif_leaves_nothing() -> None:
    def frames():
        yield np.zeros((4, 4, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gif(frames(), Path("a.gif"))
    assert list(Path().iterdir()) == []


def test_nothing_is_said_where_nobody_watches(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", trained, "--output", "a.png", "--seeds", 0]
    assert main([str(word) for word in words]) == 0
    assert "views" not in capsys.readouterr().err


def test_what_does_not_go_together_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--load-config", trained, "--output"]
    video = ["a.mp4", "--turntable", "--outputs", "rgb,rgba"]
    assert "--outputs has rgba, which mp4 and GIF cannot hold" in refuse(capsys, *words, *video)
    assert "ends in .png" in refuse(capsys, *words, "a.gif")
    assert "ends in .mp4 or .gif" in refuse(capsys, *words, "a.webp", "--turntable")
    sweep = [*words, "a.png", "--truncations"]
    assert "'3' is no number between 0 and 2" in refuse(capsys, *sweep, "0,3")
    assert "choose one of them" in refuse(capsys, *sweep, "0,1", "--truncation", 0.5)
    assert "--over is gone.png" in refuse(capsys, *words, "a.png", "--over", "gone.png")
    Path("photo.png").touch()
    over = ["--over", "photo.png", "--outputs", "depth"]
    assert "add rgb, or leave --over out" in refuse(capsys, *words, "a.png", *over)
    # A layer's place is taken: the picture beside it is not written either.
    Path("b_rgba.png").mkdir()
    told = refuse(capsys, *words, "b.png", "--seeds", 0, "--outputs", "rgb,rgba")
    assert "b_rgba.png is a folder" in told
    assert {path.name for path in Path().iterdir()} == {"photo.png", "b_rgba.png"}


def test_targets_are_looked_at_before_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    def told(output: str, *words: object) -> str:
        return refuse(capsys, "sample", "--load-config", "gone.yml", "--output", output, *words)

    Path("file").touch()
    for name in ("a.json", "b.npz", "c_matte.png", "folder/samples.json"):
        Path(name).mkdir(parents=True)
    before = sorted(Path().rglob("*"))
    assert "--output is file, which is a file; give a folder" in told("file")
    assert "file is a file and no folder" in told("file/a.png")
    assert "nothing can be written to the folder /proc" in told("/proc/folder")
    assert "nothing can be written to the folder /proc" in told("/proc/a.png")
    assert "a.json is a folder" in told("a.png")
    assert "b.npz is a folder" in told("b.mp4", "--turntable")
    assert "c_matte.png is a folder" in told("c.png", "--outputs", "rgb,matte")
    assert "folder/samples.json is a folder" in told("folder")
    assert "gone.yml: no such file" in told("c.png", "--outputs", "rgb,depth16")
    assert "--mix-seed is -1" in told("d.png", "--mix-seed", -1, "--mix-levels", "1")
    assert sorted(Path().rglob("*")) == before
