"""Options of `gan3d pack` and `gan3d view`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from nerfstudio_gan3d.export.targets import check_folder, check_target


@dataclass
class PackOptions:
    """Write a trained run into one file, to be handed on and opened with gan3d view."""

    run: Positional[Path]
    """Folder of the run, its config.yml, or one of its checkpoints."""
    output: Path
    """File to write, ending in .safetensors."""
    licence: str = ""
    """Licence of the weights, an SPDX name such as CC-BY-4.0."""
    author: str = ""
    """Who trained it."""
    note: str = ""
    """Anything else that belongs to it, such as where the photographs come from."""
    figures: Path | None = None
    """JSON file whose content goes along, such as what ns-eval wrote."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if self.output.suffix != ".safetensors":
            raise ValueError(
                f"--output is {self.output}; a packed run ends in .safetensors: give such a name."
            )
        check_target("--output", self.output)
        if self.figures is not None and not self.figures.is_file():
            raise ValueError(f"--figures is {self.figures}; there is no such file.")


@dataclass
class ViewOptions:
    """Open a packed run in the viewer; nothing in the file is executed."""

    file: Positional[Path]
    """The packed run, or the name of a bundled checkpoint such as ballgan-cars64."""
    port: int = 7007
    """Port of the viewer."""
    host: str = "127.0.0.1"
    """Address that the viewer answers at: this machine only, or 0.0.0.0 for all networks."""
    keep: Path | None = None
    """Empty folder to leave the unpacked run in; otherwise it is gone afterwards."""

    def validate(self) -> None:
        """Raises ValueError if an option's value is impossible."""
        if not 1 <= self.port <= 65535:
            raise ValueError(f"--port is {self.port}; it must lie between 1 and 65535.")
        if self.keep is not None:
            check_folder("--keep", self.keep)
