"""What a reader of the repository relies on: commands exist, files hold no private paths."""

import re
import subprocess

import pytest

from tests.packaging.project import ROOT, own_files, pyproject

FOLDERS = (
    ".ci",
    "benchmarks",
    "data_parsers",
    "docs",
    "method_configs",
    "nerfstudio_gan3d",
    "scripts",
    "tests",
)
TOP_FILES = ("LICENSE", "MANIFEST.in", "Makefile", "README.md", "pyproject.toml", ".gitignore")


def texts() -> dict[str, str]:
    """Every text file of the project by its path."""
    found = {}
    for path in [*own_files(*FOLDERS), *(ROOT / name for name in TOP_FILES)]:
        try:
            found[path.relative_to(ROOT).as_posix()] = path.read_text()
        except UnicodeDecodeError:
            continue
    return found


def test_no_path_of_a_particular_machine() -> None:
    # Put together here, so that this file does not name one itself. /home/me stands for any reader.
    folders = "|".join(["work", "root", "home", "Users"])
    pattern = re.compile(rf"(?<![\w./}}-])/(?:{folders})/(?!me\b)\w")
    found = {
        name: match.group() for name, text in texts().items() if (match := pattern.search(text))
    }
    assert not found


def test_top_level_folders_are_not_imported_by_their_bare_name() -> None:
    # A second module object would exist, and config.yml stores class paths.
    pattern = re.compile(r"^\s*(?:import|from)\s+(?:method_configs|data_parsers)\b", re.MULTILINE)
    assert not [name for name, text in texts().items() if pattern.search(text)]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_commands_in_the_readme_exist() -> None:
    named = set(re.findall(r"^(?:\$ )?make ([a-z]+)", code_of_readme(), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= make_targets()


def code_of_readme() -> str:
    """Code blocks and inline code of the README."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", text)
    return "\n".join([*blocks, *inline])


def test_methods_in_the_readme_exist() -> None:
    groups = pyproject()["project"]["entry-points"]
    methods = set(groups["nerfstudio.method_configs"])
    named = set(re.findall(r"\bns-train (gan3d-[a-z0-9-]+)", code_of_readme()))
    assert named
    assert named <= methods


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo MINUTES=3 PORT=7010", '.venv/bin/gan3d demo --minutes "3" --port "7010"'),
        ("demo", '.venv/bin/gan3d demo --minutes "10" --port "7007"'),
        ("test", "OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2"),
    ],
)
def test_make_runs_the_set_up_and_then_the_command(target: str, command: str) -> None:
    result = subprocess.run(
        ["make", "--dry-run", *target.split()], cwd=ROOT, check=True, capture_output=True, text=True
    )
    before, found, _ = result.stdout.partition(command)
    assert found, result.stdout
    assert "scripts/setup.sh" in before


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()


def test_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert pyproject()["project"]["license"] == "Apache-2.0"
