"""Linear layers in int8 become linear layers in float8 (E4M3): same layers, same ranges, other numbers in between."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from sait_deploy.errors import ArtifactError

_FLOAT8: Final = ir.DataType.FLOAT8E4M3FN
_LARGEST: Final = 448.0
_LARGEST_INT8: Final = 127.0
"""Largest numbers of E4M3, and of int8 as artifacts use it."""


def to_float8(graph: ir.Graph) -> None:
    """Rewrites a graph's QuantizeLinear and DequantizeLinear from int8 to float8 in place, weights with them.

    What was calibrated is kept: the largest number of a layer's range is the largest of float8 then. Weights are those
    of int8, whose steps are finer than float8's wherever a number is not small.

    Raises:
        ArtifactError: nothing in it is int8.
    """
    made: dict[ir.Value, ir.Value] = {}
    found = 0
    for node in graph:
        if node.domain or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        taken, scale, zero = node.inputs
        assert taken is not None and scale is not None and zero is not None
        if zero.dtype != ir.DataType.INT8:
            continue
        found += 1
        for index, value in ((1, scale), (2, zero), *([(0, taken)] if taken.is_initializer() else [])):
            if value not in made:
                made[value] = _converted(graph, value)
            node.replace_input_with(index, made[value])
        if node.op_type == "QuantizeLinear":
            node.outputs[0].dtype = _FLOAT8
    if not found:
        raise ArtifactError("no layer of the graph is int8, and float8 takes their ranges", "run: sait-deploy quantize")
    for value in made:
        if value.name is not None and not value.uses():
            del graph.initializers[value.name]


def _converted(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Returns a scale, zero point or weight of int8 as float8 has it."""
    assert value.const_value is not None and value.name is not None and value.dtype is not None
    array = value.const_value.numpy()
    if value.dtype == ir.DataType.INT8:
        # One byte, as int8 is; a shape as large as the weights' in float32 lives for one layer.
        dtype, numbers = _FLOAT8, (array.astype(np.float32) * np.float32(_LARGEST / _LARGEST_INT8))
    else:
        dtype, numbers = value.dtype, array.astype(np.float32) * np.float32(_LARGEST_INT8 / _LARGEST)
    name = f"{value.name}_float8"
    limited = np.clip(numbers, -_LARGEST, _LARGEST) if dtype == _FLOAT8 else numbers
    tensor = ir.tensor(limited.astype(dtype.numpy()), dtype, name=name)
    made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=tensor)
    graph.register_initializer(made)
    return made
