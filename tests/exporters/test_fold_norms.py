"""Norms between casts become norms of half precision, and others stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sait_deploy.exporters.fold_norms import folded_norms

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
WIDTH = 64


def graph(*, stash: int = 1, wide_reader: bool = False, output_wide: bool = False) -> onnx.ModelProto:
    """A norm of float16 rows in float32; its casts may have further readers."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=FLOAT),
        helper.make_node("LayerNormalization", ["wide", "scale", "bias"], ["normed"], epsilon=1e-6, stash_type=stash),
        helper.make_node("Cast", ["normed"], ["y"], to=HALF),
    ]
    outputs = [helper.make_tensor_value_info("y", HALF, [None, WIDTH])]
    if wide_reader:
        nodes.append(helper.make_node("Neg", ["wide"], ["negative"]))
        outputs.append(helper.make_tensor_value_info("negative", FLOAT, [None, WIDTH]))
    if output_wide:
        outputs.append(helper.make_tensor_value_info("normed", FLOAT, [None, WIDTH]))
    draw = np.random.default_rng(0)
    weights = {"scale": 1 + 0.2 * draw.standard_normal(WIDTH), "bias": 0.2 * draw.standard_normal(WIDTH)}
    initialisers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    inputs = [helper.make_tensor_value_info("x", HALF, [None, WIDTH])]
    made = helper.make_graph(nodes, "g", inputs, outputs, initialisers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    nodes = list(folded_norms(twin.graph))
    del twin.graph.node[:]
    twin.graph.node.extend(nodes)
    onnx.checker.check_model(twin, full_check=True)
    return twin


def norm_types(model: onnx.ModelProto) -> list[str]:
    """What the norm reads: rows in half precision or not."""
    return [node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"]


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(1).standard_normal((50, WIDTH)).astype(np.float16) * 8
    found: list[np.ndarray] = session.run(None, {"x": rows})
    return found


@pytest.mark.parametrize("wide_reader", [False, True])
def test_a_norm_between_casts_is_one_norm(wide_reader: bool) -> None:
    model = graph(wide_reader=wide_reader)
    made = folded(model)
    assert norm_types(made) == ["x"]
    for found, wanted in zip(answers(made), answers(model), strict=True):
        np.testing.assert_allclose(found.astype(np.float32), wanted.astype(np.float32), rtol=4e-3, atol=4e-3)


def test_statistics_stay_in_float32() -> None:
    """Squares of 2,000 are too large for float16."""
    large = np.full((1, WIDTH), 2000, np.float16)
    large[0, ::2] = -2000
    session = onnxruntime.InferenceSession(folded(graph()).SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isfinite(session.run(None, {"x": large})[0]).all()


@pytest.mark.parametrize("options", [{"stash": 10}, {"output_wide": True}])
def test_other_norms_stay(options: dict[str, int]) -> None:
    model = graph(**options)  # type: ignore[arg-type]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    assert list(folded_norms(made.graph)) == list(model.graph.node)
