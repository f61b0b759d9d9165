"""float32 graph → mixed precision, with every cast written out, as strongly typed builders add none.

Matrix products, attention and element-wise operators run in the low precision. These stay in float32: norms, softmax,
reductions and what is computed from them, what is computed from attention weights up to the selection, and the graph's
inputs and outputs. Integers stay as they are, so no index passes through a float.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
import onnx_ir as ir

from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.names import PACKED_NODE
from sait_deploy.plugins.packed_attention.spec import SPEC as PACKED_ATTENTION
from sait_deploy.plugins.uniform_attention.spec import SPEC as UNIFORM_ATTENTION

FULL: Final = ir.DataType.FLOAT

_PRODUCTS: Final = frozenset({"Attention", "Conv", "Gemm", "MatMul", PACKED_NODE})
"""Operators that run in the low precision."""

_ELEMENTWISE: Final = frozenset(
    {"Add", "Clip", "Div", "Erf", "Gelu", "HardSigmoid", "Max", "Min", "Mul", "Neg", "Relu", "Sigmoid", "Sub", "Tanh"}
)
"""Operators that run in the low precision too, unless their inputs have to stay in float32."""

_MOVES: Final = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape"),
        *("ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    }
)
"""Operators that only move data. They keep the precision of their inputs; moved weights take that of their readers."""

_QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Operators around linear layers in int8: their scales have the precision that the builder computes the rest in."""

_EITHER: Final = _ELEMENTWISE | _MOVES
"""Operators that run in either precision, as their inputs say."""

_NORMS: Final = frozenset({"LayerNormalization", "RMSNormalization", "Softmax"})
"""Operators that run in float32 and whose results fit into the low precision.

Operators that are named nowhere here run in float32 too, but their results (sums, squares) may be too large for the low
precision. What is computed from those stays in float32 up to the next matrix product, or up to the product with weights
that ends a norm written out in single operators.
"""

_ATTENTION: Final = frozenset({PACKED_ATTENTION.name, UNIFORM_ATTENTION.name})

_LARGEST: Final = {
    FULL: 3.4028234663852886e38,
    ir.DataType.FLOAT16: 65504.0,
    ir.DataType.BFLOAT16: 3.3895313892515355e38,
}
"""Largest finite numbers."""


def lower_precision(graph: ir.Graph, low: ir.DataType, seam: Collection[str] = ()) -> None:
    """Rewrites a float32 graph in place; in a graph of the low precision, widens what has to be in float32.

    Args:
        graph: nodes in topological order, every value with its type.
        low: FLOAT16 or BFLOAT16.
        seam: names of inputs and outputs between two parts of one model, which are in the low precision too.

    Raises:
        ArtifactError: a weight is too large for the low precision.
    """
    _Lowering(graph, low, seam).run()


class _Lowering:
    def __init__(self, graph: ir.Graph, low: ir.DataType, seam: Collection[str]) -> None:
        self.graph, self.low, self.seam = graph, low, seam
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.wide: set[ir.Value] = set()
        """Values in float32 that the low precision may not hold."""

    def run(self) -> None:
        for value in self.graph.inputs:
            if value.name in self.seam and value.dtype == FULL:
                value.dtype = self.low
        for node in list(self.graph):
            self._node(node)
        for index, output in enumerate(self.graph.outputs):
            wanted = self.low if output.name in self.seam else FULL
            if output.dtype in (FULL, self.low) and output.dtype != wanted:
                self._convert_output(index, output, wanted)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]

    def _node(self, node: ir.Node) -> None:
        floats = [value for value in node.inputs if value is not None and value.dtype in (FULL, self.low)]
        if node.op_type == "Cast" or not floats:
            return
        wanted = self._precision(node, floats)
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (FULL, self.low) and value.dtype != wanted:
                node.replace_input_with(index, self._as(value, wanted, node))
        for output in node.outputs:
            if output.dtype in (FULL, self.low):
                output.dtype = wanted
        if node.op_type == UNIFORM_ATTENTION.name:
            weights = node.outputs[1]
            weights.dtype = FULL
            self.wide.add(weights)
        elif wanted == FULL and self._widens(node, floats):
            self.wide.update(node.outputs)

    def _widens(self, node: ir.Node, floats: list[ir.Value]) -> bool:
        """Whether what a node computes in float32 has to stay there."""
        if node.op_type in _EITHER:
            return bool(self.wide.intersection(floats)) and not _scales(node)
        return node.op_type not in _NORMS

    def _precision(self, node: ir.Node, floats: list[ir.Value]) -> ir.DataType:
        if node.op_type in _MOVES:
            moved = [value for value in floats if not value.is_initializer()]
            if not moved:
                readers = [use.node.op_type for output in node.outputs for use in output.uses()]
                return self.low if any(reader in _EITHER or reader in _PRODUCTS for reader in readers) else FULL
            return FULL if all(value.dtype == FULL for value in moved) else self.low
        if node.op_type in _ELEMENTWISE:
            return FULL if self.wide.intersection(floats) else self.low
        return self.low if node.op_type in _PRODUCTS | _ATTENTION | _QUANTISED else FULL

    def _as(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        key = value, dtype
        if key not in self.casts:
            self.casts[key] = (
                self._converted(value, dtype) if value.is_initializer() else self._cast(value, dtype, before)
            )
        return self.casts[key]

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        node = ir.node("Cast", [value], {"to": int(dtype)})
        made = node.outputs[0]
        made.name, made.dtype, made.shape = f"{value.name}_{dtype.short_name()}", dtype, value.shape
        self.graph.insert_before(before, node)
        return made

    def _converted(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        assert value.const_value is not None and value.name is not None
        array = value.const_value.numpy()
        # Masks are filled with float32's largest number, which becomes the largest number of the other type.
        largest = np.abs(array.astype(np.float32)) == np.float32(_LARGEST[FULL])
        with np.errstate(over="ignore"):
            converted = np.where(largest, np.copysign(_LARGEST[dtype], array), array).astype(dtype.numpy())
        if np.isfinite(array).all() and not np.isfinite(converted.astype(np.float32)).all():
            raise ArtifactError(
                f"weights {value.name!r} reach {float(np.abs(array).max()):g}, more than {dtype.short_name()} holds",
                "build with --precision bf16 or fp32",
            )
        name = f"{value.name}_{dtype.short_name()}"
        tensor = ir.tensor(converted, dtype, name=name)
        made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=tensor)
        self.graph.register_initializer(made)
        return made

    def _convert_output(self, index: int, output: ir.Value, dtype: ir.DataType) -> None:
        """Casts one of the graph's outputs to the type that it shall have; the new value takes over its name."""
        name, maker = output.name, output.producer()
        assert maker is not None and output.dtype is not None
        node = ir.node("Cast", [output], {"to": int(dtype)})
        self.graph.insert_after(maker, node)
        made = node.outputs[0]
        output.name = f"{name}_{output.dtype.short_name()}"
        made.name, made.dtype, made.shape = name, dtype, output.shape
        self.graph.outputs[index] = made


def _scales(node: ir.Node) -> bool:
    """Whether a node multiplies by a vector of weights, as the last one of a norm written out does."""
    weights = [value for value in node.inputs if value is not None and value.is_initializer()]
    return node.op_type == "Mul" and any(value.shape is not None and value.shape.rank() for value in weights)
