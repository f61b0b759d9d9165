"""The lowering for ONNX Runtime CUDA: attention nodes become that runtime's own fused attention.

A packed batch goes to ``com.microsoft.PackedMultiHeadAttention``, which reads packed rows and pads nothing; a batch of
equal lengths goes to ``com.microsoft.MultiHeadAttention``. Queries, keys and values are handed over one by one, as the
kernels for one packed tensor are older ones. Attention whose weights are read, in the block that scores, stays a
function. Where a launch is saved by it, functions and packing take forms of their own (``cuda_bodies``,
``cuda_packing``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from sait_deploy.exporters.cuda_bodies import MICROSOFT, scoring_body, selection_body
from sait_deploy.exporters.cuda_packing import OFFSETS, packed_rows, packing_constants, packing_of, tokens_of
from sait_deploy.exporters.fold_norms import folded_norms
from sait_deploy.plugins import OPERATORS
from sait_deploy.plugins.mass_token_select.spec import SPEC as MASS_TOKEN_SELECT
from sait_deploy.plugins.pack_rows.spec import SPEC as PACK_ROWS
from sait_deploy.plugins.packed_attention.spec import SPEC as PACKED_ATTENTION
from sait_deploy.plugins.spec import DOMAIN
from sait_deploy.plugins.uniform_attention.spec import SPEC as UNIFORM_ATTENTION

PACKED: Final = "PackedMultiHeadAttention"
UNIFORM: Final = "MultiHeadAttention"
"""ONNX Runtime's names of its fused attentions."""

_FUSED_MULTIPLE: Final = 8
_FUSED_MOST: Final = 256
"""Channels of a head that its fused kernels take: a multiple of the first, up to the second."""

_OLDEST: Final = 18
"""The first opset whose Split and reductions the forms for this runtime are written in."""

_REST: Final = "sait_rest"


def lower_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model whose attention nodes are ONNX Runtime's own where that can be, and norms are folded.

    Selection, packing and the attention that scores take their bodies for this runtime. A model whose operators were
    inlined has no such nodes, and one of an opset before 18 keeps them: only norms of half precision change in these.
    """
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    graph = lowered.graph
    nodes = list(folded_norms(graph))
    opset = next(entry.version for entry in lowered.opset_import if entry.domain in ("", "ai.onnx"))
    added: dict[str, NDArray[Any]] = {}
    plan: tuple[str, str] | None = None
    if opset >= _OLDEST and any(node.domain == DOMAIN for node in nodes):
        packing = packing_of(graph)
        if packing is not None:
            constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer if one.dims == [1]}
            listed = not _fuses_everywhere(graph)
            nodes = list(packed_rows(nodes, packing, constants, listed))
            added, plan = packing_constants(packing), (OFFSETS if listed else packing.keep, packing.cu_seqlens)
        read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
        nodes = [made for node in nodes for made in _attended(node, read, plan)]
        nodes = _used(nodes, [output.name for output in graph.output])
        added[_REST] = np.array([-1], dtype=np.int64)
    _put(lowered, nodes, added)
    if any(node.domain == MICROSOFT for node in nodes) and not any(
        entry.domain == MICROSOFT for entry in lowered.opset_import
    ):
        lowered.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    functions = list(_functions(lowered, opset)) if opset >= _OLDEST else list(lowered.functions)
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


def _put(model: onnx.ModelProto, nodes: list[NodeProto], added: dict[str, NDArray[Any]]) -> None:
    wanted = {name for node in nodes for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in added.items() if name in wanted
    )
    made = {name for node in nodes for name in node.output}
    gone = {name for node in model.graph.node for name in node.output} - made
    known = [value for value in model.graph.value_info if value.name not in gone]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.value_info.extend(known)


def _functions(model: onnx.ModelProto, opset: int) -> Iterator[onnx.FunctionProto]:
    """Yields the functions in use, those of selection, packing and scoring with few launches."""
    used = {node.op_type: node for node in model.graph.node if node.domain == DOMAIN}
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for function in model.functions:
        node = used.get(function.name)
        if node is None:
            continue
        if function.name == MASS_TOKEN_SELECT.name:
            prefix = next(one.i for one in node.attribute if one.name == "prefix")
            yield selection_body(opset, prefix, tokens_of(model.graph, node.output[0]) - prefix)
        elif function.name == UNIFORM_ATTENTION.name:
            yield scoring_body(opset, types[node.input[0]])
        elif function.name == PACK_ROWS.name:
            yield OPERATORS[PACK_ROWS.name].function(opset)
        else:
            yield function


def _used(nodes: list[NodeProto], outputs: list[str]) -> list[NodeProto]:
    """Returns the nodes that an output needs: ONNX Runtime runs the others too."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _fuses_everywhere(graph: onnx.GraphProto) -> bool:
    """Whether fused kernels take every packed attention: they read lengths, and no list of lanes."""
    shapes = {value.name: value.type.tensor_type.shape for value in graph.value_info}
    for node in graph.node:
        if node.domain == DOMAIN and node.op_type == PACKED_ATTENTION.name:
            heads = next(one.i for one in node.attribute if one.name == "num_heads")
            width = shapes[node.input[0]].dim[1].dim_value
            if not width or width // (3 * heads) % _FUSED_MULTIPLE or width // (3 * heads) > _FUSED_MOST:
                return False
    return True


def _attended(node: NodeProto, read: set[str], plan: tuple[str, str] | None) -> Iterator[NodeProto]:
    if plan is not None and node.domain == DOMAIN and node.op_type == PACKED_ATTENTION.name:
        yield from _packed(node, plan)
    elif node.domain == DOMAIN and node.op_type == UNIFORM_ATTENTION.name and _weights_unread(node, read):
        yield from _uniform(node)
    else:
        yield node


def _weights_unread(node: NodeProto, read: set[str]) -> bool:
    return len(node.output) < 2 or not node.output[1] or node.output[1] not in read


def _split(node: NodeProto) -> tuple[NodeProto, list[str]]:
    parts = [f"{node.output[0]}_{part}" for part in ("query", "key", "value")]
    return helper.make_node("Split", [node.input[0]], parts, axis=1, num_outputs=3), parts


def _packed(node: NodeProto, plan: tuple[str, str]) -> Iterator[NodeProto]:
    split, parts = _split(node)
    yield split
    inputs = [*parts, "", *plan]
    fused = helper.make_node(PACKED, inputs, [node.output[0]], name=f"{node.name}_fused", domain=MICROSOFT)
    fused.attribute.extend(node.attribute)
    yield fused


def _uniform(node: NodeProto) -> Iterator[NodeProto]:
    """Hands [B, S, H*Dh] over, as this operator takes no flat rows; reshaping copies nothing."""
    split, parts = _split(node)
    yield split
    output, slots = node.output[0], node.input[1]
    yield helper.make_node("Shape", [slots], [f"{output}_extent"])
    yield helper.make_node("Concat", [f"{output}_extent", _REST], [f"{output}_shape"], axis=0)
    batched = [f"{part}_batched" for part in parts]
    for part, name in zip(parts, batched, strict=True):
        yield helper.make_node("Reshape", [part, f"{output}_shape"], [name])
    fused = helper.make_node(UNIFORM, batched, [f"{output}_batched"], name=f"{node.name}_fused", domain=MICROSOFT)
    fused.attribute.extend(node.attribute)
    yield fused
    yield helper.make_node("Flatten", [f"{output}_batched"], [output], axis=2)
