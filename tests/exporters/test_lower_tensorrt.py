"""The lowering for TensorRT: one ``Attention`` a block but for the one that scores, at opset 23, in every precision."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sait_deploy.artifacts.manifest import COUNTS, Precision
from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.lower_tensorrt import OPSET, OPSET_OF_LENGTHS, fused_attention, lower_tensorrt
from sait_deploy.exporters.names import (
    PACKED_DOMAIN,
    PACKED_NODE,
    AttentionForm,
    EnginePrecision,
    LowerOptions,
    SelectionForm,
)
from sait_deploy.models.pruning import Pruning
from sait_deploy.plugins.spec import DOMAIN, TENSORRT_NAMESPACE
from tests.exporters.graphs import PRUNING, Opened, copied, finished, kinds, nodes
from tests.exporters.lowerings import CASES, batch, made, original
from tests.exporters.parts import lowered, whole

FP16, BF16, FP32 = EnginePrecision.FP16, EnginePrecision.BF16, EnginePrecision.FP32
FUSED, DECOMPOSED = AttentionForm.FUSED, AttentionForm.DECOMPOSED
PLUGIN, FUNCTION = SelectionForm.PLUGIN, SelectionForm.FUNCTION
LOW: Final = {FP16: TensorProto.FLOAT16, BF16: TensorProto.BFLOAT16}
SCORING: Final = [case for case in CASES if "trunk" not in case and case != "dense"]


@pytest.mark.parametrize("precision", EnginePrecision)
@pytest.mark.parametrize("case", CASES)
def test_every_attention_is_one_node_but_the_one_that_scores(case: str, precision: EnginePrecision) -> None:
    fused, decomposed = (made(case, precision, attention) for attention in (FUSED, DECOMPOSED))
    assert kinds(fused)["Attention"] == CASES[case][3] and kinds(decomposed)["Attention"] == 0
    before = kinds(original(case))
    scoring = 1 if case in SCORING else 0
    assert before["UniformAttention"] + before["PackedAttention"] == CASES[case][3] + scoring
    # One softmax for each attention that is not fused, and that of the readout.
    pooled = before["Softmax"]
    assert kinds(fused)["Softmax"] == scoring + pooled
    assert kinds(decomposed)["Softmax"] == scoring + pooled + CASES[case][3]
    options = LowerOptions(precision, FUSED, FUNCTION)
    assert fused_attention(lower_tensorrt(original(case), options)) == CASES[case][3]


@pytest.mark.parametrize("selection", SelectionForm)
@pytest.mark.parametrize("attention", AttentionForm)
@pytest.mark.parametrize("precision", EnginePrecision)
@pytest.mark.parametrize("case", CASES)
def test_every_form_is_whole_at_the_opset_of_attention(
    case: str, precision: EnginePrecision, attention: AttentionForm, selection: SelectionForm
) -> None:
    model = made(case, precision, attention, selection)
    onnx.checker.check_model(model, full_check=True)
    plugins = selection is PLUGIN and case in SCORING
    domains = {entry.domain: entry.version for entry in model.opset_import}
    told = attention in (AttentionForm.FUSED_LENGTHS, AttentionForm.PACKED)
    on_rows = attention is AttentionForm.PACKED and CASES[case][2] == "trunk"
    opset = OPSET_OF_LENGTHS if told else OPSET
    assert domains == {"": opset} | ({DOMAIN: 1} if plugins else {}) | ({PACKED_DOMAIN: 1} if on_rows else {})
    assert not model.functions, "TensorRT finds functions by name alone: none is left"
    names = Counter(node.name for node in model.graph.node)
    assert set(names.values()) == {1} and "" not in names
    assert {node.op_type for node in model.graph.node if node.domain == DOMAIN} == (
        {"MassTokenSelect", "PackRows"} if plugins else set()
    )
    assert model.ir_version == 11 and (OPSET, OPSET_OF_LENGTHS) == (23, 24)
    assert model.metadata_props == original(case).metadata_props


@pytest.mark.parametrize("case", SCORING)
def test_the_selection_is_a_plugin_node_where_it_is_asked_for(case: str) -> None:
    before = {node.op_type: node for node in original(case).graph.node if node.domain == DOMAIN}
    for kind in ("MassTokenSelect", "PackRows"):
        (node,) = nodes(made(case, selection=PLUGIN), kind)
        found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        own = {attribute.name: helper.get_attribute_value(attribute) for attribute in before[kind].attribute}
        assert found == own | {"plugin_namespace": TENSORRT_NAMESPACE.encode(), "plugin_version": b"1", "aot": 1}
        assert list(node.input) == list(before[kind].input) and list(node.output) == list(before[kind].output)


@pytest.mark.parametrize("precision", LOW)
def test_selection_reads_float32_in_any_precision(precision: EnginePrecision) -> None:
    model = onnx.shape_inference.infer_shapes(made("stem", precision, selection=PLUGIN))
    types = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.value_info, *model.graph.input]}
    (select,) = nodes(model, "MassTokenSelect")
    assert [types[name] for name in select.input] == [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32]


@pytest.mark.parametrize("case", CASES)
def test_attention_is_handed_heads_a_scale_and_the_mask_where_images_differ(case: str) -> None:
    source = [
        node for node in original(case).graph.node if node.op_type.endswith("Attention") and node.domain == DOMAIN
    ]
    scale = helper.get_attribute_value(next(a for a in source[0].attribute if a.name == "scale"))
    for node in nodes(made(case), "Attention"):
        assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {"scale": scale}
        assert len(node.input) == (4 if CASES[case][2] == "trunk" else 3)
    masks = {node.input[3] for node in nodes(made(case), "Attention") if len(node.input) == 4}
    assert len(masks) <= 1, "one plan for all blocks"


@pytest.mark.parametrize("precision", LOW)
def test_attention_on_packed_rows_is_told_where_images_begin(precision: EnginePrecision) -> None:
    """Nothing is padded or gathered for it; what the readout wants of the plan stays."""
    model = made("trunk", precision, AttentionForm.PACKED)
    (node,) = nodes(model, PACKED_NODE)
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert (found["query_form"], found["kv_form"]) == (b"packed_nhd", b"packed_nhd")
    assert list(node.input[3:]) == ["", "", "", "cu_seqlens", "cu_seqlens"]
    assert kinds(model)["Attention"] == 0
    assert kinds(model)["Gather"] < kinds(made("trunk", precision))["Gather"]
    options = LowerOptions(precision, AttentionForm.PACKED, FUNCTION)
    assert fused_attention(lower_tensorrt(original("trunk"), options)) == CASES["trunk"][3]


def test_what_all_blocks_share_is_computed_once() -> None:
    model = made("dense")
    makers = {name: node for node in model.graph.node for name in node.output}
    into_heads = [node for node in nodes(model, "Transpose") if list(node.attribute[0].ints) == [2, 0, 3, 1, 4]]
    assert len(into_heads) == 3
    (shape,) = {makers[node.input[0]].input[1] for node in into_heads}
    assert makers[shape].op_type == "Concat"


@pytest.mark.parametrize("case", CASES)
def test_the_model_that_was_given_is_left_alone(case: str) -> None:
    model = copied(original(case))
    before = model.SerializeToString(deterministic=True)
    lowered(model, FP16, FUSED, PLUGIN)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("pruning", [PRUNING, None], ids=["density", "dense"])
def test_a_graph_whose_operators_were_inlined_is_refused(pruning: Pruning | None) -> None:
    model = finished("plain", pruning, operators=OperatorForm.INLINE)
    with pytest.raises(ArtifactError, match="were inlined") as caught:
        lower_tensorrt(model, LowerOptions(FP16, FUSED, PLUGIN))
    assert "--inline" in caught.value.hint


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_a_graph_in_half_precision_is_refused_for_another(precision: EnginePrecision) -> None:
    with pytest.raises(ArtifactError, match=f"weights are not float32, and {precision} was asked for") as caught:
        lower_tensorrt(whole("plain", PRUNING, Precision.FP16), LowerOptions(precision, FUSED, FUNCTION))
    assert "--precision" in caught.value.hint


def test_a_graph_in_half_precision_stays_what_it_is() -> None:
    model, images = whole("plain", PRUNING, Precision.FP16), batch("density")
    onnx.checker.check_model(lowered(model, FP16, FUSED), full_check=True)
    found, expected = (Opened(form)(images) for form in (lowered(model, FP16, DECOMPOSED), model))
    np.testing.assert_array_equal(found[COUNTS], expected[COUNTS])
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-3)
    assert kinds(lowered(model, FP16, FUSED))["Attention"] == 1
