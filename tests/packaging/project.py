"""The project's files, as the packaging tests see them."""

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "nerfstudio_gan3d"
CODE_FOLDERS = ("nerfstudio_gan3d", "method_configs", "data_parsers")
MAPPED = {
    "nerfstudio_gan3d.method_configs": ROOT / "method_configs",
    "nerfstudio_gan3d.data_parsers": ROOT / "data_parsers",
}


def pyproject() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def own_files(*folders: str) -> list[Path]:
    """Every file below these folders of the project, caches left out and links not followed."""
    files: list[Path] = []
    pending = [ROOT / folder for folder in folders]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if path.is_symlink() or path.name == "__pycache__":
                continue
            if path.is_dir():
                pending.append(path)
            else:
                files.append(path)
    return files


def package_of(folder: Path) -> str:
    """Name under which the modules of a folder are imported."""
    for package, place in MAPPED.items():
        if folder.is_relative_to(place):
            return ".".join([package, *folder.relative_to(place).parts])
    return ".".join(folder.relative_to(ROOT).parts)
