"""The command line that this process was started by, for reports to name what made them."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

_typed: list[str] = []


def remember(arguments: Sequence[str]) -> None:
    """Keeps the arguments of ``sait-deploy`` as the user typed them."""
    _typed[:] = arguments


def command_line() -> str | None:
    """Returns the command as it can be typed again, the home folder written as ``~``; None where Python called."""
    if not _typed:
        return None
    home = ""
    with contextlib.suppress(RuntimeError):  # of a user without a home
        home = str(Path.home()).rstrip(os.sep)  # empty where it is the root of all, as a container's may be
    return " ".join(["sait-deploy", *(_shown(text, home) for text in _typed)])


def _shown(text: str, home: str) -> str:
    """Returns an argument as it is typed; a shell knows no ``~`` in quotes."""
    found = re.fullmatch(rf"(--[\w-]+=)?{re.escape(home + os.sep)}(.+)", text, re.DOTALL) if home else None
    return shlex.quote(text) if found is None else f"{found[1] or ''}~/{shlex.quote(found[2])}"
