"""A stand-in for TensorRT's refitter: an engine takes the very weights of the graph that it was built of."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

DataType = Enum("DataType", ["FLOAT", "HALF", "BF16", "FP8", "INT8", "INT32", "INT64", "BOOL"])

_TYPES: Final = {
    "float32": DataType.FLOAT,
    "float16": DataType.HALF,
    "bfloat16": DataType.BF16,
    "float8_e4m3fn": DataType.FP8,
    "int8": DataType.INT8,
    "int32": DataType.INT32,
    "int64": DataType.INT64,
    "bool": DataType.BOOL,
}


@dataclass(frozen=True)
class HostWeights:
    """Weights by address."""

    dtype: Any
    address: int
    size: int


class Refittable(Protocol):
    """An engine; ``graph`` is what it runs once it has the weights of ``built_of``."""

    graph: Path | None
    built_of: Path


class HostRefitter:
    """Asks for every weight and constant of a graph.

    Attributes:
        asked: what it asks for, by name.
        refuses: the name of weights that it does not take.
        ends: what ``refit_cuda_engine`` returns.
        unnamed: how many weights without a name it misses.
    """

    refuses, ends, unnamed = "", True, 0

    def __init__(self, engine: Refittable, logger: Any) -> None:
        self._engine, self._logger = engine, logger
        self.asked = weights_of_graph(onnx.load(engine.built_of))
        self._given: set[str] = set()

    def get_all_weights(self) -> list[str]:
        return list(self.asked)

    def get_weights_prototype(self, name: str) -> HostWeights:
        array = self.asked[name]
        return HostWeights(_TYPES[array.dtype.name], 0, array.size)

    def set_named_weights(self, name: str, weights: HostWeights) -> bool:
        wanted = self.asked[name]
        if name == self.refuses:
            self._logger.log("error", "weights of\n another kind")
            return False
        assert ctypes.string_at(weights.address, wanted.nbytes) == wanted.tobytes(), f"{name} has other numbers"
        self._given.add(name)
        return True

    def get_missing_weights(self) -> list[str | None]:
        return [*(name for name in self.asked if name not in self._given), *[None] * self.unnamed]

    def refit_cuda_engine(self) -> bool:
        if not self.ends:
            self._logger.log("error", "no memory")
            return False
        assert not self.get_missing_weights()
        self._engine.graph = self._engine.built_of
        return True


def weights_of_graph(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Returns initialisers and constants by name, as ``onnx`` itself reads them."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            (attribute,) = node.attribute
            value = onnx.helper.get_attribute_value(attribute)
            dtype = np.float32 if "float" in attribute.name else np.int64
            stated = isinstance(value, TensorProto)
            found[node.output[0]] = numpy_helper.to_array(value) if stated else np.array(value, dtype)
    return found
