"""nerfstudio's own commands on a trained run, from another folder and without the data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import mediapy
import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.exporter import (
    ExportCameraPoses,
    ExportPointCloud,
    ExportPoissonMesh,
    ExportTSDFMesh,
)
from nerfstudio.scripts.render import (
    DatasetRender,
    RenderCameraPath,
    RenderInterpolated,
    SpiralRender,
)
from nerfstudio.scripts.viewer import run_viewer

from nerfstudio_gan3d.cameras import labels_to_cameras
from nerfstudio_gan3d.run import Run
from tests.data.sets import labels

NormalMethod = Literal["model_output", "open3d"]
SIDE = 16
CAMERAS = 10
# The field's box (0.7, 0.7, 1.0) as nerfstudio's world (x, -z, y) has it.
HALF_BOX = np.array([0.35, 0.5, 0.35])


@pytest.fixture(autouse=True)
def solid(run: Run) -> None:
    """nerfstudio's point clouds are collected from opaque pixels, for ever if there are none."""
    found = run.render(run.scene(), run.orbit([0.0]), ["accumulation"])["accumulation"]
    assert (found > 0.5).float().mean() > 0.05


def camera_path(run: Run, frames: int) -> Path:
    """A file as the viewer writes it: cameras on the run's orbit."""
    cameras = labels_to_cameras(run.orbit([90.0 * i for i in range(frames)]), SIDE, SIDE)
    path = [
        {
            "camera_to_world": torch.cat([pose, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
            .flatten()
            .tolist(),
            "fov": 40.0,
            "aspect": 1.0,
        }
        for pose in cameras.camera_to_worlds
    ]
    content = {
        "camera_type": "perspective",
        "render_height": SIDE,
        "render_width": SIDE,
        "fps": 4,
        "seconds": 1.0,
        "camera_path": path,
    }
    file = Path("path.json").absolute()
    file.write_text(json.dumps(content))
    return file


def test_eval_writes_figures_and_pictures(trained: Path, tmp_path: Path) -> None:
    ComputePSNR(trained, tmp_path / "figures.json", tmp_path / "pictures").main()
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["method_name"] == "gan3d-ballgan-tiny"
    assert report["results"]["num_samples"] == 8
    assert (tmp_path / "pictures" / "samples.png").stat().st_size > 100


def test_render_camera_path(trained: Path, run: Run, tmp_path: Path) -> None:
    file = camera_path(run, 4)
    names = ["rgb", "foreground", "depth", "normals"]
    RenderCameraPath(
        trained, tmp_path / "a.mp4", rendered_output_names=names, camera_path_filename=file
    ).main()
    assert mediapy.read_video(tmp_path / "a.mp4").shape == (4, SIDE, len(names) * SIDE, 3)
    RenderCameraPath(
        trained,
        tmp_path / "b",
        image_format="png",
        camera_path_filename=file,
        output_format="images",
    ).main()
    frames = [mediapy.read_image(path) for path in sorted((tmp_path / "b").iterdir())]
    assert len(frames) == 4
    # The same picture as from Python, where the cameras have the data set's field of view.
    direct = run.render(run.scene(), run.orbit([0.0]), ["rgb"])["rgb"][0]
    assert np.abs(frames[0].mean() / 255 - float(direct.mean())) < 0.05


def test_labels_are_rendered_and_exported(
    labelled: Path, labelled_run: Run, tmp_path: Path
) -> None:
    file = camera_path(labelled_run, 2)
    RenderCameraPath(
        labelled,
        tmp_path / "a",
        rendered_output_names=["rgb", "labels"],
        image_format="png",
        camera_path_filename=file,
        output_format="images",
    ).main()
    frames = [mediapy.read_image(path) for path in sorted((tmp_path / "a").iterdir())]
    assert [frame.shape for frame in frames] == [(SIDE, 2 * SIDE, 3)] * 2
    palette = {(0, 0, 0), (255, 0, 0), (0, 0, 255)}
    for frame in frames:
        colors = {tuple(color) for color in frame[:, SIDE:].reshape(-1, 3).tolist()}
        assert colors <= palette
        assert len(colors) > 1
    ExportPointCloud(
        labelled, tmp_path, 500, normal_method="model_output", num_rays_per_batch=1024
    ).main()
    assert len(trimesh.load(tmp_path / "point_cloud.ply").vertices) > 400  # type: ignore[union-attr]


@pytest.mark.parametrize("source", ["eval", "train"])
def test_render_interpolate(
    trained: Path, tmp_path: Path, source: Literal["eval", "train"]
) -> None:
    video = tmp_path / "turn.mp4"
    RenderInterpolated(trained, video, pose_source=source, interpolation_steps=2).main()
    frames = mediapy.read_video(video)
    assert frames.shape[1:] == (SIDE, SIDE, 3)
    assert len(frames) >= 2 * (8 - 1)


def test_render_spiral(trained: Path, tmp_path: Path) -> None:
    SpiralRender(trained, tmp_path / "spiral.mp4", seconds=1.0, frame_rate=4).main()
    assert mediapy.read_video(tmp_path / "spiral.mp4").shape == (4, SIDE, SIDE, 3)


def test_render_dataset(trained: Path, tmp_path: Path) -> None:
    DatasetRender(trained, tmp_path, image_format="png", split="train+test").main()
    outputs = {"rgb", "foreground", "background", "depth", "accumulation", "normals", "gt-rgb"}
    assert {path.name for path in (tmp_path / "train").iterdir()} == outputs
    for name in outputs:
        assert len(list((tmp_path / "train" / name).glob("**/*.png"))) == CAMERAS
    picture = mediapy.read_image(next((tmp_path / "test" / "rgb").glob("**/*.png")))
    assert picture.shape == (SIDE, SIDE, 3)
    # The images are gone: their places are grey.
    grey = mediapy.read_image(next((tmp_path / "test" / "gt-rgb").glob("**/*.png")))
    assert (grey == 128).all()


@pytest.mark.parametrize("method", ["model_output", "open3d"])
def test_export_pointcloud(trained: Path, tmp_path: Path, method: NormalMethod) -> None:
    ExportPointCloud(trained, tmp_path, 2000, normal_method=method, num_rays_per_batch=2048).main()
    cloud = trimesh.load(tmp_path / "point_cloud.ply")
    assert isinstance(cloud, trimesh.PointCloud)
    assert len(cloud.vertices) > 1500
    assert (np.abs(cloud.vertices) <= HALF_BOX + 1e-3).all()
    normals = np.stack([cloud.metadata["_ply_raw"]["vertex"]["data"][f"n{a}"] for a in "xyz"], -1)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3)
    # Training started from a ball, and twenty steps leave it one: normals point away from the
    # middle.
    outwards = (normals * cloud.vertices).sum(1) / np.linalg.norm(cloud.vertices, axis=1)
    # open3d fits planes to a soft, noisy cloud; most of them still face the right way.
    assert np.median(outwards) > (0.7 if method == "model_output" else 0.1)


@pytest.mark.parametrize("method", ["model_output", "open3d"])
def test_export_poisson(trained: Path, tmp_path: Path, method: NormalMethod) -> None:
    ExportPoissonMesh(
        trained,
        tmp_path,
        2000,
        normal_method=method,
        num_rays_per_batch=2048,
        texture_method="nerf" if method == "model_output" else "point_cloud",
        num_pixels_per_side=64,
        target_num_faces=500,
    ).main()
    check_mesh(tmp_path / "poisson_mesh.ply")
    if method == "model_output":
        assert mediapy.read_image(tmp_path / "material_0.png").shape == (64, 64, 3)
        check_mesh(tmp_path / "mesh.obj")


def test_export_tsdf(trained: Path, tmp_path: Path) -> None:
    ExportTSDFMesh(
        trained,
        tmp_path,
        downscale_factor=1,
        # Outside of what the cameras see, nerfstudio takes space for solid.
        bounding_box_min=(-0.5, -0.5, -0.5),
        bounding_box_max=(0.5, 0.5, 0.5),
        resolution=[32, 32, 32],
        num_pixels_per_side=64,
        target_num_faces=500,
    ).main()
    check_mesh(tmp_path / "tsdf_mesh.ply")
    check_mesh(tmp_path / "mesh.obj")


def check_mesh(path: Path) -> None:
    """A mesh around the middle of the box, not far outside of it."""
    mesh = trimesh.load(path, force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) > 50
    low, high = mesh.bounds
    assert (low < 0).all()
    assert (high > 0).all()
    assert (np.abs(mesh.bounds) < HALF_BOX + 0.1).all()


def test_export_cameras(trained: Path, tmp_path: Path) -> None:
    ExportCameraPoses(trained, tmp_path).main()
    frames = json.loads((tmp_path / "transforms_train.json").read_text())
    poses = np.array([frame["transform"] for frame in frames])
    expected = labels_to_cameras(torch.tensor(labels(CAMERAS)), SIDE, SIDE).camera_to_worlds
    np.testing.assert_allclose(poses, expected.numpy(), atol=1e-5)
    assert json.loads((tmp_path / "transforms_eval.json").read_text())


def test_viewer_listens_on_this_machine_alone(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[ViewerConfig] = []

    def start(config: TrainerConfig, pipeline: Pipeline, step: int) -> None:
        started.append(config.viewer)

    monkeypatch.setattr(run_viewer, "_start_viewer", start)
    words = ["--load-config", str(trained), "--viewer.websocket-port", "7321"]
    monkeypatch.setattr(sys, "argv", ["ns-viewer", *words])
    run_viewer.entrypoint()
    (viewer,) = started
    assert (viewer.websocket_host, viewer.websocket_port) == ("127.0.0.1", 7321)


@pytest.mark.slow
def test_export_as_its_own_process(trained: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "ns-export"), "cameras"]
    options = ["--load-config", str(trained), "--output-dir", str(tmp_path / "poses")]
    finished = subprocess.run(
        command + options, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
    assert (tmp_path / "poses" / "transforms_train.json").is_file()
