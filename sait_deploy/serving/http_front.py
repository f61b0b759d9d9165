"""Around Ray Serve's own proxy for HTTP: its errors in the server's form, and requests in few calls of replicas.

The proxy knows nothing of the Open Inference Protocol. Where a replica ends while it computes a request, the proxy
sends nothing at all, which becomes a plain 500; before the application is there, and while it ends, it says 404 of
every path. All of these are times to try again. And each part in which a body arrives costs a call between processes:
a request whose body is small and there at once takes one call in all, and others pass in large pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sait_deploy.serving.error_response import error_response
from sait_deploy.serving.leaving import unless_gone
from sait_deploy.serving.names import APPLICATION
from sait_deploy.serving.one_call import ENDED, LATE, NOT_SERVED, Replicas, reply
from sait_deploy.serving.refusals import Refused

_PIECE: Final = 4 << 20
"""Bytes of a body that are passed on at once; a request of one image has fewer."""

_OWN_PATHS: Final = "/-/"
"""Serve's health and routes, which load balancers read."""

_ROUTES: Final = f"{_OWN_PATHS}routes"

_AT_ONCE_SECONDS: Final = 1.0
"""What a body may take to arrive for its request to be one call; a replica counts the time of the others."""

_OF_STATUS: Final = {404: NOT_SERVED, 408: LATE}
"""What Serve says by itself, by its status; all else is that no replica takes the request."""


def middlewares() -> list[Middleware]:
    """Returns what Ray Serve puts around its proxy."""
    return [Middleware(HttpFront, replicas=Replicas())]


class HttpFront:
    """An ASGI application around Serve's proxy.

    Args:
        app: the proxy.
        replicas: behind it.
    """

    def __init__(self, app: ASGIApp, replicas: Replicas) -> None:
        self._app, self._replicas = app, replicas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and its answer back, unless the answer is an error of Serve's own or none at all."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN_PATHS):
            await self._app(scope, receive, send)
            return
        body, receive = await _at_once(scope, receive)
        if body is None or not await self._is_served(scope):
            await self._through_proxy(scope, receive, send)
            return
        with contextlib.suppress(ClientDisconnect):
            try:
                response = await unless_gone(receive, self._replicas.answer(scope, body))
            except Refused as error:
                response = error_response(error)
            await response(scope, receive, send)

    async def _is_served(self, scope: Scope) -> bool:
        """Whether Serve routes a request to the application: a call of one that ends would wait for replicas."""
        asked = {**scope, "method": "GET", "path": _ROUTES, "raw_path": _ROUTES.encode(), "query_string": b""}
        answer = await reply(self._app, asked, b"", 0.0)
        if answer.status != HTTPStatus.OK:
            return False
        routes = json.loads(answer.body)
        others = (prefix for prefix in routes if prefix != "/")
        path = f"{scope['path']}/"
        return routes.get("/") == APPLICATION and not any(path.startswith(f"{prefix}/") for prefix in others)

    async def _through_proxy(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, refused = False, ENDED

        async def sending(message: Message) -> None:
            nonlocal started, refused
            if not started and message["type"] == "http.response.start" and _is_of_serve(message):
                refused = _OF_STATUS.get(message["status"], NOT_SERVED)
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


async def _at_once(scope: Scope, receive: Receive) -> tuple[bytes | None, Receive]:
    """Reads a body that is small and there at once.

    Returns:
        The body, None where it is not, and what receives all of the request again.
    """
    length = Headers(scope=scope).get("content-length", "")
    small = length.isdecimal() and len(length) <= len(str(_PIECE)) and int(length) <= _PIECE
    if not (scope["method"] == "POST" and small):
        return None, receive
    messages: list[Message] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_AT_ONCE_SECONDS):
            while not messages or messages[-1].get("more_body", False):
                messages.append(await receive())
    whole = messages and messages[-1]["type"] == "http.request" and not messages[-1].get("more_body", False)
    body = b"".join(message.get("body", b"") for message in messages) if whole else None

    async def receiving() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, receiving


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
