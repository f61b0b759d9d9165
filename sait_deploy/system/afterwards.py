"""Ends what a process left running, and removes its folder, however that process ended: a script, and who starts it.

It imports nothing but Python's own modules, as it starts in a process that has no packages.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_POLL_SECONDS: Final = 0.2
_END_SECONDS: Final = 10
_AGAIN_SECONDS: Final = 0.02


@contextlib.contextmanager
def ended_afterwards(folder: Path) -> Iterator[None]:
    """Ends, after the block, processes of this session that write to files in a folder, and then removes the folder.

    Another process does it, as soon as the block or this process ends, by SIGKILL too. Processes in a pipeline, or at
    another terminal, are not of those that write there. Without ``/proc`` no process is found, and none is ended.

    Raises:
        OSError: the other process cannot be started.
    """
    command = [sys.executable, "-I", "-S", __file__, str(folder), str(os.getpid())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", process_group=0
    ):
        yield  # then its standard input is closed, and it is waited for


def _main(folder: str, parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == parent and not select.select([0], [], [], _POLL_SECONDS)[0]:
        pass
    until = time.monotonic() + _END_SECONDS
    while (writers := _writers(folder, {os.getpid(), parent})) and time.monotonic() < until:
        for process in writers:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_AGAIN_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def _writers(folder: str, others: set[int]) -> list[int]:
    """Returns processes of this session, except those others, that have files of a folder open."""
    found, session, place = [], os.getsid(0), Path("/proc")
    for entry in place.iterdir() if place.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):  # it ended since, or is none of ours, or no process
            process = int(entry.name)
            if process in others or os.getsid(process) != session:
                continue
            if any(_target(link).startswith(f"{folder}/") for link in (entry / "fd").iterdir()):
                found.append(process)
    return found


def _target(link: Path) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - many, and sockets and pipes are no paths
    except OSError:  # closed since
        return ""


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
