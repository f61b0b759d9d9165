"""Intervals and bounds: against sums over all outcomes, against their definitions, and at their ends."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.stats import (
    drop_upper_bound,
    images_needed,
    mean_lower_bound,
    paired_difference,
    upper_bound,
)

CONFIDENCES = (0.9, 0.95, 0.99)
GAINED = (0.0, 0.001, 0.003, 0.01, 0.03, 0.08, 0.2)
"""Shares of the images that the other alone has right."""


def answers(lost: int, gained: int, images: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Answers of which the first alone is right ``lost`` times, and the second alone ``gained`` times."""
    first, second = np.ones(images, dtype=bool), np.ones(images, dtype=bool)
    second[:lost] = False
    first[lost : lost + gained] = False
    return first, second


def outcomes(images: int, most: int) -> list[tuple[int, int]]:
    """All numbers of lost and gained images up to a limit."""
    return [(lost, gained) for lost in range(most) for gained in range(most) if lost + gained <= images]


def probabilities(cases: list[tuple[int, int]], images: int, lost: float, gained: float) -> NDArray[np.float64]:
    """How likely each outcome is where these shares of all images are lost and gained."""
    found = []
    for b, c in cases:
        ways = math.lgamma(images + 1) - math.lgamma(b + 1) - math.lgamma(c + 1) - math.lgamma(images - b - c + 1)
        found.append(math.exp(ways) * lost**b * gained**c * (1 - lost - gained) ** (images - b - c))
    return np.array(found)


def at_most(events: int, images: int, share: float) -> float:
    """Probability of at most so many events, summed term by term."""
    logs = [
        math.lgamma(images + 1) - math.lgamma(i + 1) - math.lgamma(images - i + 1)
        + i * math.log(share) + (images - i) * math.log1p(-share)
        for i in range(events + 1)
    ]  # fmt: skip
    return math.fsum(map(math.exp, logs))


@pytest.mark.parametrize(
    ("events", "images", "confidence", "percent"),
    [(0, 10, 0.95, 25.88656), (3, 10, 0.95, 60.66242), (1, 20, 0.95, 21.61069), (9, 10, 0.9, 98.95192)],
)
def test_upper_bound_is_clopper_and_pearsons(events: int, images: int, confidence: float, percent: float) -> None:
    assert upper_bound(events, images, confidence) == pytest.approx(percent, abs=1e-4)


@pytest.mark.parametrize(("events", "images"), [(0, 1), (7, 7), (1_000_000, 1_000_000)])
def test_upper_bound_of_nothing_and_of_all(events: int, images: int) -> None:
    found = upper_bound(events, images, 0.95)

    assert found == (100.0 if events == images else pytest.approx(100 * (1 - 0.05 ** (1 / images))))


@given(st.integers(0, 300), st.integers(1, 5000), st.sampled_from(CONFIDENCES))
@settings(max_examples=60, deadline=None)
def test_at_the_upper_bound_so_few_events_are_just_as_unlikely_as_asked(
    events: int, images: int, confidence: float
) -> None:
    if events >= images:
        return
    share = upper_bound(events, images, confidence) / 100

    assert share > events / images
    assert at_most(events, images, share) == pytest.approx(1 - confidence, rel=1e-6)


def test_upper_bound_of_a_million_images() -> None:
    share = upper_bound(500, 1_000_000, 0.95) / 100

    assert at_most(500, 1_000_000, share) == pytest.approx(0.05, rel=1e-6)
    assert upper_bound(500_000, 1_000_000, 0.95) == pytest.approx(50 + 100 * 1.6449 * 0.5 / 1000, abs=1e-3)


@pytest.mark.parametrize(("limit", "confidence", "images"), [(0.5, 0.95, 598), (1.0, 0.95, 299), (0.5, 0.99, 919)])
def test_images_needed_without_one_event(limit: float, confidence: float, images: int) -> None:
    assert images_needed(limit, confidence) == images


