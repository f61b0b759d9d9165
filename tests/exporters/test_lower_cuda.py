"""The lowering for ONNX Runtime CUDA: its own fused attention for every attention whose weights nothing reads.

No kernel of ``PackedMultiHeadAttention`` is needed to test it: ONNX Runtime resolves the graph's types and shapes, and
its answers come from the operators written here, as ONNX Runtime documents them.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnxruntime.capi import onnxruntime_pybind11_state as pybind

from sait_deploy.artifacts.manifest import COUNTS, Precision
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters.finish import OperatorForm
from sait_deploy.exporters.lower_cuda import MICROSOFT, PACKED, UNIFORM, fused_attention, lower_attention
from sait_deploy.models.pruning import Pruning
from sait_deploy.plugins.spec import DOMAIN
from tests.exporters.graphs import ADAPTIVE, PRUNING, Opened, before_last, copied, feeds, finished, kinds, nodes
from tests.tiny import random_batch

FP32, FP16 = Precision.FP32, Precision.FP16
MOST = 5

# The small model, how it is pruned, its precision, and the fused attentions that it should come to have.
Case = tuple[str, Pruning | None, Precision, dict[str, int]]
PACKING: Final[dict[str, Case]] = {
    "five-blocks": ("small", ADAPTIVE, FP32, {PACKED: 3, UNIFORM: 1}),
    "no-prefix": ("siglip/2", before_last("siglip/2"), FP32, {PACKED: 1}),
    "fp16": ("small/3", ADAPTIVE, FP16, {PACKED: 1, UNIFORM: 1}),
    "four-channels": ("narrow", ADAPTIVE, FP32, {PACKED: 1, UNIFORM: 1}),
}
UNPACKED: Final[dict[str, Case]] = {
    "dense": ("plain", None, FP32, {UNIFORM: 2}),
    "dense-fp16": ("plain", None, FP16, {UNIFORM: 2}),
    "density": ("plain", PRUNING, FP32, {UNIFORM: 1}),
    "pruned-in-the-last-block": ("plain", ADAPTIVE, FP32, {UNIFORM: 1}),
}
CASES: Final = PACKING | UNPACKED


@functools.cache
def original(case: str) -> onnx.ModelProto:
    """A graph as export writes it."""
    name, pruning, precision, _ = CASES[case]
    model: onnx.ModelProto = finished(name, pruning, precision=precision)
    return model


@functools.cache
def lowered(case: str) -> onnx.ModelProto:
    """The same after lowering. Never to be changed: copy it first."""
    model: onnx.ModelProto = lower_attention(original(case))
    return model


@functools.cache
def images_for(case: str) -> NDArray[np.float32]:
    height, width = (axis.dim_value for axis in original(case).graph.input[0].type.tensor_type.shape.dim[2:])
    return random_batch((MOST, 3, height, width))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def writing(case: str, name: str) -> onnx.NodeProto:
    """The one node that makes a tensor."""
    writers: list[onnx.NodeProto] = [node for node in lowered(case).graph.node if name in node.output]
    assert len(writers) == 1
    return writers[0]


def reading(case: str, name: str) -> list[onnx.NodeProto]:
    return [node for node in lowered(case).graph.node if name in node.input]


def point_of(*images: tuple[float, int, int]) -> BatchPoint:
    """Mass, least and most of every image."""
    mass, least, most = zip(*images, strict=True)
    return BatchPoint(np.array(mass, np.float32), np.stack([least, most], axis=1).astype(np.int32))


POINTS = {
    "masses": point_of((0.5, 1, 16), (0.9, 1, 16), (0.2, 1, 16), (0.7, 1, 16), (0.95, 1, 16)),
    "limits": point_of((1, 3, 3), (0.5, 8, 12), (0, 1, 1), (1, 1, 16), (0.9, 1, 2)),
    "equal": point_of(*[(1, 6, 6)] * MOST),
    "dense": point_of(*[(1, 1, 16)] * MOST),
}


@pytest.mark.parametrize("case", CASES)
def test_every_attention_is_fused_but_the_one_that_scores(case: str) -> None:
    _, pruning, _, fused = CASES[case]
    before, after = kinds(original(case)), kinds(lowered(case))
    assert (fused_attention(original(case)), fused_attention(lowered(case))) == ({}, fused)
    assert before["PackedAttention"] == fused.get(PACKED, 0) and after["PackedAttention"] == 0
    assert before["UniformAttention"] == fused.get(UNIFORM, 0) + after["UniformAttention"]
    assert after["UniformAttention"] == (0 if pruning is None else 1)
    for scoring in nodes(lowered(case), "UniformAttention"):
        assert scoring in nodes(original(case), "UniformAttention")
        assert reading(case, scoring.output[1])


def test_weights_that_are_an_output_of_the_graph_are_read() -> None:
    model = copied(original("dense"))
    first = nodes(model, "UniformAttention")[0]
    del first.output[1:]
    first.output.append("weights")
    model.graph.output.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, None))
    made = lower_attention(model)
    assert fused_attention(made) == {UNIFORM: 1}
    found, expected = (Opened(form)(images_for("dense"))["weights"] for form in (made, model))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_heads_and_scale_are_kept_and_queries_keys_and_values_handed_over(case: str) -> None:
    sources = {node.output[0]: node for node in original(case).graph.node if node.domain == DOMAIN}
    for node in (node for node in lowered(case).graph.node if node.domain == MICROSOFT):
        (end,) = [node] if node.op_type == PACKED else reading(case, node.output[0])
        source, parts = sources[end.output[0]], list(node.input[:3])
        assert set(attributes(node)) == {"num_heads", "scale"}
        assert attributes(node) == attributes(source)
        if node.op_type == PACKED:
            assert len(node.input) == 6 and node.input[3] == "", "projections add their bias themselves"
        else:
            assert len(node.input) == 3
            parts = [writing(case, name).input[0] for name in parts]
        split = writing(case, parts[0])
        assert (split.op_type, list(split.input), list(split.output)) == ("Split", [source.input[0]], parts)
        assert attributes(split) == {"axis": 1, "num_outputs": 3}


@pytest.mark.parametrize("case", PACKING)
def test_the_plan_is_made_once_for_all_blocks(case: str) -> None:
    (plan,) = {tuple(node.input[4:]) for node in nodes(lowered(case), PACKED)}
    assert all(writing(case, name) for name in plan)
    assert kinds(lowered(case))["NonZero"] == 1


def test_lanes_are_listed_for_kernels_that_read_them_alone() -> None:
    """Fused kernels take heads of a multiple of 8 channels, and of the lanes read the shape, which `keep` has too."""
    for case in PACKING:
        offsets = writing(case, nodes(lowered(case), PACKED)[0].input[4])
        assert (offsets.op_type == "MassTokenSelect") == (case != "four-channels")


@pytest.mark.parametrize("case", CASES)
def test_the_model_that_was_given_is_left_alone(case: str) -> None:
    model = copied(original(case))
    graph, made = model.graph, lower_attention(model)
    assert model == original(case)
    assert (graph.input, graph.output) == (made.graph.input, made.graph.output)
    assert (model.metadata_props, model.ir_version) == (made.metadata_props, made.ir_version)


@pytest.mark.parametrize("case", CASES)
def test_it_is_whole_and_its_functions_are_those_in_use(case: str) -> None:
    onnx.checker.check_model(lowered(case), full_check=True)
    names = sorted(function.name for function in lowered(case).functions)
    assert names == sorted({node.op_type for node in lowered(case).graph.node if node.domain == DOMAIN})
    assert (names == []) == (CASES[case][1] is None)


@pytest.mark.parametrize("pruning", [PRUNING, ADAPTIVE], ids=["density", "adaptive"])
def test_an_inlined_graph_comes_back_equal(pruning: Pruning) -> None:
    model = finished("plain", pruning, operators=OperatorForm.INLINE)
    made = lower_attention(model)
    assert made == model and made is not model


@functools.cache
def without_the_kernel(case: str) -> Opened:
    """The lowered graph with its packed attentions replaced by their queries, the plan among its outputs."""
    model, (*_, offsets, lengths) = copied(lowered(case)), nodes(lowered(case), PACKED)[0].input
    for node in nodes(model, PACKED):
        node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
    return Opened(model, dict.fromkeys((offsets, lengths), TensorProto.INT32))


@pytest.mark.parametrize("case", PACKING)
def test_onnx_runtime_lacks_nothing_but_the_kernel(case: str) -> None:
    """Types and shapes are resolved before kernels are looked for; on a CPU there is none for packed attention."""
    with pytest.raises(Exception, match=f"NOT_IMPLEMENTED.*{PACKED}") as caught:
        Opened(lowered(case))
    assert type(caught.value).__name__ == "NotImplemented"
    assert len(without_the_kernel(case)(images_for(case), POINTS["masses"])["logits"]) == MOST


@pytest.mark.parametrize("case", UNPACKED)
def test_without_packed_attention_it_runs_and_gives_the_same_answer(case: str) -> None:
    point = POINTS["masses"] if CASES[case][1] is ADAPTIVE else None
    found, expected = (Opened(form(case))(images_for(case), point) for form in (lowered, original))
    tolerance = 1e-4 if CASES[case][2] is FP32 else 2e-2
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(found.get(COUNTS), expected.get(COUNTS))


def test_an_opset_before_those_of_the_lowering_stays_as_it_is() -> None:
    model = finished(opset=17)
    assert lower_attention(model) == model


def test_the_oldest_opset_that_is_lowered() -> None:
    model = finished(opset=18)
    made = lower_attention(model)
    onnx.checker.check_model(made, full_check=True)
    found, expected = (Opened(form)(images_for("density"))["logits"] for form in (made, model))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "case"), [(PACKED, "five-blocks"), (UNIFORM, "dense")])
def test_inputs_and_attributes_are_those_of_onnx_runtimes_schema(name: str, case: str) -> None:
    if not hasattr(pybind, "get_all_operator_schema"):
        pytest.skip("this onnxruntime does not tell its schemas")
    (schema,) = [s for s in pybind.get_all_operator_schema() if (s.domain, s.name) == (MICROSOFT, name)]
    plan = ["bias", "token_offset", "cumulative_sequence_length"] if name == PACKED else []
    wanted = ["query", "key", "value", *plan]
    for node in nodes(lowered(case), name):
        assert [parameter.name for parameter in schema.inputs][: len(node.input)] == wanted
        assert {key for key, value in schema.attributes.items() if value.required} <= set(attributes(node))
        assert set(attributes(node)) <= set(schema.attributes)


def attend(
    query: NDArray[Any], key: NDArray[Any], value: NDArray[Any], heads: int, scale: float
) -> NDArray[np.float32]:
    """Attention of one image's rows [n, H*Dh]."""
    q, k, v = (part.astype(np.float32).reshape(len(part), heads, -1) for part in (query, key, value))
    scores = np.einsum("qhd,khd->hqk", q, k) * scale
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed: NDArray[np.float32] = np.einsum("hqk,khd->qhd", weights / weights.sum(axis=-1, keepdims=True), v)
    return mixed.reshape(len(query), -1)


