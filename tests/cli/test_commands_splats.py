"""`gan3d splats` on trained runs: the files that come out, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfstudio_gan3d.data.palettes import class_colours
from nerfstudio_gan3d.export.splat_files import read_splats
from nerfstudio_gan3d.export.splat_views import scene_views, splat_psnr, surroundings
from nerfstudio_gan3d.export.splats import surface_splats
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.pretrained import unpack
from nerfstudio_gan3d.run import Run
from tests.cli.test_commands import refuse, succeed

COARSE = ["--count", 150, "--resolution", 16]


def test_splats_with_their_report(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["splats", "--load-config", trained, "--output", "new/car.ply", "--seed", 3, *COARSE]
    told = succeed(capsys, *words, "--refine-steps", 4, "--report", "new/car.json")
    assert {file.name for file in Path("new").iterdir()} == {"car.ply", "car.json"}
    found, report = read_splats(Path("new/car.ply")), json.loads(Path("new/car.json").read_text())
    assert told.startswith(f"new/car.ply: {len(found)} splats in ")
    printed = re.search(r"PSNR (\S+) dB \(least (\S+)\) from 20 held-out views of 128", told)
    assert printed is not None
    means = [report["psnr"], report["psnr_least"]]
    assert [float(text) for text in printed.groups()] == pytest.approx(means, abs=0.06)
    assert report["splats"] == len(found)
    assert report["rasterizer"] == "torch"
    assert len(report["views"]) == 20
    # The file is as alike to the foreground's pictures as the report says.
    scene = run.scene(SceneRequest(seed=3)).with_background(None)
    cameras = torch.tensor([view["label"] for view in report["views"]])
    torch.testing.assert_close(cameras, surroundings(run.settings).held_out())
    pictures = scene_views(scene, run.generator.settings, cameras)
    alike = splat_psnr(found, cameras, pictures)
    np.testing.assert_allclose(
        alike.tolist(), [view["psnr"] for view in report["views"]], atol=0.02
    )
    assert report["psnr"] == pytest.approx(float(alike.mean()), abs=0.02)
    # The recorded command writes the same again.
    written = Path("new/car.ply").read_bytes()
    assert f"comment made by {report['command']}".encode() in written
    Path("new/car.ply").unlink()
    succeed(capsys, *shlex.split(report["command"])[1:])
    assert Path("new/car.ply").read_bytes() == written


def test_splats_directly_computed_with_z_up(
    trained: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["splats", "--load-config", trained, "--truncation", 0.5, *COARSE, "--refine-steps", 0]
    succeed(capsys, *words, "--output", "car.ply", "--up", "z")
    succeed(capsys, *words, "--output", "car.splat")
    scene = run.scene(SceneRequest(truncation=0.5))
    expected = surface_splats(scene, 150, resolution=16)
    upright, (x, y, z) = read_splats(Path("car.ply")), expected.means.unbind(-1)
    torch.testing.assert_close(upright.means, torch.stack([x, -z, y], -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(upright.colours, expected.colours, atol=1e-5, rtol=0)
    assert Path("car.splat").stat().st_size == 150 * 32
    order = (expected.scales.prod(-1) * expected.opacities).argsort(descending=True, stable=True)
    torch.testing.assert_close(read_splats(Path("car.splat")).means, expected.means[order])


def test_splats_in_the_colours_of_classes(
    labelled: Path, labelled_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["splats", "--load-config", labelled, "--output", "car.ply", "--input", 2, *COARSE]
    succeed(capsys, *words, "--color", "labels", "--refine-steps", 2)
    palette = torch.tensor(class_colours(labelled_run.labels())) / 255
    found = read_splats(Path("car.ply"))
    apart = torch.cdist(found.colours, palette).min(1).values
    assert float(apart.max()) < 1e-4


def test_splats_of_an_image_are_cut_off_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled cars stand before a wall 0.85 half sides of a box 1.8 deep behind the origin."""
    unpack("g3dr-cars64", tmp_path / "cars")
    words = ["splats", "--load-config", tmp_path / "cars" / "config.yml", "--count", 300]
    words += ["--resolution", 24, "--refine-steps", 0, "--output", "a.ply"]
    succeed(capsys, *words)
    places = read_splats(Path("a.ply")).means[:, 2]
    # Most of what is seen is the wall, and nothing of the box's back is.
    assert float(places.median()) == pytest.approx(-0.85 * 0.9, abs=0.05)
    assert float(places.min()) > -0.88
    succeed(capsys, *words, "--behind", 0.6)
    assert float(read_splats(Path("a.ply")).means[:, 2].min()) > -0.6 * 0.9
    assert "--seed: " in refuse(capsys, *words, "--seed", 3)


def test_impossible_splats_are_refused(
    trained: Path, edges: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: object, output: object = "a.ply", config: Path = trained) -> str:
        return refuse(capsys, "splats", "--load-config", config, "--output", output, *words)

    assert "must end in .ply or .splat" in told(output="a.glb")
    assert "--report is a.txt; it must end in .json" in told("--report", "a.txt")
    assert "--count is 0; it must lie between 1 and" in told("--count", 0)
    assert "--seed is -1; it must lie between 0 and 10^18." in told("--seed", -1)
    assert "--report is /proc/a.json, but nothing can be written" in told(
        "--report", "/proc/a.json"
    )
    assert "--size is 0.0" in told("--size", 0)
    assert "--refine-steps is -1" in told("--refine-steps", -1)
    assert "--behind is 1.5" in told("--behind", 1.5)
    assert "whose Scenes are not made of photographs" in told("--behind", 0.5)
    assert "--color labels" in told("--color", "labels")
    assert "no classes" in told("--color", "labels", config=edges)
    # A Scene without anything that is this dense.
    assert "choose a lower level" in told("--level", 1e6)
    assert "--rasterizer gsplat and --refine-steps 0" in told(
        "--rasterizer", "gsplat", "--refine-steps", 0
    )
    if not torch.cuda.is_available():
        assert "needs a CUDA GPU, and there is none here" in told("--rasterizer", "gsplat")
    assert not list(Path().iterdir())
    Path("file").touch()
    assert "file is a file and no folder" in told(output="file/a.ply")
    Path("folder.ply").mkdir()
    assert "which is a folder" in told(output="folder.ply")
    assert {path.name for path in Path().iterdir()} == {"file", "folder.ply"}
