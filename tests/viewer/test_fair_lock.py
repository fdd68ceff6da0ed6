"""Training cannot keep the viewer waiting for more than the step that is under way."""

import threading
import time

import pytest

from nerfstudio_gan3d.viewer.fair_lock import FairLock


def wait_for_waiters(lock: FairLock, count: int) -> None:
    """Waits until other threads have queued. Raises TimeoutError."""
    end = time.monotonic() + 30
    while lock.waiting < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{lock.waiting} of {count} threads wait")
        time.sleep(0.001)


def test_a_waiter_is_served_before_who_comes_back_at_once() -> None:
    lock, order = FairLock(), []

    def viewer() -> None:
        with lock:
            order.append("picture")

    thread = threading.Thread(target=viewer)
    with lock:
        thread.start()
        wait_for_waiters(lock, 1)
        order.append("step 1")
    with lock:
        order.append("step 2")
    thread.join()
    assert order == ["step 1", "picture", "step 2"]


def test_one_thread_at_a_time() -> None:
    """Unprotected, the pause between reading and writing would lose most of the additions."""
    lock, total = FairLock(), [0]

    def add() -> None:
        for _ in range(20):
            with lock:
                before = total[0]
                time.sleep(0)
                total[0] = before + 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == [80]


def test_an_error_inside_frees_the_lock() -> None:
    lock = FairLock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock:
        assert lock.waiting == 0


def test_an_interrupted_waiter_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FairLock()

    def interrupted(condition: object, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    with lock:
        monkeypatch.setattr(threading.Condition, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock.__enter__()
        monkeypatch.undo()
        assert lock.waiting == 0
    with lock:
        assert lock.waiting == 0
