"""The Pareto front by its definition, and the choice under each limit."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.recommending.choice import Choice, Limits, choose, with_front
from sait_deploy.recommending.results import Candidate
from tests.recommending.sample import make_candidate, make_drop

NO_LIMITS = Limits(None, None)
FEW = st.sampled_from((0.5, 1.0, 1.5, 2.0))
"""Values so few that ties are common."""


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Some candidates, of which all or none have a drop, and all or none a memory."""
    with_drops, with_memory, many = draw(st.booleans()), draw(st.booleans()), draw(st.integers(1, 8))
    return [
        make_candidate(
            f"c{number}",
            draw(FEW),
            make_drop(draw(FEW), draw(FEW)) if with_drops else None,
            draw(st.integers(1, 3)) if with_memory else None,
            draw(FEW),
        )
        for number in range(many)
    ]


limits = st.builds(Limits, st.none() | FEW, st.none() | FEW)


def is_as_good(one: Candidate, other: Candidate, given_limits: Limits) -> bool:
    by_latency = given_limits.max_latency_ms is not None
    quick = one.latency_ms <= other.latency_ms if by_latency else one.speed >= other.speed
    accurate = one.drop is None or other.drop is None or one.drop.points.value <= other.drop.points.value
    small = one.memory_bytes is None or other.memory_bytes is None or one.memory_bytes <= other.memory_bytes
    return quick and accurate and small


@given(candidates(), limits)
def test_the_front_is_what_nothing_dominates(found: list[Candidate], given_limits: Limits) -> None:
    marked = with_front(found, given_limits)

    assert [dataclasses.replace(one, on_front=False) for one in marked] == found
    assert any(one.on_front for one in marked)
    for one in marked:
        better = [
            other
            for other in marked
            if is_as_good(other, one, given_limits) and not is_as_good(one, other, given_limits)
        ]
        assert one.on_front == (not better)
        # What is not on the front is dominated by something that is.
        assert one.on_front or any(other.on_front for other in better)


@given(candidates(), limits, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter_to_the_front(
    found: list[Candidate], given_limits: Limits, shuffle: random.Random
) -> None:
    other = list(found)
    shuffle.shuffle(other)

    fronts = [{one.variant for one in with_front(order, given_limits) if one.on_front} for order in (found, other)]

    assert fronts[0] == fronts[1]


@given(candidates(), limits)
def test_a_choice_is_on_the_front_and_keeps_the_limits(found: list[Candidate], given_limits: Limits) -> None:
    marked = with_front(found, given_limits)
    choice = choose(marked, given_limits)
    allowed = [one for one in marked if keeps(one, given_limits)]

    assert (choice.chosen is None) == (not allowed)
    assert (choice.nearest is None) or choice.chosen is None
    if choice.chosen is not None:
        assert choice.chosen.on_front
        assert choice.chosen in allowed
        if given_limits.max_drop is not None and given_limits.max_latency_ms is None:
            assert choice.chosen.speed == max(one.speed for one in allowed)
        elif given_limits.max_drop is not None:
            assert choice.chosen.latency_ms == min(one.latency_ms for one in allowed)


def keeps(one: Candidate, given_limits: Limits) -> bool:
    drop, latency = given_limits
    return (latency is None or one.latency_ms <= latency) and (
        drop is None or (one.drop is not None and one.drop.points.value <= drop)
    )


DENSE = make_candidate("dense", 1.0, make_drop(0.0, 0.0))
SAFE = make_candidate("safe", 2.0, make_drop(0.2, 0.1))
LIKELY = make_candidate("likely", 3.0, make_drop(0.4, 0.3))
CHEAP = make_candidate("cheap", 4.0, make_drop(2.0, 0.3))
ALL = (DENSE, SAFE, LIKELY, CHEAP)


def chosen(given_limits: Limits, *found: Candidate) -> Choice:
    return choose(with_front(found, given_limits), given_limits)


def names(choice: Choice) -> tuple[str | None, str | None, str | None]:
    first, second, third = (None if one is None else one.variant for one in choice)
    return first, second, third


@pytest.mark.parametrize(
    ("given_limits", "wanted"),
    [
        (Limits(0.5, None), ("likely", "safe", None)),
        (Limits(0.0, None), ("dense", "dense", None)),
        (Limits(5.0, None), ("cheap", "cheap", None)),
        (Limits(0.5, 600.0), ("likely", "safe", None)),
        (Limits(0.5, 300.0), (None, None, "likely")),
        (Limits(None, 600.0), ("likely", None, None)),
        (Limits(None, 300.0), ("cheap", None, None)),
        (Limits(None, 2000.0), ("dense", None, None)),
        (Limits(None, 10.0), (None, None, "cheap")),
        (NO_LIMITS, ("dense", None, None)),
    ],
)
def test_choices(given_limits: Limits, wanted: tuple[str | None, ...]) -> None:
    """At 600 ms ``safe`` is the most accurate, and the images cannot tell ``likely`` from it."""
    assert names(chosen(given_limits, *ALL)) == wanted


def test_without_accuracies_the_fastest_is_chosen() -> None:
    found = [make_candidate(name, speed) for name, speed in (("dense", 1.0), ("a", 3.0), ("b", 2.0))]
    assert names(chosen(NO_LIMITS, *found)) == ("a", None, None)
    assert names(chosen(Limits(None, 400.0), *found)) == ("a", None, None)
    assert names(chosen(Limits(None, 1.0), *found)) == (None, None, "a")


def test_memory_keeps_a_slower_one_on_the_front_where_all_say_it() -> None:
    small, large = make_candidate("small", 1.0, None, 10), make_candidate("large", 2.0, None, 20)
    unsaid = make_candidate("unsaid", 3.0)
    assert [one.on_front for one in with_front([small, large], NO_LIMITS)] == [True, True]
    assert [one.on_front for one in with_front([small, large, unsaid], NO_LIMITS)] == [False, False, True]
