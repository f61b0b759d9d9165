"""What Serve's proxy says by itself becomes the protocol's error; what goes through it passes unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the server needs Ray, which brings starlette and has no wheel here")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sait_deploy.serving import http_front
from sait_deploy.serving.http_front import HttpFront, middlewares
from sait_deploy.serving.one_call import ENDED, Replicas, reply
from sait_deploy.serving.refusals import Refused


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """As Serve's proxy where the replica ended."""


def answer(app: Any, path: str = "/v1/predict") -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()  # nothing more comes, and the client stays

    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    asyncio.run(app({"type": "http", "path": path, "method": "POST", "headers": []}, receive, send))
    starts = [message for message in sent if message["type"] == "http.response.start"]
    if not starts:
        return 0, {}, b""
    assert len(starts) == 1 and sent[0] is starts[0]
    headers = {name.decode(): value.decode() for name, value in starts[0]["headers"]}
    return starts[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    ("app", "status", "what"),
    [
        (nothing, 503, "has ended"),
        (PlainTextResponse("Path '/v1/predict' not found.", 404), 503, "starting or ending"),
        (PlainTextResponse("Deployment is unavailable.", 503), 503, "starting or ending"),
        (PlainTextResponse("Request timed out.", 408), 504, "in time"),
    ],
    ids=["replica ended", "no application", "no replica", "timed out"],
)
def test_errors_of_the_proxy_get_the_protocols_form(app: Any, status: int, what: str) -> None:
    found, headers, body = answer(app)
    document = json.loads(body)
    assert (found, list(document), headers["content-type"]) == (status, ["error"], "application/json")
    assert what in document["error"]
    assert ("retry-after" in headers) == (status == 503)


@pytest.mark.parametrize(
    "app",
    [
        JSONResponse({"error": "no model 'x' is served"}, 404),
        JSONResponse({"classes": []}),
        PlainTextResponse("# metrics\n"),
        StreamingResponse(iter([b"a", b"b"]), 200),
    ],
    ids=["the application's 404", "answer", "metrics", "in parts"],
)
def test_what_the_application_answers_passes_unchanged(app: Any) -> None:
    status, headers, body = answer(app)
    assert status == app.status_code
    assert body == (b"ab" if isinstance(app, StreamingResponse) else app.body)
    assert headers == {name.decode(): value.decode() for name, value in app.raw_headers}


def test_serves_own_addresses_are_left_to_it() -> None:
    assert answer(PlainTextResponse("draining", 503), "/-/healthz")[2] == b"draining"


@given(st.lists(st.integers(0, 3 << 20), min_size=1, max_size=6), st.booleans())
def test_a_body_arrives_whole_in_few_pieces(sizes: list[int], leaves: bool) -> None:
    """A client that leaves in between is told to the application instead of the rest."""
    parts = [bytes([i]) * size for i, size in enumerate(sizes)]
    messages = [{"type": "http.request", "body": part, "more_body": i + 1 < len(parts)} for i, part in enumerate(parts)]
    if leaves:
        messages[-1] = {"type": "http.disconnect"}
    pieces: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            pieces.append(message["body"])
            if not message["more_body"]:
                break
        await PlainTextResponse("")(scope, receive, send)

    async def receive() -> Any:
        return messages.pop(0)

    async def send(_: Any) -> None:
        pass

    front = HttpFront(app, Replicas())
    asyncio.run(front({"type": "http", "path": "/", "method": "POST", "headers": []}, receive, send))
    whole = b"".join(parts)
    assert b"".join(pieces) == whole if not leaves else whole.startswith(b"".join(pieces))
    assert len(pieces) <= 1 + len(whole) // (4 << 20)


class InProcess(Replicas):
    """A replica in this process: its application answers what comes to it whole."""

    def __init__(self, refused: Refused | None = None) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self.dropped, self._refused = 0, refused

    async def answer(self, scope: Any, body: bytes) -> Response:
        if self._refused is not None:
            raise self._refused
        try:
            found = await reply(Starlette(routes=[Route("/{path}", self._handler, methods=["POST"])]), scope, body, 1.0)
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        response = Response(found.body, found.status)
        response.raw_headers = found.headers
        return response

    async def _handler(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        if self.bodies[-1] == b"slow":
            await asyncio.sleep(60)
        return JSONResponse({"size": len(self.bodies[-1]), "query": request.url.query}, 201, {"X-One": "1"})


ROUTES: Final = MappingProxyType({"/": "sait-deploy", "/y": "another"})


def through(
    replicas: InProcess,
    parts: list[bytes],
    length: int | None,
    pause: float = 0.0,
    routes: Mapping[str, str] = ROUTES,
) -> tuple[list[Any], bytes]:
    """Sends a body in parts with pauses, then leaves; returns what was sent back, and what went to Serve's proxy."""
    proxied, sent = b"", []

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        nonlocal proxied
        if scope["path"] == "/-/routes":
            await JSONResponse(dict(routes))(scope, receive, send)
            return
        more = True
        while more:
            message = await receive()
            proxied += message["body"]
            more = message["more_body"]
        await JSONResponse({}, 202)(scope, receive, send)

    left = list(parts)

    async def receive() -> Any:
        await asyncio.sleep(pause if left else 0.3)
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "path": "/x", "method": "POST", "query_string": b"a=1", "headers": headers}
    asyncio.run(HttpFront(proxy, replicas)(scope, receive, send))
    return sent, proxied


def test_a_small_body_that_is_there_takes_one_call() -> None:
    replicas = InProcess()
    (start, end), proxied = through(replicas, [b"ab", b"c", b""], 3)
    assert (replicas.bodies, proxied) == ([b"abc"], b"")
    assert (start["status"], dict(start["headers"])[b"x-one"]) == (201, b"1")
    assert json.loads(end["body"]) == {"size": 3, "query": "a=1"}


@pytest.mark.parametrize(
    ("parts", "length", "pause"),
    [([b"ab", b"c"], None, 0.0), ([bytes(5 << 20), b"c"], (5 << 20) + 1, 0.0), ([b"ab", b"c", b"d"], 4, 0.2)],
    ids=["of unknown length", "large", "slow"],
)
def test_other_bodies_go_through_serves_proxy(
    parts: list[bytes], length: int | None, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_front, "_AT_ONCE_SECONDS", 0.3)
    replicas = InProcess()
    sent, proxied = through(replicas, parts, length, pause)
    assert (replicas.bodies, proxied, sent[0]["status"]) == ([], b"".join(parts), 202)


@pytest.mark.parametrize("routes", [{}, {"/": "another"}, {"/": "sait-deploy", "/x": "another"}, {"/x": "sait-deploy"}])
def test_where_the_application_is_not_routed_to_serves_proxy_says_so(routes: dict[str, str]) -> None:
    replicas = InProcess()
    sent, proxied = through(replicas, [b"ab", b"c"], 3, routes=routes)
    assert (replicas.bodies, proxied, sent[0]["status"]) == ([], b"abc", 202)


def test_a_client_that_leaves_gets_nothing_and_its_work_is_dropped() -> None:
    replicas = InProcess()
    assert through(replicas, [b"slow"], 4) == ([], b"")
    assert replicas.dropped == 1


def test_where_the_replica_ended_the_client_is_told_to_try_again() -> None:
    (start, end), _ = through(InProcess(ENDED), [b"ab"], 2)
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"2")
    assert "has ended" in json.loads(end["body"])["error"]
