"""The load-aware point on a simulated clock: it follows the load both ways, and does not flap."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.serving.ladder import PointLadder

POINTS = ("quality", "balanced", "fast")
COSTS = {"quality": 0.020, "balanced": 0.013, "fast": 0.009}
"""Seconds that an image takes: 50, 77 and 111 images a second."""
TARGET = 0.5


def simulated(rates: list[tuple[float, float]], seed: int = 0, target: float = TARGET) -> list[tuple[float, str]]:
    """A queue before one server, for so many seconds at each rate: when the point changed, and to what."""
    ladder, draw = PointLadder(POINTS, target, now=0.0), random.Random(seed)
    now, changes, arrival = 0.0, [(0.0, POINTS[0])], 0.0
    queue: list[float] = []
    end = cost = 0.0
    for seconds, rate in rates:
        end += seconds
        arrival = max(arrival, now)
        while now < end:
            while arrival <= now:
                queue.append(arrival)
                ladder.arrived(arrival, 1)
                arrival += draw.expovariate(rate) if rate else end - arrival + 1e-9
            if not queue:
                now = min(max(arrival, now), end) if arrival > now else now + 0.001
                ladder.update(now, 0.0)
            else:
                wait = max(now - queue[0], len(queue) * cost)
                point = ladder.update(now, wait)
                taken = min(8, len(queue))
                del queue[:taken]
                cost = COSTS[point]
                now += taken * cost
                ladder.computed(point, cost)
            if ladder.point != changes[-1][1]:
                changes.append((now, ladder.point))
    return changes


def test_without_load_the_dear_point_stays() -> None:
    assert simulated([(30, 20)]) == [(0.0, "quality")]


def test_overload_takes_cheaper_points_at_once_and_quiet_brings_the_dear_one_back() -> None:
    changes = simulated([(5, 20), (20, 95), (20, 10)])
    assert [point for _, point in changes] == ["quality", "balanced", "fast", "balanced", "quality"]
    assert 5 < changes[1][0] < 7, "the queue is noticed within two seconds"
    assert changes[2][0] - changes[1][0] < 5
    assert changes[3][0] > 25, "no step back while the load lasts"


@settings(max_examples=12)
@given(st.floats(1, 140), st.integers(0, 10))
def test_a_steady_load_settles(rate: float, seed: int) -> None:
    """Between two capacities the queue empties at the cheaper point, which alone must not bring the dearer one back.

    A burst of arrivals is a step there and back.
    """
    changes = simulated([(120, rate)], seed)
    assert len([point for when, point in changes if when > 30]) <= 6, changes


@given(st.lists(st.tuples(st.floats(0.001, 0.3), st.floats(0, 2)), max_size=200), st.sampled_from([0.05, 0.5, 5.0]))
def test_whatever_the_waits_steps_are_apart_and_to_a_neighbour(waits: list[tuple[float, float]], target: float) -> None:
    ladder, now, stepped = PointLadder(POINTS, target, 0.0), 0.0, 0.0
    before = POINTS.index(ladder.point)
    for passed, wait in waits:
        now += passed
        level = POINTS.index(ladder.update(now, wait))
        assert abs(level - before) <= 1
        if level != before:
            least = target / 2 if level > before else 2 * target
            assert now - stepped >= least - 1e-9
            stepped, before = now, level


@pytest.mark.parametrize("wait", [0.24, 0.06])
def test_between_the_two_limits_the_point_stays(wait: float) -> None:
    ladder = PointLadder(POINTS, TARGET, 0.0)
    ladder.update(1.0, 0.3)
    assert ladder.point == "balanced"
    for step in range(100):
        ladder.update(2.0 + step, wait)
    assert ladder.point == "balanced"


def test_a_dearer_point_that_would_be_overloaded_is_not_taken() -> None:
    ladder, now = PointLadder(POINTS, TARGET, 0.0), 1.0
    ladder.computed("quality", 0.020)
    ladder.update(now, 1.0)
    for _ in range(2000):  # 60 images a second, of which quality computes 50
        now += 1 / 60
        ladder.arrived(now, 1)
        ladder.update(now, 0.0)
    assert ladder.point == "balanced"
    ladder.update(now + 9, 0.0)  # nothing arrives for nine seconds
    assert ladder.point == "quality"


def test_points_that_are_none_of_the_ladders_are_left_out() -> None:
    ladder = PointLadder(POINTS, TARGET, 0.0)
    ladder.computed("quality", 0.02)
    ladder.update(1.0, TARGET)
    assert ladder.point == "balanced"
    ladder.computed("request", 9.0)  # nine seconds an image would make the dear point unaffordable
    ladder.arrived(2.0, 1)
    ladder.update(9.0, 0.0)
    assert ladder.point == "quality"
