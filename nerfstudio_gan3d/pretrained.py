"""Checkpoints that travel: a generator's weights in half precision with what it takes to open them.

A bundle is a safetensors file: the moving average of the generator, some cameras of its data set,
and a JSON text in the header with method, model settings, progress, figures and licence. Unpacked
it is a run like any other to ns-viewer, ns-render, ns-export, ns-eval and `gan3d`, but not to
ns-train.

    python -m nerfstudio_gan3d.pretrained RUN FILE --figures figures.json
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import tyro
import yaml
from nerfstudio.data.scene_box import SceneBox
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nerfstudio_gan3d.export.files import replaced
from nerfstudio_gan3d.models.gan import GanModelConfig
from nerfstudio_gan3d.run import CONFIG_NAME, MODEL_PREFIX, load_run
from nerfstudio_gan3d.training.checkpoints import (
    check_fits,
    checkpoint_path,
    read_checkpoint,
    save_atomic,
)
from nerfstudio_gan3d.training.trainer import GanTrainerConfig

HEADER = "gan3d"
LICENCE = "Apache-2.0"
GENERATOR = "generator."
DATA = "datamanager."
SMALL = 1024
"""Tensors with fewer elements stay in full precision: they weigh nothing, and biases and means
matter."""


@dataclass
class UnpackedRunConfig(GanTrainerConfig):
    """Configuration of an unpacked bundle, whose files lie in a folder of the user's choice.

    config.yml stores the path of this class.
    """

    folder: Path = Path()
    """Folder with config.yml, absolute."""

    def get_base_dir(self) -> Path:
        """The folder; nerfstudio would derive one from the names of experiment and method."""
        return self.folder


def unpack(name: str, directory: Path) -> str:
    """Unpacks a bundled checkpoint into a run's folder; returns a sentence that says how to open
    it.

    Raises:
        ValueError: If there is no such bundle, or the folder is not empty.
    """
    source = Path(str(files("nerfstudio_gan3d") / "assets" / f"{name}.safetensors"))
    if not source.is_file():
        raise ValueError(f"there is no bundled checkpoint {name!r} in this installation ({source})")
    header = unpack_file(source, directory)
    shown = shlex.quote(str(directory / CONFIG_NAME))
    return (
        f"{directory}: {name}, {header['method']} after {header['images_seen']} images "
        f"({header['licence']}). Look at it with: ns-viewer --load-config {shown}"
    )


def unpack_file(source: Path, directory: Path) -> dict[str, Any]:
    """Writes a run's folder from a bundle: config.yml and one checkpoint; returns the bundle's
    header.

    The checkpoint is a whole model, so that it loads like any other: generator and moving average
    are the bundled weights, and the discriminator is the untrained one of the configuration's seed.
    The entry ``inference_only`` says so, and training refuses to continue from it.

    Raises:
        ValueError: If the folder is not empty, or the file is not a bundle that this version can
            read.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} exists and is not an empty folder; give another one")
    header, tensors = read_bundle(source)
    config = _configuration(source, header, directory.expanduser().absolute())
    generator = _with_prefix(tensors, GENERATOR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.machine.seed)
        settings = config.pipeline.model
        assert isinstance(settings, GanModelConfig)
        box = torch.tensor(settings.field.box) / 2
        model = settings.setup(scene_box=SceneBox(torch.stack([-box, box])), num_train_data=1)
    try:
        check_fits(model.generator, generator)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    model.generator.load_state_dict(generator)
    model.generator_ema.load_state_dict(generator)
    model.objective.images_seen.fill_(header["images_seen"])
    state = {f"{MODEL_PREFIX}{name}": value for name, value in model.state_dict().items()}
    state |= {DATA + name: value for name, value in _with_prefix(tensors, DATA).items()}
    checkpoint = {"step": header["step"], "pipeline": state, "inference_only": True}
    save_atomic(checkpoint, checkpoint_path(config.get_checkpoint_dir(), header["step"]))
    with replaced(config.folder / CONFIG_NAME) as temporary:
        temporary.write_text(yaml.dump(config), encoding="utf-8")
    return header


