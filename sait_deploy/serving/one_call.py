"""A whole request to a replica in one call between processes, and its answer back.

Serve's own way takes four: the request, two by which the replica fetches the body and hears of the client's leaving,
and a stream for the answer. Each costs about a millisecond of a processor, which is then missing for computing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Scope

from sait_deploy.serving.listening import BACKSTOP
from sait_deploy.serving.names import APPLICATION, DEPLOYMENT
from sait_deploy.serving.refusals import Refused, Status

_RETRY_SECONDS: Final = 2
"""A replica takes about so long to be replaced, or to be known as ended."""

NOT_SERVED: Final = Refused(
    Status.UNAVAILABLE, "the server is starting or ending", f"try again in {_RETRY_SECONDS} s", _RETRY_SECONDS
)
ENDED: Final = Refused(
    Status.UNAVAILABLE,
    "the process that computed the request has ended",
    f"try again in {_RETRY_SECONDS} s",
    _RETRY_SECONDS,
)
LATE: Final = Refused(Status.LATE, "no replica answered in time", "try again, or send fewer images at once")

_UNTOLD_SECONDS: Final = 60.0
"""The time limit until a replica has said its own."""

_SCOPE: Final = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "root_path", "query_string")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the application.

    Attributes:
        status: of HTTP.
        headers: as ASGI has them.
        body: whole.
        time_limit_s: of the replica's requests.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    time_limit_s: float


async def reply(app: ASGIApp, scope: Scope, body: bytes, time_limit_s: float) -> Reply:
    """Returns what an application answers to a whole request. Whoever cancels it stands for a client that leaves."""
    arriving: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not arriving:
            await asyncio.Event().wait()
        return arriving.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *parts = sent
    return Reply(start["status"], list(start["headers"]), b"".join(part["body"] for part in parts), time_limit_s)


class Replicas:
    """The replicas, as Serve's proxy reaches them."""

    def __init__(self) -> None:
        self._whole: Any = None
        self._seconds = _UNTOLD_SECONDS

    async def answer(self, scope: Scope, body: bytes) -> Response:
        """Returns the answer to a whole request; cancelled, the replica drops the work.

        Raises:
            Refused: no replica takes it, the one that did ended, or none answers in time.
        """
        from ray.exceptions import RayActorError

        try:
            return await self._ask(scope, body)
        except TimeoutError:
            raise LATE from None
        except RayActorError:
            raise ENDED from None
        except Exception:
            raise NOT_SERVED from None

    async def _ask(self, scope: Scope, body: bytes) -> Response:
        if self._whole is None:
            from ray import serve

            self._whole = (await asyncio.to_thread(serve.get_deployment_handle, DEPLOYMENT, APPLICATION)).whole
        plain = {name: scope[name] for name in _SCOPE if name in scope} | {"headers": list(scope["headers"])}
        answering = self._whole.remote(plain, body)
        try:
            async with asyncio.timeout(BACKSTOP * self._seconds):
                found: Reply = await answering
        except (asyncio.CancelledError, TimeoutError):
            answering.cancel()
            raise
        self._seconds = found.time_limit_s
        response = Response(found.body, found.status)
        response.raw_headers = found.headers
        return response
