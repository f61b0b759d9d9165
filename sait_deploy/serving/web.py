"""HTTP: the application, its addresses, its token, and the documents of its errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sait_deploy.serving.error_response import error_response
from sait_deploy.serving.refusals import Refused, Status, refusal
from sait_deploy.serving.server import Server
from sait_deploy.serving.token import check_token
from sait_deploy.serving.web_handlers import Handlers

Handler = Callable[[Request], Awaitable[Response]]

OPEN_PATHS: Final = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""What needs no token: the page holds nothing secret, and whoever watches a server's health has none."""

_LOGGER: Final = logging.getLogger("sait_deploy.serving")

_GONE: Final = 499
"""The status that logs show of a request whose client left; nobody receives it."""


def make_app(server_of: Callable[[], Server], metrics: Callable[[], Awaitable[str]]) -> Starlette:
    """Returns the ASGI application: the Open Inference Protocol, images to classes, metrics and the page.

    Args:
        server_of: returns the server; it is asked at each request, as it may be made after the application.
        metrics: returns what Prometheus reads.
    """
    handlers = Handlers(server_of, metrics)
    routes: list[tuple[str, str, Handler]] = [
        ("GET", "/", handlers.page),
        ("GET", "/metrics", handlers.metrics),
        ("POST", "/v1/predict", handlers.predict),
        ("GET", "/v2", handlers.server_metadata),
        ("GET", "/v2/health/live", handlers.live),
        ("GET", "/v2/health/ready", handlers.ready),
    ]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            ("GET", model, handlers.model_metadata),
            ("GET", f"{model}/ready", handlers.model_ready),
            ("POST", f"{model}/infer", handlers.model_infer),
        ]
    handled = [Route(path, _handled(handler, server_of), methods=[method]) for method, path, handler in routes]
    return Starlette(routes=handled, exception_handlers={404: _no_page, 405: _no_method})


def _handled(handler: Handler, server_of: Callable[[], Server]) -> Handler:
    """Returns a handler that asks for the token and turns errors into the protocol's document."""

    async def handled(request: Request) -> Response:
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
            return error_response(refused)

    return handled


async def _no_page(request: Request, _: Exception) -> Response:
    return error_response(
        Refused(Status.NOT_FOUND, f"there is nothing at {request.url.path}", "see /v2, /v1/predict and /")
    )


async def _no_method(request: Request, _: Exception) -> Response:
    what = f"{request.url.path} does not take {request.method}"
    return error_response(Refused(Status.INVALID, what, "GET what describes, POST what computes"))
