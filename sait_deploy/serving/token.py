"""The bearer token: read from a file, as a command line is for all to see, and compared in constant time."""

from __future__ import annotations

import hmac
from pathlib import Path

from sait_deploy.errors import InvalidArgument
from sait_deploy.serving.refusals import Refused, Status


def read_token(file: Path | None) -> str | None:
    """Returns the token that a file holds; None for no file.

    Raises:
        InvalidArgument: it cannot be read, or holds no token of one line.
    """
    if file is None:
        return None
    hint = "write one line into it, such as: openssl rand -hex 32"
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the token file {file} cannot be read: {error}", hint) from None
    if not token or len(token.split()) > 1:
        raise InvalidArgument(f"the token file {file} holds no token of one line", hint)
    return token


def check_token(token: str | None, authorization: str | None) -> None:
    """Checks the bearer token of a request, in a time that does not depend on how much of it is right.

    Args:
        token: the server's; None where it has none.
        authorization: the request's header or metadata of that name; None where it is missing.

    Raises:
        Refused: the server has a token, and the request another or none.
    """
    if token is None:
        return
    if not hmac.compare_digest((authorization or "").encode(), f"Bearer {token}".encode()):
        what = "no token" if authorization is None else "another token"
        hint = "send the header Authorization: Bearer TOKEN"
        raise Refused(Status.UNAUTHENTICATED, f"the request bears {what}", hint)