class PackedMultiHeadAttention(OpRun):
    """Heads of 8 channels, or a multiple, lie where the lengths say. Others go to the padded layout, padding on the
    right, to the places that token_offset names."""

    op_domain = MICROSOFT

    def _run(self, *inputs: Any, num_heads: int, scale: float, **_: Any) -> tuple[NDArray[Any]]:
        query, key, value, bias, offsets, lengths = inputs
        (batch, width), rows = offsets.shape, len(query)
        assert bias is None and query.ndim == 2 and query.shape == key.shape == value.shape
        assert offsets.dtype == lengths.dtype == np.int32
        assert lengths.shape == (batch + 1,) and (lengths[0], lengths[-1]) == (0, rows)
        assert np.diff(lengths).max() <= width
        if query.shape[1] // num_heads % 8 == 0:
            images = [slice(*ends) for ends in itertools.pairwise(lengths)]
            mixed = [attend(query[one], key[one], value[one], num_heads, scale) for one in images]
            return (np.concatenate(mixed).astype(query.dtype),)
        assert sorted(offsets.flat) == list(range(batch * width))
        padded = [np.full((batch * width, query.shape[1]), np.nan, query.dtype) for _ in range(3)]
        for place, part in zip(padded, (query, key, value), strict=True):
            place[offsets.flat[:rows]] = part
        output = np.full_like(padded[0], np.nan)
        for image, length in enumerate(np.diff(lengths)):
            real = slice(image * width, image * width + length)
            q, k, v = (place[real] for place in padded)
            output[real] = attend(q, k, v, num_heads, scale)
        return (output[offsets.flat[:rows]],)


