"""What TensorRT cannot build is found in the graph: a shape may depend on sizes, and not on what a tensor holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, SelectionForm
from sait_deploy.exporters.tensorrt_limits import check_static
from tests.exporters.graphs import PRUNING
from tests.exporters.parts import lowered, parts_of, whole

NODE = helper.make_node
CONSTANTS = {
    "zero": [0],
    "one": [1],
    "two": [2],
    "minus": [-1],
    "row": [-1, 4],
    "pads": [0, 0, 1, 1],
    "scalar": 3,
    "step": 1,
}


def graph(*nodes: NodeProto, outputs: Sequence[str] = ("y",)) -> ir.Graph:
    """A graph of x float32 [batch, 4] and lengths int64 [2]; numbers by the names of ``CONSTANTS``."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("lengths", TensorProto.INT64, [2]),
    ]
    weights = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in CONSTANTS.items()]
    made = helper.make_graph(list(nodes), "g", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    return ir.serde.deserialize_model(model).graph


BY_DATA = {
    "nonzero": [NODE("NonZero", ["x"], ["y"], "culprit")],
    "compress": [NODE("Cast", ["lengths"], ["c"], to=TensorProto.BOOL), NODE("Compress", ["x", "c"], ["y"], "culprit")],
    "unique": [NODE("Unique", ["x"], ["y"], "culprit")],
    "reshape": [NODE("Reshape", ["x", "lengths"], ["y"], "culprit")],
    "expand": [NODE("Expand", ["x", "lengths"], ["y"], "culprit")],
    "tile": [NODE("Tile", ["x", "lengths"], ["y"], "culprit")],
    "zeros": [NODE("ConstantOfShape", ["lengths"], ["y"], "culprit")],
    "slice-end": [
        NODE("Slice", ["lengths", "zero", "one"], ["end"]),
        NODE("Slice", ["x", "zero", "end"], ["y"], "culprit"),
    ],
    "range": [
        NODE("ReduceMax", ["lengths"], ["most"], keepdims=0),
        NODE("Range", ["scalar", "most", "step"], ["y"], "culprit"),
    ],
    "top-k": [
        NODE("ReduceMax", ["lengths", "zero"], ["k"]),
        NODE("TopK", ["x", "k"], ["y", "i"], "culprit"),
    ],
    "far-away": [
        NODE("Mul", ["lengths", "lengths"], ["a"]),
        NODE("Add", ["a", "one"], ["b"]),
        NODE("Identity", ["b"], ["c"]),
        NODE("Reshape", ["x", "c"], ["y"], "culprit"),
    ],
    "size-of-what-data-made": [
        NODE("NonZero", ["x"], ["n"], "culprit"),
        NODE("Shape", ["n"], ["s"]),
        NODE("ConstantOfShape", ["s"], ["y"]),
    ],
    "half-data": [
        NODE("Shape", ["x"], ["s"], end=1),
        NODE("Slice", ["lengths", "zero", "one"], ["l"]),
        NODE("Concat", ["s", "l"], ["both"], axis=0),
        NODE("Reshape", ["x", "both"], ["y"], "culprit"),
    ],
}

BY_SIZE = {
    "constant": [NODE("Reshape", ["x", "row"], ["y"])],
    "own-shape": [NODE("Shape", ["x"], ["s"]), NODE("Expand", ["one", "s"], ["y"])],
    "computed-shape": [
        NODE("Shape", ["x"], ["s"], end=1),
        NODE("Mul", ["s", "two"], ["t"]),
        NODE("Concat", ["t", "two"], ["u"], axis=0),
        NODE("Reshape", ["x", "u"], ["y"]),
    ],
    "size": [NODE("Size", ["x"], ["s"]), NODE("Range", ["scalar", "s", "step"], ["y"])],
    "shape-of-what-data-made": [
        NODE("Mul", ["x", "x"], ["a"]),
        NODE("Shape", ["a"], ["s"]),
        NODE("ConstantOfShape", ["s"], ["y"]),
    ],
    "data-moved-by-constants": [NODE("Slice", ["x", "zero", "one"], ["a"]), NODE("Tile", ["a", "row"], ["y"])],
    "data-picks-what-to-read": [NODE("Gather", ["x", "lengths"], ["y"], axis=0)],
    "left-out-inputs": [NODE("Slice", ["x", "zero", "one", "", "one"], ["y"])],
    "nothing": [NODE("Identity", ["x"], ["y"])],
}


@pytest.mark.parametrize("case", BY_DATA)
def test_a_shape_from_data_is_refused_and_its_node_named(case: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        check_static(graph(*BY_DATA[case]), "trunk")
    operator = next(node.op_type for node in BY_DATA[case] if node.name == "culprit")
    assert caught.value.message.startswith(f"{operator} 'culprit' in the trunk makes a shape from data")
    assert caught.value.hint


@pytest.mark.parametrize("case", BY_SIZE)
def test_a_shape_from_sizes_is_taken(case: str) -> None:
    check_static(graph(*BY_SIZE[case]), "model")


@pytest.mark.parametrize("attention", AttentionForm)
@pytest.mark.parametrize("selection", SelectionForm)
def test_what_export_writes_is_static_once_it_is_cut(attention: AttentionForm, selection: SelectionForm) -> None:
    parts = parts_of("small/3")
    for model in (whole("small/3", None), whole("small/3", PRUNING), parts.stem, parts.trunk):
        made = lowered(model, EnginePrecision.FP16, attention, selection)
        check_static(ir.serde.deserialize_model(made).graph, "model")


def test_an_adaptive_graph_that_was_not_cut_is_refused() -> None:
    made = lowered(whole("small/3"))
    with pytest.raises(ArtifactError, match="makes a shape from data"):
        check_static(ir.serde.deserialize_model(made).graph, "model")
