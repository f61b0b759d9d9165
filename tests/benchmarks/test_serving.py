"""The server's benchmark on a small model: its client, its figures, and its simulation."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="the server needs Ray, which brings aiohttp and has no wheel here")
pytest.importorskip("uvicorn", reason="the server needs Ray, which brings uvicorn and has no wheel here")

from benchmarks.serving_artifacts import Artifacts
from benchmarks.serving_client import OK, Client, Load, Outcome, Target, poisson_times
from benchmarks.serving_costs import Cost, ModelCost, measured_costs
from benchmarks.serving_endurance import grown, statuses
from benchmarks.serving_load import WITHIN, Kind, LoadOptions, goodput, measured_loads, row_of
from benchmarks.serving_scale import Setting, autoscaled, checked, scaled
from benchmarks.serving_setup import Bench, settings_of
from benchmarks.serving_simulation import Autoscaling, Machine, simulate
from sait_deploy.artifacts.folder import Artifact
from sait_deploy.serving.batching import BatchLimits
from sait_deploy.serving.options import ModelsOptions
from tests.exported import TinyExport
from tests.serving.served import Served, served

ONE_BY_ONE = Machine(ModelCost(None, Cost(0.0, 0.01, 0.0), 0.0), 0.0, BatchLimits(1), 10**6, 1)
"""A replica that computes one image at a time, 100 a second."""


@pytest.fixture(scope="module")
def bench(tiny: TinyExport, tiny_adaptive: Artifact) -> Bench:
    return Bench.of(Artifacts(tiny.dense, tiny.half, tiny_adaptive))


@pytest.fixture(scope="module")
def server(bench: Bench) -> Iterator[Served]:
    paths = tuple(one.path for one in (bench.artifacts.adaptive, bench.artifacts.dense, bench.artifacts.density))
    with served(ModelsOptions(artifacts=paths, threads=1, queue=32)) as running:
        yield running


@given(st.floats(1, 500), st.integers(0, 5))
def test_arrivals_have_their_rate_and_stop(rate: float, seed: int) -> None:
    times = poisson_times(rate, 20, seed)
    assert np.all(np.diff(times) >= 0) and (not len(times) or times[-1] < 20)
    assert abs(len(times) - 20 * rate) < 6 * np.sqrt(20 * rate)


def test_a_request_that_waits_to_leave_is_late_from_its_planned_time_on(bench: Bench, server: Served) -> None:
    """All are planned at once: each latency covers those before it, whenever it left."""
    client = bench.client(f"http://{server.address}", Kind.BY_TOKENS)
    load = asyncio.run(client.open_loop([0.0] * 20))
    assert [outcome.status for outcome in load.outcomes] == [OK] * 20 and all(one.right for one in load.outcomes)
    assert {outcome.point for outcome in load.outcomes} == {"request"}
    assert all(outcome.latency >= outcome.done - outcome.left for outcome in load.outcomes)
    assert 0 < load.client_share <= 1


def test_what_is_no_answer_is_told_apart(bench: Bench, server: Served) -> None:
    wrong = Client(Target(f"http://{server.address}", "none", False), bench.images, bench.counts)
    gone = Client(Target("http://127.0.0.1:9", "none", False), bench.images, bench.counts)
    counts = [statuses(asyncio.run(client.open_loop([0.0, 0.01]))) for client in (wrong, gone)]
    assert [(one["answered"], one["other_errors"], one["unanswered"]) for one in counts] == [(0, 2, 0), (0, 0, 2)]


def test_all_parts_run_on_a_small_model(bench: Bench, server: Served) -> None:
    """The smoke run: costs, loads, the check of the simulation, more replicas."""
    found = measured_costs(bench.measured, bench.images, 1, 1.0)
    assert {kind: cost.stem is not None for kind, cost in found.items()} == {
        Kind.DENSE: False,
        Kind.DENSITY: False,
        Kind.BY_TOKENS: True,
    }
    costs = {kind: dataclasses.asdict(cost) for kind, cost in found.items()}
    clients = {kind: bench.client(f"http://{server.address}", kind) for kind in Kind}
    loads = measured_loads(clients, LoadOptions(0.3, 0.3, target=2.0, shares=(0.2, 0.4)), lambda _: None)
    assert len(loads["rows"]) == 2 * len(Kind) and loads["goodput_over_dense"]["dense"] == pytest.approx(1)
    assert all(row["wrong"] == row["unanswered"] == row["other_errors"] == 0 for row in loads["rows"])
    bench_points = {"quality": 19, "fast": 10}
    made = settings_of(bench, {"costs_seconds": costs, "target_seconds": 2.0}, loads, bench_points)
    check = checked(made, loads["rows"], loads["dense_capacity_per_second"], 0.3)
    assert set(check["goodput_over_measured"]) == {kind.value for kind in Kind}
    (row,) = scaled({Kind.BY_TOKENS: made[Kind.BY_TOKENS]}, [2], 0.5)
    assert row["goodput_over_capacity"] >= 0


def rows(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"rate_over_dense_capacity": rate, "within": within} for rate, within in pairs]


def test_goodput_is_the_rate_up_to_which_the_target_is_kept() -> None:
    assert goodput(rows((0.5, 1.0), (1.0, 1.0))) == pytest.approx(WITHIN)
    assert goodput(rows((1.0, 0.98), (0.5, 1.0))) == pytest.approx(WITHIN * 0.75)
    assert goodput(rows((0.5, 1.0), (1.0, 0.5), (1.5, 1.0))) < WITHIN * 0.52, "what lies beyond the first miss is luck"
    assert goodput(rows((0.5, 0.2))) < 0.01
    outcomes = (Outcome(0, 0, 0.5, OK), Outcome(0, 0, 2.0, OK), Outcome(0, 0, 0.1, 503), Outcome(0, 0, 0.1, OK, False))
    row = row_of(Load(outcomes, 1.0, 0.1), 4.0, 4.0, LoadOptions(1.0, 1.0, target=1.0))
    assert (row["within"], row["refused"], row["wrong"]) == (0.25, 1, 1)


def test_growth_compares_the_end_with_what_follows_the_start() -> None:
    assert grown([1, 50, 100, 100, 100, 100, 100, 100, 103, 103]) == pytest.approx(0.03)


@settings(max_examples=10)
@given(st.floats(0.2, 0.9), st.integers(0, 3))
def test_a_queue_of_one_by_one_waits_as_theory_says(load: float, seed: int) -> None:
    """A single server with Poisson arrivals and equal costs: Pollaczek and Khinchine's mean wait."""
    times = poisson_times(100 * load, 400, seed)
    found = simulate(ONE_BY_ONE, times.tolist(), np.zeros(len(times), np.int64), 1)
    wait = found.latencies.mean() - 0.01
    assert wait == pytest.approx(0.01 * load / (2 * (1 - load)), rel=0.35)