def read_bundle(source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a bundle; runs no code of the file.

    Raises:
        ValueError: If the file is not a bundle.
    """
    try:
        with safe_open(source, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})[HEADER])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(f"{source}: not a bundled checkpoint ({error})") from error
    return header, tensors


def bundle(
    run: tyro.conf.Positional[Path],
    file: tyro.conf.Positional[Path],
    figures: Path | None = None,
    licence: str = LICENCE,
) -> str:
    """Bundles the newest checkpoint of a run; returns a sentence about the file.

    Args:
        run: Folder of the run, or its config.yml.
        file: The file to write, ending in .safetensors.
        figures: JSON file whose content goes into the header, such as what ns-eval wrote.
        licence: Licence of the weights (SPDX name).

    Raises:
        ValueError: If the run or the figures cannot be read, or the file cannot be written.
    """
    opened = load_run(run, device="cpu")
    saved = read_checkpoint(opened.checkpoint)["pipeline"]
    tensors = {
        GENERATOR + name: _halved(value) for name, value in opened.generator.state_dict().items()
    }
    tensors |= {name: value for name, value in saved.items() if name.startswith(DATA)}
    try:
        measured = None if figures is None else json.loads(figures.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{figures}: not JSON ({error})") from error
    header = {
        "method": opened.config.method_name,
        "step": opened.step,
        "images_seen": opened.images_seen,
        "weights": "moving average of the generator",
        "licence": licence,
        "figures": measured,
        "model": plain_settings(opened.settings),
    }
    content = {name: value.contiguous() for name, value in tensors.items()}
    with replaced(file) as temporary:
        safetensors.torch.save_file(content, temporary, {HEADER: json.dumps(header)})
    size = file.stat().st_size / 1e6
    return f"{file}: {size:.1f} MB, {header['method']} after {header['images_seen']} images"


def plain_settings(settings: Any) -> dict[str, Any]:
    """A configuration as JSON values, without the classes that it is made of."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        if item.name == "_target":
            continue
        value = getattr(settings, item.name)
        found[item.name] = plain_settings(value) if dataclasses.is_dataclass(value) else value
    return found


def apply_settings(settings: Any, values: Mapping[str, Any], place: str = "model") -> None:
    """Sets a configuration's fields to what `plain_settings` gave.

    Raises:
        ValueError: If a field does not exist.
    """
    names = {item.name for item in dataclasses.fields(settings)}
    for name, value in values.items():
        if name not in names:
            raise ValueError(
                f"this version has no setting {place}.{name}; the file was made by another one"
            )
        current = getattr(settings, name)
        if dataclasses.is_dataclass(current) and isinstance(value, dict):
            apply_settings(current, value, f"{place}.{name}")
        else:
            setattr(settings, name, _tuples(value))


def _configuration(source: Path, header: Mapping[str, Any], folder: Path) -> UnpackedRunConfig:
    """The registered method's configuration with the bundle's model settings."""
    points = entry_points(group="nerfstudio.method_configs", name=header["method"])
    if not points:
        raise ValueError(
            f"{source}: made by the method {header['method']!r}, which is not installed"
        )
    preset = next(iter(points)).load().config
    given = {item.name: getattr(preset, item.name) for item in dataclasses.fields(preset)}
    config = copy.deepcopy(UnpackedRunConfig(**{**given, "folder": folder}))
    try:
        apply_settings(config.pipeline.model, header["model"])
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    # Names that the viewer shows; the files' place is `folder`.
    config.experiment_name, config.timestamp = source.stem, "unpacked"
    return config


def _halved(value: Tensor) -> Tensor:
    limit = torch.finfo(torch.float16).max
    if value.is_floating_point() and value.numel() >= SMALL and value.abs().max() < limit:
        return value.half()
    return value


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of one part in full precision, without the part's name."""
    return {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that configurations hold."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.stdout.write(f"{tyro.cli(bundle)}\n")
