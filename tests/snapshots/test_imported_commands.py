"""nerfstudio's and this project's commands on a run that was imported from a snapshot."""

from __future__ import annotations

import json
from pathlib import Path

import mediapy
import numpy as np
import pytest
import trimesh
import yaml
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.exporter import ExportTSDFMesh
from nerfstudio.scripts.render import RenderInterpolated
from PIL import Image
from trimesh.visual import ColorVisuals

from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.data.palettes import OFFICIAL_COLOURS
from nerfstudio_gan3d.pretrained import UnpackedRunConfig
from nerfstudio_gan3d.run import read_config
from tests.snapshots.networks import SIZE, generator, label_config, snapshot

CAMERAS = 6


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of a small BallGAN, set to few cameras and samples."""
    folder = tmp_path_factory.mktemp("imported")
    file = snapshot(folder / "s.pkl", generator("ver1"))
    assert main(["import", str(file), "--output", str(folder / "run")]) == 0
    path = folder / "run" / "config.yml"
    config = read_config(path)
    assert isinstance(config, UnpackedRunConfig)
    config.pipeline.evaluation.num_samples = 8  # pyright: ignore[reportAttributeAccessIssue]
    config.pipeline.datamanager.export_cameras = CAMERAS  # pyright: ignore[reportAttributeAccessIssue]
    path.write_text(yaml.dump(config))
    return path


def test_eval_measures_what_needs_no_images(imported: Path, tmp_path: Path) -> None:
    ComputePSNR(imported, tmp_path / "figures.json", tmp_path / "pictures").main()
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["method_name"] == "gan3d-ballgan"
    assert report["results"]["num_samples"] == 8
    assert (tmp_path / "pictures" / "samples.png").stat().st_size > 1000


def test_render_interpolate_writes_a_video(imported: Path, tmp_path: Path) -> None:
    video = tmp_path / "turn.mp4"
    RenderInterpolated(imported, video, pose_source="train", interpolation_steps=2).main()
    frames = mediapy.read_video(video)
    assert frames.shape == (2 * (CAMERAS - 1), SIZE, SIZE, 3)
    # The cameras move, and what they see is no flat colour.
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 1
    assert frames[0].std() > 2


def test_tsdf_writes_a_textured_mesh(imported: Path, tmp_path: Path) -> None:
    ExportTSDFMesh(
        imported,
        tmp_path,
        target_num_faces=500,
        num_pixels_per_side=128,
        resolution=48,
    ).main()
    mesh = trimesh.load(tmp_path / "mesh.obj", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) > 50
    assert (tmp_path / "material_0.png").stat().st_size > 100


def test_own_commands_write_pictures_and_meshes(imported: Path, tmp_path: Path) -> None:
    picture, mesh = tmp_path / "samples.png", tmp_path / "mesh.ply"
    load = ["--load-config", str(imported)]
    assert main(["sample", *load, "--output", str(picture), "--seeds", "0-1", "--size", "64"]) == 0
    assert mediapy.read_image(picture).shape[2] == 3
    assert main(["mesh", *load, "--output", str(mesh), "--resolution", "24"]) == 0
    found = trimesh.load(mesh, force="mesh")
    assert isinstance(found, trimesh.Trimesh)
    assert len(found.faces) > 50
    # box_warp 1.1: nothing lies outside.
    assert np.abs(found.vertices).max() < 0.56


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of a small pix2pix3D with six classes, set to few samples."""
    folder = tmp_path_factory.mktemp("labelled")
    file = snapshot(folder / "s.pkl", generator(labels=label_config(6)))
    assert main(["import", str(file), "--output", str(folder / "run")]) == 0
    path = folder / "run" / "config.yml"
    config = read_config(path)
    assert isinstance(config, UnpackedRunConfig)
    config.pipeline.evaluation.num_samples = 8  # pyright: ignore[reportAttributeAccessIssue]
    path.write_text(yaml.dump(config))
    return path


def test_eval_of_a_labelled_model_without_a_data_set(labelled: Path, tmp_path: Path) -> None:
    ComputePSNR(labelled, tmp_path / "figures.json").main()
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["method_name"] == "gan3d-pix2pix3d-128"
    assert report["results"]["num_samples"] == 8
    assert 0 < report["results"]["coverage_mean"] < 1


def test_samples_and_meshes_follow_a_label_map_of_ones_own(labelled: Path, tmp_path: Path) -> None:
    ids = np.zeros((SIZE, SIZE), np.uint8)
    ids[20:100, 30:90] = 1
    Image.fromarray(ids).save(tmp_path / "map.png")
    load = ["--load-config", str(labelled), "--seeds", "0", "--outputs", "labels"]
    pictures = {}
    for name, given in (("blank", []), ("own", ["--input-file", str(tmp_path / "map.png")])):
        path = tmp_path / f"{name}.png"
        assert main(["sample", *load, "--output", str(path), *given]) == 0
        pictures[name] = mediapy.read_image(path)
    assert (pictures["blank"] != pictures["own"]).any()
    mesh, own = tmp_path / "mesh.ply", ["--input-file", str(tmp_path / "map.png")]
    load = ["--load-config", str(labelled), "--resolution", "24", "--color", "labels"]
    assert main(["mesh", *load, "--output", str(mesh), *own]) == 0
    found = trimesh.load(mesh, force="mesh")
    assert isinstance(found, trimesh.Trimesh)
    assert isinstance(found.visual, ColorVisuals)
    colours = {tuple(colour) for colour in np.asarray(found.visual.vertex_colors)[:, :3].tolist()}
    assert colours <= set(OFFICIAL_COLOURS[:6])
