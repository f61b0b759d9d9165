"""What a hostile request is, and the right one that it is made from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

SHAPE: Final = (1, 3, 96, 96)
"""Of the images that the served artifact takes."""


class Transport(StrEnum):
    """How a request is sent."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        name: unique.
        transport: how it is sent.
        sent: over HTTP all that goes through the connection, over gRPC the message.
        method: of gRPC.
        authorization: of gRPC's metadata.
        harmless: whether it may be answered all the same.
    """

    name: str
    transport: Transport
    sent: bytes
    method: str = ""
    authorization: str | None = None
    harmless: bool = False


def right_document() -> dict[str, Any]:
    """A request that is answered."""
    numbers = [0.5] * (SHAPE[1] * SHAPE[2] * SHAPE[3])
    return {"inputs": [{"name": "images", "shape": list(SHAPE), "datatype": "FP32", "data": numbers}]}


def edited(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Returns a document with a value at keys with dots between them."""
    made = {"inputs": [dict(one) for one in document["inputs"]]}
    inner: Any = made
    *keys, last = path.split(".")
    for key in keys:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[last] = copy.copy(value)
    return made
