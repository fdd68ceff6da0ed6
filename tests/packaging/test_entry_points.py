"""Every entry point names something that nerfstudio accepts, and importing them costs little."""

import importlib
import json
import subprocess
import sys

import pytest
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.plugins.types import MethodSpecification

from tests.packaging.project import ROOT, pyproject

GROUPS = pyproject()["project"]["entry-points"]
METHODS = GROUPS["nerfstudio.method_configs"]
DATA_PARSERS = GROUPS["nerfstudio.dataparser_configs"]


def resolve(target: str) -> object:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", METHODS)
def test_method_resolves(name: str) -> None:
    specification = resolve(METHODS[name])
    # nerfstudio only warns about another type, and the method is then missing.
    assert isinstance(specification, MethodSpecification)
    assert specification.config.method_name == name
    assert specification.description


@pytest.mark.parametrize("name", DATA_PARSERS)
def test_data_parser_resolves(name: str) -> None:
    specification = resolve(DATA_PARSERS[name])
    assert isinstance(specification, DataParserSpecification)
    assert specification.description


def test_console_script_resolves() -> None:
    assert callable(resolve(pyproject()["project"]["scripts"]["gan3d"]))


def test_entry_points_import_no_further_package() -> None:
    """`ns-train --help` imports every plugin, so ours may only use what nerfstudio has loaded."""
    command = [sys.executable, str(ROOT / "benchmarks" / "import_time.py"), "--runs", "1"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    measured = json.loads(output)
    assert measured["entry_points"] == sorted([*METHODS, *DATA_PARSERS])
    assert measured["new_modules"] > 0
    assert measured["new_packages"] == []
