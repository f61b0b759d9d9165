"""Mixed precision: what stays in float32, what does not, and that every cast between them is written once."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from typing import Any, Final

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.names import GUARD, IMPORTANCE, TOKENS, AttentionForm, EnginePrecision
from sait_deploy.exporters.precision import lower_precision
from sait_deploy.models import AdaptivePruning, Pruning
from sait_deploy.points import BatchPoint
from sait_deploy.schedule import Score
from tests.exporters.graphs import ADAPTIVE, PRUNING, Opened, before_last, initializers, nodes
from tests.exporters.parts import InParts, declared, lowered, parts_of, whole
from tests.tiny import random_batch

FP16, BF16 = EnginePrecision.FP16, EnginePrecision.BF16
LOW: Final = {FP16: TensorProto.FLOAT16, BF16: TensorProto.BFLOAT16}
FULL: Final = TensorProto.FLOAT
INTEGERS: Final = {TensorProto.INT32, TensorProto.INT64}


def graph_of(text: str, **weights: Any) -> ir.Model:
    """A graph from ONNX text, its types inferred, with these weights: floats in float32, integers in int64."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g {text}')
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    tensors = [
        onnx.numpy_helper.from_array(array if array.dtype == np.int64 else array.astype(np.float32), name)
        for name, array in arrays.items()
    ]
    model.graph.initializer.extend(tensors)
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def narrowed(model: ir.Model, low: ir.DataType = ir.DataType.FLOAT16, seam: tuple[str, ...] = ()) -> onnx.ModelProto:
    lower_precision(model.graph, low, seam)
    made: onnx.ModelProto = ir.serde.serialize_model(model)
    onnx.checker.check_model(made, full_check=True)
    return made


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor, as ONNX infers it from the operators and not as the graph says."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def computing(model: onnx.ModelProto) -> dict[str, set[int]]:
    """In which floating-point types the operators of each kind run, by what they return."""
    types = types_of(model)
    found: defaultdict[str, set[int]] = defaultdict(set)
    for node in model.graph.node:
        found[node.op_type] |= {types[name] for name in node.output if name} & {FULL, *LOW.values()}
    return {kind: kinds for kind, kinds in found.items() if kinds}


def casts(model: onnx.ModelProto) -> Counter[tuple[str, int]]:
    """How often each tensor is cast to each type."""
    return Counter((node.input[0], node.attribute[0].i) for node in nodes(model, "Cast"))


# What the graphs of a model become.
GRAPHS: Final[dict[str, tuple[str, Pruning | None]]] = {
    "dense": ("small/3", None),
    "density": ("plain", PRUNING),
    "adaptive": ("small/3", ADAPTIVE),
    "attention-pool": ("siglip/2", before_last("siglip/2")),
    "rms-norm": ("aimv2-rmsnorm-swiglu/2", before_last("aimv2-rmsnorm-swiglu/2")),
    "average-and-largest": ("average-and-largest/2", before_last("average-and-largest/2")),
}
ADAPTIVES: Final = [case for case, (_, pruning) in GRAPHS.items() if isinstance(pruning, AdaptivePruning)]


@functools.cache
def originals(case: str) -> dict[str, onnx.ModelProto]:
    name, pruning = GRAPHS[case]
    if not isinstance(pruning, AdaptivePruning):
        return {"whole": whole(name, pruning)}
    parts = parts_of(name, pruning)
    return {"stem": parts.stem, "trunk": parts.trunk}


@functools.cache
def models(
    case: str, precision: EnginePrecision = FP16, attention: AttentionForm = AttentionForm.DECOMPOSED
) -> dict[str, onnx.ModelProto]:
    """The graphs of a case in a precision, operators in place. Never to be changed."""
    return {part: lowered(model, precision, attention) for part, model in originals(case).items()}


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("case", GRAPHS)
def test_products_are_in_the_low_precision_and_norms_and_sums_in_float32(case: str, precision: EnginePrecision) -> None:
    for part, model in models(case, precision).items():
        onnx.checker.check_model(model, full_check=True)
        found = computing(model)
        for kind in ("Gemm", "MatMul", "Conv", "Gelu", "Sigmoid"):
            assert found.get(kind, {LOW[precision]}) == {LOW[precision]}, (part, kind)
        sums = {kind for kind in found if kind.startswith("Reduce")}
        for kind in ("LayerNormalization", "Softmax", "Pow", "Sqrt", "Reciprocal", *sums):
            assert found.get(kind, {FULL}) == {FULL}, (part, kind)
        assert "Gemm" in found


