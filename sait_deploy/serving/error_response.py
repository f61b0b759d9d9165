"""The document of an error over HTTP, which replicas and Serve's proxy share."""

from __future__ import annotations

import json

from starlette.responses import Response

from sait_deploy.serving.refusals import Refused, Status, line


def error_response(refused: Refused) -> Response:
    """Returns the response that says why a request gets no answer, with ``Retry-After`` where another try may help."""
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if refused.status is Status.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    text = json.dumps({"error": line(refused)})
    return Response(text, refused.status.http, headers, "application/json")
