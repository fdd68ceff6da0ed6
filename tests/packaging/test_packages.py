"""The packages that are listed by hand agree with the disk, and dependencies with the imports."""

import ast
import importlib
import re
import subprocess
import sys

import pytest

from tests.packaging.project import CODE_FOLDERS, LIBRARY, MAPPED, own_files, package_of, pyproject

# Modules whose distribution has another name.
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
# What nerfstudio itself depends on and the library uses through it.
FROM_NERFSTUDIO = {
    "cv2",
    "imageio",
    "matplotlib",
    "mediapy",
    "rich",
    "scipy",
    "tensorboard",
    "torch_fidelity",
    "torchmetrics",
    "torchvision",
    "wandb",
}
# Found at run time where they are installed; nothing on the package index provides them.
OPTIONAL = {"tinycudann"}


def test_packages_equal_disk() -> None:
    folders = {path.parent for path in own_files(*CODE_FOLDERS) if path.suffix == ".py"}
    assert sorted(pyproject()["tool"]["setuptools"]["packages"]) == sorted(map(package_of, folders))


def test_every_package_has_a_docstring_only_init() -> None:
    for folder in {path.parent for path in own_files(*CODE_FOLDERS) if path.suffix == ".py"}:
        tree = ast.parse((folder / "__init__.py").read_text())
        assert ast.get_docstring(tree), folder
        if folder != LIBRARY:
            assert len(tree.body) == 1, f"{folder} imports modules that its users may not need"


def test_the_python_interface_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys, nerfstudio_gan3d\n"
        "from nerfstudio_gan3d import cli_options\n"
        "print('torch' in sys.modules, 'nerfstudio' in sys.modules)\n"
        "print('load' in dir(nerfstudio_gan3d))\n"
        "print(hasattr(nerfstudio_gan3d, 'unload'), 'nerfstudio_gan3d.api' in sys.modules)\n"
        "print(nerfstudio_gan3d.load is __import__('nerfstudio_gan3d.api').api.load)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["False", "False", "True", "False", "False", "True"]


@pytest.mark.parametrize("package", sorted(MAPPED))
def test_mapped_folders_are_linked(package: str) -> None:
    link = LIBRARY / package.rpartition(".")[2]
    assert link.is_symlink()
    assert link.readlink().as_posix() == f"../{link.name}"
    assert pyproject()["tool"]["setuptools"]["package-dir"][package] == link.name
    module = importlib.import_module(package)
    assert module.__name__ == package


def test_imports_are_declared() -> None:
    project = pyproject()["project"]
    extra = project["optional-dependencies"]
    declared = {
        re.split(r"[<>=\[ ;]", requirement)[0].lower()
        for requirement in project["dependencies"] + extra["diffusion"]
    }
    # What an extra brings is tested, too.
    assert set(extra["diffusion"]) <= set(extra["dev"])
    undeclared: dict[str, str] = {}
    for path in own_files(*CODE_FOLDERS):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} has a relative import"
                names = [node.module or ""]
            else:
                continue
            for name in {name.partition(".")[0] for name in names}:
                known = name in sys.stdlib_module_names | FROM_NERFSTUDIO | OPTIONAL
                if not known and name != "nerfstudio_gan3d":
                    distribution = DISTRIBUTIONS.get(name, name).lower().replace("_", "-")
                    if distribution not in declared:
                        undeclared[name] = str(path)
    assert not undeclared


def test_dependencies_have_upper_bounds() -> None:
    project = pyproject()["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        assert "<" in requirement, requirement
    assert project["requires-python"] == ">=3.10,<3.13"
