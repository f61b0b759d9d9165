"""A limit is kept with the confidence that was asked for, and what it takes to decide is said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sait_deploy.artifacts.tuned_points import Measure
from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.tune_limits import Limit, Verdict, until_failure

CONFIDENCE = 0.95
IMAGES = 500
LIMIT = 2.0
REPEATS = 250

HARDLY_BEYOND = (2.01,) * 8
SEQUENCES = {
    "slowly": (0.0, 0.2, 0.5, 1.0, 1.9, *HARDLY_BEYOND, 2.5, 3.0, 2.01),
    "at once": (0.0, *HARDLY_BEYOND),
}
"""True losses in percent, from safe to cheap. The second is the worst case: all but one hardly beyond the limit."""


def drawn(
    measure: Measure, percent: float, luck: NDArray[np.float64], more: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Losses of a candidate with this mean, from uniform numbers in [0, 1), one per image and kind."""
    share = percent / 100
    if measure is Measure.DISAGREEMENT:
        return (luck < share).astype(np.int8)
    if measure is Measure.DROP:
        gained = 0.005  # as often as it is right where dense is not
        return np.where(luck < share + gained, 1, np.where(luck > 1 - gained, -1, 0)).astype(np.int8)
    return 2 * share * more


def chosen(limit: Limit, truth: Sequence[float], generator: np.random.Generator, nested: bool) -> float | None:
    """Draws a data set and returns the true loss of the candidate that is chosen on it."""

    def verdicts() -> Iterator[Verdict]:
        luck, more = generator.random((2, IMAGES))
        for percent in truth:
            yield limit.judge(drawn(limit.measure, percent, luck, more)).verdict
            if not nested:
                luck, more = generator.random((2, IMAGES))

    tried = until_failure(zip(truth, verdicts(), strict=True), lambda candidate: candidate[1] is Verdict.PASSES)
    passed = [percent for percent, verdict in tried if verdict is Verdict.PASSES]
    return passed[-1] if passed else None


@pytest.mark.parametrize("nested", [True, False], ids=["nested", "independent"])
@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize("truth", SEQUENCES.values(), ids=SEQUENCES)
def test_a_point_beyond_the_limit_is_seldom_chosen(truth: Sequence[float], measure: Measure, nested: bool) -> None:
    limit, generator = Limit(measure, LIMIT, CONFIDENCE), np.random.default_rng(5)
    repeats = REPEATS // 4 if measure is Measure.COSINE else REPEATS
    found = [chosen(limit, truth, generator, nested) for _ in range(repeats)]
    wrong = [percent is not None and percent > LIMIT for percent in found]
    allowed = (1 - CONFIDENCE) + 3 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / repeats)
    assert sum(wrong) / repeats <= allowed
    assert found.count(None) / repeats < 0.1, "and a safe point is found nearly always"


def test_looking_on_after_a_failure_would_break_the_promise() -> None:
    """What the order is for: among many hardly beyond the limit, one that passes is found far too often."""
    limit, generator = Limit(Measure.DISAGREEMENT, LIMIT, CONFIDENCE), np.random.default_rng(5)
    wrong = 0
    for _ in range(60):
        samples = (generator.random((30, IMAGES)) < HARDLY_BEYOND[0] / 100).astype(np.int8)
        wrong += any(limit.judge(sample).verdict is Verdict.PASSES for sample in samples)
    assert wrong / 60 > 3 * (1 - CONFIDENCE)


def test_sequences_side_by_side_err_no_more_often_than_one() -> None:
    limit = Limit(Measure.DISAGREEMENT, LIMIT, CONFIDENCE)
    assert limit.shared(1) == limit
    assert limit.shared(8).confidence == pytest.approx(1 - 0.05 / 8)
    shared, generator, wrong = limit.shared(6), np.random.default_rng(3), 0
    for _ in range(100):
        samples = (generator.random((6, IMAGES)) < 0.0201).astype(np.int8)
        wrong += any(shared.judge(sample).verdict is Verdict.PASSES for sample in samples)
    assert wrong / 100 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)


