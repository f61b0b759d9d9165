"""An operator is one entry and one folder: a module that uses it is traced, finished, lowered and run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from torch import Tensor, nn

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph_check import check_graph
from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.finish import FinishOptions, OperatorForm, finish
from sait_deploy.exporters.lower_tensorrt import lower_tensorrt
from sait_deploy.exporters.names import AttentionForm, EnginePrecision, LowerOptions, SelectionForm
from sait_deploy.exporters.trace import trace
from sait_deploy.plugins import OPERATORS, Operator
from tests.adding.clamp_tokens.reference import clamp_tokens
from tests.tiny import random_batch

ENTRY = Operator("tests.adding.clamp_tokens")
NAME, LIMIT, OPSET = "ClampTokens", 0.25, 20
IMAGES = random_batch((3, 3, 4, 4))


class Clamped(nn.Module):
    """Clamps the pixels of each image."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (ENTRY.torch_operator(images.flatten(1), LIMIT),)


@pytest.fixture(params=list(OperatorForm))
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """The module's graph in each form."""
    monkeypatch.setitem(OPERATORS, NAME, ENTRY)
    traced = trace(Clamped(), (3, 4, 4), ["clamped"], OPSET)
    return ir.serde.serialize_model(finish(traced, FinishOptions(OPSET, request.param, {})))


def run(model: onnx.ModelProto) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": IMAGES})[0]


def test_a_module_that_uses_it_is_traced_finished_and_run(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    inlined = not model.functions
    assert [node.op_type for node in model.graph.node if node.domain == "ai.sait"] == ([] if inlined else [NAME])
    np.testing.assert_array_equal(run(model), clamp_tokens(IMAGES.reshape(3, -1), LIMIT))


def test_tensorrt_gets_its_function_as_it_is_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, NAME, ENTRY)
    traced = finish(trace(Clamped(), (3, 4, 4), ["clamped"], OPSET), FinishOptions(OPSET, OperatorForm.FUNCTION, {}))
    options = LowerOptions(EnginePrecision.FP32, AttentionForm.FUSED, SelectionForm.PLUGIN)
    lowered = ir.serde.serialize_model(lower_tensorrt(ir.serde.serialize_model(traced), options))
    assert {node.domain for node in lowered.graph.node} == {""}
    np.testing.assert_array_equal(run(lowered), clamp_tokens(IMAGES.reshape(3, -1), LIMIT))


def test_a_graph_with_an_operator_that_has_no_entry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, NAME, ENTRY)
    traced = trace(Clamped(), (3, 4, 4), ["clamped"], OPSET)
    monkeypatch.delitem(OPERATORS, NAME)
    with pytest.raises(ArtifactError, match=r"ai\.sait\.ClampTokens, which this version does not have"):
        finish(traced, FinishOptions(OPSET, OperatorForm.FUNCTION, {}))


def test_its_entry_allows_it_in_the_graphs_of_artifacts(
    tiny_adaptive: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(str(tiny_adaptive.model_path))
    model.graph.node.append(onnx.helper.make_node(NAME, ["logits"], ["clamped"], domain="ai.sait", limit=LIMIT))
    model.functions.append(ENTRY.function(OPSET))
    with pytest.raises(ArtifactError, match=f"ai.sait has no operator '{NAME}'"):
        check_graph(model, tiny_adaptive.manifest, tiny_adaptive.path)
    monkeypatch.setitem(OPERATORS, NAME, ENTRY)
    check_graph(model, tiny_adaptive.manifest, tiny_adaptive.path)
    model.graph.node[-1].attribute[0].name = "bound"
    with pytest.raises(ArtifactError, match=r"attributes other than its own: limit \(FLOAT\)"):
        check_graph(model, tiny_adaptive.manifest, tiny_adaptive.path)
