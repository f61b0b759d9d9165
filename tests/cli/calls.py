"""What a call of the command line leaves, and what one in a process of its own needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Exit code, standard output, standard error without the line that says what to type next, and that line."""

    code: int
    out: str
    err: str
    following: str = ""

    @classmethod
    def of(cls, code: int, out: str, err: str) -> Outcome:
        """Makes one of all that was printed."""
        before, next_line, command = err.rpartition("next: ")
        if next_line and command.count("\n") == 1 and command.endswith("\n"):
            return cls(code, out, before, command.strip())
        return cls(code, out, err)


Sait = Callable[..., Outcome]


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment with changes, and with this checkout before whatever is installed."""
    places = [changes.pop("PYTHONPATH", ""), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **changes, "PYTHONPATH": os.pathsep.join(filter(None, places))}
