"""The lowering for OpenVINO: sizes stand in the graph, and packed batches have few different sizes.

OpenVINO prepares a layer anew for each shape that it meets, and shapes of packed batches change with every request. So
heads are laid out by shapes that are known when the graph is compiled, and the number of packed rows is rounded up: the
rows in addition are copies of one token's, which no attention and no output reads.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto, helper, numpy_helper

from sait_deploy.exporters.openvino_scoring import SCORED_ATTENTION, divide_scored_attention
from sait_deploy.plugins.onnx_form import operator_function
from sait_deploy.plugins.packed_attention.spec import SPEC as PACKED_ATTENTION
from sait_deploy.plugins.read_extents.spec import SPEC as READ_EXTENTS
from sait_deploy.plugins.spec import DOMAIN
from sait_deploy.plugins.uniform_attention.spec import SPEC as UNIFORM_ATTENTION
from sait_deploy.tokens import Score

LOWERING: Final = 3
"""Number of this lowering: graphs that an earlier one made are others."""

_HEAD_ROWS: Final = "head_rows"

# Rows are rounded up to a multiple of 16 for each 8 images, and of 16 below 8 images; the longest image to a multiple
# of 16. Of 8 images that is about 1 % of the rows, and of one image less than what preparing layers costs.
_ROUNDED_EXTENTS: Final = """
    zero = Constant <value = int32 {0}> ()
    one = Constant <value = int32 {1}> ()
    images_per_step = Constant <value = int32 {8}> ()
    rows_per_step = Constant <value = int32 {16}> ()
    first = Constant <value_ints: ints = [0]> ()
    second = Constant <value_ints: ints = [1]> ()
    last = Constant <value_ints: ints = [-1]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()

    starts = Slice (cu_seqlens, first, last)
    ends = Slice (cu_seqlens, second, end)
    batch = Size (starts)
    batch_i = Cast <to: int = 6> (batch)
    eights = Div (batch_i, images_per_step)
    steps_of_images = Max (eights, one)
    step = Mul (steps_of_images, rows_per_step)
    less_than_step = Sub (step, one)

    total = Slice (cu_seqlens, last, end)
    above_total = Add (total, less_than_step)
    steps = Div (above_total, step)
    rounded_total = Mul (steps, step)
    rounded_end = Cast <to: int = 7> (rounded_total)
    first_rows = Slice (rows, first, rounded_end)
    size = Size (first_rows)
    size_i = Cast <to: int = 6> (size)
    places = Range (zero, size_i, one)
    real = Less (places, total)
    kept = Where (real, first_rows, zero)

    less_than_lane_step = Sub (rows_per_step, one)
    lengths = Sub (ends, starts)
    longest = ReduceMax <keepdims: int = 0> (lengths)
    above_longest = Add (longest, less_than_lane_step)
    lane_steps = Div (above_longest, rows_per_step)
    width = Mul (lane_steps, rows_per_step)
    lanes = Range (zero, width, one)
"""


def rounded_extents(images: int, rows: int, longest: int) -> tuple[int, int]:
    """Returns what a host that reads the extents itself rounds them to: as the graph does, where it reads them."""
    step = max(images // 8, 1) * 16
    return -(-rows // step) * step, -(-longest // 16) * 16


def lower_openvino(
    model: onnx.ModelProto, attention_width: int, outputs_tokens: bool, score: Score | None = None
) -> onnx.ModelProto:
    """Writes a model's operators for OpenVINO, in place, and returns the model.

    A model whose operators were inlined has none to write.

    Args:
        model: an artifact's graph.
        attention_width: heads times head size.
        outputs_tokens: whether packed rows are an output; their number is not rounded then.
        score: how importance is read off attention; None of a dense model.
    """
    _shape_before_norms(model.graph)
    if score is not None:
        divide_scored_attention(model, score)
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    for function in model.functions:
        if function.name == READ_EXTENTS.name and not outputs_tokens:
            function.CopyFrom(operator_function(READ_EXTENTS, _ROUNDED_EXTENTS, opset))
        elif function.name in (PACKED_ATTENTION.name, UNIFORM_ATTENTION.name, SCORED_ATTENTION):
            heads = _numbers_of_heads(model, function.name)
            if len(heads) == 1:
                _state_head_size(function, attention_width // heads.pop())
    return model


def _shape_before_norms(graph: onnx.GraphProto) -> None:
    """Lays rows out before they are normalised where that was done after; a norm works on each row alone.

    OpenVINO 2026.4 takes a norm's scale for that of an int8 product, carries it over the layout, and fails to compile.
    """
    widths = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) == 1}
    known = [one for one in graph.initializer if one.data_type == TensorProto.INT64 and not one.external_data]
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in known}
    norms = {node.output[0]: node for node in graph.node if node.op_type == "LayerNormalization"}
    for output in graph.output:
        norms.pop(output.name, None)
    for layout in graph.node:
        norm = norms.get(layout.input[0]) if layout.op_type == "Reshape" else None
        if norm is None or sum(norm.output[0] in node.input for node in graph.node) != 1:
            continue
        shape = shapes.get(layout.input[1])
        if shape is None or shape[-1] != widths.get(norm.input[1]) or helper.get_node_attr_value(norm, "axis") != -1:
            continue
        rows, normalised = norm.output[0], layout.output[0]
        layout.input[0], layout.output[0] = norm.input[0], rows
        norm.input[0], norm.output[0] = rows, normalised
        before = onnx.NodeProto()
        before.CopyFrom(norm)
        norm.CopyFrom(layout)
        layout.CopyFrom(before)


def _numbers_of_heads(model: onnx.ModelProto, operator: str) -> set[int]:
    nodes = (node for node in model.graph.node if node.domain == DOMAIN and node.op_type == operator)
    return {attribute.i for node in nodes for attribute in node.attribute if attribute.name == "num_heads"}


def _state_head_size(function: onnx.FunctionProto, head_size: int) -> None:
    """Writes rows of one head as [-1, head size], in place of flattening what a shape was computed for."""
    for node in function.node:
        if node.op_type == "Flatten":
            node.op_type = "Reshape"
            del node.attribute[:]
            node.input.append(_HEAD_ROWS)
    function.node.insert(0, helper.make_node("Constant", [], [_HEAD_ROWS], value_ints=[-1, head_size]))
