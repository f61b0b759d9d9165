"""The scored block's attention for OpenVINO: a few heads at a time, and of their weights only what importance reads.

OpenVINO fuses attention into one kernel that holds no weights, but for the block whose weights are read. There it would
hold products and weights of all heads at once, in float32 and again in bf16: more than any other layer of the model.
"""

from __future__ import annotations

from typing import Final

import onnx

from sait_deploy.plugins.head_gather import JOIN, PIECES
from sait_deploy.plugins.onnx_form import operator_function
from sait_deploy.plugins.spec import DOMAIN
from sait_deploy.plugins.uniform_attention.spec import SPEC
from sait_deploy.tokens import Score

SCORED_ATTENTION: Final = f"Scored{SPEC.name}"
"""Name of the function of the node whose weights are read."""

_PARTS: Final = (3, 2)
"""Into how many parts heads are divided, where they can be; more parts took more time in small batches."""

_AXES_ARE_INPUTS: Final = 18
"""The opset from which on ReduceMean takes its axes as an input."""

_PART: Final = """
    query_{i} = Gather (pieces, query_index_{i})
    key_{i} = Gather (pieces, key_index_{i})
    value_{i} = Gather (pieces, value_index_{i})
    scale_{i} = CastLike (scale_f, query_{i})
    scaled_{i} = Mul (query_{i}, scale_{i})
    key_columns_{i} = Transpose <perm: ints = [0, 1, 3, 2]> (key_{i})
    products_{i} = MatMul (scaled_{i}, key_columns_{i})
    products_f_{i} = Cast <to: int = 1> (products_{i})
    weights_{i} = Softmax <axis: int = -1> (products_f_{i})
    weights_t_{i} = CastLike (weights_{i}, value_{i})
    attended_{i} = MatMul (weights_t_{i}, value_{i})
"""


def divide_scored_attention(model: onnx.ModelProto, score: Score) -> None:
    """Gives the node whose weights are read a function of its own, in place.

    Its weights become float32 [B, H, 1, S]: the mean over all queries, or those of the class token. Both are read off
    them as before.

    Args:
        model: a graph in which weights are read for importance alone.
        score: how.
    """
    read = {name for node in model.graph.node for name in node.input}
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    for node in model.graph.node:
        if (node.domain, node.op_type) != (DOMAIN, SPEC.name) or not read & set(node.output[1:]):
            continue
        heads = next(attribute.i for attribute in node.attribute if attribute.name == "num_heads")
        parts = next((parts for parts in _PARTS if heads % parts == 0), 1)
        function = operator_function(SPEC, _body(heads, parts, score, opset), opset)
        node.op_type = function.name = SCORED_ATTENTION
        model.functions.append(function)
        for value in model.graph.value_info:
            if value.name in node.output[1:]:
                value.type.tensor_type.ClearField("shape")  # of the weights of all queries


def _body(heads: int, parts: int, score: Score, opset: int) -> str:
    numbers = range(parts)
    sizes = ", ".join([str(heads // parts)] * parts)
    lines = [
        PIECES,
        "scale_f = Constant <value_float: float = @scale> ()",
        "queries = Constant <value_ints: ints = [2]> ()",
        f"sizes = Constant <value_ints: ints = [{sizes}]> ()",
    ]
    for index in ("query_index", "key_index", "value_index"):
        lines.append(f"{_names(index, parts)} = Split <axis: int = 1> ({index}, sizes)")
    for number in numbers:
        lines += [_PART.format(i=number), f"seen_{number} = {_seen(f'weights_{number}', score, opset)}"]
    lines.append(f"attended = Concat <axis: int = 1> ({_names('attended', parts)})")
    lines.append(f"weights = Concat <axis: int = 1> ({_names('seen', parts)})")
    return "\n".join([*lines, JOIN])


def _names(name: str, parts: int) -> str:
    return ", ".join(f"{name}_{number}" for number in range(parts))


def _seen(weights: str, score: Score, opset: int) -> str:
    if score is Score.CLS:
        return f"Slice ({weights}, front, second, queries)"
    if opset < _AXES_ARE_INPUTS:
        return f"ReduceMean <axes: ints = [2], keepdims: int = 1> ({weights})"
    return f"ReduceMean <keepdims: int = 1> ({weights}, queries)"
