"""Signals and user errors: what a process does before it ends, and with which code."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.training.exits import Interrupts, user_errors
from nerfstudio_gan3d.training.optimizers import GanAdamConfig

STUCK = """
import sys, time
from nerfstudio_gan3d.training.exits import Interrupts
with Interrupts() as interrupts:
    print("ready", flush=True)
    while not interrupts.received:
        time.sleep(0.01)
    print("noted", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_noted_and_the_former_handler_comes_back(number: int, code: int) -> None:
    former = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert interrupts.received == 0
        os.kill(os.getpid(), number)
        assert interrupts.received == number
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.received == number
        assert interrupts.exit_code == code
    assert signal.getsignal(number) is former


def test_the_second_interrupt_ends_a_stuck_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "noted\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == -signal.SIGINT


def test_other_threads_install_nothing() -> None:
    former = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with Interrupts() as interrupts:
            seen.append((signal.getsignal(signal.SIGTERM), interrupts.received))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(former, 0)]


def test_an_error_of_the_user_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []
    with pytest.raises(SystemExit) as caught, user_errors(lambda: cleaned.append(True)):
        GanAdamConfig(lr=-1.0).setup([torch.nn.Parameter(torch.ones(1))])
    assert caught.value.code == 2
    assert cleaned == [True]
    assert capsys.readouterr().err == "gan3d: optimizer.lr = -1.0: give a positive number\n"


def test_what_steers_a_terminal_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), user_errors():
        ImageSet(Path("a\x1b[2J"))
    told = capsys.readouterr().err
    assert told.startswith("gan3d: ")
    assert "/a\\x1b[2J: no such file or folder" in told
    assert "\x1b" not in told


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ValueError, match="invalid literal"), user_errors():
        int("x")
    with pytest.raises(TypeError), user_errors():
        GanAdamConfig(lr=0.1).setup(None)  # pyright: ignore[reportArgumentType]
