"""The protocol over HTTP: a JSON document, and behind it the bytes of tensors where a client sends or wants them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.codec import adapter, problem, shown
from sait_deploy.errors import InvalidArgument
from sait_deploy.serving.inference import POINT, VERSION, InferRequest, InferResponse, datatype_of, tensor
from sait_deploy.serving.model import ServedModel

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""The HTTP header that says how long the JSON document before the bytes is."""

_BINARY_SIZE: Final = "binary_data_size"
_BINARY: Final = "binary_data"
_ALL_BINARY: Final = "binary_data_output"


@dataclass(frozen=True, slots=True)
class _Input:
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = field(default_factory=dict)
    data: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class _Output:
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Request:
    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    outputs: list[_Output] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class JsonRequest:
    """A request, and which outputs its client wants as bytes."""

    request: InferRequest
    binary: frozenset[str]
    all_binary: bool


def read_request(model: ServedModel, version: str, body: bytes, header_length: str | None) -> JsonRequest:
    """Reads a request.

    Args:
        model: that it is for.
        version: from the address; empty for any.
        body: of the HTTP request.
        header_length: the header ``Inference-Header-Content-Length``; None where it is missing.

    Raises:
        InvalidArgument: it is no such document, or a tensor is not one of the model's.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    document = _document(body[:length])
    inputs: dict[str, NDArray[Any]] = {}
    at = length
    for each in document.inputs:
        if each.name in inputs:
            raise InvalidArgument(f"input {each.name!r} is there twice", "send each once")
        data: memoryview | list[Any] | None = each.data
        if _BINARY_SIZE in each.parameters:
            size = each.parameters[_BINARY_SIZE]
            if type(size) is not int or not 0 <= size <= len(body) - at:
                raise InvalidArgument(
                    f"input {each.name!r} has {size!r} bytes", f"{len(body) - at} are left of the body"
                )
            data, at = memoryview(body)[at : at + size], at + size
        if data is None:
            raise InvalidArgument(f"input {each.name!r} has no data", f"give 'data', or bytes and {_BINARY_SIZE!r}")
        inputs[each.name] = tensor(model, each.name, each.datatype, tuple(each.shape), data)
    if at != len(body):
        raise InvalidArgument(f"{len(body) - at} bytes of the body belong to no input", f"check each {_BINARY_SIZE!r}")
    names = tuple(output.name for output in document.outputs)
    request = InferRequest(model.name, version, document.id, inputs, document.parameters, names)
    binary = frozenset(output.name for output in document.outputs if output.parameters.get(_BINARY) is True)
    return JsonRequest(request, binary, document.parameters.get(_ALL_BINARY) is True)


def write_response(response: InferResponse, asked: JsonRequest) -> tuple[bytes, int | None]:
    """Returns the body of an answer, and how long its JSON document is where bytes follow it."""
    binary = b""
    described = []
    for name, array in response.outputs.items():
        output: dict[str, Any] = {"name": name, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}
        if name in asked.binary or (asked.all_binary and not asked.request.outputs):
            output["parameters"] = {_BINARY_SIZE: array.nbytes}
            binary += np.ascontiguousarray(array).tobytes()
        else:
            output["data"] = array.ravel().tolist()
        described.append(output)
    document = {
        "model_name": response.model,
        "model_version": VERSION,
        "id": response.id,
        "parameters": {POINT: response.point},
        "outputs": described,
    }
    text = json.dumps(document).encode()
    return text + binary, len(text) if binary else None


def _length(text: str, size: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(size)) and int(text) <= size):
        raise InvalidArgument(
            f"the header {HEADER_LENGTH} is {shown(text)}", f"give a number up to the body's {size} bytes"
        )
    return int(text)


def _read(text: bytes) -> Any:
    """Returns what a document holds, which pydantic has read; None where a number has more digits than Python reads."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _document(text: bytes) -> _Request:
    from pydantic import ValidationError

    try:
        found: _Request | None = adapter(_Request).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        broken = first["type"] == "json_invalid"
        what = f" is no JSON: {first['ctx']['error']}" if broken else problem(_read(text), first)
        raise InvalidArgument(f"the request{what}", "see the Open Inference Protocol") from None
    if found is None:
        raise InvalidArgument("the request is no JSON object", "see the Open Inference Protocol")
    return found
