"""Checkpoints that travel: a generator's weights in half precision with what it takes to open them.

A bundle is a safetensors file: the moving average of the generator, some cameras of its data set
(and label maps, where Scenes are made from them), and a JSON text in the header with method, model
settings, progress, figures and licence. Unpacked it is a run like any other to ns-viewer,
ns-render, ns-export, ns-eval and `gan3d`, but not to ns-train. `gan3d pack` (`share`) writes them.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from nerfstudio.data.scene_box import SceneBox
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nerfstudio_gan3d.export.files import replaced, unwritten
from nerfstudio_gan3d.models.scene_model import SceneModel, SceneModelConfig
from nerfstudio_gan3d.models.settings import apply_settings, plain_settings
from nerfstudio_gan3d.run import CONFIG_NAME, MODEL_PREFIX, Run
from nerfstudio_gan3d.training.checkpoints import (
    check_fits,
    checkpoint_path,
    read_checkpoint,
    save_atomic,
)
from nerfstudio_gan3d.training.trainer import GanTrainerConfig

ASSETS = Path(str(files("nerfstudio_gan3d") / "assets"))
HEADER = "gan3d"
SUFFIX = ".safetensors"
GENERATOR = "generator."
DATA = "datamanager."
LABELS = "label_store."
IMAGES = "image_store."
REQUIRED = ("method", "step", "images_seen", "licence", "model")
"""What a bundle's header has to say."""
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


def bundled_names() -> list[str]:
    """Names of the bundled checkpoints."""
    return sorted(file.stem for file in ASSETS.glob("*.safetensors"))


def unpack(name: str, directory: Path) -> str:
    """Unpacks a bundled checkpoint into a run's folder; returns a sentence that says how to open
    it.

    Raises:
        ValueError: If there is no such bundle, or the folder is not empty.
    """
    source = ASSETS / f"{name}.safetensors"
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
    check_empty(directory)
    header, tensors = read_bundle(source)
    folder = directory.expanduser().absolute()
    config = unpacked_config(source, header["method"], header["model"], folder)
    generator = _with_prefix(tensors, GENERATOR)
    model = fresh_model(config)
    try:
        check_fits(model.generator, generator)
        _load_store(model.label_store, _with_prefix(tensors, LABELS))
        _load_store(model.image_store, _with_prefix(tensors, IMAGES))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    model.generator.load_state_dict(generator)
    model.generator_ema.load_state_dict(generator)
    model.images_seen.fill_(header["images_seen"])
    state = {f"{MODEL_PREFIX}{name}": value for name, value in model.state_dict().items()}
    state |= {DATA + name: value for name, value in _with_prefix(tensors, DATA).items()}
    write_run(config, {"step": header["step"], "pipeline": state, "inference_only": True})
    return header


def read_header(source: Path) -> dict[str, Any]:
    """What a bundle says of itself: method, model settings, progress, figures, licence, provenance.

    Raises:
        ValueError: If the file is not a bundle.
    """
    try:
        with safe_open(source, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})[HEADER])
            return {name: header[name] for name in REQUIRED} | header
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: not a packed run ({_reason(error)})") from error


