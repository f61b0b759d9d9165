"""What each address of the server answers, and how a request's body is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from sait_deploy.serving.inference import EXTENSIONS, VERSION, TensorSpec, check_version, infer, inputs_of, outputs_of
from sait_deploy.serving.json_form import HEADER_LENGTH, read_request, write_response
from sait_deploy.serving.leaving import unless_gone
from sait_deploy.serving.model import ServedModel
from sait_deploy.serving.pictures import classify
from sait_deploy.serving.refusals import Refused, Status
from sait_deploy.serving.server import Server

_LONGEST_LENGTH: Final = 19
"""Digits of a number of bytes at most."""

_SECURITY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
}


class Handlers:
    """One method for each address.

    Args:
        server_of: returns the server; it is asked at each request, as it may be made after the application.
        metrics: returns what Prometheus reads.
    """

    def __init__(self, server_of: Callable[[], Server], metrics: Callable[[], Awaitable[str]]) -> None:
        self._server_of, self._metrics = server_of, metrics
        self._page = resources.files("sait_deploy.serving").joinpath("page.html").read_text(encoding="utf-8")

    async def page(self, _: Request) -> Response:
        """The page for browsers."""
        return Response(self._page, media_type="text/html", headers=_SECURITY)

    async def metrics(self, _: Request) -> Response:
        """What Prometheus reads."""
        return PlainTextResponse(await self._metrics())

    async def live(self, _: Request) -> Response:
        """Whether the process answers."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """Whether models are served."""
        return JSONResponse({"ready": bool(self._server_of().models)})

    async def server_metadata(self, _: Request) -> Response:
        """The server and the names of its models."""
        server = self._server_of()
        document = {"name": "sait-deploy", "version": server.version, "extensions": list(EXTENSIONS)}
        return JSONResponse({**document, "models": list(server.models)})

    async def model_ready(self, request: Request) -> Response:
        """Whether a model is served."""
        self._model(request)
        return JSONResponse({"name": request.path_params["model"], "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        """A model's inputs, outputs and points."""
        model = self._model(request)
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

    async def model_infer(self, request: Request) -> Response:
        """Tensors to tensors."""
        model = self._model(request)
        body = await self._body(request)
        version = request.path_params.get("version", "")
        asked = read_request(model, version, body, request.headers.get(HEADER_LENGTH))
        answer = await unless_gone(request.receive, infer(self._server_of(), asked.request))
        content, length = write_response(answer, asked)
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(length)})

    async def predict(self, request: Request) -> Response:
        """An image file to classes."""
        body = await self._body(request)
        return JSONResponse(await unless_gone(request.receive, classify(self._server_of(), body, request.query_params)))

    def _model(self, request: Request) -> ServedModel:
        model = self._server_of().model(request.path_params["model"])
        check_version(model, request.path_params.get("version", ""))
        return model

    async def _body(self, request: Request) -> bytes:
        options = self._server_of().options
        return await _read_body(request, options.max_body, options.time_limit_s)


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


async def _read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Reads a request's body.

    Raises:
        Refused: it is larger than the limit, compressed, or takes longer than the seconds to arrive.
    """
    too_large = Refused(Status.TOO_LARGE, f"the request is larger than {limit >> 20} MiB", "send fewer images at once")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > _LONGEST_LENGTH or int(length) > limit):
        raise too_large
    if any(coding != "identity" for coding in request.headers.getlist("content-encoding")):
        raise Refused(Status.INVALID, "the request's body is compressed", "send it as it is")
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in _parts(request):
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Refused(Status.TOO_SLOW, f"the request did not arrive within {seconds:g} s", "send it faster") from None
    return b"".join(parts)


async def _parts(request: Request) -> AsyncIterator[bytes]:
    """Yields a body as it arrives.

    Raises:
        ClientDisconnect: the client left; Serve's proxy says so by errors of its own while a body is being sent.
    """
    try:
        async for part in request.stream():
            yield part
    except Exception:
        raise ClientDisconnect from None