@pytest.mark.parametrize("case", GRAPHS)
def test_fused_attention_is_in_the_low_precision(case: str) -> None:
    found = [computing(model).get("Attention") for model in models(case, FP16, AttentionForm.FUSED).values()]
    assert {TensorProto.FLOAT16} in found
    assert all(kinds in (None, {TensorProto.FLOAT16}) for kinds in found)


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("case", GRAPHS)
def test_inputs_and_outputs_keep_their_types_but_for_the_tokens(case: str, precision: EnginePrecision) -> None:
    for part, model in models(case, precision).items():
        before, after = originals(case)[part].graph, model.graph
        for old, new in ((before.input, after.input), (before.output, after.output)):
            stated = {value.name: declared(value) for value in old}
            if TOKENS in stated:
                stated[TOKENS] = (LOW[precision], stated[TOKENS][1])
            assert {value.name: declared(value) for value in new} == stated
            assert [value.name for value in new] == [value.name for value in old]
        types = types_of(model)
        if part == "trunk":
            assert types[GUARD] == FULL


@pytest.mark.parametrize("score", list(Score))
@pytest.mark.parametrize("precision", LOW)
def test_importance_never_leaves_float32(precision: EnginePrecision, score: Score) -> None:
    """From the softmax to the selection: no tensor on the way is of another type."""
    stem = lowered(parts_of("plain", AdaptivePruning(score, ADAPTIVE.prune_at)).stem, precision)
    types, makers = types_of(stem), {name: node for node in stem.graph.node for name in node.output}
    pending, seen = [IMPORTANCE], []
    while pending:
        maker = makers[pending.pop()]
        seen.append(maker.op_type)
        if maker.op_type == "Softmax":
            continue
        floats = [name for name in maker.input if name in makers and types[name] in {FULL, *LOW.values()}]
        assert {types[name] for name in floats} == {FULL}, maker
        pending += floats
    assert "Softmax" in seen and "Div" in seen and "Cast" not in seen
    # Nor does any tensor between the two that is computed here from importance.
    made = {IMPORTANCE}
    for node in stem.graph.node:
        if made & set(node.input) and node.op_type != "Shape":
            made |= set(node.output)
            assert all(types[name] not in LOW.values() for name in node.output), node


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("case", GRAPHS)
def test_no_index_passes_through_a_float(case: str, precision: EnginePrecision) -> None:
    for attention in AttentionForm:
        for model in models(case, precision, attention).values():
            types = types_of(model)
            for cast in nodes(model, "Cast"):
                taken, given = types[cast.input[0]], types[cast.output[0]]
                assert (taken in INTEGERS, given) != (True, LOW[precision]), cast
                assert (taken, given in INTEGERS) != (LOW[precision], True), cast
            for node in model.graph.node:
                indices = {
                    "Gather": node.input[1:2],
                    "GatherElements": node.input[1:2],
                    "ScatterElements": node.input[1:2],
                    "Reshape": node.input[1:2],
                    "Slice": node.input[1:],
                }.get(node.op_type, [])
                assert all(types[name] in INTEGERS for name in indices if name)


@pytest.mark.parametrize("case", GRAPHS)
def test_every_weight_is_converted_once_and_none_is_left_over(case: str) -> None:
    for part, model in models(case).items():
        read = {name for node in model.graph.node for name in node.input}
        weights = initializers(model)
        assert set(weights) <= read
        matrices = [
            name for name in initializers(originals(case)[part]) if name.endswith(("proj.weight", "qkv.weight"))
        ]
        for name in matrices:
            converted = [found for found in weights if found.startswith(name)]
            assert converted == [f"{name}_f16"]
            assert weights[converted[0]].dtype == np.float16
        assert matrices or part == "trunk"
        assert not any(taken in weights for taken, _ in casts(model)), "weights are converted, not cast"


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("case", GRAPHS)
def test_no_tensor_is_cast_twice_to_one_type_and_none_to_its_own(case: str, precision: EnginePrecision) -> None:
    for model in models(case, precision).values():
        types = types_of(model)
        floats = {FULL, LOW[precision]}
        counted = {key: count for key, count in casts(model).items() if types[key[0]] in floats and key[1] in floats}
        # A function has casts of its own to float32, which are written where it is inlined.
        inserted = {n.input[0] for n in nodes(model, "Cast") if n.output[0].endswith(("_f16", "_bf16", "_f32"))}
        assert all(count == 1 for (name, _), count in counted.items() if name in inserted)
        assert inserted


def batches(model: onnx.ModelProto, count: int = 3) -> NDArray[np.float32]:
    height, width = (axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[2:])
    return random_batch((count, 3, height, width), seed=4)


