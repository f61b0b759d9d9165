"""Every error a user can meet: what was wrong, with which value, and what to do next.

Each kind has its own exit code (one shares another's, and says so), so that a script can tell them apart without
reading the message.
"""

from __future__ import annotations

import re
from typing import Final

_CALLS: Final = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*", re.MULTILINE)


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error of others says, or its kind where it says nothing.

    A line that ends in a colon takes the next one with it, and the calls of a traceback are left out.
    """
    said: list[str] = []
    for line in filter(None, map(str.strip, _CALLS.sub("", str(error)).splitlines())):
        said.append(line)
        if not line.endswith(":"):
            break
    return " ".join(said) or type(error).__name__


class SaitError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what is wrong, with the value, in one line.
        hint: what to do next, in one line; empty where nothing helps.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidArgument(SaitError, ValueError):
    """An option or argument has a value that cannot be used."""

    exit_code = 2


class MissingDependency(SaitError):
    """A package or builder that this step needs is not installed."""

    exit_code = 3

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed", f"pip install 'sait-deploy[{extra}]'")


class BuilderUnavailable(SaitError):
    """No TensorRT builder is there. Something has to be installed: it shares the code of MissingDependency."""

    exit_code = 3


class ModelError(SaitError):
    """The model or its weights cannot be used: unknown, unsupported, or not matching each other."""

    exit_code = 4


class NotFinite(ModelError):
    """The model's answer to an image is NaN or infinite.

    Args:
        message: what is not finite, in one line.
        image: the image's number, from 0, in the batch or the list that the message names.
        hint: what to do next.
    """

    def __init__(
        self, message: str, image: int, hint: str = "check the weights and the image for NaN and infinity"
    ) -> None:
        super().__init__(message, hint)
        self.image = image


class ArtifactError(SaitError):
    """An artifact is missing, incomplete, damaged, or not what its manifest says."""

    exit_code = 5


class ParityError(SaitError):
    """The exported graph does not agree with its reference."""

    exit_code = 6


class RuntimeUnavailable(SaitError):
    """The runtime or device asked for is not there, or fell back to another."""

    exit_code = 7


class ImageError(SaitError):
    """An input image or image folder cannot be used."""

    exit_code = 8


class StorageError(SaitError):
    """Something could not be written: no permission, no space, or the place is taken."""

    exit_code = 9


class TargetMissed(SaitError):
    """A measured figure is worse than the limit the user set."""

    exit_code = 10


class EngineError(SaitError):
    """A TensorRT builder refused a graph, failed, or ended without an engine."""

    exit_code = 11


class TrainingError(SaitError):
    """A training cannot begin, go on or resume."""

    exit_code = 12


class ServingError(SaitError):
    """A server, or a job's processes, cannot start or go on."""

    exit_code = 13