def test_more_replicas_take_more_and_wait_less() -> None:
    def latency(replicas: int) -> Any:
        times = poisson_times(80 * replicas, 100, 1)
        return simulate(ONE_BY_ONE, times.tolist(), np.zeros(len(times), np.int64), replicas).latencies.mean()

    assert latency(20) < latency(1)


def test_a_full_queue_refuses_and_what_was_taken_is_answered() -> None:
    machine = Machine(ONE_BY_ONE.cost, 0.0, BatchLimits(1), 5, 1)
    found = simulate(machine, [0.0] * 20, np.zeros(20, np.int64), 1)
    assert np.isfinite(found.latencies).sum() == 6 and np.nanmax(found.latencies[:6]) == pytest.approx(0.06)


def test_the_loads_points_answer_an_overload_with_fewer_tokens() -> None:
    cost = ModelCost(Cost(0.0, 0.001, 0.0), Cost(0.0, 0.0, 0.0001), 0.0)
    machine = Machine(cost, 0.0, BatchLimits(1600), 10**6, 1, {"quality": 100, "fast": 40}, 0.5)
    times = poisson_times(150, 60, 0)
    found = simulate(machine, times.tolist(), np.zeros(len(times), np.int64), 1)
    assert set(found.kept.tolist()) == {100, 40}
    assert np.quantile(found.latencies, 0.5) < 0.5 < 60 * (150 * 0.0111 - 1), "one point alone would be overloaded"


def test_a_simulation_that_is_all_wrong_is_near_no_load() -> None:
    row = {"kind": "dense", "share": 0.5, "rate_over_dense_capacity": 0.5, "within": 1.0, "p50_over_target": 1.0}
    check = checked({Kind.DENSE: Setting(ONE_BY_ONE, np.zeros(1, np.int64), 0.001)}, [row], 100, 1.0)
    assert check["rows"][0]["goodput_over_measured"] == 0 == check["loads_within_10_percent"]
    assert not any(check["targets"].values())


def test_replicas_follow_a_load_and_go_again() -> None:
    setting = Setting(ONE_BY_ONE, np.zeros(1, np.int64), 0.5)
    assert setting.capacity == pytest.approx(100)
    policy = Autoscaling(ongoing=2, least=1, most=10, up_seconds=2, down_seconds=5, start_seconds=3)
    found = autoscaled(setting, Kind.DENSE, 40, policy)
    assert 0.1 < found["mean_replicas_over_most"] < 0.9
    assert found["within"] > 0.5
