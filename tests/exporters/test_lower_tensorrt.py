"""The lowering for TensorRT: one ``Attention`` a block but for the block that scores, at opset 23, in every precision.

What the fused form means is asked of ONNX's own reference, as ONNX Runtime's ``Attention`` takes no mask of one row for
all heads; that it can be built is asked of TensorRT for RTX where that is installed, which needs no GPU to build.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.cut import cut
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.lower_tensorrt import OPSET, fused_attention, lower_tensorrt
from sait_deploy.exporters.names import (
    CU_SEQLENS,
    GUARD,
    KEPT,
    LANES,
    TOKENS,
    AttentionForm,
    EnginePrecision,
    LowerOptions,
    SelectionForm,
)
from sait_deploy.manifest import COUNTS, Precision
from sait_deploy.models import AdaptivePruning, Pruning
from sait_deploy.plugins.spec import DOMAIN, TENSORRT_NAMESPACE
from sait_deploy.points import BatchPoint
from tests.exporters.graphs import (
    ADAPTIVE,
    PRUNING,
    Opened,
    before_last,
    copied,
    feeds,
    finished,
    kinds,
    nodes,
    vit_named,
)
from tests.exporters.parts import InParts, lowered, parts_of, whole
from tests.tiny import random_batch

FP16, BF16, FP32 = EnginePrecision.FP16, EnginePrecision.BF16, EnginePrecision.FP32
FUSED, DECOMPOSED = AttentionForm.FUSED, AttentionForm.DECOMPOSED
PLUGIN, FUNCTION = SelectionForm.PLUGIN, SelectionForm.FUNCTION
LOW: Final = {FP16: TensorProto.FLOAT16, BF16: TensorProto.BFLOAT16}

# The small model, how it is pruned, and which of the cut graph's parts; then the attentions that fuse.
Case = tuple[str, Pruning | None, str, int]
CASES: Final[dict[str, Case]] = {
    "dense": ("small/3", None, "whole", 3),
    "density": ("plain", PRUNING, "whole", 1),
    "stem": ("small/3", ADAPTIVE, "stem", 1),
    "trunk": ("small/3", ADAPTIVE, "trunk", 1),
    "stem-that-scores-at-once": ("siglip/2", before_last("siglip/2"), "stem", 0),
    "trunk-of-attention-pool": ("siglip/2", before_last("siglip/2"), "trunk", 1),
}
SCORING: Final = [case for case in CASES if "trunk" not in case and case != "dense"]


@functools.cache
def original(case: str) -> onnx.ModelProto:
    name, pruning, part, _ = CASES[case]
    if not isinstance(pruning, AdaptivePruning):
        return whole(name, pruning)
    model: onnx.ModelProto = getattr(parts_of(name, pruning), part)
    return model


@functools.cache
def made(
    case: str,
    precision: EnginePrecision = FP16,
    attention: AttentionForm = FUSED,
    selection: SelectionForm = FUNCTION,
) -> onnx.ModelProto:
    """A lowered graph. Never to be changed: copy it first."""
    return lowered(original(case), precision, attention, selection)


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


@pytest.mark.parametrize("model", ["adaptive", "density", "dense"])
def test_all_blocks_fuse_in_a_dense_graph_and_all_but_one_in_a_pruned_one(model: str) -> None:
    cases = ["stem", "trunk"] if model == "adaptive" else [model]
    depth = len(vit_named(CASES[cases[0]][0]).blocks)
    fused = sum(kinds(made(case))["Attention"] for case in cases)
    assert fused == (depth if model == "dense" else depth - 1)


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
    assert domains == {"": 23} | ({DOMAIN: 1} if plugins else {})
    assert not model.functions, "TensorRT finds functions by name alone: none is left"
    names = Counter(node.name for node in model.graph.node)
    assert set(names.values()) == {1} and "" not in names
    assert {node.op_type for node in model.graph.node if node.domain == DOMAIN} == (
        {"MassTokenSelect", "PackRows"} if plugins else set()
    )
    assert model.ir_version == 11 and OPSET == 23
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
    assert "--dtype" in caught.value.hint


def test_a_graph_in_half_precision_stays_what_it_is() -> None:
    model, images = whole("plain", PRUNING, Precision.FP16), batch("density")
    onnx.checker.check_model(lowered(model, FP16, FUSED), full_check=True)
    found, expected = (Opened(form)(images) for form in (lowered(model, FP16, DECOMPOSED), model))
    np.testing.assert_array_equal(found[COUNTS], expected[COUNTS])
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-3)
    assert kinds(lowered(model, FP16, FUSED))["Attention"] == 1


def batch(case: str, count: int = 4) -> NDArray[np.float32]:
    name = CASES[case][0]
    return random_batch((count, 3, *vit_named(name).patch_embed.img_size), seed=5)


POINT: Final = BatchPoint(
    np.array([0.5, 1, 0.8, 1], np.float32), np.array([[1, 16], [3, 3], [1, 9], [1, 16]], np.int32)
)


def evaluated(model: onnx.ModelProto, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What ONNX's own reference answers."""
    evaluator = ReferenceEvaluator(model)
    return dict(zip(evaluator.output_names, evaluator.run(None, given), strict=True))


def difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    found, expected = found.astype(np.float32), expected.astype(np.float32)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


TOLERANCE: Final = {FP32: 1e-5, FP16: 2e-2, BF16: 1e-1}


@pytest.mark.parametrize("attention", AttentionForm)
@pytest.mark.parametrize("precision", EnginePrecision)
@pytest.mark.parametrize("case", ["dense", "density"])
def test_one_engine_means_what_the_file_means(case: str, precision: EnginePrecision, attention: AttentionForm) -> None:
    images = batch(case)
    expected = Opened(original(case))(images)["logits"]
    found = evaluated(made(case, precision, attention), {"images": images})["logits"]
    assert found.dtype == np.float32
    # A token more or less changes a pruned answer: where precision may do that, the answer is not compared.
    if precision is FP32 or case == "dense":
        assert difference(found, expected) < TOLERANCE[precision]
    if precision is FP32:
        assert difference(Opened(made(case, precision, attention))(images)["logits"], expected) < 1e-5


@pytest.mark.parametrize("attention", AttentionForm)
@pytest.mark.parametrize("precision", EnginePrecision)
@pytest.mark.parametrize("trunk", ["trunk", "trunk-of-attention-pool"])
def test_a_trunk_means_what_the_file_means(trunk: str, precision: EnginePrecision, attention: AttentionForm) -> None:
    name, pruning, *_ = CASES[trunk]
    assert isinstance(pruning, AdaptivePruning)
    seam = InParts(parts_of(name, pruning)).seam(batch(trunk), POINT)
    assert len(set(seam[COUNTS].tolist())) > 2
    expected = Opened(whole(name, pruning))(batch(trunk), POINT)["logits"]
    model = made(trunk, precision, attention)
    given = {value.name: seam[value.name] for value in model.graph.input}
    if precision in LOW:
        given[TOKENS] = seam[TOKENS].astype(helper.tensor_dtype_to_np_dtype(LOW[precision]))
    assert difference(evaluated(model, given)["logits"], expected) < TOLERANCE[precision]
    given[GUARD] = np.array([[0], [np.nan], [0], [0]], np.float32)
    found = evaluated(model, given)["logits"]
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("attention", AttentionForm)
@pytest.mark.parametrize("precision", EnginePrecision)
@pytest.mark.parametrize("stem", ["stem", "stem-that-scores-at-once"])
def test_a_stem_means_what_the_file_means(stem: str, precision: EnginePrecision, attention: AttentionForm) -> None:
    images = batch(stem)
    expected = Opened(original(stem))(images, POINT)
    found = evaluated(made(stem, precision, attention), feeds(images, POINT))
    assert difference(found[TOKENS], expected[TOKENS]) < TOLERANCE[precision]
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in expected.items()}
    assert found[COUNTS][1] == expected[COUNTS][1], "limits alone decide"
    assert sorted(found["rows"]) == list(range(len(found["rows"])))
    if precision is FP32:
        for name in ("rows", CU_SEQLENS, COUNTS, GUARD):
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("opset", [18, 23])
def test_graphs_of_other_opsets(opset: int) -> None:
    model = whole("plain", AdaptivePruning(ADAPTIVE.score, 0), opset=opset)
    parts, images = cut(model), batch("density")
    seam = InParts(parts).seam(images, POINT)
    expected = Opened(model)(images, POINT)["logits"]
    for precision in (FP32, FP16):
        for part in (parts.stem, parts.trunk):
            onnx.checker.check_model(lowered(part, precision), full_check=True)
        trunk = lowered(parts.trunk, precision)
        assert kinds(trunk)["Attention"] == 1
        given = {value.name: seam[value.name] for value in trunk.graph.input}
        if precision is FP16:
            given[TOKENS] = seam[TOKENS].astype(np.float16)
        assert difference(evaluated(trunk, given)["logits"], expected) < TOLERANCE[precision]


