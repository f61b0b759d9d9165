"""The operators that an artifact's graph may have: the standard's and those of ``plugins.OPERATORS``.

A model of any family is a graph of both, so a new operator is allowed by its entry there. What a lowering puts in for a
runtime is in no file, and is not allowed in one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sait_deploy.artifacts.codec import shown
from sait_deploy.plugins import OPERATORS
from sait_deploy.plugins.spec import DOMAIN

if TYPE_CHECKING:
    import onnx

    from sait_deploy.tokens import Geometry

_STANDARD: Final = ("", "ai.onnx")

_CHANCE_AND_OTHERS: Final = re.compile(r"Random|Bernoulli|Multinomial|Sequence|Optional|String|ImageDecoder")
"""Standard operators that answer by chance, or with what is no tensor."""

_NAMES: Final = """
Add And Cast Ceil Concat Constant ConstantOfShape Conv CumSum DequantizeLinear Div Equal Expand Flatten Gather
GatherElements Gelu Gemm Greater GreaterOrEqual LayerNormalization Less MatMul Max Min Mod Mul Not Or Pad
QuantizeLinear Range ReduceMax ReduceMean ReduceSum Reshape Round ScatterElements Shape Sigmoid Size Slice Softmax
Split Squeeze Sub Tile TopK Transpose Unsqueeze Where
"""
COMMON: Final = frozenset(_NAMES.split())
"""Operators of the standard that exports write: onnx, asked for one, first loads all that it knows, in 10 ms."""

COMMON_FROM: Final = 20
"""The opset from which the standard has all of them."""

_SAID: Final[Mapping[str, Callable[[int, Geometry], bool]]] = {
    "prefix": lambda value, geometry: value == geometry.prefix_tokens,
    "num_heads": lambda value, geometry: value > 0 and geometry.attention_width % value == 0,
}
"""Attributes of ``ai.sait`` operators whose value a model's sizes bound."""

_Key: TypeAlias = tuple[str, str]


def unknown_operators(
    nodes: Iterable[onnx.NodeProto], functions: Mapping[_Key, Any], opsets: Mapping[str, int], geometry: Geometry
) -> Iterator[str]:
    """Yields what is wrong with the operators of a graph or a function.

    Args:
        nodes: its nodes.
        functions: of the graph, by domain and name.
        opsets: versions of the operator sets, by domain.
        geometry: of the model.
    """
    import onnx

    subgraphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    seen = set()
    for node in nodes:
        if any(attribute.type in subgraphs for attribute in node.attribute):
            yield f"{node.op_type} runs a graph of its own: control flow"
        if node.domain == DOMAIN:
            yield from _unlike_its_spec(node, geometry)
        seen.add((node.domain, node.op_type))
    for domain, name in seen:
        if (domain, name) in functions:
            continue
        if domain not in _STANDARD:
            yield f"{shown(f'{domain}::{name}')} is no operator of the standard, and the graph has no function for it"
        elif _CHANCE_AND_OTHERS.match(name):
            yield f"no model needs {name}"
        else:
            opset = opsets.get(domain, opsets.get("", 1))
            common = name in COMMON and opset >= COMMON_FROM
            if not common and not onnx.defs.has(name, max_inclusive_version=opset, domain=""):
                yield f"the standard has no operator {shown(name)}"


def _unlike_its_spec(node: onnx.NodeProto, geometry: Geometry) -> Iterator[str]:
    """Yields what sets a node of ``ai.sait`` apart from its operator's spec, which lowerings rely on."""
    from onnx import AttributeProto

    if node.op_type not in OPERATORS:
        yield f"{DOMAIN} has no operator {shown(node.op_type)}"
        return
    spec = OPERATORS[node.op_type].spec
    if not all(node.input) or len(node.input) != len(spec.inputs) or len(node.output) != len(spec.outputs):
        yield f"{spec.name} takes {len(spec.inputs)} tensors to {len(spec.outputs)}"
    wanted = {one.name: AttributeProto.AttributeType.Value(one.kind) for one in spec.attributes}
    found = {one.name: one.type for one in node.attribute}
    if found != wanted or len(found) != len(node.attribute):
        said = ", ".join(f"{one.name} ({one.kind})" for one in spec.attributes) or "none"
        yield f"{spec.name} has attributes other than its own: {said}"
        return
    for one in node.attribute:
        if one.name in _SAID and not _SAID[one.name](one.i, geometry):
            yield f"{spec.name} has {one.name} {one.i}, which the model of its manifest has not"
