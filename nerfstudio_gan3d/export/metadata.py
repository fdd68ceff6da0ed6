"""What a picture's own file says of it: enough to make it again, and no folders of a machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from nerfstudio_gan3d.export.inputs import takes_images
from nerfstudio_gan3d.export.record import command_line
from nerfstudio_gan3d.export.sample_options import SampleOptions
from nerfstudio_gan3d.export.sheets import Row
from nerfstudio_gan3d.run import Run


def picture_text(run: Run, options: SampleOptions, rows: Sequence[Row]) -> dict[str, str]:
    """Keywords and values for the picture that shows these rows.

    The command names files without their folders, and the run as ``RUN/config.yml`` with RUN the
    name of its folder.
    """
    requests = [key for row in rows for cell in row.cells for key in cell.keys]
    text = {
        "Software": "nerfstudio_gan3d",
        "Command": command_line("sample", without_folders(run, options)),
        "Run": run.folder.name,
        "Method": str(run.config.method_name),
        "Checkpoint": run.checkpoint.name,
    }
    if takes_images(run):
        return text
    for keyword, values in (
        ("Seeds", [str(one.seed) for one in requests]),
        ("Truncation", [f"{one.truncation:g}" for one in requests]),
    ):
        text[keyword] = ",".join(dict.fromkeys(values))
    looks = [str(one.appearance_seed) for one in requests if one.appearance_seed is not None]
    if looks:
        text["Appearance seeds"] = ",".join(dict.fromkeys(looks))
    if rows[0].head is not None:
        heads = [row.head.name for row in rows if row.head is not None]
        text["Inputs"] = ",".join(dict.fromkeys(heads))
    return text


def without_folders(run: Run, options: SampleOptions) -> SampleOptions:
    """The same options, with files alone by their names."""
    changed = {
        item.name: Path(value.name)
        for item in dataclasses.fields(options)
        if isinstance(value := getattr(options, item.name), Path)
    }
    given = options.load_config
    name = given.name if given.suffix else "config.yml"
    return dataclasses.replace(options, **(changed | {"load_config": Path(run.folder.name, name)}))


def read_text(file: Path) -> dict[str, str]:
    """What a PNG file says of itself, by keyword."""
    with Image.open(file) as image:
        image.load()
        return {key: str(value) for key, value in image.info.items() if isinstance(value, str)}
