"""The command line that this process was started by, for reports to name what made them."""

from __future__ import annotations

import contextlib
import os
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
    typed = [shlex.quote(text) for text in _typed]
    with contextlib.suppress(RuntimeError):  # of a user without a home
        home = str(Path.home()).rstrip(os.sep)
        if home:  # a container's may be the root of all
            typed = [text.replace(home + os.sep, "~/") for text in typed]
    return " ".join(["sait-deploy", *typed])
