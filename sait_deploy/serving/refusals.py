"""Why a request gets no answer, with the status that each protocol has for it."""

from __future__ import annotations

from enum import Enum
from typing import Final

from sait_deploy.errors import ImageError, InvalidArgument, NotFinite, SaitError
from sait_deploy.reports.escape import plain, shorten

_LONGEST_LINE: Final = 500
"""Characters of a refusal at most: clients of gRPC take 8 KiB of metadata."""


class Status(Enum):
    """The status of HTTP and the name of gRPC's."""

    INVALID = 400, "INVALID_ARGUMENT"
    UNAUTHENTICATED = 401, "UNAUTHENTICATED"
    NOT_FOUND = 404, "NOT_FOUND"
    TOO_SLOW = 408, "DEADLINE_EXCEEDED"
    TOO_LARGE = 413, "INVALID_ARGUMENT"
    FAILED = 500, "INTERNAL"
    BUSY = 503, "RESOURCE_EXHAUSTED"
    UNAVAILABLE = 503, "UNAVAILABLE"
    LATE = 504, "DEADLINE_EXCEEDED"

    @property
    def http(self) -> int:
        """The number of HTTP's status."""
        return self.value[0]

    @property
    def grpc(self) -> str:
        """The name of gRPC's status."""
        return self.value[1]


class Refused(SaitError):
    """A request that gets no answer.

    Args:
        status: of the protocols.
        message: what is wrong, in one line.
        hint: what to do next, in one line.
        retry_after: seconds after which another try may succeed; None where it would not.
    """

    def __init__(self, status: Status, message: str, hint: str = "", retry_after: int | None = None) -> None:
        super().__init__(message, hint)
        self.status, self.retry_after = status, retry_after


_OF_THE_REQUEST: Final = (InvalidArgument, ImageError, NotFinite)


def refusal(error: Exception) -> Refused:
    """Returns what to tell a client of an error: what the request did wrong, or that the server failed, and no more."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, _OF_THE_REQUEST):
        return Refused(Status.INVALID, error.message, error.hint)
    if isinstance(error, SaitError):
        return Refused(Status.FAILED, error.message, error.hint)
    return Refused(Status.FAILED, f"unexpected {type(error).__name__}", "the server's log has the traceback")


def line(error: SaitError) -> str:
    """Returns an error and its hint in one line that may be shown on a terminal, and sent as metadata."""
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    return shorten(plain(" ".join(text.split())), _LONGEST_LINE)
