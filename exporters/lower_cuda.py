"""The lowering for ONNX Runtime CUDA: attention nodes become that runtime's own fused attention.

A packed batch goes to ``com.microsoft.PackedMultiHeadAttention``, which reads packed rows and pads nothing; a batch of
equal lengths goes to ``com.microsoft.MultiHeadAttention``. Queries, keys and values are handed over one by one, as the
kernels for one packed tensor are older ones. Attention whose weights are read, in the block that scores, stays as is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sait_deploy.exporters.fold_norms import folded_norms
from sait_deploy.plugins.mass_token_select.spec import SPEC as MASS_TOKEN_SELECT
from sait_deploy.plugins.pack_plan.spec import SPEC as PACK_PLAN
from sait_deploy.plugins.pack_rows.spec import SPEC as PACK_ROWS
from sait_deploy.plugins.packed_attention.spec import SPEC as PACKED_ATTENTION
from sait_deploy.plugins.read_extents.spec import SPEC as READ_EXTENTS
from sait_deploy.plugins.spec import DOMAIN
from sait_deploy.plugins.uniform_attention.spec import SPEC as UNIFORM_ATTENTION

MICROSOFT: Final = "com.microsoft"
PACKED: Final = "PackedMultiHeadAttention"
UNIFORM: Final = "MultiHeadAttention"
"""ONNX Runtime's names of its fused attentions."""

_OFFSETS: Final = "sait_token_offset"
_CONSTANTS: Final = {
    "sait_rest": np.array([-1], dtype=np.int64),
    "sait_first": np.array([0], dtype=np.int64),
    "sait_last": np.array([-1], dtype=np.int64),
    "sait_end": np.array([np.iinfo(np.int64).max], dtype=np.int64),
    "sait_lane_axis": np.array([1], dtype=np.int64),
    "sait_mask_axes": np.array([1, 2], dtype=np.int64),
}


