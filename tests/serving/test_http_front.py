"""What Serve's proxy says by itself becomes the protocol's error; what goes through it passes unchanged."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the server needs Ray, which brings starlette and has no wheel here")

from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from sait_deploy.serving.http_front import middlewares


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

    (middleware,) = middlewares()
    asyncio.run(middleware.cls(app)({"type": "http", "path": "/", "method": "POST", "headers": []}, receive, send))
    whole = b"".join(parts)
    assert b"".join(pieces) == whole if not leaves else whole.startswith(b"".join(pieces))
    assert len(pieces) <= 1 + len(whole) // (4 << 20)
