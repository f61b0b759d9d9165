"""Norms between two casts become norms of the low precision, for runtimes whose kernels keep statistics in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import NodeProto, TensorProto, helper

_NORM = "LayerNormalization"
_STASH_FLOAT32 = 1


def folded_norms(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Yields a graph's nodes, each Cast, LayerNormalization and Cast back to float16 as one LayerNormalization.

    ``stash_type`` 1 says that mean and variance are float32 as before. Scale and bias are cast as well, which a runtime
    does once when it loads the graph.
    """
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    norms = {
        back.input[0]: back
        for back in graph.node
        if _casts(back, TensorProto.FLOAT16) and readers[back.input[0]] == 1 and _folds(makers, types, back.input[0])
    }
    dropped = {id(back) for back in norms.values()}
    dropped |= {id(makers[makers[name].input[0]]) for name in norms if readers[makers[name].input[0]] == 1}
    for node in graph.node:
        if id(node) in dropped:
            continue
        if node.op_type == _NORM and node.output[0] in norms:
            yield from _folded(node, makers[node.input[0]].input[0], norms[node.output[0]].output[0])
        else:
            yield node


def _folds(makers: dict[str, NodeProto], types: dict[str, int], name: str) -> bool:
    norm = makers.get(name)
    if norm is None or norm.op_type != _NORM or len(norm.output) > 1:
        return False
    if not any(one.name == "stash_type" and one.i == _STASH_FLOAT32 for one in norm.attribute):
        return False
    cast = makers.get(norm.input[0])
    return cast is not None and _casts(cast, TensorProto.FLOAT) and types.get(cast.input[0]) == TensorProto.FLOAT16


def _casts(node: NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(one.name == "to" and one.i == kind for one in node.attribute)


def _folded(norm: NodeProto, source: str, result: str) -> Iterator[NodeProto]:
    weights = [f"{result}_{place}" if name else "" for place, name in enumerate(norm.input[1:])]
    for name, made in zip(norm.input[1:], weights, strict=True):
        if made:
            yield helper.make_node("Cast", [name], [made], to=TensorProto.FLOAT16)
    folded = helper.make_node(_NORM, [source, *weights], [result], name=norm.name)
    folded.attribute.extend(norm.attribute)
    yield folded
