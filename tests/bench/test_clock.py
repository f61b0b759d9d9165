"""The clock: rounds, their order, what is counted, and for how long. Time is a counter that the calls move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.points import DEFAULT_CHOICE, PointChoice
from sait_deploy.bench import clock as module
from sait_deploy.bench.clock import FEWEST_ROUNDS, MOST_ROUNDS, MeasureOptions, call_for, measure
from sait_deploy.bench.results import Timing
from sait_deploy.errors import InvalidArgument
from sait_deploy.runtime import load
from tests.tiny import random_batch

Log = list[tuple[str, int]]


class Clock:
    """Stands still but for what calls make it pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=made.perf_counter))
    return made


def run(
    clock: Clock, costs: Mapping[str, Sequence[float]], options: MeasureOptions
) -> tuple[dict[str, list[float]], Log]:
    """Measures calls that take the time given for each variant and batch, and writes down which ran."""
    log: Log = []

    def call(name: str, batch: int, cost: float) -> Callable[[], None]:
        def done() -> None:
            clock.now += cost
            log.append((name, batch))

        return done

    calls = {name: [call(name, *pair) for pair in enumerate(batches)] for name, batches in costs.items()}
    return measure(calls, options), log


def rounds_of(log: Log, size: int) -> list[Log]:
    return [log[start : start + size] for start in range(0, len(log), size)]


def test_the_order_within_a_round_changes_and_favours_none(clock: Clock) -> None:
    _, log = run(clock, {"a": [0.25], "b": [0.25]}, MeasureOptions(warmup=0, duration=150))
    first = [calls[0][0] for calls in rounds_of(log, 2)]
    assert len(first) == 300
    assert 0.4 < first.count("a") / 300 < 0.6


def test_the_order_is_the_same_at_every_call(clock: Clock) -> None:
    options, costs = MeasureOptions(warmup=0, duration=10), {"a": [0.25], "b": [0.25]}
    assert run(clock, costs, options)[1] == run(clock, costs, options)[1]


@given(names=st.integers(1, 4), batches=st.integers(1, 12), warmup=st.integers(0, 20), rounds=st.integers(10, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_round_is_of_one_batch_and_rounds_take_the_batches_in_turn(
    clock: Clock, names: int, batches: int, warmup: int, rounds: int
) -> None:
    """Sample i of every variant is of batch i modulo their number; each call takes its own time. Cycles are whole, two
    at least, so that every batch counts as much as every other. Warm-up is neither counted nor part of the duration.
    """
    costs = {f"v{n}": [(1 + n + 4 * b) / 64 for b in range(batches)] for n in range(names)}
    per_round = [sum(costs[name][i % batches] for name in costs) for i in range(rounds)]
    seconds, log = run(clock, costs, MeasureOptions(warmup=warmup, duration=sum(per_round)))
    warm, counted = log[: warmup * names], rounds_of(log[warmup * names :], names)
    assert [sorted(calls) for calls in counted] == [
        [(name, i % batches) for name in costs] for i in range(len(counted))
    ]
    rounds = -(-max(rounds, 2 * batches) // batches) * batches
    assert len(counted) == rounds
    for name, samples in seconds.items():
        assert samples == [costs[name][i % batches] for i in range(rounds)]
        assert [batch for other, batch in warm if other == name] == [i % batches for i in range(warmup)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    costs=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    duration=st.integers(1, 2000),
)
def test_it_measures_for_the_duration_and_no_longer_than_the_round_begun(
    clock: Clock, costs: list[int], duration: int
) -> None:
    """Unless that would be fewer rounds than say anything. In units of 1/64 s, which add up exactly."""
    named = {f"v{index}": [cost / 64] for index, cost in enumerate(costs)}
    seconds, _ = run(clock, named, MeasureOptions(warmup=0, duration=duration / 64))
    expected = max(FEWEST_ROUNDS, min(MOST_ROUNDS, -(-duration // sum(costs))))
    assert {len(samples) for samples in seconds.values()} == {expected}


def test_very_fast_variants_stop_at_the_most_rounds(clock: Clock) -> None:
    seconds, _ = run(clock, {"a": [2.0**-20]}, MeasureOptions(warmup=0, duration=100))
    assert len(seconds["a"]) == MOST_ROUNDS


@pytest.mark.parametrize("choice", [DEFAULT_CHOICE, PointChoice(mass=0.2), PointChoice(None, 1.0, [3, 9], [3, 9])])
def test_an_end_to_end_call_answers_as_the_runner_does_at_that_point(
    tiny_adaptive: Artifact, choice: PointChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, images, answers = load(tiny_adaptive), random_batch((2, 3, 96, 96)), []
    run_at = runner.run_at
    monkeypatch.setattr(runner, "run_at", lambda *asked: answers.append(run_at(*asked)))
    assert call_for(runner, images, Timing.END_TO_END, choice)() is None
    (found,), wanted = answers, run_at(images, choice)
    assert_array_equal(found.kept, wanted.kept)
    assert_array_equal(found.logits, wanted.logits)


def test_a_call_with_a_clock_of_its_own_is_believed(clock: Clock) -> None:
    def own() -> float:
        clock.now += 5.0
        return 0.25

    def other() -> None:
        clock.now += 0.5

    seconds = measure({"a": [own], "b": [other]}, MeasureOptions(warmup=1, duration=60))
    assert (set(seconds["a"]), set(seconds["b"])) == ({0.25}, {0.5})


class Binding:
    """A runner that counts what it binds and what of it runs."""

    def __init__(self) -> None:
        self.bound: list[PointChoice] = []
        self.runs = 0

    def bind(self, images: object, choice: PointChoice) -> Callable[[], None]:
        self.bound.append(choice)

        def compute() -> None:
            self.runs += 1

        return compute


def test_compute_binds_once_and_runs_what_was_bound() -> None:
    runner, choice = Binding(), PointChoice(mass=0.5)
    call = call_for(runner, np.zeros((2, 3, 4, 4), np.float32), Timing.COMPUTE, choice)  # type: ignore[arg-type]
    for _ in range(7):
        call()
    assert (runner.bound, runner.runs) == ([choice], 7)


@pytest.mark.parametrize(("warmup", "duration"), [(-1, 1.0), (0, 0.0), (0, -1.0), (0, float("nan")), (0, float("inf"))])
def test_options_that_cannot_be_measured(warmup: int, duration: float) -> None:
    with pytest.raises(InvalidArgument):
        MeasureOptions(warmup=warmup, duration=duration)
