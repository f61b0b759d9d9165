"""Mixed precision of graphs of a few nodes: what each rule does to weights, norms, sums, attention and the seam."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import TensorProto

from sait_deploy.errors import ArtifactError
from sait_deploy.exporters.precision import lower_precision
from tests.exporters.graphs import Opened, casts, initializers, nodes, types_of
from tests.exporters.parts import declared

FULL: Final = TensorProto.FLOAT


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