def closeness(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("case", ["dense", "density"])
def test_half_precision_answers_as_float32_does(case: str) -> None:
    images = batches(originals(case)["whole"])
    found, expected = (Opened(source(case)["whole"])(images)["logits"] for source in (models, originals))
    assert found.dtype == np.float32 and not np.array_equal(found, expected)
    assert closeness(found, expected) < 2e-2


@pytest.mark.parametrize("case", ADAPTIVES)
def test_half_precision_answers_as_float32_does_at_the_same_seam(case: str) -> None:
    """Which tokens are kept may move with the precision, so both trunks get what the float32 stem decided."""
    name, pruning = GRAPHS[case]
    assert isinstance(pruning, AdaptivePruning)
    images, parts = batches(whole(name, pruning)), InParts(parts_of(name, pruning))
    point = BatchPoint(np.array([0.5, 0.8, 1], np.float32), np.array([[1, 16], [1, 6], [1, 16]], np.int32))
    seam = parts.seam(images, point)
    half = Opened(models(case)["stem"])(images, point)
    assert half[TOKENS].dtype == np.float16
    assert closeness(half[TOKENS].astype(np.float32), seam[TOKENS]) < 1e-2
    assert half["counts"].shape == seam["counts"].shape and not half[GUARD].any()
    expected = parts.rest(seam)["logits"]
    session = Opened(models(case)["trunk"]).session
    given = seam | {TOKENS: seam[TOKENS].astype(np.float16)}
    (found,) = session.run(["logits"], {value.name: given[value.name] for value in session.get_inputs()})
    assert found.dtype == np.float32 and not np.array_equal(found, expected)
    assert closeness(found, expected) < 2e-2


def test_a_weight_that_the_low_precision_cannot_hold_is_refused_by_name() -> None:
    text = "(float[2] x) => (float[2] y) { y = Mul(x, strong) }"
    with pytest.raises(ArtifactError, match=r"'strong' reach 100000, more than f16 holds") as caught:
        narrowed(graph_of(text, strong=np.array([1, -1e5])))
    assert "bf16" in caught.value.hint
    made = narrowed(graph_of(text, strong=np.array([1, -1e5])), ir.DataType.BFLOAT16)
    assert {tensor.data_type for tensor in made.graph.initializer} == {TensorProto.BFLOAT16}


@pytest.mark.parametrize(("low", "largest"), [(ir.DataType.FLOAT16, 65504.0), (ir.DataType.BFLOAT16, 3.3895e38)])
def test_the_largest_number_becomes_the_largest_and_infinity_stays(low: ir.DataType, largest: float) -> None:
    text = "(float[4] x, bool[4] c) => (float[4] y) { a = Neg(x) y = Where(c, a, filler) }"
    most = np.finfo(np.float32).max
    made = narrowed(graph_of(text, filler=np.array([-most, most, -np.inf, 1])), low)
    (tensor,) = made.graph.initializer
    values = onnx.numpy_helper.to_array(tensor).astype(np.float64)
    np.testing.assert_allclose(values, [-largest, largest, -np.inf, 1], rtol=1e-4)


def test_a_tensor_that_two_norms_read_is_cast_once_and_a_weight_of_two_products_converted_once() -> None:
    made = narrowed(
        graph_of(
            "(float[2,4] x) => (float[2,4] y) {"
            " a = MatMul(x, w) b = LayerNormalization(a, g) c = LayerNormalization(a, g)"
            " d = MatMul(b, w) e = MatMul(c, w) f = MatMul(b, w) h = Add(d, e) y = Add(h, f) }",
            w=np.eye(4),
            g=np.ones(4),
            unused=np.ones(3),
        )
    )
    assert sorted(initializers(made)) == ["g", "w_f16"]
    to_full = {name: count for (name, to), count in casts(made).items() if to == FULL}
    to_low = {name: count for (name, to), count in casts(made).items() if to == TensorProto.FLOAT16}
    assert set(to_full) >= {"a"} and set(to_full.values()) == {1}
    assert to_low == {"x": 1, "b": 1, "c": 1}
    assert [value.name for value in made.graph.output] == ["y"]


def test_a_weight_that_both_precisions_read_is_there_in_both() -> None:
    made = narrowed(
        graph_of("(float[2,4] x) => (float[2,4] y) { a = Mul(x, g) y = LayerNormalization(a, g) }", g=np.ones(4))
    )
    assert {name: value.dtype for name, value in initializers(made).items()} == {"g": np.float32, "g_f16": np.float16}


def test_the_seam_is_in_the_low_precision_on_both_sides() -> None:
    stem = narrowed(graph_of("(float[2,4] x) => (float[2,4] tokens) { tokens = Softmax(x) }"), seam=("tokens",))
    assert [declared(value)[0] for value in (*stem.graph.input, *stem.graph.output)] == [FULL, TensorProto.FLOAT16]
    trunk = narrowed(graph_of("(float[2,4] tokens) => (float[2,4] y) { y = Softmax(tokens) }"), seam=("tokens",))
    assert [declared(value)[0] for value in (*trunk.graph.input, *trunk.graph.output)] == [TensorProto.FLOAT16, FULL]


def test_sums_that_the_low_precision_cannot_hold_are_not_put_into_it() -> None:
    """A mean written as a sum and a division: the sum is beyond float16, the mean is not."""
    text = (
        "(float[2,300,4] x) => (float[2,4] y)"
        " { a = MatMul(x, w) s = ReduceSum <keepdims = 0> (a, axis) m = Div(s, n) y = MatMul(m, w) }"
    )
    made = narrowed(graph_of(text, w=np.eye(4), n=300.0, axis=np.array([1])))
    (found,) = Opened(made).session.run(["y"], {"x": np.full((2, 300, 4), 900, np.float32)})
    np.testing.assert_allclose(found, 900, rtol=1e-3)


def norm_written_out(last: str) -> ir.Model:
    """An RMSNorm as exporters write it, of what a product gives."""
    return graph_of(
        "(float[2,4] x) => (float[2,4] y) { a = MatMul(x, w) p = Pow(a, two) m = ReduceMean <keepdims = 1> (p, axis)"
        f" v = Add(m, eps) s = Sqrt(v) r = Reciprocal(s) n = Mul(a, r) {last} }}",
        w=np.eye(4),
        g=np.full(4, 2.0),
        two=2.0,
        eps=1e-6,
        axis=np.array([1]),
    )


def test_a_norm_written_out_is_in_float32_to_its_end() -> None:
    made = narrowed(norm_written_out("k = Mul(n, g) y = Add(k, a)"))
    types = types_of(made)
    assert {types[name] for name in "pmvsrnk"} == {FULL}
    assert types["a"] == TensorProto.FLOAT16
    assert types["y_f16"] == TensorProto.FLOAT16, "what comes after a norm is in the low precision again"
    # Squares beyond float16, and an epsilon that float16 rounds.
    x = np.array([[1000, -1000, 1000, 2000], [1e-3, 2e-3, -1e-3, 0]], np.float32)
    (found,) = Opened(made).session.run(["y"], {"x": x})
    expected = x + 2 * x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("norm", ["LayerNormalization(x, g)", "Softmax(x)"])
def test_what_a_norm_gives_goes_on_in_the_low_precision(norm: str) -> None:
    made = narrowed(graph_of(f"(float[2,4] x) => (float[2,4] y) {{ a = {norm} y = Add(a, x) }}", g=np.ones(4)))
    types = types_of(made)
    assert (types["a"], types["y_f16"], types["y"]) == (FULL, TensorProto.FLOAT16, FULL)


def test_attention_weights_that_are_read_stay_in_float32() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "ai.sait" : 1]>'
        " g (float[6,24] qkv, int32[2,3] slots, int32[6] unslots) => (float[6,8] y, float[2,2,3,3] z)"
        " <float[2,2,3,3] weights>"
        " { y, weights = ai.sait.UniformAttention <num_heads = 2, scale = 1.0> (qkv, slots, unslots)"
        " z = Mul(weights, weights) }"
    )
    graph = ir.serde.deserialize_model(model).graph
    lower_precision(graph, ir.DataType.FLOAT16)
    found = {
        node.op_type: [value.dtype for value in (*node.inputs, *node.outputs) if value is not None] for node in graph
    }
    assert found["Mul"] == [ir.DataType.FLOAT] * 3
    low, full, index = ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.INT32
    assert found["UniformAttention"] == [low, index, index, low, full]


