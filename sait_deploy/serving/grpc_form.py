"""The protocol over gRPC: messages as bytes to answers as bytes, wherever they come in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.errors import InvalidArgument
from sait_deploy.serving.grpc_messages import METHODS, messages
from sait_deploy.serving.inference import (
    EXTENSIONS,
    POINT,
    VERSION,
    InferRequest,
    check_version,
    datatype_of,
    infer,
    inputs_of,
    outputs_of,
    tensor,
)
from sait_deploy.serving.refusals import Refused, Status, line, refusal
from sait_deploy.serving.server import Server
from sait_deploy.serving.token import check_token

OK: Final = "OK"
"""gRPC's name of success."""

_CONTENTS: Final = {"FP32": "fp32_contents", "INT32": "int_contents"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call returns.

    Attributes:
        code: gRPC's name of the status.
        detail: what is wrong, in one line; empty where nothing is.
        message: the response's bytes; empty where there is none.
    """

    code: str
    detail: str
    message: bytes


async def call(server: Server, method: str, request: bytes, authorization: str | None) -> Reply:
    """Answers a call of the service.

    Args:
        server: that is asked.
        method: one of ``METHODS``.
        request: the request's bytes.
        authorization: what the call's metadata says under that name.
    """
    from google.protobuf.message import DecodeError

    try:
        if method not in ("ServerLive", "ServerReady"):
            check_token(server.token, authorization)
        if len(request) > server.options.max_body:
            raise Refused(
                Status.TOO_LARGE, f"the message is larger than {server.options.max_body_mib} MiB", "send fewer images"
            )
        try:
            read = messages()[f"{method}Request"].FromString(request)
        except DecodeError:
            raise InvalidArgument(f"the message is no {method}Request", "see the Open Inference Protocol") from None
        response = await _METHODS[method](server, read)
    except Exception as error:
        refused = refusal(error)
        server.observer.refused(refused.status)
        return Reply(refused.status.grpc, line(refused), b"")
    return Reply(OK, "", response.SerializeToString())


async def _live(_: Server, __: Any) -> Any:
    return messages()["ServerLiveResponse"](live=True)


async def _ready(server: Server, _: Any) -> Any:
    return messages()["ServerReadyResponse"](ready=bool(server.models))


async def _model_ready(server: Server, request: Any) -> Any:
    check_version(server.model(request.name), request.version)
    return messages()["ModelReadyResponse"](ready=True)


async def _server_metadata(server: Server, _: Any) -> Any:
    return messages()["ServerMetadataResponse"](name="sait-deploy", version=server.version, extensions=EXTENSIONS)


async def _model_metadata(server: Server, request: Any) -> Any:
    model = server.model(request.name)
    check_version(model, request.version)
    described = messages()["ModelMetadataResponse.TensorMetadata"]
    inputs, outputs = (
        [described(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in specs]
        for specs in (inputs_of(model), outputs_of(model))
    )
    return messages()["ModelMetadataResponse"](
        name=model.name, versions=[VERSION], platform="sait-deploy", inputs=inputs, outputs=outputs
    )


async def _infer(server: Server, request: Any) -> Any:
    model = server.model(request.model_name)
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidArgument(f"{len(raw)} raw contents for {len(request.inputs)} inputs", "send one for each")
    inputs: dict[str, NDArray[Any]] = {}
    for i, each in enumerate(request.inputs):
        if each.name in inputs:
            raise InvalidArgument(f"input {each.name!r} is there twice", "send each once")
        data = raw[i] if raw else list(getattr(each.contents, _CONTENTS.get(each.datatype, "fp32_contents")))
        inputs[each.name] = tensor(model, each.name, each.datatype, tuple(each.shape), data)
    parameters = {
        name: getattr(one, one.WhichOneof("parameter_choice") or "bool_param")
        for name, one in request.parameters.items()
    }
    names = tuple(output.name for output in request.outputs)
    answer = await infer(server, InferRequest(model.name, request.model_version, request.id, inputs, parameters, names))
    described = messages()["ModelInferResponse.InferOutputTensor"]
    response = messages()["ModelInferResponse"](model_name=answer.model, model_version=VERSION, id=answer.id)
    response.parameters[POINT].string_param = answer.point
    for name, array in answer.outputs.items():
        response.outputs.append(described(name=name, datatype=datatype_of(array.dtype), shape=array.shape))
        response.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
    return response


_METHODS: Final[dict[str, Callable[[Server, Any], Awaitable[Any]]]] = dict(
    zip(METHODS, (_live, _ready, _model_ready, _server_metadata, _model_metadata, _infer), strict=True)
)
