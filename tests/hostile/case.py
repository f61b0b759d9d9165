"""What a case is: a command, a change to the files that it reads, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

Change: TypeAlias = Callable[[Path], None]
"""Changes the files of a case's folder, which is a copy of the world's."""


class Verdict(StrEnum):
    """What came of a case."""

    REFUSED = "refused"
    """One line that says why, with an exit code of ``sait_deploy.errors``."""

    ANSWERED = "answered"
    """Exit code 0."""

    UNEXPECTED = "unexpected error"
    CRASHED = "crashed"
    HUNG = "ran for more than 20 s"
    LARGE = "took more than 4 GB"
    RAN_CODE = "ran code of the file"
    ESCAPED = "wrote control characters to the terminal"
    LOOKED_UP = "looked a host up"
    HARMED = "changed the answer to another request"


FINE = (Verdict.REFUSED, Verdict.ANSWERED)


@dataclass(frozen=True)
class Door:
    """A way in.

    Attributes:
        name: of the door.
        arguments: of the command line, in the case's folder.
        file: what is changed, in that folder.
        heavy: whether torch is imported.
    """

    name: str
    arguments: tuple[str, ...]
    file: str
    heavy: bool = False


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: unique.
        kind: of what is wrong.
        door: the way in.
        change: what is wrong.
        harmless: whether the command may answer all the same.
        quick: whether it is among those of each run of the tests.
    """

    name: str
    kind: str
    door: Door
    change: Change
    harmless: bool = False
    quick: bool = False
