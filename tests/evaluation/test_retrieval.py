"""Retrieval: nearest images and every measure, against their definitions in plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sait_deploy.evaluation.retrieval import RECALL_AT, VOTERS, RetrievalTruth, least_images
from sait_deploy.evaluation.stats import paired_difference
from sait_deploy.runtime import embeddings as embeddings_module
from sait_deploy.runtime.embeddings import NEAREST, nearest, unit_length


def drawn(count: int, seed: int, width: int = 6) -> NDArray[np.float32]:
    """Random embeddings."""
    return unit_length(np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32))


def plainly_nearest(rows: NDArray[np.float32], query: int) -> list[int]:
    """All others, nearest first, equally near ones by their number."""
    others = [number for number in range(len(rows)) if number != query]
    near = rows @ rows[query]
    return sorted(others, key=lambda number: (-near[number], number))


@given(st.integers(1, 60), st.integers(0, 9), st.integers(1, 30))
def test_nearest_are_nearest_whatever_is_compared_at_once(count: int, seed: int, most: int) -> None:
    rows = drawn(count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings_module, "_QUERIES", 7)
        found = nearest(rows, most)
    assert found.shape == (count, min(most, count - 1))
    for query, own in enumerate(found):
        wanted = plainly_nearest(rows, query)[: len(own)]
        near = rows @ rows[query]
        np.testing.assert_allclose(near[own], near[wanted], atol=1e-6)
        assert query not in own
        assert len(set(own.tolist())) == len(own)


def test_of_equally_near_images_the_earlier_is_nearer() -> None:
    rows = unit_length(np.array([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.float32))
    assert nearest(rows).tolist() == [[1, 2, 3], [2, 3, 0], [1, 3, 0], [1, 2, 0]]


def test_zeros_stay_zero_and_others_have_unit_length() -> None:
    rows = unit_length(np.array([[0, 0], [3e-6, 4e-6], [3e20, 4e20]], dtype=np.float32))
    np.testing.assert_allclose(rows, [[0, 0], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)


@given(st.integers(12, 40), st.integers(0, 99), st.integers(2, 5))
def test_every_measure_is_its_definition(count: int, seed: int, classes: int) -> None:
    dense, other = drawn(count, seed), drawn(count, seed + 1000)
    mixed = unit_length(dense + 0.5 * other)
    labels = np.random.default_rng(seed).integers(0, classes, count)
    orders = [plainly_nearest(mixed, query) for query in range(count)]
    first = [plainly_nearest(dense, query)[0] for query in range(count)]

    truth = RetrievalTruth(nearest(dense), labels)
    found = truth.row(nearest(mixed))

    assert [one.neighbours for one in found.against_dense] == list(RECALL_AT)
    for k, against, between in zip(RECALL_AT, found.against_dense, found.between_classes, strict=True):
        hits = [wanted in order[:k] for wanted, order in zip(first, orders, strict=True)]
        assert against.percent == pytest.approx(100 * np.mean(hits))
        assert against.change == paired_difference(np.array(hits), np.ones(count, dtype=bool))
        mates = [any(labels[one] == labels[query] for one in order[:k]) for query, order in enumerate(orders)]
        assert between.percent == pytest.approx(100 * np.mean(mates))
    votes = []
    for query, order in enumerate(orders):
        counts = Counter(labels[order[:VOTERS]].tolist())
        most = max(counts.values())
        chosen = next(labels[one] for one in order if counts[labels[one]] == most)
        votes.append(chosen == labels[query])
    assert found.knn is not None and found.main is found.knn
    assert found.knn.percent == pytest.approx(100 * np.mean(votes))
    np.testing.assert_array_equal(truth.right(nearest(mixed)), votes)


def test_as_many_nearest_are_held_as_measures_look_at() -> None:
    assert max(*RECALL_AT, VOTERS) <= NEAREST


def test_dense_finds_all_that_it_finds_and_has_no_change() -> None:
    near = nearest(drawn(20, 3))
    found = RetrievalTruth(near, None).row(near)
    assert [(one.percent, one.change) for one in found.against_dense] == [(100.0, None)] * 3
    assert (found.between_classes, found.knn, found.measure) == ((), None, "recall@1")
    assert found.main is found.against_dense[0]


@pytest.mark.parametrize("count", range(1, 14))
def test_what_nearly_any_order_would_have_is_not_measured(count: int) -> None:
    near = nearest(drawn(count, 1))
    truth = RetrievalTruth(near, np.arange(count) % 2)
    assert truth.recall_at == tuple(k for k in RECALL_AT if k < count - 1)
    assert truth.can_judge is (count >= least_images(1))
    if truth.can_judge:
        assert (truth.row(near).knn is not None) is (count >= least_images(VOTERS))
