"""Graphs at opset 17: only what it has, the same answers, on OpenVINO too; what it has no form of is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.inliner import inline_local_functions

from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.errors import InvalidArgument
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.lower_openvino import lower_openvino
from sait_deploy.exporters.older_opset import OLDEST, TRACED, lower_to_oldest
from sait_deploy.models.pruning import AdaptivePruning, Pruning
from sait_deploy.runtime.openvino import shared_core
from sait_deploy.tokens import Score
from tests.exporters.graphs import ADAPTIVE, PRUNING, SELECTION, Opened, copied, feeds, finished, vit_named
from tests.tiny import images_for

POINT = BatchPoint(np.ones(2, np.float32), np.array([[3, 3], [1, 1]], np.int32))


@pytest.mark.parametrize("operators", list(OperatorForm))
@pytest.mark.parametrize("pruning", [None, PRUNING, ADAPTIVE], ids=["dense", "density", "adaptive"])
def test_a_graph_has_only_what_the_opset_has_and_answers_alike(
    pruning: Pruning | None, operators: OperatorForm
) -> None:
    model = finished("small/3", pruning, OLDEST, operators)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    for imports in (model.opset_import, *(function.opset_import for function in model.functions)):
        assert {one.version for one in imports if not one.domain} == {OLDEST}
    read = {name for node in model.graph.node for name in node.input}
    assert read.issuperset(tensor.name for tensor in model.graph.initializer), "axes that became attributes are gone"
    point = POINT if isinstance(pruning, AdaptivePruning) else None
    images = images_for(vit_named("small/3"), 2, 0).numpy()
    found, expected = Opened(model)(images, point), Opened(finished("small/3", pruning))(images, point)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("score", list(Score))
def test_openvino_reads_importance_off_such_a_graph(score: Score) -> None:
    pytest.importorskip("openvino")
    name, pruning = "small/3", AdaptivePruning(score, 1)
    attention = cast("Any", vit_named(name).blocks[0].attn)
    lowered = lower_openvino(
        copied(finished(name, pruning, OLDEST)), attention.num_heads * attention.head_dim, False, score
    )
    onnx.checker.check_model(lowered, full_check=True)
    core, images = shared_core(), images_for(vit_named(name), 2, 0).numpy()
    graph = core.read_model(inline_local_functions(with_selection(lowered)).SerializeToString())
    found = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feeds(images, POINT))
    expected = Opened(finished(name, pruning), SELECTION)(images, POINT)
    np.testing.assert_array_equal(found["keep"], expected["keep"])
    np.testing.assert_allclose(found["importance"], expected["importance"], rtol=1e-4)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-4)


def with_selection(model: onnx.ModelProto) -> onnx.ModelProto:
    for name, element in SELECTION.items():
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
    return model


def graph_of(kind: str, inputs: Sequence[str], *attributes: ir.Attr, axes: Sequence[str] = ()) -> ir.Model:
    """Returns a graph of one node; inputs named as axes are constants, 1 and 2."""
    values = {name: ir.Value(name=name) for name in inputs}
    for name in axes:
        values[name].const_value = ir.tensor(np.array([1, 2]))
    node = ir.Node("", kind, list(values.values()), attributes)
    own, held = ([values[name] for name in inputs if (name in axes) == is_held] for is_held in (False, True))
    graph = ir.Graph(own, node.outputs, nodes=[node], initializers=held, opset_imports={"": TRACED})
    return ir.Model(graph, ir_version=10)


REFUSED = {
    "an operator that came later": graph_of("Mish", ["x"]),
    "axes that are computed": graph_of("ReduceMean", ["x", "axes"]),
    "a reduction that came later": graph_of("ScatterND", ["x", "at", "by"], ir.AttrString("reduction", "max")),
    "what is reduced by no axes and so stays": graph_of("ReduceMax", ["x"], ir.AttrInt64("noop_with_empty_axes", 1)),
    "padding of some axes": graph_of("Pad", ["x", "pads", "value", "axes"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_opset_has_no_form_of(case: str) -> None:
    (node,) = REFUSED[case].graph
    with pytest.raises(InvalidArgument, match=f"opset {OLDEST} has no form of the {node.op_type}") as caught:
        lower_to_oldest(REFUSED[case])
    assert f"--opset {TRACED} or above" in caught.value.hint


def test_what_both_opsets_have_stays_and_axes_and_parts_are_said_as_they_were() -> None:
    kept, noop = ir.AttrInt64("keepdims", 0), ir.AttrInt64("noop_with_empty_axes", 0)
    alike = {
        "sum": (graph_of("ReduceSum", ["x", "axes"], kept, axes=["axes"]), 2, {"keepdims"}),
        "added": (graph_of("ScatterND", ["x", "at", "by"], ir.AttrString("reduction", "add")), 3, {"reduction"}),
        "scattered": (graph_of("ScatterElements", ["x", "at", "by"]), 3, set()),
        "padded": (graph_of("Pad", ["x", "pads", "value"]), 3, set()),
        "mean": (graph_of("ReduceMean", ["x", "axes"], kept, noop, axes=["axes"]), 1, {"keepdims", "axes"}),
        "largest": (graph_of("ReduceMax", ["x"], noop), 1, set()),
        "split": (graph_of("Split", ["x"], ir.AttrInt64("num_outputs", 1)), 1, set()),
    }
    for model, inputs, attributes in alike.values():
        lower_to_oldest(model)
        (node,) = model.graph
        assert (len(node.inputs), node.attributes.keys()) == (inputs, attributes), node.op_type
        assert model.graph.opset_imports == {"": OLDEST} and model.ir_version == 8
    (mean,) = alike["mean"][0].graph
    assert mean.attributes["axes"].as_ints() == (1, 2)