@pytest.mark.parametrize(("reader", "kept"), [("Softmax(rows)", {"one"}), ("Add(x, rows)", {"one_f16"})])
def test_weights_that_are_moved_alone_have_the_type_of_who_reads_them(reader: str, kept: set[str]) -> None:
    text = f"(float[2,4] x) => (float[2,4] y) {{ rows = Expand(one, shape) y = {reader} }}"
    made = narrowed(graph_of(text, one=1.0, shape=np.array([2, 4])))
    assert set(initializers(made)) == kept | {"shape"}
    assert not any(name == "rows" for name, _ in casts(made))


def test_what_is_no_float_is_left_alone() -> None:
    text = (
        "(float[2,4] x, int64[3] i) => (int64[2] s, int64[3] j, float[3,4] y)"
        " { s = Shape(x) j = Add(i, i) y = Gather(x, j) }"
    )
    made = narrowed(graph_of(text))
    types = types_of(made)
    assert {types[name] for name in ("i", "s", "j")} == {TensorProto.INT64}
    assert nodes(made, "Cast") == [], "moving data alone asks for no other type than that of the data"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qk-norm/2", "clip-quickgelu/2", "deit-distilled/2", "dinov2-registers-swiglu/2"])
def test_a_trunk_has_nothing_in_float32_but_norms(name: str) -> None:
    found = computing(lowered(parts_of(name, before_last(name)).trunk))
    # The readout picks its rows of what the last norm gives.
    assert {kind for kind, types in found.items() if FULL in types} == {"LayerNormalization", "Cast", "Gather"}
