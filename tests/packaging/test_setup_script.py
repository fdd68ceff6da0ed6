"""scripts/setup.sh on made-up machines, whose PATH holds stand-ins for apt and Python."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.packaging.project import ROOT

TOOLS = [
    "bash",
    "cat",
    "cp",
    "dirname",
    "env",
    "flock",
    "head",
    "mkdir",
    "rm",
    "sha256sum",
    "touch",
]
PACKAGES = ["libusb-1.0-0", "libegl1", "libgl1", "ffmpeg"]

PYTHON = """#!/usr/bin/env bash
case "$*" in
  -) cat >/dev/null; echo "${STATE:-ready}" ;;
  "- build") cat >/dev/null; echo "${LACKS:-}" ;;
  -c*) echo 3.11 ;;
  --version) echo Python 3.11.2 ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip install "*) echo "${PYTHONPATH-none} $*" >>"$LOG"; exit "${PIP_CODE:-0}" ;;
  *) exit 64 ;;
esac
"""
DPKG_QUERY = """#!/usr/bin/env bash
while IFS= read -r name; do [[ $name == "${!#}" ]] && printf installed; done <"$INSTALLED"
exit 0
"""
APT_GET = """#!/usr/bin/env bash
echo "apt-get $*" >>"$LOG"
[[ $1 == install ]] || exit 0
for word in "${@:2}"; do [[ $word == -* ]] || echo "$word" >>"$INSTALLED"; done
"""


@dataclass
class Machine:
    """A folder with a copy of the script, and the programs that it finds."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree = self.folder / "my projects" / "gan3d"
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        (self.tree / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup.sh", self.tree / "scripts")
        shutil.copy(ROOT / "pyproject.toml", self.tree)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)
        self.log.touch()
        self.installed.write_text("".join(f"{name}\n" for name in PACKAGES))
        self.add("id", "#!/usr/bin/env bash\necho 1000\n")
        self.add("python3.11", PYTHON)
        self.add("dpkg-query", DPKG_QUERY)
        self.add("apt-get", APT_GET)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def installed(self) -> Path:
        return self.folder / "installed"

    def add(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": str(self.bin), "LOG": str(self.log), "INSTALLED": str(self.installed)}
        return subprocess.run(
            [str(self.bin / "bash"), "scripts/setup.sh"],
            cwd=self.tree,
            env=variables | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[str]:
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_installs_once(machine: Machine) -> None:
    assert machine.setup().returncode == 0
    (call,) = machine.calls()
    assert "torch==2.7.1 torchvision==0.22.1 --editable .[dev]" in call
    second = machine.setup()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert machine.calls() == []


def test_a_changed_project_file_is_installed_again_in_place(machine: Machine) -> None:
    machine.setup()
    machine.calls()
    (machine.tree / ".venv" / "kept").touch()
    with (machine.tree / "pyproject.toml").open("a") as file:
        file.write("\n")
    assert machine.setup().returncode == 0
    assert len(machine.calls()) == 1
    assert (machine.tree / ".venv" / "kept").exists()


def test_an_interrupted_set_up_starts_anew(machine: Machine) -> None:
    machine.add("python3.11", PYTHON.replace('exit "${PIP_CODE:-0}"', 'kill -KILL "$PPID"'))
    assert machine.setup().returncode != 0
    (machine.tree / ".venv" / "half").touch()
    machine.add("python3.11", PYTHON)
    machine.calls()
    result = machine.setup()
    assert result.returncode == 0
    assert "unfinished" in result.stdout
    assert not (machine.tree / ".venv" / "half").exists()
    assert len(machine.calls()) == 1


def test_a_failing_pip_stops_and_is_repeated(machine: Machine) -> None:
    failed = machine.setup(PIP_CODE="1")
    assert failed.returncode == 1
    assert "pip could not install" in failed.stderr
    machine.calls()
    assert machine.setup().returncode == 0
    assert len(machine.calls()) == 1


def test_a_moved_folder_gets_a_new_environment(machine: Machine) -> None:
    machine.setup()
    machine.calls()
    (machine.tree / ".venv" / "old").touch()
    machine.tree = machine.tree.rename(machine.folder / "moved")
    assert machine.setup().returncode == 0
    assert len(machine.calls()) == 1
    assert not (machine.tree / ".venv" / "old").exists()


def test_missing_packages_are_named_when_they_may_not_be_installed(machine: Machine) -> None:
    machine.installed.write_text("libgl1\n")
    result = machine.setup()
    assert result.returncode == 1
    line = "sudo apt-get install -y --no-install-recommends libusb-1.0-0 libegl1 ffmpeg"
    assert line in result.stderr.splitlines()[-1]
    assert machine.calls() == []
    assert not (machine.tree / ".venv").exists()


@pytest.mark.parametrize("who", ["root", "sudo"])
def test_missing_packages_are_installed_when_they_may_be(machine: Machine, who: str) -> None:
    machine.installed.write_text("libgl1\n")
    if who == "root":
        machine.add("id", "#!/usr/bin/env bash\necho 0\n")
    else:
        machine.add("sudo", '#!/usr/bin/env bash\n[[ $2 == true ]] || "${@:2}"\n')
        (machine.bin / "true").symlink_to(shutil.which("true") or "")
    assert machine.setup().returncode == 0
    update, install, pip = machine.calls()
    assert update == "apt-get update -q"
    assert install.endswith("--no-install-recommends libusb-1.0-0 libegl1 ffmpeg")
    assert "pip install" in pip


@pytest.mark.parametrize(
    ("state", "packages"),
    [
        ({"STATE": "no-venv"}, "python3.11-venv"),
        ({"LACKS": "compiler headers"}, "gcc libc6-dev python3.11-dev"),
        ({"LACKS": "headers", "STATE": "no-venv"}, "python3.11-venv python3.11-dev"),
    ],
)
def test_what_python_lacks_is_named(machine: Machine, state: dict[str, str], packages: str) -> None:
    result = machine.setup(**state)
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith(f"--no-install-recommends {packages}")
    assert machine.calls() == []


def test_a_machine_without_python_is_told_what_to_install(machine: Machine) -> None:
    (machine.bin / "python3.11").unlink()
    result = machine.setup()
    assert result.returncode == 1
    assert (
        "install -y --no-install-recommends python3 python3-venv python3-dev gcc" in result.stderr
    )


def test_other_systems_are_told_what_is_missing(machine: Machine) -> None:
    (machine.bin / "dpkg-query").unlink()
    result = machine.setup(LACKS="headers")
    assert result.returncode == 1
    assert "lacks what nerfstudio needs: ffmpeg headers" in result.stderr
    machine.add("ffmpeg", "#!/usr/bin/env bash\n")
    assert machine.setup().returncode == 0


@pytest.mark.parametrize("state", ["unsupported", "absent"])
def test_no_usable_python_is_said(machine: Machine, state: str) -> None:
    (machine.bin / "python3").symlink_to("python3.11")
    result = machine.setup(STATE=state)
    assert result.returncode == 1
    assert "no Python 3.10, 3.11 or 3.12" in result.stderr


def test_another_environment_is_ignored(machine: Machine) -> None:
    other = machine.folder / "other"
    result = machine.setup(PYTHONPATH=str(other), VIRTUAL_ENV=str(other), PIP_TARGET=str(other))
    assert result.returncode == 0
    assert machine.calls()[0].startswith("none ")


def test_its_own_activated_environment_is_not_the_interpreter(machine: Machine) -> None:
    machine.setup()
    machine.calls()
    scripts = machine.tree / ".venv" / "bin"
    shutil.copy(scripts / "python", scripts / "python3.11")
    (machine.tree / ".venv" / ".gan3d-unfinished").touch()
    path = f"{scripts}:{scripts}:{os.fspath(machine.bin)}"
    assert machine.setup(PATH=path).returncode == 0
    assert len(machine.calls()) == 1
