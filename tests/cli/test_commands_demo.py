"""`gan3d demo`: what it trains, what it leaves behind, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mediapy
import pytest
import trimesh

from nerfstudio_gan3d import demo
from nerfstudio_gan3d.cli import main
from nerfstudio_gan3d.run import load_run
from nerfstudio_gan3d.training.trainer import GanTrainer
from tests.training.micro import data_set, micro_config


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo trains a micro GAN on few images, and renders few frames."""
    config = micro_config(data_set(tmp_path / "set"), tmp_path / "outputs")
    config.timestamp = "{timestamp}"
    monkeypatch.setitem(demo.all_methods, demo.METHOD, config)
    monkeypatch.setattr(demo, "TURNTABLE_FRAMES", 3)
    monkeypatch.setattr(demo, "PICTURE_SIZE", 16)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine at which something listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_the_whole_demo(
    small: None, taken: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a folder"
    words = ["demo", "--minutes", "0.05", "--output", str(output), "--port", str(taken)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert f"Port {taken} is taken" in told
    assert "Watch it at http://localhost:" in told
    assert f"http://localhost:{taken}\n" not in told
    assert "iter " in told
    assert "ETA" in told

    (config_path,) = (output / "run" / demo.METHOD).glob("*/config.yml")
    assert f"--load-config '{config_path}'" in told
    run = load_run(config_path)
    assert run.step > 0
    assert run.settings.view_radius == pytest.approx(2.0, abs=1e-3)

    assert mediapy.read_image(output / "samples.png").shape == (4 * 18 - 2, 4 * 18 - 2, 3)
    assert len(mediapy.read_video(output / "turntable.mp4")) == 3
    assert json.loads((output / "turntable.json").read_text())["outputs"] == [
        "rgb",
        "foreground",
        "depth",
    ]
    mesh = trimesh.load(output / "car.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    assert mesh.is_watertight
    # The viewer is stopped: no thread of it keeps the process alive. The data set's readers are
    # idle and end with the interpreter.
    names = {thread.name for thread in threading.enumerate() if not thread.daemon}
    kept = {name for name in names if not name.startswith("gan3d-images")}
    assert kept == {threading.main_thread().name}


def test_ctrl_c_keeps_the_checkpoint_and_says_so(
    small: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = GanTrainer._step

    def interrupted(self: GanTrainer, number: int) -> Any:
        step(self, number)
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(GanTrainer, "_step", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--minutes", "5", "--output", str(tmp_path / "out"), "--port", "7321"])
    assert stop.value.code == 130
    told = capsys.readouterr().out
    (checkpoint,) = (tmp_path / "out").glob("run/*/*/nerfstudio_models/*.ckpt")
    assert checkpoint.name == "step-000000002.ckpt"
    assert f"Stopped; the checkpoint is kept in {checkpoint.parent}" in told
    assert "ns-viewer --load-config" in told
    assert f"ns-train {demo.METHOD} --load-dir {checkpoint.parent}" in told
    assert not (tmp_path / "out" / "samples.png").exists()


def test_the_configuration_is_that_of_ns_train(tmp_path: Path) -> None:
    """Everything but what the demo is about comes from the registered method."""
    config = demo.demo_config(3.0, tmp_path, 7007, 1)
    preset = demo.all_methods[demo.METHOD]
    assert config.pipeline == preset.pipeline
    assert config.optimizers.keys() == preset.optimizers.keys()
    assert config.pipeline.datamanager.data is None
    assert config.viewer.websocket_host == "127.0.0.1"
    assert config.max_minutes == 3.0
    # The registered method itself is left as it was.
    assert not preset.viewer.quit_on_train_completion
    assert preset.timestamp == "{timestamp}"


def test_ports(taken: int) -> None:
    assert demo.free_port(taken) > taken
    with socket.socket() as last:
        last.bind(("127.0.0.1", 65535))
        last.listen()
        with pytest.raises(ValueError, match="--port is 65535"):
            demo.free_port(65535)


def test_paths_are_shown_as_a_user_would_type_them(elsewhere: Path) -> None:
    assert demo.shown_path(elsewhere / "outputs" / "config.yml") == "outputs/config.yml"
    assert demo.shown_path(elsewhere.parent / "a") == str(elsewhere.parent / "a")
    assert demo.viewer_command(elsewhere / "my run" / "config.yml").endswith(
        "ns-viewer --load-config 'my run/config.yml'"
    )
