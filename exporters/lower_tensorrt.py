"""The lowering for TensorRT and TensorRT for RTX: one ``Attention`` a block, precision in the graph itself.

The attention of the scoring block becomes its function's body, as its weights are read. The selection is plugin nodes
where plugins are wanted, else its functions' bodies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.finish import attach_functions
from sait_deploy.exporters.float8 import to_float8
from sait_deploy.exporters.names import (
    LENGTHS_AT,
    PACKED_DOMAIN,
    PACKED_NODE,
    TOKENS,
    AttentionForm,
    EnginePrecision,
    LowerOptions,
    QuantizedType,
    SelectionForm,
)
from sait_deploy.exporters.older_opset import TRACED
from sait_deploy.exporters.precision import lower_precision
from sait_deploy.plugins import OPERATORS
from sait_deploy.plugins.pack_plan.spec import SPEC as PACK_PLAN
from sait_deploy.plugins.packed_attention.spec import SPEC as PACKED_ATTENTION
from sait_deploy.plugins.spec import DOMAIN
from sait_deploy.plugins.tensorrt_form import node_attributes
from sait_deploy.plugins.uniform_attention.spec import SPEC as UNIFORM_ATTENTION

OPSET: Final = 23
"""The first with ``Attention``."""

OPSET_OF_LENGTHS: Final = 24
"""The first whose ``Attention`` is told lengths."""

_BEFORE_LENGTHS: Final = 3
"""Inputs of ``Attention`` that stay empty between values and lengths: mask, past keys, past values."""

_IR_VERSION: Final = 11
"""The ONNX IR version that came with the opset."""

_LOW: Final = {EnginePrecision.FP16: ir.DataType.FLOAT16, EnginePrecision.BF16: ir.DataType.BFLOAT16}


def lower_tensorrt(model: onnx.ModelProto, options: LowerOptions) -> ir.Model:
    """Lowers a dense or density graph, or one part of a cut adaptive one.

    Args:
        model: with ``ai.sait`` nodes; it is left as it is.
        options: how to.

    Raises:
        ArtifactError: its operators were inlined, its opset is older than 18, or its weights are not float32 or do not
            fit the precision.
    """
    lowered = ir.serde.deserialize_model(model)
    if not any(node.domain == DOMAIN for node in lowered.graph):
        raise ArtifactError("the graph's operators were inlined: there is nothing to lower", "export without --inline")
    if lowered.opset_imports[""] < TRACED:
        opset = lowered.opset_imports[""]
        raise ArtifactError(f"TensorRT takes no graph of opset {opset} here", f"export with --opset {TRACED} or above")
    if options.quantized is QuantizedType.FP8:
        to_float8(lowered.graph)
    low = _LOW.get(options.precision)
    if any(weight.dtype in _LOW.values() and weight.dtype != low for weight in lowered.graph.initializers.values()):
        raise ArtifactError(
            f"the graph's weights are not float32, and {options.precision} was asked for",
            "export it without --precision",
        )
    lowered.functions.clear()
    told = options.attention in (AttentionForm.FUSED_LENGTHS, AttentionForm.PACKED)
    opset = OPSET_OF_LENGTHS if told else OPSET
    lowered.opset_imports[""] = opset
    lowered.ir_version = _IR_VERSION
    if options.attention is not AttentionForm.DECOMPOSED:
        _fuse_attention(lowered.graph, options.attention)
    if low is not None:
        lower_precision(lowered.graph, low, seam=(TOKENS,))
    plugins = _plugins() if options.selection is SelectionForm.PLUGIN else frozenset()
    for node in lowered.graph:
        if node.domain == DOMAIN and node.op_type in plugins:
            for name, value in node_attributes().items():
                node.attributes.add(ir.convenience.convert_attribute(name, value))
    attach_functions(lowered, opset, plugins)
    # A function used twice would give two nodes of one name.
    InlinePass()(lowered)
    lowered.opset_imports[""] = opset
    domains = {node.domain for node in lowered.graph}
    if DOMAIN not in domains:
        lowered.opset_imports.pop(DOMAIN, None)
    if PACKED_DOMAIN in domains:
        lowered.opset_imports[PACKED_DOMAIN] = 1
    return lowered


def _plugins() -> frozenset[str]:
    return frozenset(name for name, operator in OPERATORS.items() if operator.has_tensorrt_plugin)


def fused_attention(model: ir.Model) -> int:
    """Returns how many attentions of a lowered graph are one node."""
    kinds = ("", "Attention"), (PACKED_DOMAIN, PACKED_NODE)
    return sum((node.domain, node.op_type) in kinds for node in model.graph)


def _fuse_attention(graph: ir.Graph, form: AttentionForm) -> None:
    shapes: dict[tuple[ir.Value, int], ir.Value] = {}
    for node in list(graph):
        if node.domain != DOMAIN:
            continue
        if node.op_type == PACKED_ATTENTION.name and form is AttentionForm.PACKED:
            _Fusion(graph, node, shapes).on_rows()
        elif node.op_type == PACKED_ATTENTION.name:
            _Fusion(graph, node, shapes).packed(form)
        elif node.op_type == UNIFORM_ATTENTION.name and not node.outputs[1].uses():
            _Fusion(graph, node, shapes).uniform()


class _Fusion:
    """One attention node on its way to ``Attention``: heads out, fused, heads back."""

    def __init__(self, graph: ir.Graph, node: ir.Node, shapes: dict[tuple[ir.Value, int], ir.Value]) -> None:
        self.graph, self.node, self.shapes = graph, node, shapes
        self.heads = node.attributes["num_heads"].as_int()
        self.scale = node.attributes["scale"].as_float()
        qkv, slots = node.inputs[0], node.inputs[1]
        assert qkv is not None and slots is not None and qkv.dtype is not None
        self.qkv, self.slots, self.dtype = qkv, slots, qkv.dtype

    def uniform(self) -> None:
        self._replace(self._joined(self._attention(self.qkv, [])))

    def packed(self, form: AttentionForm) -> None:
        """Padding lanes repeat their image's first row, and the mask or the lengths take them out."""
        unslots, mask = self.node.inputs[2], self.node.inputs[3]
        lanes = self._add("Gather", [self.qkv, self.slots], {"axis": 0})
        masked = form is AttentionForm.FUSED
        further = [mask] if masked else [*[None] * _BEFORE_LENGTHS, self._lengths(mask)]
        joined = self._joined(self._attention(lanes, further))
        self._replace(self._add("Gather", [joined, unslots], {"axis": 0}))

    def on_rows(self) -> None:
        """Attends on packed rows: queries, keys and values [T, H, Dh], and where images begin, int32 [B+1]."""
        size = self._width() // self.heads
        shape = self._constant(f"sait_rows_of_{self.heads}", np.array([-1, 3, self.heads, size], np.int64))
        apart = self._add("Reshape", [self.qkv, shape])
        parts = [self._add("Gather", [apart, self._constant(f"sait_part_{i}", i)], {"axis": 1}) for i in range(3)]
        begins = self._begins(self.node.inputs[3])
        forms = {"query_form": "packed_nhd", "kv_form": "packed_nhd"}
        inputs = [*parts, *[None] * (LENGTHS_AT - len(parts)), begins, begins]
        attended = self._add(PACKED_NODE, inputs, {"scale": self.scale, **forms}, domain=PACKED_DOMAIN)
        row = self._constant(f"sait_row_{self._width()}", np.array([-1, self._width()], np.int64))
        self._replace(self._add("Reshape", [attended, row]))

    def _begins(self, mask: ir.Value | None) -> ir.Value:
        """Returns ``cu_seqlens`` of the plan that made a mask."""
        plan = None if mask is None else mask.producer()
        assert plan is not None and plan.op_type == PACK_PLAN.name and plan.inputs[1] is not None
        return plan.inputs[1]

    def _lengths(self, mask: ir.Value | None) -> ir.Value:
        """Returns how many tokens each image has, int64 [B], computed once for all blocks of one plan."""
        cu_seqlens = self._begins(mask)
        key = cu_seqlens, 0
        if key not in self.shapes:
            first, second, last, end = (
                self._constant(f"sait_at_{name}", np.array([at], np.int64))
                for name, at in (("first", 0), ("second", 1), ("last", -1), ("end", np.iinfo(np.int64).max))
            )
            begins = self._add("Slice", [cu_seqlens, first, last], dtype=ir.DataType.INT32)
            ends = self._add("Slice", [cu_seqlens, second, end], dtype=ir.DataType.INT32)
            counts = self._add("Sub", [ends, begins], dtype=ir.DataType.INT32)
            self.shapes[key] = self._add("Cast", [counts], {"to": int(ir.DataType.INT64)}, dtype=ir.DataType.INT64)
        return self.shapes[key]

    def _attention(self, rows: ir.Value, further: Sequence[ir.Value | None]) -> ir.Value:
        apart = self._add("Reshape", [rows, self._shape()])
        by_part = self._add("Transpose", [apart], {"perm": [2, 0, 3, 1, 4]})
        parts = [self._add("Gather", [by_part, self._constant(f"sait_part_{i}", i)], {"axis": 0}) for i in range(3)]
        return self._add("Attention", [*parts, *further], {"scale": self.scale})

    def _joined(self, attended: ir.Value) -> ir.Value:
        """Turns [B, H, S, Dh] into rows [B*S, H*Dh]."""
        lanes = self._add("Transpose", [attended], {"perm": [0, 2, 1, 3]})
        width = self._width()
        return self._add("Reshape", [lanes, self._constant(f"sait_row_{width}", np.array([-1, width], np.int64))])

    def _width(self) -> int:
        """Returns H * Dh, which traced graphs state."""
        assert self.qkv.shape is not None
        width = self.qkv.shape[1]
        assert isinstance(width, int)
        return width // 3

    def _shape(self) -> ir.Value:
        """Returns [B, S, 3, H, Dh], computed once for all blocks of one plan."""
        key = self.slots, self.heads
        if key not in self.shapes:
            extent = self._add("Shape", [self.slots], dtype=ir.DataType.INT64)
            rest = self._constant(
                f"sait_heads_{self.heads}", np.array([3, self.heads, self._width() // self.heads], np.int64)
            )
            self.shapes[key] = self._add("Concat", [extent, rest], {"axis": 0}, dtype=ir.DataType.INT64)
        return self.shapes[key]

    def _constant(self, name: str, value: int | np.ndarray[tuple[int], np.dtype[np.int64]]) -> ir.Value:
        if name not in self.graph.initializers:
            array = np.asarray(value, dtype=np.int64)
            made = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.INT64),
                const_value=ir.tensor(array, name=name),
            )
            self.graph.register_initializer(made)
        return self.graph.initializers[name]

    def _add(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | str | list[int]] | None = None,
        dtype: ir.DataType | None = None,
        domain: str = "",
    ) -> ir.Value:
        node = ir.node(operator, inputs, attributes or {}, domain=domain)
        made = node.outputs[0]
        made.dtype = dtype or self.dtype
        self.graph.insert_before(self.node, node)
        return made

    def _replace(self, value: ir.Value) -> None:
        old = self.node.outputs[0]
        value.name, value.shape = old.name, old.shape
        ir.convenience.replace_all_uses_with(old, value)
        self.graph.remove(self.node, safe=True)
