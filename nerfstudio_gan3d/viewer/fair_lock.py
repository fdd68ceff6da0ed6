"""A lock that serves its waiters in the order in which they asked."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """Takes turns between training and viewer, as a context manager.

    A `threading.Lock` goes to whoever asks next after it is free. The training loop asks again
    within a millisecond, before a waiting thread has woken up, and so a picture can wait for many
    steps. Here it waits for the step that is under way.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    def __enter__(self) -> FairLock:
        turn = object()
        with self._changed:
            self._queue.append(turn)
            try:
                self._changed.wait_for(lambda: self._queue[0] is turn)
            except BaseException:
                # An interrupted waiter must not keep those behind it from their turns.
                self._queue.remove(turn)
                self._changed.notify_all()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._queue.popleft()
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Threads that wait for their turn."""
        with self._changed:
            return max(len(self._queue) - 1, 0)