def read_bundle(source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a bundle; runs no code of the file.

    Raises:
        ValueError: If the file is not a bundle.
    """
    header = read_header(source)
    with safe_open(source, framework="pt") as opened:
        return header, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def bundle(
    run: Run,
    file: Path,
    figures: Path | None = None,
    licence: str = "",
    provenance: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Bundles a run's checkpoint; returns a sentence about the file.

    Args:
        run: The run, on the CPU.
        file: The file to write, ending in .safetensors.
        figures: JSON file whose content goes into the header, such as what ns-eval wrote.
        licence: Licence of the weights (SPDX name); empty if it is not stated.
        provenance: Where the weights come from.
        metadata: Further entries of the file's own header.

    Raises:
        ValueError: If the figures cannot be read, or the file cannot be written.
    """
    saved = read_checkpoint(run.checkpoint)["pipeline"]
    tensors = {
        GENERATOR + name: _halved(value) for name, value in run.generator.state_dict().items()
    }
    tensors |= {name: value for name, value in saved.items() if name.startswith(DATA)}
    for prefix, store in ((LABELS, run.model.label_store), (IMAGES, run.model.image_store)):
        if store is not None:
            tensors |= {prefix + name: value for name, value in store.state_dict().items()}
    try:
        measured = None if figures is None else json.loads(figures.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{figures}: not JSON ({error})") from error
    if isinstance(measured, dict) and "results" in measured:
        # ns-eval writes them beside the place of the checkpoint, which means nothing elsewhere.
        measured = measured["results"]
    header = {
        "method": run.config.method_name,
        "step": run.step,
        "images_seen": run.images_seen,
        "weights": "moving average of the generator",
        "licence": licence,
        "provenance": dict(provenance or {}),
        "figures": measured,
        "model": plain_settings(run.settings),
    }
    content = {name: value.contiguous() for name, value in tensors.items()}
    entries = {**(metadata or {}), HEADER: json.dumps(header)}
    try:
        with replaced(file) as temporary:
            safetensors.torch.save_file(content, temporary, entries)
    except SafetensorError as error:
        raise ValueError(unwritten(file, error)) from error
    size = file.stat().st_size / 1e6
    return f"{file}: {size:.1f} MB, {header['method']} after {header['images_seen']} images"


def unpacked_config(
    source: Path, method: str, settings: Mapping[str, Any], folder: Path
) -> UnpackedRunConfig:
    """A registered method's configuration with the model settings that ``source`` came with.

    Raises:
        ValueError: If the method is not installed, or a setting does not exist.
    """
    points = entry_points(group="nerfstudio.method_configs", name=method)
    if not points:
        raise ValueError(f"{source}: made by the method {method!r}, which is not installed")
    preset = next(iter(points)).load().config
    given = {item.name: getattr(preset, item.name) for item in dataclasses.fields(preset)}
    config = copy.deepcopy(UnpackedRunConfig(**{**given, "folder": folder}))
    # A setting that came later has to be what it was without: its default, not the preset's.
    config.pipeline.model = type(config.pipeline.model)()
    try:
        apply_settings(config.pipeline.model, settings)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    # Names that the viewer shows; the files' place is `folder`.
    config.experiment_name, config.timestamp = source.stem, "unpacked"
    return config


def fresh_model(config: GanTrainerConfig) -> SceneModel[Any, Any, Any]:
    """The untrained model of a configuration; its seed decides, whatever was drawn before."""
    settings = config.pipeline.model
    assert isinstance(settings, SceneModelConfig)
    box = torch.tensor(settings.box) / 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.machine.seed)
        return settings.setup(scene_box=SceneBox(torch.stack([-box, box])), num_train_data=1)


def check_empty(directory: Path) -> None:
    """Raises ValueError if there is anything that a new run would be mixed with."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} exists and is not an empty folder; give another one")


def write_run(config: UnpackedRunConfig, checkpoint: Mapping[str, Any]) -> None:
    """Writes a run's checkpoint and, when it is whole, its config.yml, to a folder that is empty or
    not there yet, and is so again where that fails.

    Raises:
        ValueError: If a file could not be written, as on a full disk.
        OSError: The same, or the folder could not be made.
    """
    folder, inside = config.folder, config.get_checkpoint_dir()
    made = [one for one in (inside, *inside.parents) if not one.exists()]
    file = checkpoint_path(inside, checkpoint["step"])
    try:
        try:
            save_atomic(checkpoint, file)
        except RuntimeError as error:
            # What torch makes of a full disk.
            raise ValueError(unwritten(file, error)) from error
        with replaced(folder / CONFIG_NAME) as temporary:
            temporary.write_text(yaml.dump(config), encoding="utf-8")
    except BaseException:
        # Interrupted or not, half a run does not stay behind.
        file.unlink(missing_ok=True)
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise


def _load_store(store: torch.nn.Module | None, kept: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless these are what a model keeps of a data set, or nothing for one
    without."""
    check_fits(torch.nn.Module() if store is None else store, kept)
    if store is not None:
        store.load_state_dict(kept)


def _halved(value: Tensor) -> Tensor:
    limit = torch.finfo(torch.float16).max
    if value.is_floating_point() and value.numel() >= SMALL and value.abs().max() < limit:
        return value.half()
    return value


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of one part in full precision, without the part's name."""
    return {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
