"""Bodies of operators for CUDA: the same bits as their definitions, and no memory touched that is not theirs."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings

from sait_deploy.exporters.cuda_bodies import MICROSOFT, scoring_body, selection_body
from sait_deploy.plugins.mass_token_select.reference import mass_token_select
from tests.exporters.graphs import OPSET, copied
from tests.plugins.cases import Batch, large_batches, small_batches
from tests.plugins.forms import Ints, assert_same_bits, model_of, select_node
from tests.plugins.packing_forms import TOLERANCES, UNIFORM_ATTENTION, Activation, operator_model, random_qkv


@functools.cache
def selector(prefix: int, patches: int, opset: int = OPSET) -> onnxruntime.InferenceSession:
    model = model_of([select_node(prefix=prefix)], opset, [selection_body(opset, prefix, patches)])
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def select(batch: Batch, opset: int = OPSET) -> tuple[Ints, Ints]:
    feeds = {"importance": batch.importance, "mass": batch.mass, "keep_limits": batch.keep_limits}
    keep, counts = selector(batch.prefix, batch.importance.shape[1], opset).run(None, feeds)
    return keep, counts


def test_it_selects_what_the_definition_selects() -> None:
    rows = 0
    for batch, keep, counts in large_batches():
        where = f"prefix {batch.prefix}, N {batch.importance.shape[1]}"
        got_keep, got_counts = select(batch)
        assert_same_bits(f"keep, {where}", got_keep, keep)
        assert_same_bits(f"counts, {where}", got_counts, counts)
        rows += len(counts)
    assert rows >= 10_000


@settings(max_examples=150, deadline=None)
@given(batch=small_batches())
def test_small_batches_with_ties_at_every_edge(batch: Batch) -> None:
    wanted = mass_token_select(batch.importance, batch.mass, batch.keep_limits, batch.prefix)
    for got, want in zip(select(batch), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("opset", [18, 24])
def test_the_oldest_and_the_newest_opset(opset: int) -> None:
    batch, keep, counts = large_batches()[0]
    for got, want in zip(select(batch, opset), (keep, counts), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_importance_that_is_no_number_spoils_no_other_image(prefix: int) -> None:
    """Every image's counts agree with its keep, so that no row outside the batch is looked up."""
    importance = np.full((3, 7), 1 / 7, np.float32)
    importance[1], importance[1, 2] = np.nan, np.inf
    limits = np.tile(np.array([[1, 7]], np.int32), (3, 1))
    keep, counts = select(Batch(importance, np.full(3, 0.5, np.float32), limits, prefix))
    want_keep, want_counts = mass_token_select(importance[::2], np.full(2, 0.5, np.float32), limits[::2], prefix)
    np.testing.assert_array_equal(keep[::2], want_keep)
    np.testing.assert_array_equal(counts[::2], want_counts)
    assert set(keep.flat) <= {0, 1} and (counts >= 1).all()
    np.testing.assert_array_equal(keep.sum(axis=1), counts)


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize(("images", "tokens", "heads"), [(1, 1, (1, 8)), (3, 5, (2, 40)), (2, 17, (3, 16))])
def test_scoring_equals_the_body_of_every_runtime(
    activation: Activation, images: int, tokens: int, heads: tuple[int, int]
) -> None:
    qkv = random_qkv(images * tokens, heads, activation, images)
    slots = np.arange(images * tokens, dtype=np.int32).reshape(images, tokens)
    model = operator_model(UNIFORM_ATTENTION, [(heads[0], 0.3)], activation)
    own = copied(model)
    del own.functions[:]
    own.functions.append(scoring_body(OPSET, onnx.helper.np_dtype_to_tensor_dtype(qkv.dtype)))
    own.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    given_ = {"qkv": qkv, "slots": slots, "unslots": slots.ravel()}
    found, expected = (
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, given_)
        for one in (own, model)
    )
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=TOLERANCES[activation], atol=TOLERANCES[activation])
