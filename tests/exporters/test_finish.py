"""Finished graphs: what stands in them, what does not, and that the file on disk is the same graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sait_deploy import __version__
from sait_deploy.artifacts.manifest import EXPORTED_PRECISIONS, Precision
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters import finish as finish_module
from sait_deploy.exporters.finish import FinishOptions, OperatorForm, finish, save
from sait_deploy.models.pruning import FixedPruning, Pruning
from sait_deploy.runtime.openvino import shared_core
from tests.exporters.graphs import (
    ADAPTIVE,
    METADATA,
    OPSET,
    PRUNING,
    SELECTION,
    all_nodes,
    finished,
    initializers,
    kinds,
    nodes,
    run,
    unfinished,
    vit_named,
)
from tests.tiny import random_batch

OPSETS = (17, 18, 20, 23, 25)
FORMS = (None, PRUNING)
NAMES = ("plain", "siglip", "dinov2-registers-swiglu")
IMAGES = random_batch((3, 3, 32, 32))
POINT = BatchPoint(np.ones(3, dtype=np.float32), np.array([[2, 2], [7, 7], [4, 4]], dtype=np.int32))


@pytest.mark.parametrize("operators", list(OperatorForm))
@pytest.mark.parametrize("pruning", FORMS)
def test_the_checker_accepts_the_whole_model(pruning: FixedPruning | None, operators: OperatorForm) -> None:
    onnx.checker.check_model(finished(pruning=pruning, operators=operators), full_check=True)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("operators", list(OperatorForm))
@pytest.mark.parametrize(
    ("name", "pruning", "point"),
    [("plain", None, None), ("plain", PRUNING, None), pytest.param("small/3", ADAPTIVE, POINT, marks=pytest.mark.slow)],
    ids=["dense", "density", "adaptive"],
)
def test_every_opset_is_whole_and_gives_the_same_answer(
    name: str, pruning: Pruning | None, point: BatchPoint | None, operators: OperatorForm, opset: int
) -> None:
    model = finished(name, pruning, opset=opset, operators=operators)
    onnx.checker.check_model(model, full_check=True)
    domains = {entry.domain: entry.version for entry in model.opset_import}
    assert domains == {"": opset} | ({} if operators is OperatorForm.INLINE else {"ai.sait": 1})
    for function in model.functions:
        assert [(entry.domain, entry.version) for entry in function.opset_import] == [("", opset)]
    further = {} if pruning is None else SELECTION
    found, expected = (run(each, IMAGES, further, point) for each in (model, finished(name, pruning)))
    if pruning is not None:
        np.testing.assert_array_equal(found["keep"], expected["keep"])
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)


def test_functions_are_attached_for_the_operators_that_are_there() -> None:
    always, fixed = {"UniformAttention"}, {"MassTokenSelect", "PackRows"}
    adaptive = {"ReadExtents", "PackPlan", "PackedAttention"}
    for pruning, names in ((None, always), (PRUNING, always | fixed), (ADAPTIVE, always | fixed | adaptive)):
        # The adaptive model needs a block after the one that is pruned in.
        model = finished("small/3", pruning)
        assert sorted((f.domain, f.name) for f in model.functions) == [("ai.sait", name) for name in sorted(names)]
        assert {node.op_type for node in model.graph.node if node.domain == "ai.sait"} == names


@pytest.mark.parametrize("pruning", [None, PRUNING, ADAPTIVE])
def test_inlining_leaves_no_trace_of_the_domain(pruning: Pruning | None) -> None:
    model = finished("small/3", pruning, operators=OperatorForm.INLINE)
    assert not model.functions
    assert {entry.domain for entry in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    assert kinds(model)["Softmax"] == 3
    assert kinds(model)["TopK"] == (pruning is not None)


@pytest.mark.parametrize("precision", EXPORTED_PRECISIONS)
def test_inlining_changes_no_bit_of_the_selection(precision: Precision) -> None:
    function = run(finished(precision=precision), IMAGES, SELECTION)
    inline = run(finished(precision=precision, operators=OperatorForm.INLINE), IMAGES, SELECTION)
    assert function.keys() == inline.keys()
    for name, array in function.items():
        np.testing.assert_array_equal(inline[name], array, err_msg=name)


def test_the_selections_tensors_have_their_names_in_both_forms() -> None:
    for operators in OperatorForm:
        model = finished(operators=operators)
        outputs = [name for node in model.graph.node for name in node.output]
        assert outputs.count("importance") == 1
        assert outputs.count("keep") == 1
        assert len(outputs) == len(set(outputs))
    select = nodes(finished(), "MassTokenSelect")[0]
    assert select.input[0] == "importance"
    assert select.output[0] == "keep"


@pytest.mark.parametrize("name", NAMES)
def test_pruning_adds_two_operators_and_one_gather_of_tokens(name: str) -> None:
    dense, pruned = kinds(finished(name, None)), kinds(finished(name))
    assert pruned["MassTokenSelect"] == pruned["PackRows"] == 1
    assert dense["MassTokenSelect"] == dense["PackRows"] == 0
    assert pruned["Gather"] == dense["Gather"] + 1
    for kind in ("UniformAttention", "Gemm", "MatMul", "Softmax", "LayerNormalization", "Gelu", "Conv", "Transpose"):
        assert pruned[kind] == dense[kind], kind


def test_the_gather_takes_the_packing_plans_rows() -> None:
    model = finished()
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for gather in nodes(model, "Gather"):
        source = gather.input[1]
        while source in makers and makers[source].op_type in ("Cast", "Reshape", "Slice", "Squeeze", "Unsqueeze"):
            source = makers[source].input[0]
        if source in makers and makers[source].op_type == "PackRows":
            found.append(gather)
            assert source == makers[source].output[0]
    assert len(found) == 1


@pytest.mark.parametrize("pruning", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_every_linear_layer_is_one_gemm_with_its_bias(name: str, pruning: FixedPruning | None) -> None:
    vit, model = vit_named(name), finished(name, pruning)
    weights = initializers(model)
    gemms = [node for node in nodes(model, "Gemm") if any("blocks." in name for name in node.input)]
    assert len(gemms) == sum(isinstance(module, nn.Linear) for module in vit.blocks.modules())
    biased = sum(_is_linear_bias(vit, name) for name, _ in vit.blocks.named_parameters())
    assert sum(len(gemm.input) == 3 for gemm in gemms) == biased
    loose = [node for node in nodes(model, "MatMul") if any(name in weights for name in node.input)]
    pooling = [] if vit.attn_pool is None else [m for m in vit.attn_pool.modules() if isinstance(m, nn.Linear)]
    assert len(loose) <= len(pooling)


def _is_linear_bias(vit: VisionTransformer, name: str) -> bool:
    owner, _, kind = name.rpartition(".")
    return kind == "bias" and isinstance(vit.blocks.get_submodule(owner), nn.Linear)


@pytest.mark.parametrize("pruning", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_stands_in_the_graph_that_need_not(name: str, pruning: FixedPruning | None) -> None:
    found = kinds(finished(name, pruning))
    for kind in ("IsNaN", "Where", "Identity", "Dropout", "If", "Loop", "NonZero", "ScatterND", "Constant", "IsInf"):
        assert found[kind] == 0, kind


@pytest.mark.parametrize("pruning", FORMS)
@pytest.mark.parametrize(
    ("name", "precision"), [("plain", Precision.FP16), *((name, Precision.FP32) for name in NAMES)]
)
def test_no_weight_is_cut_or_left_unused(name: str, precision: Precision, pruning: FixedPruning | None) -> None:
    model = finished(name, pruning, precision=precision)
    weights = initializers(model)
    assert not [node for node in nodes(model, "Split") if node.input[0] in weights]
    used = {name for node in model.graph.node for name in node.input}
    assert set(weights) <= used


@pytest.mark.parametrize("name", NAMES)
def test_queries_keys_and_values_are_one_projection(name: str) -> None:
    model, weights = finished(name), initializers(finished(name))
    for index, block in enumerate(vit_named(name).blocks):
        prefix = f"vit.blocks.{index}.attn.qkv"
        (gemm,) = [node for node in nodes(model, "Gemm") if any(name.startswith(prefix) for name in node.input)]
        assert list(gemm.input[1:]) == [f"{prefix}.weight", f"{prefix}.bias"]
        for kind in ("weight", "bias"):
            whole = getattr(block.attn.qkv, kind).detach().numpy()
            np.testing.assert_array_equal(weights[f"{prefix}.{kind}"], whole)
        (attention,) = [node for node in nodes(model, "UniformAttention") if node.input[0] == gemm.output[0]]
        assert attention.domain == "ai.sait"


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_written_once(name: str) -> None:
    vit = vit_named(name)
    floats = sum(array.size for array in initializers(finished(name, None)).values() if array.dtype == np.float32)
    parameters = sum(p.numel() for p in vit.parameters())
    unused = sum(
        p.numel() for n, p in vit.named_parameters() if n.startswith("attn_pool.q.") or n == "attn_pool.latent"
    )
    latent = 0 if vit.attn_pool is None else vit.embed_dim * vit.attn_pool.latent_len
    assert parameters - unused <= floats <= parameters + latent + 16


def test_metadata_and_producer() -> None:
    for operators in OperatorForm:
        model = finished(operators=operators)
        assert {entry.key: entry.value for entry in model.metadata_props} == METADATA
        assert (model.producer_name, model.producer_version) == ("sait-deploy", __version__)


@pytest.mark.parametrize("operators", list(OperatorForm))
def test_nodes_are_named_after_their_block(operators: OperatorForm) -> None:
    model = finished("small/3", ADAPTIVE, operators=operators)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    blocks = [int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)[./]", name))]
    assert blocks == sorted(blocks), "a block's nodes follow those of the block before"
    assert len(set(blocks)) == len(vit_named("small/3").blocks)
    assert len(blocks) > 0.6 * len(names)
    assert not [name for name in names if name.startswith("_")]
    products = [name for name in names if name.endswith(tuple("0123456789")) and "/Gemm_" in name]
    assert any(".mlp.fc1/" in name for name in products)


@pytest.mark.parametrize("operators", list(OperatorForm))
@pytest.mark.parametrize(("name", "pruning"), [("plain", PRUNING), ("small/3", ADAPTIVE)], ids=["density", "adaptive"])
def test_no_path_of_this_machine_is_in_the_file(name: str, pruning: Pruning, operators: OperatorForm) -> None:
    model = finished(name, pruning, operators=operators)
    for node in all_nodes(model):
        assert not node.metadata_props
    assert not any(node.doc_string for node in model.graph.node)
    data = model.SerializeToString()
    for text in ("site-packages", ".py", str(Path.home()), str(Path(__file__).parent.parent.parent)):
        assert text.encode() not in data, text


@pytest.mark.parametrize("operators", list(OperatorForm))
def test_the_standards_own_evaluator_gives_the_same_answer(operators: OperatorForm) -> None:
    model = finished(operators=operators)
    evaluator = ReferenceEvaluator(model)
    found: Any = evaluator.run(["logits", "counts"], {"images": IMAGES})
    expected = run(model, IMAGES)
    np.testing.assert_allclose(np.asarray(found[0]), expected["logits"], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found[1]), expected["counts"])


def test_inlined_graphs_run_on_openvino() -> None:
    pytest.importorskip("openvino")
    model = finished(operators=OperatorForm.INLINE)
    core = shared_core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    for batch in (1, 3):
        expected = run(model, IMAGES[:batch])
        found = {output.get_any_name(): value for output, value in compiled(IMAGES[:batch]).items()}
        np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found["counts"], expected["counts"])


def fresh() -> ir.Model:
    model: ir.Model = finish(unfinished(), FinishOptions(OPSET, OperatorForm.FUNCTION, METADATA))
    return model


def run_file(path: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, {"images": IMAGES})
    return results


def test_a_saved_model_is_one_file(tmp_path: Path) -> None:
    assert save(fresh(), tmp_path / "model.onnx") == ["model.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)


def test_large_weights_lie_in_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(fresh(), tmp_path / "small.onnx")
    monkeypatch.setattr(finish_module, "LARGEST_PROTOBUF", 10_000)
    assert save(fresh(), tmp_path / "model.onnx") == ["model.onnx", "model.onnx.data"]
    model = onnx.load(str(tmp_path / "model.onnx"), load_external_data=False)
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert outside
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {
        "model.onnx.data"
    }
    assert (tmp_path / "model.onnx").stat().st_size < (tmp_path / "small.onnx").stat().st_size
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    for found, expected in zip(run_file(tmp_path / "model.onnx"), run_file(tmp_path / "small.onnx"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_limit_itself_still_fits_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh()
    size = sum(t.const_value.nbytes for t in model.graph.initializers.values() if t.const_value is not None)
    monkeypatch.setattr(finish_module, "LARGEST_PROTOBUF", size)
    assert save(model, tmp_path / "model.onnx") == ["model.onnx"]
    monkeypatch.setattr(finish_module, "LARGEST_PROTOBUF", size - 1)
    assert len(save(model, tmp_path / "model.onnx")) == 2


def test_images_of_another_shape_are_refused_by_the_graph() -> None:
    with pytest.raises(Exception, match="images"):
        run(finished(), random_batch((1, 3, 40, 40)))