@given(st.floats(0.01, 60), st.sampled_from(CONFIDENCES), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_images_needed_is_the_fewest(limit: float, confidence: float, events: int) -> None:
    images = images_needed(limit, confidence, events)

    assert upper_bound(events, images, confidence) <= limit * (1 + 1e-9)
    assert upper_bound(events, images - 1, confidence) > limit if images - 1 >= max(events, 1) else True


def test_images_needed_for_too_small_a_limit() -> None:
    with pytest.raises(InvalidArgument, match="more than 1000000000 images"):
        images_needed(1e-8, 0.95)


@pytest.mark.parametrize("images", [30, 70])
def test_paired_interval_covers_the_difference_about_as_often_as_it_says(images: int) -> None:
    """Of all outcomes, weighed by how likely they are: 95 % on average over shares lost and gained, never far off."""
    cases = outcomes(images, images + 1)
    intervals = [paired_difference(*answers(lost, gained, images)) for lost, gained in cases]
    low, high = (np.array([getattr(interval, end) for interval in intervals]) / 100 for end in ("low", "high"))
    covered = []
    for lost in (0.01, 0.03, 0.08, 0.15, 0.3):
        for gained in GAINED:
            inside = (low <= lost - gained) & (lost - gained <= high)
            covered.append(float(probabilities(cases, images, lost, gained)[inside].sum()))

    assert min(covered) > 0.92
    assert 0.94 < float(np.mean(covered)) < 0.985


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200))
@settings(max_examples=80, deadline=None)
def test_paired_interval_ends_where_the_score_is_196_standard_errors(lost: int, gained: int, more: int) -> None:
    """The score by its definition: the nuisance share is the likeliest one, found by trying."""
    images = lost + gained + more
    interval = paired_difference(*answers(lost, gained, images))

    assert -100 <= interval.low <= interval.value <= interval.high <= 100
    assert interval.low < interval.high
    assert interval.value == pytest.approx(100 * (lost - gained) / images)
    for end, sign in ((interval.low / 100, 1), (interval.high / 100, -1)):
        share = likeliest_gain(lost, gained, images, end)
        variance = images * (2 * share + end * (1 - end))
        assert (lost - gained - images * end) / math.sqrt(variance) == pytest.approx(sign * 1.95996, rel=2e-3)


