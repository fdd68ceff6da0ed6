"""The command that a record names."""

import shlex
from pathlib import Path

import tyro
from tyro.conf import OmitArgPrefixes

from nerfstudio_gan3d.cli_options import EvaluateOptions
from nerfstudio_gan3d.export.reconstruct_options import ReconstructOptions
from nerfstudio_gan3d.export.record import command_line


def test_a_recorded_command_gives_the_same_options() -> None:
    """Positional values, switches that are off, several values, spaces."""
    for name, options in (
        (
            "reconstruct",
            ReconstructOptions(
                load_config=Path("r/config.yml"),
                output=Path("out"),
                image=Path("a b.jpg"),
                run=False,
            ),
        ),
        (
            "evaluate",
            EvaluateOptions(
                Path("c.yml"), evaluator=Path("e.pt"), evaluator_outputs=("features", "logits")
            ),
        ),
    ):
        words = shlex.split(command_line(name, options))
        assert words[:2] == ["gan3d", name]
        assert tyro.cli(type(options), args=words[2:], config=(OmitArgPrefixes,)) == options
    assert "'a b.jpg' --load-config r/config.yml" in command_line(
        "reconstruct",
        ReconstructOptions(
            load_config=Path("r/config.yml"), output=Path("o"), image=Path("a b.jpg")
        ),
    )
