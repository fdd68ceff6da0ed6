"""Depth and foreground of a photograph by networks of other packages, imported when they are used.

Weights are looked for on this machine first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.hub import check_reach, first_line
from nerfstudio_gan3d.data.prepare_options import DEPTH_MODEL, DepthOutput

KIND = "depth model"
FOLDER = (
    "give --depth-model a folder with the model's config.json, preprocessor_config.json and "
    "model.safetensors"
)
NAME = "give --depth-model the name or the folder of a depth estimation model of transformers"


class DepthEstimator:
    """How far away things are in a photograph, by a depth model of transformers.

    Args:
        model: name on the Hugging Face hub, or a folder with config.json, preprocessor_config.json
            and model.safetensors.
        kind: what the model returns. "disparity" (MiDaS, Depth Anything) is large where things are
            near, "depth" (metric models) where they are far.
        instead: what messages tell a user to do if the model cannot be had; None names the option
            of the commands that chooses another one.

    Raises:
        DataError: the weights are neither here nor within reach, or are those of no depth model.
    """

    def __init__(
        self,
        model: str = DEPTH_MODEL,
        kind: DepthOutput = "disparity",
        *,
        instead: str | None = None,
    ) -> None:
        self.model, self.kind = model, kind
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._processor, self._network = _load_depth_model(model, instead)
        self._network = self._network.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """A map that grows with the distance, on a scale of this image's own: the depth, or the
        disparity with its sign changed.

        Raises:
            DataError: the network returned values that are not finite.
        """
        inputs = self._processor(images=Image.fromarray(image), return_tensors="pt")
        outputs = self._network(**inputs.to(self.device))
        found = outputs.predicted_depth.float().cpu().numpy()[0]  # [h2, w2]
        if not np.isfinite(found).all():
            raise DataError(f"{KIND} {self.model!r}: returned values that are not finite")
        # Pillow's bilinear filter antialiases and, unlike the wider ones, never overshoots.
        height, width = image.shape[:2]
        resized = Image.fromarray(found).resize((width, height), Image.Resampling.BILINEAR)
        return np.array(resized) if self.kind == "depth" else -np.array(resized)


class ForegroundEstimator:
    """Which pixels of a photograph show its subject, by a network of rembg.

    Args:
        model: name of one of rembg's models, or an .onnx file. A file named as one of rembg's
            models is run as that model, and every other as U2-Net.

    Raises:
        DataError: no such model, or its file is neither here nor within reach or is damaged.
    """

    def __init__(self, model: str = "u2net") -> None:
        self.model = model
        self._session = _open_session(model)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Coverage of the foreground, 0 to 1."""
        # A network that sees no foreground at all makes rembg divide by zero.
        with np.errstate(all="ignore"):
            mask = self._session.predict(Image.fromarray(image))[0]
        return np.array(mask.convert("L"), dtype=np.float32) / 255


def _load_depth_model(model: str, instead: str | None) -> tuple[Any, Any]:
    folder = Path(model).expanduser()
    name = str(folder) if folder.is_dir() else model
    try:
        try:
            processor, network, report = _from_pretrained(name, local=True)
        except OSError:
            if folder.is_dir():
                raise
            check_reach(KIND, name, instead or FOLDER)
            processor, network, report = _from_pretrained(name, local=False)
    except DataError:
        raise
    # What a wrong config.json or weight file raises differs from file to file.
    except Exception as error:
        raise DataError(
            f"{KIND} {model!r}: cannot be loaded ({first_line(error)}); {instead or NAME}"
        ) from error
    if report["missing_keys"]:
        raise DataError(
            f"{KIND} {model!r}: its file lacks {len(report['missing_keys'])} weights, such as "
            f"{min(report['missing_keys'])}; give a whole model"
        )
    return processor, network


def _from_pretrained(name: str, local: bool) -> tuple[Any, Any, dict[str, Any]]:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    processor = AutoImageProcessor.from_pretrained(name, local_files_only=local)
    network, report = AutoModelForDepthEstimation.from_pretrained(
        name, local_files_only=local, output_loading_info=True
    )
    return processor, network, report


def _open_session(model: str) -> Any:
    import onnxruntime
    from rembg.sessions import sessions_class

    sessions: dict[str, Any] = {session.name(): session for session in sessions_class}
    path = Path(model).expanduser()
    if path.suffix.lower() == ".onnx":
        if not path.is_file():
            raise DataError(f"{path}: no such file; --background-model is an .onnx file or a name")
        session = sessions.get(path.stem, sessions["u2net"])
        file = path
    else:
        known = sorted(name for name in sessions if _is_plain(name))
        if model not in known:
            raise DataError(
                f"background model {model!r}: give an .onnx file or one of {', '.join(known)}"
            )
        session = sessions[model]
        file = _find_weights(model) or _download(session, model)

    class Local(session):
        """The session with a file of ours, wherever it lies: rembg reads its own folders only."""

        @classmethod
        def download_models(cls, *args: Any, **kwargs: Any) -> str:
            return str(file)

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = torch.get_num_threads()
    try:
        return Local(session.name(), options)
    # onnxruntime's errors are RuntimeErrors, and others for files that are no protocol buffers.
    except Exception as error:
        raise DataError(f"{file}: not a usable ONNX file ({first_line(error)})") from error


def _is_plain(name: str) -> bool:
    """Whether a model of rembg needs nothing but its file and an image."""
    return name.startswith(("u2net", "isnet", "silueta", "birefnet")) and not name.endswith(
        ("_custom", "cloth_seg")
    )


def _weight_folders(name: str) -> list[Path]:
    """Folders in which versions of rembg keep their models."""
    home = os.environ.get
    data = home("XDG_DATA_HOME")
    roots = [home("U2NET_HOME"), home("REMBG_HOME")]
    roots += [f"{data}/rembg", f"{data}/.u2net"] if data else []
    roots += ["~/.u2net", "~/.rembg"]
    given = [Path(root).expanduser() for root in roots if root]
    return [folder for root in given for folder in (root, root / "models" / name)]


def _find_weights(name: str) -> Path | None:
    files = (folder / f"{name}.onnx" for folder in _weight_folders(name))
    return next((file for file in files if file.is_file()), None)


def _download(session: Any, name: str) -> Path:
    try:
        return Path(session.download_models())
    # A missing network, a full disk and a wrong checksum raise errors of three packages.
    except Exception as error:
        raise DataError(
            f"{_weight_folders(name)[0] / f'{name}.onnx'}: not there and cannot be downloaded "
            f"({first_line(error)}); put the file there (rembg's releases on GitHub have it), "
            "give --background-model another .onnx file, or leave out --remove-background"
        ) from error
