"""How a training process ends: signals that ask it to, and errors of the user."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from nerfstudio_gan3d.terminal import printable

USER_ERROR = 2
"""Exit code for settings and files that cannot be used."""


class Interrupts:
    """Notes SIGINT and SIGTERM instead of dying of them, while it is entered.

    A second signal that is SIGINT ends the process at once. Handlers can be installed from the main
    thread alone; elsewhere entering does nothing. The former handlers come back at the end.

    Attributes:
        received: number of the first signal; 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    @property
    def exit_code(self) -> int:
        """128 + number of the signal, as shells report it."""
        return 128 + self.received

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            # Dying of the signal itself needs no thread's help, however stuck the process is.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = self.received or number


@contextmanager
def user_errors(
    clean_up: Callable[[], None] | None = None, kind: type[ValueError] = ValueError
) -> Iterator[None]:
    """Ends the process with one sentence and code 2 where this package raised an error of a kind.

    ValueErrors that were raised elsewhere are not about the user's input, and keep their traceback.
    """
    try:
        yield
    except kind as error:
        if not raised_here(error):
            raise
        if clean_up is not None:
            clean_up()
        sys.stderr.write(f"gan3d: {printable(str(error), sys.stderr.encoding)}\n")
        raise SystemExit(USER_ERROR) from None


def raised_here(error: BaseException) -> bool:
    """Whether a line of this package raised the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    module = str(trace.tb_frame.f_globals.get("__name__"))
    return module.split(".")[0] == __name__.split(".")[0]
