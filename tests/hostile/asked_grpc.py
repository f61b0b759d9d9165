"""Hostile calls over gRPC: messages that are none, and messages whose fields cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from sait_deploy.serving.grpc_messages import METHODS, messages
from tests.hostile.asked import SHAPE, Asked, Transport
from tests.hostile.documents import TEXTS

_PIXELS: Final = np.full(SHAPE, 0.5, np.float32).tobytes()
_EDGES: Final = (0, -1, 2, 2**32, 2**62, 2**63 - 1, -(2**63))
EDITS: Final[dict[str, Callable[[Any], object]]] = {
    **{f"model-{i}": lambda m, text=text: setattr(m, "model_name", text) for i, text in enumerate(TEXTS)},
    **{f"version-{i}": lambda m, text=text: setattr(m, "model_version", text) for i, text in enumerate(TEXTS[1:])},
    **{f"input-{i}": lambda m, text=text: setattr(m.inputs[0], "name", text) for i, text in enumerate(TEXTS)},
    **{
        f"datatype-{i}": lambda m, text=text: setattr(m.inputs[0], "datatype", text)
        for i, text in enumerate((*TEXTS, "INT32", "FP64", "BYTES", "fp32"))
    },
    **{f"size-{n}": lambda m, n=n: m.inputs[0].shape.__setitem__(0, n) for n in _EDGES},
    **{f"sizes-{n}": lambda m, n=n: m.inputs[0].shape.extend([n]) for n in _EDGES},
    **{
        f"point-{i}": lambda m, t=text: setattr(m.parameters["point"], "string_param", t)
        for i, text in enumerate(TEXTS[1:])
    },
    **{f"output-{i}": lambda m, text=text: m.outputs.add(name=text) for i, text in enumerate(TEXTS)},
    "shape-none": lambda m: m.inputs[0].ClearField("shape"),
    "shape-long": lambda m: m.inputs[0].shape.extend([1] * 100_000),
    "point-number": lambda m: setattr(m.parameters["point"], "int64_param", 1),
    "point-nothing": lambda m: m.parameters["point"].SetInParent(),
    "raw-none": lambda m: m.ClearField("raw_input_contents"),
    "raw-short": lambda m: m.raw_input_contents.__setitem__(0, _PIXELS[:-1]),
    "raw-long": lambda m: m.raw_input_contents.__setitem__(0, _PIXELS + b"x"),
    "raw-empty": lambda m: m.raw_input_contents.__setitem__(0, b""),
    "raw-more": lambda m: m.raw_input_contents.append(_PIXELS),
    "raw-many": lambda m: m.raw_input_contents.extend([b""] * 100_000),
    "not-numbers": lambda m: m.raw_input_contents.__setitem__(0, np.full(SHAPE, np.nan, np.float32).tobytes()),
    "infinite": lambda m: m.raw_input_contents.__setitem__(0, np.full(SHAPE, np.inf, np.float32).tobytes()),
    "inputs-none": lambda m: m.ClearField("inputs"),
    "inputs-many": lambda m: [m.inputs.add(name=f"x{number}") for number in range(10_000)],
    "input-twice": lambda m: (m.inputs.append(m.inputs[0]), m.raw_input_contents.append(_PIXELS)),
    "contents-of-another-type": lambda m: (
        m.ClearField("raw_input_contents"),
        m.inputs[0].contents.int_contents.extend([1]),
    ),
    "contents-of-bytes": lambda m: (
        m.ClearField("raw_input_contents"),
        m.inputs[0].contents.bytes_contents.append(_PIXELS),
    ),
}
_BESIDE: Final[dict[str, tuple[str, tuple[int, ...], bytes]]] = {
    "mass-nan": ("FP32", (1,), np.float32("nan").tobytes()),
    "mass-negative": ("FP32", (1,), np.float32(-1).tobytes()),
    "mass-of-integers": ("INT32", (1,), np.int32(1).tobytes()),
    "mass-of-two": ("FP32", (2,), np.ones(2, np.float32).tobytes()),
    "keep_limits-reversed": ("INT32", (1, 2), np.int32([9, 1]).tobytes()),
    "keep_limits-edges": ("INT32", (1, 2), np.int32([-(2**31), 2**31 - 1]).tobytes()),
    "keep_limits-flat": ("INT32", (2,), np.int32([1, 2]).tobytes()),
}
_BYTES: Final[dict[str, bytes]] = {
    "ones": b"\xff" * 1000,
    "groups": b"\x0b" * 10_000,
    "number": b"\x08" + b"\xff" * 20,
    "longer": b"\x0a\xff\xff\xff\xff\x07abc",
    "not-text": b"\x0a\x02\xff\xfe",
    "large": b"\x3a" + b"\x80\x80\x80\x10" + bytes(100),
}
_ANSWERED: Final = frozenset({"point-nothing", "size-more"})
_WITHOUT_FIELDS: Final = ("ServerLive", "ServerReady", "ServerMetadata")


def right_call() -> Any:
    """A call that is answered."""
    message = messages()["ModelInferRequest"](model_name="adaptive")
    message.inputs.add(name="images", datatype="FP32", shape=SHAPE)
    message.raw_input_contents.append(_PIXELS)
    return message


def requests() -> Iterator[Asked]:
    """Yields every call."""
    for name, edit in EDITS.items():
        message = right_call()
        edit(message)
        yield Asked(
            f"grpc/{name}", Transport.GRPC, message.SerializeToString(), "ModelInfer", harmless=name in _ANSWERED
        )
    for name, (datatype, shape, data) in _BESIDE.items():
        message = right_call()
        message.inputs.add(name=name.partition("-")[0], datatype=datatype, shape=shape)
        message.raw_input_contents.append(data)
        yield Asked(f"grpc/{name}", Transport.GRPC, message.SerializeToString(), "ModelInfer")
    for name, data in _BYTES.items():
        for method in METHODS:
            # Of a message without fields, all are unknown, and passed over.
            harmless = name == "not-text" and method in _WITHOUT_FIELDS
            yield Asked(f"grpc/bytes/{name}/{method}", Transport.GRPC, data, method, harmless=harmless)
    for method in ("Evil", "ModelInfer/..", "RepositoryModelLoad"):
        yield Asked(f"grpc/method/{method}", Transport.GRPC, b"", method)
    right = right_call().SerializeToString()
    for number, text in enumerate(("", "Bearer", "Bearer x", "x" * 5000, "Bearer x, Bearer y")):
        yield Asked(f"grpc/authorization/{number}", Transport.GRPC, right, "ModelInfer", text, harmless=True)
