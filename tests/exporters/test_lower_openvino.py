"""The lowering for OpenVINO: the same answers from fewer sizes, on ONNX Runtime too, as the operators are standard."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.inliner import inline_local_functions

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.graph import graph_of
from sait_deploy.artifacts.points import BatchPoint
from sait_deploy.exporters.lower_openvino import lower_openvino, rounded_extents
from sait_deploy.exporters.openvino_scoring import SCORED_ATTENTION
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.plugins.read_extents.spec import SPEC as READ_EXTENTS
from sait_deploy.runtime.onnxruntime import CPU, open_session
from sait_deploy.runtime.openvino import shared_core
from sait_deploy.tokens import Score
from tests.exported import IMAGE_SIZE, TinyExport
from tests.exporters.graphs import (
    SELECTION,
    Opened,
    before_last,
    copied,
    feeds,
    finished,
    kinds,
    vit_named,
    with_outputs,
)
from tests.tiny import images_for, random_batch

PATCHES, PREFIX = 36, 1


def lowered(artifact: Artifact, outputs_tokens: bool = False) -> onnx.ModelProto:
    width, pruning = artifact.manifest.model.geometry.attention_width, artifact.manifest.pruning
    score = None if pruning is None else pruning.score
    return onnx.shape_inference.infer_shapes(lower_openvino(graph_of(artifact), width, outputs_tokens, score))


def answers(model: onnx.ModelProto, counts: NDArray[Any], extents: bool = True) -> list[NDArray[Any]]:
    """Returns logits and counts, and of an adaptive graph also the extents, for forced numbers of tokens."""
    images = random_batch((len(counts), 3, IMAGE_SIZE, IMAGE_SIZE))
    given = {"images": images, "mass": np.ones(len(counts), np.float32), "keep_limits": np.stack([counts, counts], 1)}
    read = [name for node in model.graph.node if node.op_type == READ_EXTENTS.name for name in node.output]
    for name in read if extents else ():
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT32, [None]))
    session = open_session(model.SerializeToString(), CPU, 1, ".")
    wanted = {put.name for put in session.get_inputs()}
    found: list[NDArray[Any]] = session.run(None, {name: value for name, value in given.items() if name in wanted})
    return found


@pytest.mark.parametrize("batch", [1, 3, 8, 9, 24])
@pytest.mark.parametrize("spread", [0, 7])
def test_packed_batches_answer_alike_with_few_sizes(tiny_adaptive: Artifact, batch: int, spread: int) -> None:
    counts = np.random.default_rng(batch).integers(18 - spread, 19 + spread, batch).astype(np.int32)
    logits, kept_counts, kept, lanes = answers(lowered(tiny_adaptive), counts)
    expected = answers(graph_of(tiny_adaptive), counts)
    np.testing.assert_allclose(logits, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(kept_counts, expected[1])
    total, longest, step = int(kept_counts.sum()), int(kept_counts.max()), 16 * max(1, batch // 8)
    assert len(kept) == min(-(-total // step) * step, batch * (PATCHES + PREFIX))
    assert len(lanes) == -(-longest // 16) * 16
    rows, width = rounded_extents(batch, total, longest)
    assert (min(rows, batch * (PATCHES + PREFIX)), width) == (len(kept), len(lanes)), "as a host would round them"
    np.testing.assert_array_equal(kept[:total], expected[2])
    assert not kept[total:].any()


def test_a_batch_that_keeps_everything_has_no_more_rows_than_tokens(tiny_adaptive: Artifact) -> None:
    counts = np.full(9, PATCHES, np.int32)
    logits, _, kept, lanes = answers(lowered(tiny_adaptive), counts)
    np.testing.assert_allclose(logits, answers(graph_of(tiny_adaptive), counts)[0], rtol=1e-4, atol=1e-5)
    assert (len(kept), len(lanes)) == (9 * (PATCHES + PREFIX), 48)


def test_packed_rows_that_are_an_output_are_not_rounded(tiny_adaptive: Artifact) -> None:
    counts = np.full(8, 17, np.int32)
    _, kept_counts, kept, lanes = answers(lowered(tiny_adaptive, outputs_tokens=True), counts)
    assert (len(kept), len(lanes)) == (kept_counts.sum(), 18)


def test_no_shape_of_heads_is_left_to_compute(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    for artifact in (tiny.dense, tiny.half, tiny_adaptive):
        outside = kinds(graph_of(artifact))["Flatten"]
        assert kinds(inline_local_functions(graph_of(artifact)))["Flatten"] > outside
        assert kinds(inline_local_functions(lowered(artifact)))["Flatten"] == outside
    counts = np.full(2, 18, np.int32)
    for artifact in (tiny.dense, tiny.half):
        found, expected = answers(lowered(artifact), counts), answers(graph_of(artifact), counts)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["small/3", "siglip/2", "average-and-largest/2", "lvvit/2"])
def test_families_answer_alike_on_openvino(name: str) -> None:
    pytest.importorskip("openvino")
    vit, pruning = vit_named(name), before_last(name)
    attention: Any = vit.blocks[0].attn
    width = attention.num_heads * attention.head_dim
    model = lower_openvino(copied(finished(name, pruning)), width, False, pruning.score)
    core, exact = shared_core(), {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    serialised = inline_local_functions(with_outputs(model, SELECTION)).SerializeToString()
    compiled, session = core.compile_model(core.read_model(serialised), "CPU", exact), Opened(finished(name, pruning))
    most = int(vit.patch_embed.num_patches)
    for batch in (1, 9):
        counts = np.array([(7 * image) % most + 1 for image in range(batch)], np.int32)
        point = BatchPoint(np.ones(batch, np.float32), np.stack([counts, counts], axis=1))
        images = images_for(vit, batch, 0).numpy()
        found, expected = compiled(feeds(images, point)), session(images, point)
        np.testing.assert_array_equal(found["counts"], expected["counts"])
        np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("score", list(Score))
@pytest.mark.parametrize(("name", "heads", "parts"), [("plain", 1, 1), ("small/3", 2, 2), ("deit-distilled/2", 3, 3)])
def test_importance_of_heads_in_parts_is_that_of_all_at_once(name: str, heads: int, parts: int, score: Score) -> None:
    """And no weights of all heads are left."""
    model, attention = finished(name, AdaptivePruning(score, 0)), cast("Any", vit_named(name).blocks[0].attn)
    assert attention.num_heads == heads
    divided = lower_openvino(copied(model), heads * attention.head_dim, False, score)
    onnx.checker.check_model(divided)
    (scored,) = (one for one in divided.functions if one.name == SCORED_ATTENTION)
    assert sum(node.op_type == "Softmax" for node in scored.node) == parts
    assert [node.op_type for node in divided.graph.node].count(SCORED_ATTENTION) == 1
    counts = np.array([3, 1], np.int32)
    point = BatchPoint(np.ones(2, np.float32), np.stack([counts, counts], axis=1))
    images = images_for(vit_named(name), 2, 0).numpy()
    found, expected = (Opened(one, SELECTION)(images, point) for one in (divided, model))
    np.testing.assert_array_equal(found["keep"], expected["keep"])
    np.testing.assert_allclose(found["importance"], expected["importance"], rtol=1e-5)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)


def test_an_inlined_graph_stays_as_it_is(tiny_adaptive: Artifact) -> None:
    model = inline_local_functions(graph_of(tiny_adaptive))
    before = model.SerializeToString(deterministic=True)
    assert lower_openvino(model, 64, False, Score.MEAN).SerializeToString(deterministic=True) == before


def laid_out_after_norms(model: onnx.ModelProto) -> int:
    norms = {node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    return sum(node.op_type == "Reshape" and node.input[0] in norms for node in model.graph.node)


def test_rows_are_laid_out_before_they_are_normalised_and_answers_stay(tiny: TinyExport) -> None:
    """OpenVINO could not compile some int8 graphs otherwise."""
    images = random_batch((3, 3, IMAGE_SIZE, IMAGE_SIZE))
    for artifact in (tiny.dense, tiny.half):
        model = lowered(artifact)
        onnx.checker.check_model(model)
        assert (laid_out_after_norms(model), laid_out_after_norms(graph_of(artifact))) == (0, 1)
        sessions = (open_session(one.SerializeToString(), CPU, 1, ".") for one in (model, graph_of(artifact)))
        found, expected = (session.run(None, {"images": images})[0] for session in sessions)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
