"""The command `gan3d demo`: train on the bundled cars with a live viewer, then show what came
out."""

from __future__ import annotations

import copy
import os
import shlex
import socket
import sys
from pathlib import Path

from nerfstudio.configs.method_configs import all_methods
from nerfstudio.scripts.train import _set_random_seed
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_gan3d.export.commands import mesh, sample
from nerfstudio_gan3d.export.options import MeshOptions, SampleOptions
from nerfstudio_gan3d.training.trainer import GanTrainerConfig

METHOD = "gan3d-ballgan-tiny"
PORTS_TRIED = 100
STOPPED = (130, 143)
"""Exit codes of a training that saved and stopped on SIGINT or SIGTERM."""
PICTURE_SIZE = 128
"""Side of the pictures in pixels: twice that of the training images; a field has no pixels of its
own."""
TURNTABLE_FRAMES = 72
TRUNCATION = 0.7


def demo(
    minutes: float = 10.0, output: Path = Path("outputs/demo"), port: int = 7007, seed: int = 42
) -> str:
    """Trains `gan3d-ballgan-tiny` on the bundled cars, then writes samples, a turntable and a mesh.

    Training goes the way of ns-train, with nerfstudio's viewer on this machine, and ends with the
    time budget (or with the preset's iterations, if they are done earlier). ``output`` then holds
    ``samples.png``, ``turntable.mp4`` (rgb, foreground and depth side by side), ``car.glb``, and
    the run itself below ``run/``. SIGINT and SIGTERM save a checkpoint, and end the process with
    130 or 143.

    Args:
        minutes: Time budget of training; set-up and the files at the end are not counted.
        output: Folder for everything; files of an earlier demo are replaced, its run is kept.
        port: Where the viewer listens; the next free port if it is taken.
        seed: Of training.

    Returns:
        What was written, and how to open the viewer again.

    Raises:
        ValueError: If no port is free or a file cannot be written.
    """
    config = demo_config(minutes, output, free_port(port), seed)
    chosen = config.viewer.websocket_port
    if chosen != port:
        CONSOLE.print(f"Port {port} is taken; the viewer uses {chosen}.")
    CONSOLE.print(
        f"Training {METHOD} for {minutes:g} minutes. Watch it at http://localhost:{chosen}"
    )
    config_path = train(config)
    CONSOLE.print("Rendering samples, a turntable and a mesh ...")
    written = [
        sample(SampleOptions(config_path, output / "samples.png", seeds="0-15", size=PICTURE_SIZE)),
        sample(
            SampleOptions(
                config_path,
                output / "turntable.mp4",
                seeds="0-1",
                truncation=TRUNCATION,
                views=TURNTABLE_FRAMES,
                turntable=True,
                outputs="rgb,foreground,depth",
                size=PICTURE_SIZE,
            )
        ),
        mesh(
            MeshOptions(
                config_path, output / "car.glb", truncation=TRUNCATION, largest_component=True
            )
        ),
    ]
    return "\n".join([*written, f"Open the viewer again with: {viewer_command(config_path)}"])


def demo_config(minutes: float, output: Path, port: int, seed: int) -> GanTrainerConfig:
    """The registered method's configuration, as ns-train would have it from these options."""
    config = copy.deepcopy(all_methods[METHOD])
    assert isinstance(config, GanTrainerConfig)
    config.output_dir = output.expanduser().absolute()
    config.experiment_name = "run"
    config.max_minutes = minutes
    config.progress = "line"
    config.vis = "viewer"
    config.machine.seed = seed
    config.viewer.websocket_port = port
    config.viewer.quit_on_train_completion = True
    config.set_timestamp()
    return config


def train(config: GanTrainerConfig) -> Path:
    """Trains as ns-train does in one process, and stops the viewer; returns the run's config.yml.

    Raises:
        SystemExit: If a signal stopped the training, after its checkpoint was saved, or if the
            trainer refused the configuration.
    """
    config.save_config()
    config_path = config.get_base_dir() / "config.yml"
    _set_random_seed(config.machine.seed)
    trainer = config.setup(local_rank=0, world_size=1)
    try:
        trainer.setup()
        trainer.train()
    except SystemExit as stop:
        if stop.code in STOPPED:
            models = config.get_checkpoint_dir()
            CONSOLE.print(
                f"Stopped; the checkpoint is kept in {models}. Look at it with "
                f"{viewer_command(config_path)}, or continue with "
                f"{program('ns-train')} {METHOD} --load-dir {shlex.quote(str(models))}",
                soft_wrap=True,
            )
        raise
    trainer.shutdown()
    return config_path


def free_port(wanted: int) -> int:
    """The first port from ``wanted`` on at which nothing listens on this machine.

    Raises:
        ValueError: If there is none among the next hundred.
    """
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a port that a closed connection lingers on is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ValueError(
        f"--port is {wanted}, and neither it nor the {PORTS_TRIED} ports after it are free; "
        "choose another one"
    )


def viewer_command(config_path: Path) -> str:
    """The command line that opens a run in nerfstudio's viewer."""
    return f"{program('ns-viewer')} --load-config {shlex.quote(shown_path(config_path))}"


def program(name: str) -> str:
    """A program of the Python environment that runs this, as a user in this folder can start it."""
    return shlex.quote(shown_path(Path(sys.executable).parent / name))


def shown_path(path: Path) -> str:
    """A path relative to the current folder where it lies below it, else absolute."""
    relative = os.path.relpath(path)
    return str(path.absolute()) if relative.startswith(os.pardir) else relative
