"""What ends a command early: Ctrl-C and SIGTERM take one path, and wait while files are put into their places."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

INTERRUPTED: Final = "interrupted: nothing half-written was left"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_deferring = 0
_waiting: int | None = None
_raised: int | None = None


class Ended(KeyboardInterrupt):
    """A signal ends the command; the exit code is that of shells, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def end_at_once() -> None:
    """From here on a signal ends this process with a line: of a process that has nothing to put right."""
    _handle(_leave)


def unwind() -> None:
    """From here on a signal raises ``Ended`` in the main thread."""
    _handle(_raise)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Handles signals as before once the block ends."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Lets a signal wait until the block ends, which is to be short: it is not left half done."""
    global _deferring, _waiting  # noqa: PLW0603 - a process has one state of signals
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
        if not _deferring and _waiting is not None and threading.current_thread() is threading.main_thread():
            number, _waiting = _waiting, None
            raise Ended(number)


@contextlib.contextmanager
def not_swallowed() -> Iterator[None]:
    """Raises ``Ended`` in place of an error of the block after a signal: other code may turn one into the other."""
    global _raised  # noqa: PLW0603 - a process has one state of signals
    _raised = None
    try:
        yield
    except Exception as error:
        if _raised is not None:
            raise Ended(_raised) from error
        raise


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Takes SIGTERM on as before once the block ends, whatever action code in C++ puts in its place meanwhile.

    SIGTERM waits until then, in this thread and in those that the block starts.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handle(handler: Callable[[int, FrameType | None], object]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as of a command that goes on after its terminal
            signal.signal(number, handler)


def _raise(number: int, _: FrameType | None) -> None:
    global _raised, _waiting  # noqa: PLW0603 - a process has one state of signals
    if _deferring:
        _waiting = number
        return
    _raised = number
    raise Ended(number)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)