def likeliest_gain(lost: int, gained: int, images: int, difference: float) -> float:
    """The share gained at which the outcome is likeliest, given the difference: by ternary search."""

    def likelihood(share: float) -> float:
        parts = ((lost, share + difference), (gained, share), (images - lost - gained, 1 - 2 * share - difference))
        return sum(count * math.log(max(part, 1e-300)) for count, part in parts if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    for _ in range(200):
        third = (high - low) / 3
        low, high = (low + third, high) if likelihood(low + third) < likelihood(high - third) else (low, high - third)
    return (low + high) / 2


def test_paired_difference_changes_sign_with_the_order() -> None:
    first, second = answers(9, 4, 60)
    one, other = paired_difference(first, second), paired_difference(second, first)

    assert (one.low, one.value, one.high) == pytest.approx((-other.high, -other.value, -other.low))


@pytest.mark.parametrize("images", [1, 5, 1000])
def test_without_a_discordant_pair_the_interval_has_a_width_all_the_same(images: int) -> None:
    interval = paired_difference(*answers(0, 0, images))

    assert interval.low == pytest.approx(-interval.high)
    assert interval.high == pytest.approx(100 * 3.8415 / (images + 3.8415), rel=1e-4)


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize(("images", "most"), [(30, 31), (60, 61), (600, 40)])
def test_a_drop_exceeds_its_bound_no_more_often_than_it_may(images: int, most: int, confidence: float) -> None:
    """Of all outcomes, weighed by how likely they are, over drops of up to ten points."""
    cases = outcomes(images, most)
    bounds = np.array([drop_upper_bound(lost, gained, images, confidence) for lost, gained in cases]) / 100
    drops = np.linspace(0.001, 0.1 if images == most - 1 else 0.02, 25)
    gains = GAINED if images == most - 1 else GAINED[:4]
    missed = [
        probabilities(cases, images, drop + gained, gained)[bounds < drop].sum() for drop in drops for gained in gains
    ]

    assert max(missed) <= 1 - confidence + 1e-9
    assert max(missed) > 0.5 * (1 - confidence)  # and it is not far above the drop


@pytest.mark.parametrize("images", [30, 100, 598, 20_000])
def test_without_a_discordant_pair_the_drop_is_bounded_as_a_share_without_events(images: int) -> None:
    found = drop_upper_bound(0, 0, images, 0.95)

    assert found == pytest.approx(100 * (1 - 0.05 ** (1 / images)), rel=1e-6)
    assert found > 0


@given(st.integers(0, 20), st.integers(0, 20), st.integers(30, 400), st.sampled_from(CONFIDENCES))
@settings(max_examples=60, deadline=None)
def test_drop_bound_grows_with_losses_and_falls_with_gains(
    lost: int, gained: int, rest: int, confidence: float
) -> None:
    images = lost + gained + rest
    bound = drop_upper_bound(lost, gained, images, confidence)

    assert bound > 100 * (lost - gained) / images
    assert drop_upper_bound(lost + 1, gained, images, confidence) > bound
    assert drop_upper_bound(lost, gained + 1, images, confidence) <= bound
    assert bound <= upper_bound(lost, images, confidence)


def test_a_clear_gain_bounds_the_drop_below_zero() -> None:
    assert drop_upper_bound(2, 60, 500, 0.95) < 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda chance, count: np.where(chance.random(count) < 0.02, -1.0, 1.0),
        lambda chance, count: 1 - 2 * chance.beta(0.5, 20, count),
        lambda chance, count: chance.uniform(-1, 1, count),
    ],
    ids=["rare opposites", "close cosines", "anything"],
)
def test_mean_exceeds_its_bound_often_enough(draw: object) -> None:
    assert callable(draw)
    chance = np.random.default_rng(0)
    truth = float(np.mean(draw(chance, 2_000_000)))
    bounds = [mean_lower_bound(draw(chance, 150), 0.9) for _ in range(300)]

    assert np.mean([bound > truth for bound in bounds]) <= 0.1
    assert truth - float(np.median(bounds)) < 0.3


def test_mean_bound_closes_in_on_the_mean() -> None:
    values = 1 - 2 * np.random.default_rng(1).beta(0.5, 20, 100_000)
    bounds = [mean_lower_bound(values[:count], 0.95) for count in (100, 1000, 10_000, 100_000)]

    assert all(later > earlier for earlier, later in pairwise(bounds))
    assert 0 < float(values.mean()) - bounds[-1] < 0.001


def test_mean_bound_of_equal_values_is_below_them() -> None:
    assert 0.98 < mean_lower_bound(np.ones(600), 0.95) < 1
    assert mean_lower_bound([-1.0, -1.0], 0.95) == -1
    assert mean_lower_bound([1.0000001, 1.0], 0.95) < 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: upper_bound(3, 2, 0.95),
        lambda: upper_bound(-1, 2, 0.95),
        lambda: upper_bound(0, 0, 0.95),
        lambda: upper_bound(0, 10, 1.0),
        lambda: upper_bound(0, 10, 0.3),
        lambda: images_needed(0, 0.95),
        lambda: images_needed(100, 0.95),
        lambda: images_needed(1, 0.95, -1),
        lambda: paired_difference([], []),
        lambda: paired_difference([True], [True, False]),
        lambda: paired_difference([1.0], [0.0]),
        lambda: drop_upper_bound(0, 0, 1, 1.5),
        lambda: drop_upper_bound(3, 3, 5, 0.95),
        lambda: mean_lower_bound([], 0.95),
        lambda: mean_lower_bound([math.nan], 0.95),
        lambda: mean_lower_bound([1.5], 0.95),
    ],
)
def test_what_cannot_be_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(InvalidArgument):
        call()
