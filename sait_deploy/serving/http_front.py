"""Around Ray Serve's own proxy for HTTP: its errors in the server's form, and bodies of requests in few pieces.

The proxy knows nothing of the Open Inference Protocol. Where a replica ends while it computes a request, the proxy
sends nothing at all, which becomes a plain 500; before the application is there, and while it ends, it says 404 of
every path. All of these are times to try again. And each part in which a body arrives costs a call between processes.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sait_deploy.serving.error_response import error_response
from sait_deploy.serving.refusals import Refused, Status

_RETRY_SECONDS: Final = 2
"""A replica takes about so long to be replaced, or to be known as ended."""

_PIECE: Final = 4 << 20
"""Bytes of a body that are passed on at once; a request of one image has fewer."""

_OWN_PATHS: Final = "/-/"
"""Serve's health and routes, which load balancers read."""

_NOT_SERVED: Final = Refused(
    Status.UNAVAILABLE, "the server is starting or ending", f"try again in {_RETRY_SECONDS} s", _RETRY_SECONDS
)
_ENDED: Final = Refused(
    Status.UNAVAILABLE,
    "the process that computed the request has ended",
    f"try again in {_RETRY_SECONDS} s",
    _RETRY_SECONDS,
)
_OF_STATUS: Final = {
    404: _NOT_SERVED,
    408: Refused(Status.LATE, "no replica answered in time", "try again, or send fewer images at once"),
}
"""What Serve says by itself, by its status; all else is that no replica takes the request."""


def middlewares() -> list[Middleware]:
    """Returns what Ray Serve puts around its proxy."""
    return [Middleware(HttpFront)]


class HttpFront:
    """An ASGI application around Serve's proxy.

    Args:
        app: the proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and its answer back, unless the answer is an error of Serve's own or none at all."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN_PATHS):
            await self._app(scope, receive, send)
            return
        started, refused = False, _ENDED

        async def sending(message: Message) -> None:
            nonlocal started, refused
            if not started and message["type"] == "http.response.start" and _is_of_serve(message):
                refused = _OF_STATUS.get(message["status"], _NOT_SERVED)
            elif started or message["type"] == "http.response.start":
                started = True
                await send(message)

        await self._app(scope, _in_pieces(receive), sending)
        if not started:
            await error_response(refused)(scope, receive, send)


def _is_of_serve(message: Message) -> bool:
    """Whether an answer is an error of Serve's: they are plain text, and the application's are JSON."""
    plain = Headers(raw=list(message["headers"])).get("content-type", "").startswith("text/plain")
    return plain and int(message["status"]) >= 400


def _in_pieces(receive: Receive) -> Receive:
    """Returns what joins the parts of a body, up to a piece."""

    async def receiving() -> Message:
        parts, size, more = [], 0, True
        while more and size < _PIECE:
            message = await receive()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
        return {"type": "http.request", "body": b"".join(parts), "more_body": more}

    return receiving
