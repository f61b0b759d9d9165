"""Ctrl-C and SIGTERM end a process in one way, and wait while files are put into their places."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from sait_deploy.system import interrupts
from sait_deploy.system.interrupts import Ended, deferred
from tests.cli.calls import child_environment


@pytest.fixture(autouse=True)
def unwinding() -> Iterator[None]:
    with interrupts.restored():
        interrupts.unwind()
        yield


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_with_the_exit_code_of_shells(number: signal.Signals) -> None:
    with pytest.raises(Ended) as caught:
        os.kill(os.getpid(), number)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.exit_code == 128 + number


def test_a_signal_waits_until_the_outermost_block_ends() -> None:
    done = []
    with pytest.raises(Ended), deferred():
        with deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    with deferred():
        done.append("again")


def test_handlers_are_those_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.restored():
        interrupts.end_at_once()
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.unwind()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["sait_deploy.cli", "sait_deploy.artifacts.manifest", "numpy", "onnx"])
def test_a_signal_while_it_starts_ends_in_a_line(number: signal.Signals, module: str) -> None:
    """As soon as a module has been imported, which Python then reports."""
    command = [sys.executable, "-X", "importtime", "-m", "sait_deploy", "doctor"]
    with subprocess.Popen(command, env=child_environment(), stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.rpartition("|")[2].strip() == module:
                child.send_signal(number)
                break
        said = [line for line in child.stderr.read().splitlines() if not line.startswith("import time:")]
    assert child.returncode == 128 + number, said
    assert list(filter(None, said)) == [interrupts.INTERRUPTED]


def test_a_signal_waits_and_is_taken_on_whatever_takes_its_place() -> None:
    taken: list[set[int]] = []
    thread = threading.Thread(target=lambda: taken.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    with pytest.raises(Ended) as caught, interrupts.sigterm_kept():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # To this thread alone: the process may have others, which take it.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        thread.start()
        thread.join()
    assert caught.value.exit_code == 143
    assert taken == [{signal.SIGTERM}]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_signal_that_other_code_turned_into_an_error_is_raised() -> None:
    with pytest.raises(Ended) as caught, interrupts.not_swallowed():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            raise OSError("a part did not start") from None
    assert caught.value.exit_code == 143
    with pytest.raises(OSError, match="a part"), interrupts.not_swallowed():
        raise OSError("a part did not start")
