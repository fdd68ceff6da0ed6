"""Wheel and source distribution, built from a copy of the tree without a network."""

import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.project import CODE_FOLDERS, LIBRARY, ROOT, own_files, package_of, pyproject

NOT_PACKAGED = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "outputs", "*.egg-info", "node_modules"
)


def build_wheel(source: Path, target: Path) -> Path:
    """Builds the wheel of a source tree with the build tools that are installed here."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A space in the path, because somebody's projects folder has one.
    copy = tmp_path_factory.mktemp("a tree") / "nerfstudio gan3d"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_PACKAGED)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sdist")
    code = "import setuptools.build_meta, sys; setuptools.build_meta.build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", code, str(target)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True)
    (archive,) = target.glob("*.tar.gz")
    return archive


def contents(wheel: Path) -> set[str]:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    return {name for name in names if ".dist-info/" not in name}


def expected_contents() -> set[str]:
    names = {"nerfstudio_gan3d/py.typed"}
    for path in own_files(*CODE_FOLDERS):
        if path.suffix == ".py":
            names.add(f"{package_of(path.parent).replace('.', '/')}/{path.name}")
    for path in own_files("nerfstudio_gan3d/assets"):
        names.add(path.relative_to(ROOT).as_posix())
    return names


def test_wheel_holds_the_library_and_its_assets(wheel: Path) -> None:
    names = contents(wheel)
    assert names == expected_contents()
    assert any(re.fullmatch(r"nerfstudio_gan3d/assets/[^/]+\.zip", name) for name in names)
    assert "nerfstudio_gan3d/method_configs/__init__.py" in names
    assert {name.partition("/")[0] for name in names} == {"nerfstudio_gan3d"}


def test_wheel_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry_file,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(archive.read(entry_file).decode())
    project = pyproject()["project"]
    groups = project["entry-points"] | {"console_scripts": project["scripts"]}
    assert {group: dict(parser[group]) for group in parser.sections()} == groups
    assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "source", filter="data")
    inside = {name.partition("/")[2] for name in names}
    assert {"Makefile", "scripts/setup.sh", "tests/conftest.py", "LICENSE"} <= inside
    (source,) = (tmp_path / "source").iterdir()
    assert contents(build_wheel(source, tmp_path / "wheel")) == contents(wheel)


def test_assets_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in own_files(str(LIBRARY / "assets"))}
    assert sizes
    for name, size in sizes.items():
        limit = 10 if name.endswith(".zip") else 16
        assert size <= limit * 2**20, f"{name} has {size} bytes"
