"""Runs the command line as a user does, counts its imports from when it takes signals on, and sends itself one there.

    python -m tests.hostile.starting IMPORT SIGNAL ARGUMENT...

How many imports there were stands in the file that ``SAIT_IMPORTS`` names, once the command ended. The signal goes to
the process's group where it is SIGINT, as from a terminal.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

IMPORTS: Final = "SAIT_IMPORTS"
"""Environment variable that names the file which has the number of imports."""


def send(process: int, number: int) -> None:
    """Sends a signal to a process that leads its group, as a terminal or another process does."""
    (os.killpg if number == signal.SIGINT else os.kill)(process, number)


def main() -> None:
    """Counts, signals and runs."""
    at, number = int(sys.argv[1]), int(sys.argv[2])
    counter = itertools.count()

    def hook(event: str, _: tuple[Any, ...]) -> None:
        starts = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as Python itself: it has no code of ours yet
        if event == "import" and not starts and next(counter) == at:
            send(os.getpid(), number)

    sys.argv = ["sait-deploy", *sys.argv[3:]]
    sys.addaudithook(hook)
    try:
        from sait_deploy.__main__ import main as command_line

        command_line()
    finally:
        Path(os.environ[IMPORTS]).write_text(str(next(counter)), encoding="ascii")


if __name__ == "__main__":
    main()
