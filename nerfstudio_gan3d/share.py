"""One file that holds a trained run, to be handed on, and a viewer for such files.

The file is a bundle (see `pretrained`) with a preview picture, licence and provenance in its
header. Reading one runs none of it.
"""

from __future__ import annotations

import base64
import io
import json
import shlex
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from nerfstudio.scripts.viewer.run_viewer import RunViewer, ViewerConfigWithoutNumRays
from PIL import Image

from nerfstudio_gan3d.export.inputs import takes_images
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.pretrained import (
    ASSETS,
    SUFFIX,
    UnpackedRunConfig,
    bundle,
    bundled_names,
    read_header,
    unpack_file,
)
from nerfstudio_gan3d.run import CONFIG_NAME, Run, load_run
from nerfstudio_gan3d.share_options import PackOptions, ViewOptions
from nerfstudio_gan3d.viewer.settings import gan_viewer_config

PREVIEW_SCENES = 4
PREVIEW_SIDE = 128
"""Side of each of the preview's pictures, pixels."""
PREVIEW_TRUNCATION = 0.7
PREVIEW_AZIMUTH_DEG = 30.0
THUMBNAIL = "modelspec.thumbnail"
"""Where programs that know safetensors files look for a picture, as a data URL."""
DATA_URL = "data:image/png;base64,"


def pack(options: PackOptions) -> str:
    """Writes a run's newest checkpoint into one file; returns a sentence about it.

    Raises:
        ValueError: If the run or the figures cannot be read, or the file cannot be written.
    """
    run = load_run(options.run, device="cpu")
    provenance = {
        "data": _data_name(run),
        "author": options.author,
        "note": options.note,
        "nerfstudio-gan3d": version("nerfstudio-gan3d"),
        "nerfstudio": version("nerfstudio"),
        "torch": torch.__version__,
    }
    metadata = {THUMBNAIL: DATA_URL + base64.b64encode(preview(run)).decode("ascii")}
    written = bundle(
        run,
        options.output,
        options.figures,
        options.licence,
        {name: value for name, value in provenance.items() if value},
        metadata,
    )
    shown = "" if options.licence else " It says nothing of a licence (--licence)."
    return f"{written}.{shown} Look at it with: gan3d view {shlex.quote(str(options.output))}"


def preview(run: Run) -> bytes:
    """A PNG of the first Scenes of a run side by side, as the viewer's first camera sees them."""
    cameras = run.orbit([PREVIEW_AZIMUTH_DEG])
    pictures = []
    for index in range(PREVIEW_SCENES):
        request = SceneRequest(seed=index, truncation=PREVIEW_TRUNCATION)
        if takes_images(run):
            request = SceneRequest(image=index)
        pictures.append(run.render(run.scene(request), cameras, ["rgb"], PREVIEW_SIDE)["rgb"][0])
    row = (torch.cat(pictures, dim=1).clamp(0, 1) * 255).round().byte().cpu().numpy()
    written = io.BytesIO()
    Image.fromarray(row).save(written, "PNG")
    return written.getvalue()


def describe(file: Path) -> str:
    """What a packed file says of itself, one line a fact.

    Raises:
        ValueError: If it is not such a file.
    """
    header = read_header(file)
    facts: dict[str, Any] = {
        "method": f"{header['method']} after {header['images_seen']} images",
        "licence": header["licence"] or "not stated",
        **header.get("provenance", {}),
    }
    figures = header.get("figures")
    if figures:
        facts["figures"] = json.dumps(figures)
    return "\n".join(f"  {name}: {value}" for name, value in facts.items())


def view(options: ViewOptions) -> None:
    """Opens a packed file, or a bundled checkpoint, in the viewer until it is interrupted.

    Raises:
        ValueError: If it is not such a file.
    """
    source = options.file
    if not source.exists() and (ASSETS / f"{source}{SUFFIX}").is_file():
        source = ASSETS / f"{source}{SUFFIX}"
    if not source.is_file():
        raise ValueError(
            f"{source}: not a packed run ({'a folder' if source.is_dir() else 'no such file'}); "
            f"give a file that gan3d pack wrote, or one of {', '.join(bundled_names())}"
        )
    print(f"{source.name}\n{describe(source)}")  # noqa: T201
    with _folder(options.keep) as folder:
        unpack_file(source, folder)
        chosen = gan_viewer_config()
        given = {item.name: getattr(chosen, item.name) for item in fields(chosen)}
        given |= {"websocket_host": options.host, "websocket_port": options.port}
        given["num_rays_per_chunk"] = -1
        RunViewer(folder / CONFIG_NAME, ViewerConfigWithoutNumRays(**given)).main()


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where the run is unpacked: the user's folder, or one that is gone afterwards, also when the
    process is told to end."""
    if keep is not None:
        yield keep
        return

    def end(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with tempfile.TemporaryDirectory(prefix="gan3d-view-") as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


def _data_name(run: Run) -> str:
    """Name of the data set, without the place where it lay; empty where the run does not know."""
    if isinstance(run.config, UnpackedRunConfig):
        # A preset's data set, which need not be that of what was unpacked or imported.
        return ""
    parser = getattr(run.config.pipeline.datamanager, "dataparser", None)
    data = getattr(parser, "data", None)
    return "cars64 (bundled)" if data is None else Path(data).name