@pytest.mark.parametrize(
    ("measure", "losses", "value", "verdict"),
    [
        (Measure.DISAGREEMENT, [0] * 598, 0.0, Verdict.PASSES),
        (Measure.DISAGREEMENT, [0] * 597, 0.0, Verdict.UNDECIDED),
        (Measure.DISAGREEMENT, [1] + [0] * 597, 100 / 598, Verdict.UNDECIDED),
        (Measure.DISAGREEMENT, [1] * 3 + [0] * 395, 300 / 398, Verdict.EXCEEDS),
        (Measure.DROP, [0] * 598, 0.0, Verdict.PASSES),
        (Measure.DROP, [1, -1] * 20 + [0] * 560, 0.0, Verdict.UNDECIDED),
        (Measure.DROP, [-1] * 30 + [0] * 570, -5.0, Verdict.PASSES),
        (Measure.DROP, [1] * 10 + [0] * 590, 10 / 6, Verdict.EXCEEDS),
        (Measure.COSINE, [0.0] * 4000, 0.0, Verdict.PASSES),
        (Measure.COSINE, [0.004] * 200, 0.4, Verdict.UNDECIDED),
        (Measure.COSINE, [0.006] * 4000, 0.6, Verdict.EXCEEDS),
    ],
)
def test_a_verdict(measure: Measure, losses: list[float], value: float, verdict: Verdict) -> None:
    found = Limit(measure, 0.5, CONFIDENCE).judge(np.array(losses))
    assert found.value_percent == pytest.approx(value)
    assert found.verdict is verdict
    assert found.bound_percent >= found.value_percent
    assert (found.bound_percent <= 0.5) is (verdict is Verdict.PASSES)


@pytest.mark.parametrize("measure", Measure)
def test_the_images_needed_are_the_fewest_that_pass_without_a_loss(measure: Measure) -> None:
    limit = Limit(measure, 0.5, CONFIDENCE)
    needed = limit.images_needed()
    assert limit.judge(np.zeros(needed)).verdict is Verdict.PASSES
    assert limit.judge(np.zeros(int(needed * 0.99) - 1)).verdict is Verdict.UNDECIDED
    assert limit.shared(8).images_needed() > needed
    if measure is not Measure.COSINE:
        assert needed == 598


@settings(max_examples=40, deadline=None)
@given(
    lost=st.integers(0, 12),
    gained=st.integers(0, 12),
    images=st.integers(30, 1000),
    percent=st.floats(0.3, 5),
    measure=st.sampled_from((Measure.DROP, Measure.DISAGREEMENT)),
)
def test_the_images_that_would_decide_do(lost: int, gained: int, images: int, percent: float, measure: Measure) -> None:
    limit = Limit(measure, percent, CONFIDENCE)
    losses = np.array([1] * lost + ([-1] if measure is Measure.DROP else [0]) * gained + [0] * images)
    enough = limit.images_to_decide(losses)
    found = limit.judge(losses)
    if found.verdict is Verdict.EXCEEDS:
        assert enough is None
    elif enough is not None and found.verdict is Verdict.UNDECIDED:
        assert enough > len(losses)
        assert str(enough)[2:].strip("0") == "", "two digits, no more"
        whole = math.ceil(enough / len(losses))
        assert limit.judge(np.tile(losses, whole)).verdict is Verdict.PASSES


@pytest.mark.parametrize(
    ("percent", "confidence"), [(0, 0.95), (-1, 0.95), (100, 0.95), (math.nan, 0.95), (1, 1), (1, 0.4)]
)
def test_limits_that_cannot_be(percent: float, confidence: float) -> None:
    with pytest.raises(InvalidArgument):
        Limit(Measure.DROP, percent, confidence)
