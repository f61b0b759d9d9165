"""HTTP: the Open Inference Protocol, images to classes, metrics and the page, as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sait_deploy.serving.inference import EXTENSIONS, VERSION, TensorSpec, check_version, infer, inputs_of, outputs_of
from sait_deploy.serving.json_form import HEADER_LENGTH, read_request, write_response
from sait_deploy.serving.model import ServedModel
from sait_deploy.serving.pictures import classify
from sait_deploy.serving.refusals import Refused, Status, line, refusal
from sait_deploy.serving.server import Server
from sait_deploy.serving.token import check_token

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")
Handler = Callable[["Request"], Awaitable["Response"]]

OPEN_PATHS: Final = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""What needs no token: the page holds nothing secret, and whoever watches a server's health has none."""

_LOGGER: Final = logging.getLogger("sait_deploy.serving")

_GONE: Final = 499
"""The status that logs show of a request whose client left; nobody receives it."""

_SECURITY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
}


def make_app(server_of: Callable[[], Server], metrics: Callable[[], Awaitable[str]]) -> Starlette:
    """Returns the application.

    Args:
        server_of: returns the server; it is asked at each request, as it may be made after the application.
        metrics: returns what Prometheus reads.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    page = resources.files("sait_deploy.serving").joinpath("page.html").read_text(encoding="utf-8")

    async def show_page(_: Request) -> Response:
        return Response(page, media_type="text/html", headers=_SECURITY)

    async def show_metrics(_: Request) -> Response:
        return PlainTextResponse(await metrics())

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": bool(server_of().models)})

    async def server_metadata(_: Request) -> Response:
        server = server_of()
        document = {"name": "sait-deploy", "version": server.version, "extensions": list(EXTENSIONS)}
        return JSONResponse({**document, "models": list(server.models)})

    async def model_ready(request: Request) -> Response:
        _checked(server_of(), request)
        return JSONResponse({"name": request.path_params["model"], "ready": True})

    async def model_metadata(request: Request) -> Response:
        model = _checked(server_of(), request)
        return JSONResponse(
            {
                "name": model.name,
                "versions": [VERSION],
                "platform": "sait-deploy",
                "inputs": [_described(spec) for spec in inputs_of(model)],
                "outputs": [_described(spec) for spec in outputs_of(model)],
                "parameters": {"points": list(model.manifest.operating_points)},
            }
        )

    async def model_infer(request: Request) -> Response:
        server = server_of()
        model = _checked(server, request)
        body = await read_body(request, server.options.max_body, server.options.time_limit_s)
        version = request.path_params.get("version", "")
        asked = read_request(model, version, body, request.headers.get(HEADER_LENGTH))
        content, length = write_response(await _unless_gone(request, infer(server, asked.request)), asked)
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(length)})

    async def predict(request: Request) -> Response:
        server = server_of()
        body = await read_body(request, server.options.max_body, server.options.time_limit_s)
        return JSONResponse(await _unless_gone(request, classify(server, body, request.query_params)))

    version = "/v2/models/{model}/versions/{version}"
    routes: list[tuple[str, Handler, str]] = [
        ("/", show_page, "GET"),
        ("/metrics", show_metrics, "GET"),
        ("/v1/predict", predict, "POST"),
        ("/v2", server_metadata, "GET"),
        ("/v2/health/live", live, "GET"),
        ("/v2/health/ready", ready, "GET"),
    ]
    for prefix in ("/v2/models/{model}", version):
        routes += [
            (prefix, model_metadata, "GET"),
            (f"{prefix}/ready", model_ready, "GET"),
            (f"{prefix}/infer", model_infer, "POST"),
        ]
    handled = [Route(path, _handled(handler, server_of), methods=[method]) for path, handler, method in routes]
    return Starlette(routes=handled, exception_handlers={404: _no_page, 405: _no_method})


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _checked(server: Server, request: Request) -> ServedModel:
    model = server.model(request.path_params["model"])
    check_version(model, request.path_params.get("version", ""))
    return model


def _handled(handler: Handler, server_of: Callable[[], Server]) -> Handler:
    """Returns a handler that asks for the token and turns errors into the protocol's document."""

    async def handled(request: Request) -> Response:
        from starlette.requests import ClientDisconnect
        from starlette.responses import Response

        try:
            if request.url.path not in OPEN_PATHS:
                check_token(server_of().token, request.headers.get("authorization"))
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except Exception as error:
            refused = refusal(error)
            server_of().observer.refused(refused.status)
            if refused.status is Status.FAILED:
                _LOGGER.exception("a request failed")
            return _refused(refused)

    return handled


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Reads a request's body.

    Raises:
        Refused: it is larger than the limit, compressed, or takes longer than the seconds to arrive.
    """
    too_large = Refused(Status.TOO_LARGE, f"the request is larger than {limit >> 20} MiB", "send fewer images at once")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(Status.INVALID, "the request's body is compressed", "send it as it is")
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Refused(Status.TOO_SLOW, f"the request did not arrive within {seconds:g} s", "send it faster") from None
    return b"".join(parts)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Returns what the work returns; when the client leaves first, the work is dropped.

    Raises:
        ClientDisconnect: the client left.
    """
    from starlette.requests import ClientDisconnect

    async def until_gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(until_gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


def _refused(refused: Refused) -> Response:
    from starlette.responses import Response

    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if refused.status is Status.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    text = json.dumps({"error": line(refused)})
    return Response(text, refused.status.http, headers, "application/json")


async def _no_page(request: Request, _: Exception) -> Response:
    return _refused(Refused(Status.NOT_FOUND, f"there is nothing at {request.url.path}", "see /v2, /v1/predict and /"))


async def _no_method(request: Request, _: Exception) -> Response:
    what = f"{request.url.path} does not take {request.method}"
    return _refused(Refused(Status.INVALID, what, "GET what describes, POST what computes"))
