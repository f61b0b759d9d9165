"""The clock: rounds, their order, what is counted, and for how long. Time is a counter that the runners move."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sait_deploy.bench import measure as module
from sait_deploy.bench.measure import FEWEST_ROUNDS, MOST_ROUNDS, MeasureOptions, measure
from sait_deploy.bench.results import Timing
from sait_deploy.errors import InvalidArgument

IMAGES = np.zeros((2, 3, 4, 4), dtype=np.float32)


class Clock:
    """Stands still but for what runners make it pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Recorder:
    """A runner that takes the time it is given, and writes down that it ran."""

    def __init__(self, name: str, cost: float, clock: Clock, log: list[str]) -> None:
        self.name, self.cost, self.clock, self.log = name, cost, clock, log
        self.bound = 0

    def run(self, images: NDArray[np.float32]) -> None:
        assert images is IMAGES
        self.clock.now += self.cost
        self.log.append(self.name)

    def bind(self, images: NDArray[np.float32]) -> Callable[[], None]:
        assert images is IMAGES
        self.bound += 1

        def compute() -> None:
            self.clock.now += self.cost / 2
            self.log.append(f"{self.name} compute")

        return compute


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=made.perf_counter))
    return made


def run(clock: Clock, costs: dict[str, float], options: MeasureOptions) -> tuple[dict[str, list[float]], list[str]]:
    log: list[str] = []
    runners = {name: Recorder(name, cost, clock, log) for name, cost in costs.items()}
    return measure(runners, IMAGES, options), log  # type: ignore[arg-type]


def rounds_of(log: list[str], size: int) -> list[list[str]]:
    return [log[start : start + size] for start in range(0, len(log), size)]


def test_every_round_runs_every_variant_once(clock: Clock) -> None:
    seconds, log = run(clock, {"a": 0.25, "b": 0.5, "c": 0.125}, MeasureOptions(warmup=0, duration=20))
    rounds = rounds_of(log, 3)
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert {name: len(samples) for name, samples in seconds.items()} == dict.fromkeys("abc", len(rounds))


def test_the_order_within_a_round_changes_and_favours_none(clock: Clock) -> None:
    _, log = run(clock, {"a": 0.25, "b": 0.25}, MeasureOptions(warmup=0, duration=150))
    first = [names[0] for names in rounds_of(log, 2)]
    assert len(first) == 300
    assert 0.4 < first.count("a") / 300 < 0.6


def test_the_order_is_the_same_at_every_call(clock: Clock) -> None:
    options = MeasureOptions(warmup=0, duration=10)
    assert run(clock, {"a": 0.25, "b": 0.25}, options)[1] == run(clock, {"a": 0.25, "b": 0.25}, options)[1]


def test_each_variant_gets_its_own_time(clock: Clock) -> None:
    seconds, _ = run(clock, {"a": 0.25, "b": 0.5}, MeasureOptions(warmup=0, duration=3))
    assert set(seconds["a"]) == {0.25}
    assert set(seconds["b"]) == {0.5}


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_warm_up_runs_every_variant_and_is_not_counted(clock: Clock, warmup: int) -> None:
    """Nor does its time count towards the duration."""
    seconds, log = run(clock, {"a": 1.0, "b": 1.0}, MeasureOptions(warmup=warmup, duration=40))
    assert len(seconds["a"]) == len(seconds["b"]) == 20
    assert log.count("a") == log.count("b") == 20 + warmup


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    costs=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    duration=st.integers(1, 2000),
)
def test_it_measures_for_the_duration_and_no_longer_than_the_round_begun(
    clock: Clock, costs: list[int], duration: int
) -> None:
    """Unless that would be fewer rounds than say anything. In units of 1/64 s, which add up exactly."""
    named = {f"v{index}": cost / 64 for index, cost in enumerate(costs)}
    seconds, _ = run(clock, named, MeasureOptions(warmup=0, duration=duration / 64))
    expected = max(FEWEST_ROUNDS, min(MOST_ROUNDS, -(-duration // sum(costs))))
    assert {len(samples) for samples in seconds.values()} == {expected}


def test_very_fast_variants_stop_at_the_most_rounds(clock: Clock) -> None:
    seconds, _ = run(clock, {"a": 2.0**-20}, MeasureOptions(warmup=0, duration=100))
    assert len(seconds["a"]) == MOST_ROUNDS


def test_compute_binds_once_and_runs_what_was_bound(clock: Clock) -> None:
    log: list[str] = []
    runner = Recorder("a", 0.5, clock, log)
    seconds = measure({"a": runner}, IMAGES, MeasureOptions(Timing.COMPUTE, warmup=2, duration=5))  # type: ignore[dict-item]
    assert runner.bound == 1
    assert set(log) == {"a compute"}
    assert set(seconds["a"]) == {0.25}
    assert len(log) == 22


@pytest.mark.parametrize(("warmup", "duration"), [(-1, 1.0), (0, 0.0), (0, -1.0), (0, float("nan")), (0, float("inf"))])
def test_options_that_cannot_be_measured(warmup: int, duration: float) -> None:
    with pytest.raises(InvalidArgument):
        MeasureOptions(warmup=warmup, duration=duration)