class MultiHeadAttention(OpRun):
    op_domain = MICROSOFT

    def _run(self, query: Any, key: Any, value: Any, *, num_heads: int, scale: float, **_: Any) -> tuple[NDArray[Any]]:
        mixed = [attend(q, k, v, num_heads, scale) for q, k, v in zip(query, key, value, strict=True)]
        return (np.stack(mixed).astype(query.dtype),)


class FusedMatMul(OpRun):
    op_domain = MICROSOFT

    def _run(self, left: Any, right: Any, *, alpha: float, transB: int, **_: Any) -> tuple[NDArray[Any]]:  # noqa: N803
        assert transB == 1
        product: NDArray[Any] = alpha * (left.astype(np.float32) @ right.astype(np.float32).swapaxes(-1, -2))
        return (product.astype(left.dtype),)


@functools.cache
def both(case: str) -> tuple[ReferenceEvaluator, Opened]:
    operators = [PackedMultiHeadAttention, MultiHeadAttention, FusedMatMul]
    # The evaluator of a function does not know operators that are new.
    inlined = onnx.inliner.inline_local_functions(copied(lowered(case)))
    return ReferenceEvaluator(inlined, new_ops=operators), Opened(original(case))


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("case", PACKING)
def test_the_lowered_graph_means_the_same(case: str, name: str) -> None:
    (evaluator, runtime), images = both(case), images_for(case)
    tolerance = 1e-4 if CASES[case][2] is FP32 else 2e-2
    for batch in (1, 2, MOST):
        point = BatchPoint(POINTS[name].mass[:batch], POINTS[name].keep_limits[:batch])
        answers = evaluator.run(None, feeds(images[:batch], point))
        found, expected = dict(zip(evaluator.output_names, answers, strict=True)), runtime(images[:batch], point)
        np.testing.assert_array_equal(found[COUNTS], expected[COUNTS])
        np.testing.assert_allclose(found["logits"], expected["logits"], rtol=tolerance, atol=tolerance)


POINT = st.tuples(st.floats(0, 1.25, width=32), st.integers(1, 16), st.integers(1, 16))


@given(st.lists(POINT, min_size=1, max_size=MOST))
@settings(max_examples=40, deadline=None)
def test_offsets_are_the_real_lanes_then_the_padding(points: list[tuple[float, int, int]]) -> None:
    case = "four-channels"
    point = point_of(*((mass, min(limits), max(limits)) for mass, *limits in points))
    found = without_the_kernel(case)(images_for(case)[: len(points)], point)
    offsets, lengths = (found[name] for name in nodes(lowered(case), PACKED)[0].input[4:])
    counts = found[COUNTS]
    real = np.arange(17) < counts[:, None]
    lanes = np.arange(real.size)
    assert offsets.shape == real.shape, "as wide as the longest image that there can be, which no host has to read"
    assert offsets.ravel().tolist() == [*lanes[real.ravel()], *lanes[~real.ravel()]]
    assert lengths.tolist() == [0, *np.cumsum(counts)]
