"""Mixed precision: what stays in float32, what does not, and that every cast between them is written once."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any, Final

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters.names import GUARD, IMPORTANCE, TOKENS, AttentionForm, EnginePrecision
from sait_deploy.models.pruning import AdaptivePruning, Pruning
from sait_deploy.tokens import Score
from tests.exporters.graphs import ADAPTIVE, PRUNING, Opened, before_last, casts, initializers, nodes, types_of
from tests.exporters.parts import InParts, declared, lowered, parts_of, whole
from tests.tiny import random_batch

FP16, BF16 = EnginePrecision.FP16, EnginePrecision.BF16
LOW: Final = {FP16: TensorProto.FLOAT16, BF16: TensorProto.BFLOAT16}
FULL: Final = TensorProto.FLOAT
INTEGERS: Final = {TensorProto.INT32, TensorProto.INT64}


def computing(model: onnx.ModelProto) -> dict[str, set[int]]:
    """In which floating-point types the operators of each kind run, by what they return."""
    types = types_of(model)
    found: defaultdict[str, set[int]] = defaultdict(set)
    for node in model.graph.node:
        found[node.op_type] |= {types[name] for name in node.output if name} & {FULL, *LOW.values()}
    return {kind: kinds for kind, kinds in found.items() if kinds}


# What the graphs of a model become.
GRAPHS: Final[dict[str, tuple[str, Pruning | None]]] = {
    "dense": ("small/3", None),
    "density": ("plain", PRUNING),
    "adaptive": ("small/3", ADAPTIVE),
    "attention-pool": ("siglip/2", before_last("siglip/2")),
    "head-over-tokens": ("lvvit/2", before_last("lvvit/2")),
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qk-norm/2", "clip-quickgelu/2", "deit-distilled/2", "dinov2-registers-swiglu/2"])
def test_a_trunk_has_nothing_in_float32_but_norms(name: str) -> None:
    found = computing(lowered(parts_of(name, before_last(name)).trunk))
    # The readout picks its rows of what the last norm gives.
    assert {kind for kind, types in found.items() if FULL in types} == {"LayerNormalization", "Cast", "Gather"}
