"""Writes small network pickles in the layout of the official repositories."""

import importlib
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CPU = b"X\x03\x00\x00\x00cpu"
CUDA = b"X\x06\x00\x00\x00cuda:0"


def write_snapshot(
    path: Path,
    networks: Mapping[str, Any],
    training_set: Mapping[str, Any] | None = None,
    *,
    cuda: bool = False,
    protocol: int = 4,
) -> Path:
    """Writes a network pickle and returns its path.

    ``networks`` gives a description, or None, for each of the names ``G``, ``D``, ``G_ema`` and
    ``augment_pipe`` (others are written as well). A description is a dictionary with these entries,
    of which only the first is required:

    - ``class_name``: ``"TriPlaneGenerator"`` for a class that carries its own source, or a dotted
      path below ``training`` or ``torch.nn`` for one that is stored by its import path;
    - ``source``: the source that the class carries, "" when left out;
    - ``parameters``, ``buffers``: name to tensor or None;
    - ``non_persistent``: names of buffers that are no part of the state dict;
    - ``modules``: name to description, ``nn.Module`` or None;
    - ``attributes``: name to any other value; a dictionary becomes the official EasyDict.

    One description object under two names is one module in the file. With ``cuda`` every tensor
    says that it lay on the device cuda:0.
    """
    content: dict[str, Any] = {}
    with _official_modules() as official:
        made: dict[int, Any] = {}
        if training_set is not None:
            content["training_set_kwargs"] = official["dnnlib.util"].EasyDict(training_set)
        for name, description in networks.items():
            content[name] = _module(description, official, made)
        with open(path, "wb") as file:
            pickler = _Pickler(file, protocol=protocol)
            pickler.cuda = cuda
            pickler.dump(content)
    return path


def network(mark: Path | None = None) -> dict[str, Any]:
    """A small generator; its source would create the file ``mark`` if it were run."""
    source = f"open({str(mark)!r}, 'w').close()\n" if mark else "import os\n"
    decoder = {
        "class_name": "training.triplane.OSGDecoder",
        "modules": {
            "net": {
                "class_name": "torch.nn.modules.container.Sequential",
                "modules": {
                    "0": {
                        "class_name": "FullyConnectedLayer",
                        "source": source,
                        "parameters": {"weight": torch.randn(3, 2), "bias": None},
                    },
                    "1": nn.Softplus(),
                },
            }
        },
        "attributes": {"hidden_dim": 64},
    }
    constant = [1.0, 2.5, -0.0, float("inf")]
    return {
        "class_name": "TriPlaneGenerator",
        "source": source,
        "parameters": {"const": torch.tensor(constant)},
        "buffers": {"w_avg": torch.arange(4.0), "grid": torch.ones(2), "none": None},
        "non_persistent": ["grid"],
        "modules": {
            "renderer": {
                "class_name": "training.volumetric_rendering.renderer.ImportanceRenderer",
                "attributes": {"plane_axes": torch.eye(3).expand(3, 3, 3).contiguous()},
            },
            "decoder": decoder,
        },
        "attributes": {
            "z_dim": 512,
            "rendering_kwargs": {"box_warp": np.float64(1.5), "axes": [0, 0, 0.2], "kind": "mip"},
            "neural_rendering_resolution": np.int64(64),
            "_last_planes": None,
            "_init_args": (512, "x", {1, 2}),
        },
    }


class _Pickler(pickle.Pickler):
    cuda = False

    def reducer_override(self, obj: Any) -> Any:
        if self.cuda and isinstance(obj, torch.storage.TypedStorage):
            function, (content,) = obj.__reduce__()
            assert content.count(CPU) == 1
            return function, (content.replace(CPU, CUDA),)
        return NotImplemented


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("the official class was asked for")


class _Modules(dict[str, Any]):
    """Stand-ins for the official Python modules, made when they are first named."""

    def __missing__(self, name: str) -> Any:
        parent = name.rpartition(".")[0]
        assert parent or name in ("torch_utils", "dnnlib", "training")
        assert name not in sys.modules
        if parent:
            # An import looks for the outermost package as well.
            self.__getitem__(parent)
        self[name] = sys.modules[name] = ModuleType(name)
        return self[name]

    def put(self, module: str, name: str, value: Any) -> Any:
        value.__module__, value.__qualname__, value.__name__ = module, name, name
        setattr(self[module], name, value)
        return value


@contextmanager
def _official_modules() -> Iterator[_Modules]:
    """The pickler looks up every class that it names, so the official modules exist meanwhile."""
    modules = _Modules()
    try:
        modules.put("dnnlib.util", "EasyDict", type("EasyDict", (dict,), {}))
        modules.put(
            "torch_utils.persistence", "_reconstruct_persistent_obj", _reconstruct_persistent_obj
        )
        yield modules
    finally:
        for name in modules:
            del sys.modules[name]


class _Persistent:
    """An instance of a class that carries its source."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,)


def _module(description: Any, official: _Modules, made: dict[int, Any]) -> Any:
    if description is None or isinstance(description, nn.Module):
        return description
    if id(description) in made:
        return made[id(description)]
    state = dict(nn.Module().__dict__, training=False)
    state["_parameters"] = {
        name: nn.Parameter(value, requires_grad=False) if isinstance(value, Tensor) else value
        for name, value in description.get("parameters", {}).items()
    }
    state["_buffers"] = dict(description.get("buffers", {}))
    state["_non_persistent_buffers_set"] = set(description.get("non_persistent", ()))
    state["_modules"] = {
        name: _module(child, official, made)
        for name, child in description.get("modules", {}).items()
    }
    easy = official["dnnlib.util"].EasyDict
    for name, value in description.get("attributes", {}).items():
        state[name] = easy(value) if type(value) is dict else value
    result = _object(description, state, official)
    made[id(description)] = result
    return result


def _object(description: Mapping[str, Any], state: dict[str, Any], official: _Modules) -> Any:
    module, _, name = description["class_name"].rpartition(".")
    if not module:
        return _Persistent(
            {
                "type": "class",
                "version": 6,
                "module_src": description.get("source", ""),
                "class_name": name,
                "state": state,
            }
        )
    if module.startswith("torch."):
        kind = getattr(importlib.import_module(module), name)
    else:
        kind = getattr(official[module], name, None)
        if kind is None:
            kind = official.put(module, name, type(name, (), {}))
    result = kind.__new__(kind)
    result.__dict__.update(state)
    return result
