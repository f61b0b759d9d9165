"""Limits by a threshold: both forms keep what the definition says, in whole numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.errors import InvalidArgument
from sait_deploy.plugins.mass_token_select.threshold import (
    check_threshold,
    least_score,
    limits_by_threshold,
    traced_limits,
)
from tests.plugins.cases import Batch, small_batches

THRESHOLDS = st.one_of(st.sampled_from([0.5, 1.0, 1.5, 2.0]), st.floats(1e-3, 4096, allow_nan=False))


@given(small_batches(), THRESHOLDS)
@settings(max_examples=150)
def test_both_forms_count_the_tokens_that_reach_the_threshold(batch: Batch, threshold: float) -> None:
    patches = batch.importance.shape[1]
    threshold = min(threshold, patches)
    by_definition = [
        sum(Fraction(int(np.rint(x * np.float32(2**20))), 2**20) * patches >= Fraction(threshold) for x in row)
        for row in batch.importance
    ]
    wanted = [
        [least, min(most, max(least, reach))]
        for (least, most), reach in zip(batch.keep_limits.tolist(), by_definition, strict=True)
    ]

    found = limits_by_threshold(batch.importance, batch.keep_limits, threshold)
    traced = traced_limits(torch.from_numpy(batch.importance), torch.from_numpy(batch.keep_limits), threshold)

    assert found.dtype == np.int32 and found.tolist() == wanted
    np.testing.assert_array_equal(traced.numpy(), found)


def test_uniform_importance_reaches_a_threshold_of_one_where_its_score_is_exact() -> None:
    limits = np.array([[1, 16]], np.int32)
    for threshold, most in ((1.0, 16), (1.0001, 1), (0.25, 16)):
        found = limits_by_threshold(np.full((1, 16), 1 / 16, np.float32), limits, threshold)
        assert found.tolist() == [[1, most]]


def test_a_score_above_all_is_asked_for_at_most() -> None:
    assert least_score(144, 144) == 2**20
    assert least_score(1e-9, 144) == 1


@pytest.mark.parametrize("threshold", [0, -1, float("nan"), 16.01, float("inf")])
def test_thresholds_that_cannot_be_are_refused(threshold: float) -> None:
    with pytest.raises(InvalidArgument, match="is not above 0 and at most 16"):
        check_threshold(threshold, 16)
