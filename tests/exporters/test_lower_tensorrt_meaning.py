"""What graphs lowered for TensorRT mean, asked of ONNX's own reference.

ONNX Runtime's ``Attention`` takes no mask of one row for all heads.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sait_deploy.artifacts.manifest import COUNTS
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters.cut import cut
from sait_deploy.exporters.names import CU_SEQLENS, GUARD, PACKED_DOMAIN, TOKENS, AttentionForm, EnginePrecision
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.plugins.packed_attention.reference import packed_attention
from tests.exporters.graphs import ADAPTIVE, Opened, feeds, kinds
from tests.exporters.lowerings import CASES, batch, made, original
from tests.exporters.parts import InParts, lowered, parts_of, whole

FP16, BF16, FP32 = EnginePrecision.FP16, EnginePrecision.BF16, EnginePrecision.FP32
FUSED, DECOMPOSED = AttentionForm.FUSED, AttentionForm.DECOMPOSED
LOW: Final = {FP16: TensorProto.FLOAT16, BF16: TensorProto.BFLOAT16}
POINT: Final = BatchPoint(
    np.array([0.5, 1, 0.8, 1], np.float32), np.array([[1, 16], [3, 3], [1, 9], [1, 16]], np.int32)
)


class TRT_Attention(OpRun):  # noqa: N801 - the operator's name
    """TensorRT's attention on packed rows, as its definition has it."""

    op_domain = PACKED_DOMAIN

    def _run(self, q, k, v, mask, key, value, begins, key_begins, scale, **forms):  # type: ignore[no-untyped-def]
        assert mask is key is value is None and np.array_equal(begins, key_begins)
        assert forms == {"query_form": "packed_nhd", "kv_form": "packed_nhd"}
        rows = np.stack([q, k, v], axis=1).reshape(len(q), -1)
        return (packed_attention(rows, begins, q.shape[1], scale).reshape(q.shape).astype(q.dtype),)


def evaluated(model: onnx.ModelProto, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What ONNX's own reference answers."""
    evaluator = ReferenceEvaluator(model, new_ops=[TRT_Attention])
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
