"""The command `gan3d`: which function an option reaches, and what a user sees of an error."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nerfstudio_gan3d import cli
from nerfstudio_gan3d.export.options import MeshOptions, SampleOptions

CONFIG = "outputs/run/config.yml"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """Replaces the implementations by functions that note their arguments."""
    noted: list[tuple[str, Any, Any]] = []

    def replace(module_name: str, *functions: str) -> None:
        module = ModuleType(module_name)
        for name in functions:

            def note(*args: Any, _name: str = name, **kwargs: Any) -> str:
                noted.append((_name, args, kwargs))
                return f"did {_name}"

            setattr(module, name, note)
        monkeypatch.setitem(sys.modules, module_name, module)

    replace("nerfstudio_gan3d.data.commands", "data_check", "data_cars64")
    replace("nerfstudio_gan3d.pretrained", "unpack")
    replace("nerfstudio_gan3d.demo", "demo")
    replace("nerfstudio_gan3d.export.commands", "mesh", "sample")
    return noted


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "data check faces.zip",
            ("data_check", (Path("faces.zip"),), {"histogram": None, "num_classes": None}),
        ),
        (
            "data check faces --histogram poses.png --num-classes 19",
            (
                "data_check",
                (Path("faces"),),
                {"histogram": Path("poses.png"), "num_classes": 19},
            ),
        ),
        ("data cars64 cars", ("data_cars64", (Path("cars"),), {})),
        ("pretrained ballgan-cars64 model", ("unpack", ("ballgan-cars64", Path("model")), {})),
        (
            "demo",
            ("demo", (), {"minutes": 10.0, "output": Path("outputs/demo"), "port": 7007}),
        ),
        (
            "demo --minutes 0.5 --output here --port 8000",
            ("demo", (), {"minutes": 0.5, "output": Path("here"), "port": 8000}),
        ),
        (
            f"mesh --load-config {CONFIG} --output car.glb --level 12.5 --color none "
            "--largest-component --seed 4 --truncation 0.7 --resolution 96",
            (
                "mesh",
                (
                    MeshOptions(
                        load_config=Path(CONFIG),
                        output=Path("car.glb"),
                        seed=4,
                        truncation=0.7,
                        resolution=96,
                        level=12.5,
                        color="none",
                        largest_component=True,
                    ),
                ),
                {},
            ),
        ),
        (
            f"sample --load-config {CONFIG} --output turn.mp4 --seeds 3,5-6 --views 48 --turntable "
            "--outputs rgb,foreground,depth",
            (
                "sample",
                (
                    SampleOptions(
                        load_config=Path(CONFIG),
                        output=Path("turn.mp4"),
                        seeds="3,5-6",
                        views=48,
                        turntable=True,
                        outputs="rgb,foreground,depth",
                    ),
                ),
                {},
            ),
        ),
        (
            f"sample --load-config {CONFIG} --output a.mp4 --inputs 0-2 --images 9 --input-file "
            f"{__file__} --input-azimuth -90 --interpolate labels",
            (
                "sample",
                (
                    SampleOptions(
                        load_config=Path(CONFIG),
                        output=Path("a.mp4"),
                        inputs="0-2",
                        images="9",
                        input=Path(__file__),
                        input_azimuth=-90.0,
                        interpolate="labels",
                    ),
                ),
                {},
            ),
        ),
        (
            f"mesh --load-config {CONFIG} --output a.ply --color labels --input 4",
            (
                "mesh",
                (
                    MeshOptions(
                        load_config=Path(CONFIG),
                        output=Path("a.ply"),
                        color="labels",
                        input=4,
                    ),
                ),
                {},
            ),
        ),
    ],
)
def test_options_reach_their_function(
    words: str,
    expected: tuple[str, Any, Any],
    calls: list[tuple[str, Any, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(words.split()) == 0
    assert calls == [expected]
    assert capsys.readouterr().out == f"did {expected[0]}\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("demo --minutes 0", "--minutes is 0.0"),
        ("demo --minutes nan", "--minutes is nan"),
        ("demo --port 70000", "--port is 70000"),
        ("data check faces --num-classes 0", "--num-classes is 0"),
        (f"mesh --load-config {CONFIG} --output car.stl", "car.stl"),
        (f"mesh --load-config {CONFIG} --output car.ply --level -1", "--level is -1.0"),
        (f"mesh --load-config {CONFIG} --output car.ply --resolution 4", "--resolution is 4"),
        (f"mesh --load-config {CONFIG} --output car.ply --truncation 3", "--truncation is 3.0"),
        (f"sample --load-config {CONFIG} --output a --seeds 5-2", "5-2"),
        (f"sample --load-config {CONFIG} --output a --outputs rgb,colour", "'colour'"),
        (f"sample --load-config {CONFIG} --output a --views 0", "--views is 0"),
        (f"sample --load-config {CONFIG} --output a.mp4", ".mp4 and .gif go with --turntable"),
        (
            f"sample --load-config {CONFIG} --output a.png --interpolate appearance",
            ".png goes without --interpolate",
        ),
        (f"sample --load-config {CONFIG} --output a --inputs 0-16", "--inputs has 16"),
        (f"sample --load-config {CONFIG} --output a --inputs 1,x", "'x' is neither a number"),
        (f"sample --load-config {CONFIG} --output a --images 9-2", "--images has the range 9-2"),
        (f"sample --load-config {CONFIG} --output a --input no.png", "--input is no.png"),
        (
            f"sample --load-config {CONFIG} --output a --input {__file__} --input-azimuth 361",
            "--input-azimuth is 361.0; it must lie between -360 and 360",
        ),
        (
            f"sample --load-config {CONFIG} --output a --input {__file__} --input-elevation nan",
            "--input-elevation is nan",
        ),
        (
            f"sample --load-config {CONFIG} --output a --input-elevation 10",
            "says where --input is seen from; give that file",
        ),
        (f"sample --load-config {CONFIG} --output a --mix-seed 3", "--mix-seed without --mix-lev"),
        (f"sample --load-config {CONFIG} --output a --mix-levels 3", "--mix-levels without --mix"),
        (
            f"sample --load-config {CONFIG} --output a --mix-seed 1 --mix-levels 0-99",
            "--mix-levels is '0-99'; at most 64",
        ),
        (
            f"sample --load-config {CONFIG} --output a --mix-seed -1 --mix-levels 2",
            "--mix-seed is -1",
        ),
        (
            f"sample --load-config {CONFIG} --output a.mp4 --interpolate labels --inputs 3",
            "needs at least two label maps",
        ),
        (
            f"sample --load-config {CONFIG} --output a.mp4 --interpolate appearance --seeds 3",
            "needs at least two seeds",
        ),
        (
            f"sample --load-config {CONFIG} --output a.mp4 --interpolate appearance --views 1",
            "--views is 1; with --interpolate",
        ),
        (
            f"sample --load-config {CONFIG} --output a --interpolate appearance",
            "--output is a; with --interpolate",
        ),
        (
            f"sample --load-config {CONFIG} --output a.mp4 --interpolate appearance --mix-seed 1 "
            "--mix-levels 1",
            "--interpolate and --mix-seed: choose one",
        ),
        (f"mesh --load-config {CONFIG} --output a.ply --input 16", "--input has 16"),
        (f"mesh --load-config {CONFIG} --output a.ply --input -1", "--input has -1"),
        (f"mesh --load-config {CONFIG} --output a.ply --input-file no.png", "--input-file is no"),
        (
            f"mesh --load-config {CONFIG} --output a.ply --input 1 --input-file {__file__}",
            "--input and --input-file: choose one",
        ),
        (
            f"mesh --load-config {CONFIG} --output a.ply --input 1 --input-azimuth 5",
            "says where --input-file is seen from",
        ),
    ],
)
def test_impossible_values_are_refused_in_one_line(
    words: str,
    named: str,
    calls: list[tuple[str, Any, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(words.split()) == 2
    assert calls == []
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("gan3d: ")
    assert named in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a.png is\nnot square."), "gan3d: a.png is not square."),
        (
            FileNotFoundError(2, "No such file or directory", "a/dataset.json"),
            "gan3d: a/dataset.json: no such file or directory",
        ),
        (PermissionError(13, "Permission denied", "out"), "gan3d: out: permission denied"),
        (FileNotFoundError("no checkpoint in a"), "gan3d: no checkpoint in a"),
    ],
)
def test_errors_of_users_become_a_sentence(
    error: Exception,
    line: str,
    calls: list[tuple[str, Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(sys.modules["nerfstudio_gan3d.data.commands"], "data_check", fail)
    assert cli.main(["data", "check", "a"]) == 2
    assert capsys.readouterr().err == f"{line}\n"


def test_a_defect_keeps_its_traceback(
    calls: list[tuple[str, Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise KeyError("a defect")

    monkeypatch.setattr(sys.modules["nerfstudio_gan3d.data.commands"], "data_check", fail)
    with pytest.raises(KeyError, match="a defect"):
        cli.main(["data", "check", "a"])


@pytest.mark.parametrize("words", [[], ["data"], ["paint"], ["mesh", "--output", "a.ply"]])
def test_incomplete_commands_exit_with_two(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2


def test_help_is_fast_and_light() -> None:
    code = (
        "import json, sys, nerfstudio_gan3d.cli as cli\n"
        "try:\n    cli.main(['mesh', '--help'])\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    exit_code, modules = json.loads(output.stdout.splitlines()[-1])
    assert exit_code == 0
    assert "--largest-component" in output.stdout
    assert not {"torch", "numpy", "nerfstudio", "PIL", "trimesh"} & set(modules)
