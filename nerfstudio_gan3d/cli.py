"""The command `gan3d`: what nerfstudio's own commands cannot do from a plugin.

Implementations are imported when their sub-command runs, so that `gan3d --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from nerfstudio_gan3d.cli_options import (
    DataCarsOptions,
    DataCheckOptions,
    DataEdgesOptions,
    DemoOptions,
    EvaluateOptions,
    ImportOptions,
    PretrainedOptions,
)
from nerfstudio_gan3d.data.prepare_options import PrepareOptions
from nerfstudio_gan3d.export.options import MeshOptions, SampleOptions
from nerfstudio_gan3d.export.reconstruct_options import GenerateOptions, ReconstructOptions
from nerfstudio_gan3d.export.splat_options import SplatOptions
from nerfstudio_gan3d.share_options import PackOptions, ViewOptions
from nerfstudio_gan3d.terminal import encodable, printable

USER_ERROR = 2
INTERRUPTED = 130


@dataclass
class DataCommand:
    """Data sets: check one, draw edge maps of one, or unpack the bundled cars."""

    command: (
        Annotated[DataCheckOptions, subcommand("check")]
        | Annotated[DataEdgesOptions, subcommand("edges")]
        | Annotated[DataCarsOptions, subcommand("cars64")]
    )


Command = (
    Annotated[DataCommand, subcommand("data")]
    | Annotated[PrepareOptions, subcommand("prepare")]
    | Annotated[PretrainedOptions, subcommand("pretrained")]
    | Annotated[ImportOptions, subcommand("import")]
    | Annotated[DemoOptions, subcommand("demo")]
    | Annotated[SampleOptions, subcommand("sample")]
    | Annotated[MeshOptions, subcommand("mesh")]
    | Annotated[SplatOptions, subcommand("splats")]
    | Annotated[ReconstructOptions, subcommand("reconstruct")]
    | Annotated[GenerateOptions, subcommand("generate")]
    | Annotated[EvaluateOptions, subcommand("evaluate")]
    | Annotated[PackOptions, subcommand("pack")]
    | Annotated[ViewOptions, subcommand("view")]
)


def _data(options: DataCommand) -> str:
    chosen = options.command
    if isinstance(chosen, DataCarsOptions):
        from nerfstudio_gan3d.data.commands import data_cars64

        return data_cars64(chosen.directory)
    chosen.validate()
    if isinstance(chosen, DataEdgesOptions):
        from nerfstudio_gan3d.data.commands import data_edges

        return data_edges(
            chosen.directory,
            chosen.output,
            sigma=chosen.sigma,
            low=chosen.low,
            high=chosen.high,
            foreground_only=chosen.foreground_only,
        )
    from nerfstudio_gan3d.data.commands import data_check

    return data_check(chosen.directory, histogram=chosen.histogram, num_classes=chosen.num_classes)


def _prepare(options: PrepareOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.data.prepare import prepare

    return prepare(options)


def _pretrained(options: PretrainedOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.pretrained import unpack

    return unpack(options.name, options.directory)


def _import(options: ImportOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.snapshots.commands import import_snapshot

    return import_snapshot(options)


def _demo(options: DemoOptions) -> str | None:
    options.validate()
    from nerfstudio_gan3d.demo import demo

    return demo(minutes=options.minutes, output=options.output, port=options.port)


def _sample(options: SampleOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.export.commands import sample

    return sample(options)


def _mesh(options: MeshOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.export.commands import mesh

    return mesh(options)


def _splats(options: SplatOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.export.splat_command import splats

    return splats(options)


def _reconstruct(options: ReconstructOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.export.reconstruct import reconstruct

    return reconstruct(options)


def _generate(options: GenerateOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.export.generate import generate

    return generate(options)


def _evaluate(options: EvaluateOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.metrics.commands import evaluate

    return evaluate(options)


def _pack(options: PackOptions) -> str:
    options.validate()
    from nerfstudio_gan3d.share import pack

    return pack(options)


def _view(options: ViewOptions) -> None:
    options.validate()
    from nerfstudio_gan3d.share import view

    view(options)


_RUN: dict[type, Callable[[Any], str | None]] = {
    DataCommand: _data,
    PrepareOptions: _prepare,
    PretrainedOptions: _pretrained,
    ImportOptions: _import,
    DemoOptions: _demo,
    SampleOptions: _sample,
    MeshOptions: _mesh,
    SplatOptions: _splats,
    ReconstructOptions: _reconstruct,
    GenerateOptions: _generate,
    EvaluateOptions: _evaluate,
    PackOptions: _pack,
    ViewOptions: _view,
}


def _sentence(error: ValueError | OSError) -> str:
    """The message of an error that a user can mend, without error numbers."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `gan3d` and returns its exit code.

    A ValueError is the library's way to report a wrong option or file, and an OSError the
    system's; both become one sentence on stderr and the exit code 2. Any other exception is a
    defect and keeps its traceback.

    Args:
        arguments: Words after `gan3d`; those of the process if None.
    """
    # Importing nerfstudio makes torch start a pool of compiler processes, as heavy as this one.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    try:
        options = tyro.cli(
            Command,  # pyright: ignore[reportArgumentType]
            prog="gan3d",
            description="3D-aware GANs: data sets, demo, samples, meshes, splats and figures.",
            args=arguments,
            config=(OmitArgPrefixes, OmitSubcommandPrefixes),
        )
        message = _RUN[type(options)](options)
    except (ValueError, OSError) as error:
        sentence = printable(_sentence(error), sys.stderr.encoding)
        print(f"gan3d: {sentence}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    except KeyboardInterrupt:
        print("gan3d: interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    if message:
        print(encodable(message, sys.stdout.encoding))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
