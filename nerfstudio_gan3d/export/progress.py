"""How far a command is, for people who watch it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def views_bar(total: int) -> Iterator[Callable[[int], None]]:
    """A bar of ``total`` views on stderr that vanishes at the end; whoever renders says how many
    more there are. Nothing is written where stderr is no terminal."""
    console = Console(stderr=True)
    columns = TextColumn("views"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("views", total=total)
        yield lambda views: progress.advance(task, views)