Form = tuple[str, EnginePrecision, AttentionForm]
BUILT: Final[list[Form]] = [
    *((case, FP16, FUSED) for case in CASES),
    ("dense", BF16, FUSED),
    ("trunk", BF16, FUSED),
    ("dense", FP32, DECOMPOSED),
    ("stem", FP32, DECOMPOSED),
    ("trunk", FP32, DECOMPOSED),
]
NOT_BUILT: Final[Form] = ("dense", FP32, FUSED)
"""There is no fused kernel for float32, and nothing falls back to another form in silence."""


def profile(case: str) -> dict[str, list[list[int]]]:
    """Least, usual and most of every input's shape, for batches of 1 to 8."""
    vit = vit_named(CASES[case][0])
    tokens, batches = vit.num_prefix_tokens + vit.patch_embed.num_patches, (1, 4, 8)
    shapes = {
        "images": [[n, 3, *vit.patch_embed.img_size] for n in batches],
        "mass": [[n] for n in batches],
        "keep_limits": [[n, 2] for n in batches],
        TOKENS: [[n * tokens, vit.embed_dim] for n in batches],
        CU_SEQLENS: [[n + 1] for n in batches],
        GUARD: [[n, 1] for n in batches],
        KEPT: [[2], [2 * tokens], [8 * tokens]],
        LANES: [[2], [tokens // 2], [tokens]],
    }
    return {value.name: shapes[value.name] for value in original(case).graph.input}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[Form, dict[str, Any]]:
    """What TensorRT for RTX says of each form, all built in one process of their own."""
    pytest.importorskip("tensorrt_rtx")
    folder, jobs = tmp_path_factory.mktemp("engines"), []
    for form in [*BUILT, NOT_BUILT]:
        path = folder / f"{'-'.join(form)}.onnx"
        path.write_bytes(made(*form).SerializeToString())
        jobs.append({"model": str(path), "profile": profile(form[0])})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(__file__).parent / "rtx_build.py"), str(folder / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(zip([*BUILT, NOT_BUILT], json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("form", BUILT, ids="-".join)
def test_tensorrt_for_rtx_builds_it_with_its_attentions_fused(form: Form, engines: dict[Form, dict[str, Any]]) -> None:
    engine, (case, _, attention) = engines[form], form
    assert engine["errors"] == [] and engine["bytes"] > 0
    assert engine["attention"] == (CASES[case][3] if attention is FUSED else 0)
    for taken, given in engine["casts"]:
        low, whole_numbers = ({taken, given} & names for names in ({"HALF", "BF16"}, {"INT32", "INT64"}))
        assert not (low and whole_numbers), "no index passes through a float"


@pytest.mark.slow
def test_attention_that_has_no_fused_kernel_is_not_built(engines: dict[Form, dict[str, Any]]) -> None:
    engine = engines[NOT_BUILT]
    assert (engine["errors"], engine["attention"], engine["bytes"]) == ([], 3, 0)