def lower_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model whose attention nodes are ONNX Runtime's own where that can be, and norms are folded.

    A model whose operators were inlined has no such nodes, and only norms of half precision change in it.
    """
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    read = {name for node in lowered.graph.node for name in node.input}
    read |= {output.name for output in lowered.graph.output}
    packed = any(node.domain == DOMAIN and node.op_type == PACKED_ATTENTION.name for node in lowered.graph.node)
    nodes: list[NodeProto] = []
    for node in folded_norms(lowered.graph):
        nodes += _lowered(node, read, packed)
    if packed:
        lowered.graph.initializer.append(_all_lanes(lowered.graph))
    del lowered.graph.node[:]
    lowered.graph.node.extend(nodes)
    if not fused_attention(lowered):
        return lowered
    wanted = {name for node in nodes for name in node.input}
    constants = (numpy_helper.from_array(array, name) for name, array in _CONSTANTS.items() if name in wanted)
    lowered.graph.initializer.extend(constants)
    if not any(entry.domain == MICROSOFT for entry in lowered.opset_import):
        lowered.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    used = {node.op_type for node in nodes if node.domain == DOMAIN}
    functions = [function for function in lowered.functions if function.name in used]
    del lowered.functions[:]
    lowered.functions.extend(functions)
    return lowered


def fused_attention(model: onnx.ModelProto) -> dict[str, int]:
    """Returns how many nodes of each fused attention a model has."""
    counts = dict.fromkeys((PACKED, UNIFORM), 0)
    for node in model.graph.node:
        if node.domain == MICROSOFT and node.op_type in counts:
            counts[node.op_type] += 1
    return {name: count for name, count in counts.items() if count}


def _lowered(node: NodeProto, read: set[str], packed: bool) -> Iterator[NodeProto]:
    if packed and node.domain == DOMAIN and node.op_type == PACK_PLAN.name:
        yield node
        yield from _token_offsets(node)
    elif packed and node.domain == DOMAIN and node.op_type == READ_EXTENTS.name:
        yield from _kept_rows(node)
    elif node.domain == DOMAIN and node.op_type == PACKED_ATTENTION.name:
        yield from _packed(node)
    elif node.domain == DOMAIN and node.op_type == UNIFORM_ATTENTION.name and _weights_unread(node, read):
        yield from _uniform(node)
    else:
        yield node


def _all_lanes(graph: onnx.GraphProto) -> TensorProto:
    """Returns the lanes of the longest image that there can be, 0 to P+N-1.

    How long the batch's longest image is would be a second number that the host waits for, and FLASH attention takes
    its lengths from cu_seqlens: blocks of rows that an image has not cost nothing.
    """
    keep = next(node.output[0] for node in graph.node if node.op_type == MASS_TOKEN_SELECT.name)
    lanes = next(node.output[1] for node in graph.node if node.op_type == READ_EXTENTS.name)
    shapes = {value.name: value.type.tensor_type.shape for value in graph.value_info}
    tokens = shapes[keep].dim[1].dim_value
    return numpy_helper.from_array(np.arange(tokens, dtype=np.int32), lanes)


def _weights_unread(node: NodeProto, read: set[str]) -> bool:
    return len(node.output) < 2 or not node.output[1] or node.output[1] not in read


def _kept_rows(extents: NodeProto) -> Iterator[NodeProto]:
    """Takes the kept rows, whose number alone is read by the host."""
    rows, cu_seqlens = extents.input
    yield helper.make_node("Slice", [cu_seqlens, "sait_last", "sait_end"], ["sait_total"])
    yield helper.make_node("Cast", ["sait_total"], ["sait_total_int64"], to=TensorProto.INT64)
    yield helper.make_node("Slice", [rows, "sait_first", "sait_total_int64"], [extents.output[0]])


def _token_offsets(plan: NodeProto) -> Iterator[NodeProto]:
    """Lists the lanes of real tokens, then those of padding, [B, W]: what PackRows makes of the mask."""
    mask, lanes = plan.output[2], "sait_real_lanes"
    yield helper.make_node("Squeeze", [mask, "sait_mask_axes"], ["sait_real"])
    yield helper.make_node("Cast", ["sait_real"], [lanes], to=TensorProto.INT32)
    yield helper.make_node("ReduceSum", [lanes, "sait_lane_axis"], ["sait_lengths"], keepdims=0)
    yield helper.make_node(
        PACK_ROWS.name, [lanes, "sait_lengths"], ["sait_lane_order", "sait_cu_seqlens"], domain=DOMAIN
    )
    yield helper.make_node("Shape", [lanes], ["sait_lane_shape"])
    yield helper.make_node("Reshape", ["sait_lane_order", "sait_lane_shape"], [_OFFSETS])


def _split(node: NodeProto) -> tuple[NodeProto, list[str]]:
    parts = [f"{node.output[0]}_{part}" for part in ("query", "key", "value")]
    return helper.make_node("Split", [node.input[0]], parts, axis=1, num_outputs=3), parts


def _packed(node: NodeProto) -> Iterator[NodeProto]:
    split, parts = _split(node)
    yield split
    fused = helper.make_node(
        PACKED, [*parts, "", _OFFSETS, "sait_cu_seqlens"], [node.output[0]], name=f"{node.name}_fused", domain=MICROSOFT
    )
    fused.attribute.extend(node.attribute)
    yield fused


def _uniform(node: NodeProto) -> Iterator[NodeProto]:
    """Hands [B, S, H*Dh] over, as this operator takes no flat rows; reshaping copies nothing."""
    split, parts = _split(node)
    yield split
    output, slots = node.output[0], node.input[1]
    yield helper.make_node("Shape", [slots], [f"{output}_extent"])
    yield helper.make_node("Concat", [f"{output}_extent", "sait_rest"], [f"{output}_shape"], axis=0)
    batched = [f"{part}_batched" for part in parts]
    for part, name in zip(parts, batched, strict=True):
        yield helper.make_node("Reshape", [part, f"{output}_shape"], [name])
    fused = helper.make_node(UNIFORM, batched, [f"{output}_batched"], name=f"{node.name}_fused", domain=MICROSOFT)
    fused.attribute.extend(node.attribute)
    yield fused
    yield helper.make_node("Flatten", [f"{output}_batched"], [output], axis=2)
