"""The linear layers of a graph's blocks, and those among them that importance is read from."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from sait_deploy.errors import ArtifactError, InvalidArgument

PRODUCTS: Final = ("Gemm", "MatMul")
"""Operators that a linear layer may be."""

_IN_BLOCK: Final = re.compile(r"(?:^|\.)(?P<layer>blocks\.\d+\..+?)(?:\.weight)?$")


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A product of tokens with a weight.

    Attributes:
        name: of its module in the model, from the blocks on: ``blocks.3.mlp.fc2``.
        node: its node's name in the graph.
        tokens: name of the tensor that it multiplies with its weight.
    """

    name: str
    node: str
    tokens: str


def linear_layers(model: onnx.ModelProto) -> tuple[LinearLayer, ...]:
    """Returns the linear layers of the blocks, in the order in which they run.

    The patch embedding and what reads the tokens out are no part of a block.

    Raises:
        ArtifactError: there is none.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in PRODUCTS and not node.domain and node.input[1] in weights:
            match = _IN_BLOCK.search(node.input[1])
            if match is not None:
                found.append(LinearLayer(match["layer"], node.name, node.input[0]))
    if not found:
        raise ArtifactError("the graph has no linear layer in a block: there is nothing to quantise", "export again")
    return tuple(found)


def read_by(model: onnx.ModelProto, tensor: str, layers: Iterable[LinearLayer]) -> tuple[LinearLayer, ...]:
    """Returns the layers that a tensor is computed from with no other linear layer in between."""
    maker = {output: node for node in model.graph.node for output in node.output}
    by_node = {layer.node: layer for layer in layers}
    found: dict[str, LinearLayer] = {}
    waiting, seen = [tensor], set()
    while waiting:
        node = maker.get(waiting.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        if node.name in by_node:
            found[node.name] = by_node[node.name]
        else:
            waiting.extend(node.input)
    return tuple(found.values())


def named_layers(layers: Sequence[LinearLayer], patterns: Sequence[str]) -> tuple[LinearLayer, ...]:
    """Returns the layers whose names match one of the patterns.

    Raises:
        InvalidArgument: a pattern matches none.
    """
    names = [layer.name for layer in layers]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise InvalidArgument(
                f"no linear layer is called {pattern!r}", f"the first are {', '.join(names[:4])}; * matches any part"
            )
    return tuple(layer for layer in layers if any(fnmatch.fnmatch(layer.name, pattern) for pattern in patterns))
