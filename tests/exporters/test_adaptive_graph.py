"""Adaptive graphs: what stands in them, once and once per block, before and after ONNX Runtime's own passes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.artifacts.manifest import Precision
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.tokens import Score
from tests.exporters.graphs import (
    ADAPTIVE,
    OPSET,
    all_nodes,
    before_last,
    finished,
    initializers,
    kinds,
    nodes,
    optimised,
    run,
    vit_named,
    with_outputs,
)
from tests.tiny import random_batch

FORMS = list(OperatorForm)
SMALL = "small/3"
IMAGES = random_batch((3, 3, 32, 32))
POINT = BatchPoint(np.ones(3, dtype=np.float32), np.array([[2, 2], [7, 7], [4, 4]], dtype=np.int32))
KEPT = 2 + 7 + 4 + 3
NEVER = ("IsNaN", "IsInf", "Identity", "Dropout", "If", "Loop", "Scan", "NonZero", "ScatterND", "Compress", "Unique")
PLAN = ("ScatterElements", "CumSum", "Range", "Where", "Mod", "Unsqueeze", "TopK", "Slice")
PACKED_BLOCK = {
    "LayerNormalization": 2,
    "Gemm": 4,
    "Gelu": 1,
    "Reshape": 2,  # rows to their heads, and back
    "Flatten": 2,
    "Gather": 4,  # queries, keys, values, and the result
    "FusedMatMul": 1,  # with the scale and the transposition of the keys
    "MatMul": 1,
    "Softmax": 1,
    "Add": 3,  # two residuals and the mask
}
"""All that a block behind the pruned one costs ONNX Runtime, node by node."""


def test_inputs_and_outputs() -> None:
    for operators in FORMS:
        graph = finished(SMALL, ADAPTIVE, operators=operators).graph
        found = {}
        for value in [*graph.input, *graph.output]:
            kind = value.type.tensor_type
            shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
            found[value.name] = (onnx.TensorProto.DataType.Name(kind.elem_type), shape)
        assert found == {
            "images": ("FLOAT", ["batch", 3, 32, 32]),
            "mass": ("FLOAT", ["batch"]),
            "keep_limits": ("INT32", ["batch", 2]),
            "logits": ("FLOAT", ["batch", 10]),
            "counts": ("INT32", ["batch"]),
        }
        assert not {"mass", "keep_limits"} & set(initializers(finished(SMALL, ADAPTIVE, operators=operators)))


def test_operators_are_joined_as_their_contracts_say() -> None:
    model, vit = finished("small", ADAPTIVE), vit_named("small")
    (select,), (pack,), (read,), (plan,) = (
        nodes(model, kind) for kind in ("MassTokenSelect", "PackRows", "ReadExtents", "PackPlan")
    )
    assert list(select.input) == ["importance", "mass", "keep_limits"]
    assert list(select.output) == ["keep", "counts"]
    assert list(pack.input) == list(select.output)
    assert list(read.input) == list(pack.output)
    assert list(plan.input) == [read.output[0], pack.output[1], read.output[1]]
    stem, trunk = nodes(model, "UniformAttention"), nodes(model, "PackedAttention")
    assert len(stem) == ADAPTIVE.prune_at + 1
    assert len(stem) + len(trunk) == len(vit.blocks)
    for node, block in zip([*stem, *trunk], vit.blocks, strict=True):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == pytest.approx({"num_heads": block.attn.num_heads, "scale": block.attn.scale})
    for node in trunk:
        assert list(node.input[1:]) == list(plan.output)


@pytest.mark.parametrize("operators", FORMS)
@pytest.mark.parametrize("name", [SMALL, "siglip/2", "average-and-largest/2"])
def test_nothing_stands_in_the_graph_that_need_not(name: str, operators: OperatorForm) -> None:
    model = finished(name, before_last(name), operators=operators)
    assert not {node.op_type for node in all_nodes(model)} & set(NEVER)
    weights, used = initializers(model), {source for node in model.graph.node for source in node.input}
    assert set(weights) <= used
    assert not [node for node in nodes(model, "Split") if node.input[0] in weights]


def test_every_linear_layer_is_one_gemm_with_its_bias() -> None:
    vit, model = vit_named(SMALL), finished(SMALL, ADAPTIVE)
    inputs = [list(gemm.input[1:]) for gemm in nodes(model, "Gemm")]
    for block in range(len(vit.blocks)):
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            assert inputs.count([f"vit.blocks.{block}.{layer}.{kind}" for kind in ("weight", "bias")]) == 1
    assert len(inputs) == 4 * len(vit.blocks) + 1
    assert not nodes(model, "MatMul")


def test_the_trunks_linear_layers_run_on_the_kept_tokens_alone() -> None:
    model = finished(SMALL, ADAPTIVE, operators=OperatorForm.INLINE)
    gemms = {node.input[1]: node.output[0] for node in nodes(model, "Gemm") if "blocks." in node.input[1]}
    found = run(with_outputs(model, dict.fromkeys(gemms.values(), onnx.TensorProto.FLOAT)), IMAGES, {}, POINT)
    for weight, output in gemms.items():
        _, _, block, part, *_ = weight.split(".")
        packed = (int(block), part == "mlp") > (ADAPTIVE.prune_at, False)
        assert len(found[output]) == (KEPT if packed else 3 * 17), weight


def test_one_gather_drops_the_tokens() -> None:
    model = finished(SMALL, ADAPTIVE, operators=OperatorForm.INLINE)
    model = onnx.shape_inference.infer_shapes(model)
    element = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.value_info, *model.graph.output]}
    gathers = [node for node in nodes(model, "Gather") if element[node.output[0]] == onnx.TensorProto.FLOAT]
    made = {name for node in model.graph.node for name in node.output}
    names = {name for node in gathers for name in (node.input[0], node.output[0]) if name in made} - {"logits"}
    found = run(with_outputs(model, dict.fromkeys(sorted(names), onnx.TensorProto.FLOAT)), IMAGES, {}, POINT)
    shapes = [(found[node.input[0]].shape, found[node.output[0]].shape) for node in gathers]
    assert shapes.count(((3 * 17, 32), (KEPT, 32))) == 1
    # Every other gather lays heads out, brings them back, or picks what the readout reads.
    heads = vit_named(SMALL).blocks[0].attn.num_heads
    stem = [((3 * 17 * 3 * heads, 16), (3, heads, 17, 16))] * 3 + [((3 * heads * 17, 16), (3 * 17, heads, 16))]
    trunk = [((KEPT * 3 * heads, 16), (3, heads, 8, 16))] * 3 + [((3 * heads * 8, 16), (KEPT, heads, 16))]
    readout = [((KEPT, 32), (3, 1, 32)), ((3, 1, 32), (3, 32))]
    assert Counter(shapes) == Counter([*stem * 2, *trunk, *readout, ((3 * 17, 32), (KEPT, 32))])


def difference(more: Counter[str], fewer: Counter[str]) -> dict[str, int]:
    """Operators of which there is another number, and how many more."""
    return {kind: more[kind] - fewer[kind] for kind in more | fewer if more[kind] != fewer[kind]}


def made_of(name: str, pruning: AdaptivePruning, folder: Path) -> Counter[str]:
    """Node counts as ONNX Runtime runs the graph."""
    return kinds(optimised(finished(name, pruning), folder))


def test_onnx_runtime_makes_the_plan_once_whatever_the_depth(tmp_path: Path) -> None:
    three, five = (made_of(name, ADAPTIVE, tmp_path) for name in (SMALL, "small"))
    assert difference(five, three) == {kind: 2 * count for kind, count in PACKED_BLOCK.items()}
    assert not set(PACKED_BLOCK) & {*PLAN, "Transpose", "Cast", "Mul"}
    once = {kind: three[kind] for kind in ("TopK", "ScatterElements", "CumSum", "Mod", "Transpose")}
    assert once == {
        "TopK": 1,
        "ScatterElements": 2,  # the rows, and the lanes they find
        "CumSum": 4,
        "Mod": 2,  # of whole images, and of packed ones
        "Transpose": 1,  # of the patch embedding
    }
    assert three["FusedMatMul"] == three["MatMul"] == three["Softmax"] == 3


def test_onnx_runtime_spares_a_block_of_whole_images_the_mask_alone(tmp_path: Path) -> None:
    late = AdaptivePruning(Score.MEAN, ADAPTIVE.prune_at + 2)
    early, late_counts = (made_of("small", pruning, tmp_path) for pruning in (ADAPTIVE, late))
    assert difference(early, late_counts) == {"Add": 2}


def test_onnx_runtime_makes_the_same_of_the_inlined_graph(tmp_path: Path) -> None:
    inline = kinds(optimised(finished(SMALL, ADAPTIVE, operators=OperatorForm.INLINE), tmp_path))
    assert difference(inline, made_of(SMALL, ADAPTIVE, tmp_path)) == {}


def test_half_precision_keeps_norms_softmax_and_selection_in_float32() -> None:
    model = finished("siglip/2", before_last("siglip/2"), OPSET, OperatorForm.INLINE, Precision.FP16)
    model = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    vit: VisionTransformer = vit_named("siglip/2")
    found = [types[node.output[0]] for kind in ("Softmax", "LayerNormalization") for node in nodes(model, kind)]
    # The readout has a softmax and a norm of its own.
    assert found == [onnx.TensorProto.FLOAT] * (3 * len(vit.blocks) + 3)
    assert types["importance"] == onnx.TensorProto.FLOAT
    products = {types[node.output[0]] for kind in ("Gemm", "MatMul") for node in nodes(model, kind)}
    assert products == {onnx.TensorProto.FLOAT16}
