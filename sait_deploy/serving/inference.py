"""The Open Inference Protocol, version 2, apart from how it is sent: tensors in, tensors out, metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sait_deploy.artifacts.manifest import TensorInfo
from sait_deploy.artifacts.points import PointChoice
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.names import IMAGES, KEEP_LIMITS, MASS
from sait_deploy.serving.model import ServedModel
from sait_deploy.serving.refusals import Refused, Status
from sait_deploy.serving.server import Server

VERSION: Final = "1"
"""The only version of each model."""

EXTENSIONS: Final = ("binary_tensor_data",)
POINT: Final = "point"
"""The parameter that asks for a named point, and of an answer says which was used."""

KEPT: Final = "kept"
"""The output that says how many patch tokens each image kept."""

DATATYPES: Final[dict[str, np.dtype[Any]]] = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}
"""The protocol's names of the element types that are used here."""

_NAMES: Final = {dtype: name for name, dtype in DATATYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that a model takes or returns; -1 is a size that a request chooses."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request as either transport reads it.

    Attributes:
        model: name.
        version: empty for any.
        id: what the answer repeats.
        inputs: tensors by name.
        parameters: of the request.
        outputs: names of the tensors asked for; none for all.
    """

    model: str
    version: str
    id: str
    inputs: Mapping[str, NDArray[Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InferResponse:
    """An answer as either transport writes it."""

    model: str
    id: str
    point: str
    outputs: dict[str, NDArray[Any]]


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Returns the protocol's name of an element type, which is one of ``DATATYPES``."""
    return _NAMES[dtype]


def inputs_of(model: ServedModel) -> tuple[TensorSpec, ...]:
    """Lists what a model takes; operating points, of an adaptive one, may be left out."""
    return tuple(_spec(info) for info in model.manifest.inputs)


def outputs_of(model: ServedModel) -> tuple[TensorSpec, ...]:
    """Lists what a model returns: its first output by its own name, such as logits, and the patch tokens kept."""
    return _spec(model.manifest.outputs[0]), TensorSpec(KEPT, "INT32", (-1,))


def _spec(info: TensorInfo) -> TensorSpec:
    shape = tuple(-1 if isinstance(size, str) else size for size in info.shape)
    return TensorSpec(info.name, datatype_of(np.dtype(info.dtype)), shape)


def tensor(
    model: ServedModel, name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview | list[Any]
) -> NDArray[Any]:
    """Reads an input tensor.

    Args:
        model: that it is for.
        name: of the input.
        datatype: the protocol's name of its type.
        shape: of the tensor.
        data: its bytes, little-endian in row-major order, or its numbers.

    Raises:
        InvalidArgument: the model has no such input, or takes another type or shape, or the data is not of it.
    """
    specs = {spec.name: spec for spec in inputs_of(model)}
    if name not in specs:
        raise InvalidArgument(f"{model.name} has no input {name!r}", f"it has {', '.join(specs)}")
    spec = specs[name]
    if datatype != spec.datatype:
        raise InvalidArgument(f"input {name!r} is {spec.datatype}, not {datatype!r}", "convert it before it is sent")
    fits = len(shape) == len(spec.shape) and all(m in (n, -1) for n, m in zip(shape, spec.shape, strict=True))
    if not fits or min(shape, default=0) < 1:
        raise InvalidArgument(
            f"input {name!r} has shape {list(shape)}", f"it takes {list(spec.shape)}, -1 being images"
        )
    dtype, count = DATATYPES[datatype], math.prod(shape)
    if not isinstance(data, list):
        if len(data) != count * dtype.itemsize:
            raise InvalidArgument(
                f"input {name!r} of shape {list(shape)} has {len(data)} bytes", f"it takes {count * dtype.itemsize}"
            )
        return np.frombuffer(data, dtype).reshape(shape)
    try:
        array = np.asarray(data)
        if array.dtype.kind == "b":
            raise TypeError
        with np.errstate(over="ignore"):  # what becomes infinite is refused with the answer
            converted = array.astype(dtype, casting="same_kind" if array.dtype.kind != "i" else "unsafe")
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(f"the data of input {name!r} is not {datatype}", "give numbers alone") from None
    if (array.dtype.kind == "i" and not np.array_equal(converted, array)) or converted.size != count:
        raise InvalidArgument(f"the data of input {name!r} is not {count} numbers of {datatype}", "check its shape")
    return converted.reshape(shape)


async def infer(server: Server, request: InferRequest) -> InferResponse:
    """Answers a request.

    Raises:
        Refused: the model or version is not served, the queue is full, or time is up.
        InvalidArgument: an input, parameter or output that cannot be.
        SaitError: the runtime failed, or the answer is no number.
    """
    model = server.model(request.model)
    check_version(model, request.version)
    names = tuple(spec.name for spec in outputs_of(model))
    for name in request.outputs:
        if name not in names:
            raise InvalidArgument(f"{model.name} has no output {name!r}", f"it has {', '.join(names)}")
    if IMAGES not in request.inputs:
        raise InvalidArgument(f"the request has no input {IMAGES!r}", "send the preprocessed images under that name")
    images = request.inputs[IMAGES]
    answer = await model.answer(images, _choice(request), server.options.time_limit_s)
    first = np.stack([image.logits for image in answer.images]).astype(np.float32)
    found = dict(zip(names, (first, np.array([image.kept for image in answer.images], dtype=np.int32)), strict=True))
    return InferResponse(model.name, request.id, answer.point, {name: found[name] for name in request.outputs or names})


def check_version(model: ServedModel, version: str) -> None:
    """Refuses a version that is not served.

    Raises:
        Refused: it is not.
    """
    if version not in ("", VERSION):
        raise Refused(Status.NOT_FOUND, f"{model.name} has no version {version!r}", f"it has version {VERSION}")


def _choice(request: InferRequest) -> PointChoice:
    point = request.parameters.get(POINT)
    if point is not None and not isinstance(point, str):
        raise InvalidArgument(f"the parameter {POINT!r} is {point!r}", "give a point's name")
    limits = request.inputs.get(KEEP_LIMITS)
    least, most = (None, None) if limits is None else (limits[:, 0], limits[:, 1])
    return PointChoice(point, request.inputs.get(MASS), least, most)
