"""Goodput of a server's kinds of batches under open loads, as shares: of the target latency and of dense's capacity."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from benchmarks.serving_client import NO_ANSWER, OK, Client, Load, poisson_times

SHARES: Final = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5)
"""Loads, each as a share of a kind's own capacity."""

WITHIN: Final = 0.99
"""Share of the requests that must be answered within the target."""

BUSY: Final = 503
CLIENTS: Final = 32
"""Requests on their way while a capacity is measured."""


CAPACITY_ROUNDS: Final = 3


class Kind(StrEnum):
    """How a server is run."""

    DENSE = "dense"
    DENSITY = "density"
    BY_COUNT = "adaptive by count"
    BY_TOKENS = "adaptive by tokens"
    LOAD_AWARE = "load-aware"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How long to measure.

    Attributes:
        seconds: of each load.
        capacity_seconds: of the closed loops that find a kind's capacity, together.
        shares: loads, as shares of that.
        target: latency to keep, seconds.
    """

    seconds: float
    capacity_seconds: float
    target: float
    shares: Sequence[float] = SHARES


def capacity(client: Client, seconds: float, clients: int = CLIENTS) -> float:
    """Returns the requests answered in a second while many are on their way."""
    load = asyncio.run(client.closed_loop(clients, seconds))
    return sum(outcome.status == OK for outcome in load.outcomes) / load.seconds


def seed_of(share: float) -> int:
    """Returns the seed of a load's arrivals, which its simulation shares."""
    return round(1000 * share)


def measured_loads(clients: Mapping[Kind, Client], options: LoadOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures each kind at each load, the kinds in turns.

    Returns:
        Each kind's capacity over dense's, a row for each load, and each kind's goodput over dense's.
    """
    capacities = _capacities(clients, options.capacity_seconds)
    unit = capacities[Kind.DENSE]
    rows = []
    for share in options.shares:
        for kind, client in clients.items():
            rate = share * capacities[kind]
            load = asyncio.run(client.open_loop(poisson_times(rate, options.seconds, seed_of(share))))
            row = {"kind": kind.value, "share": share, **row_of(load, rate, unit, options)}
            rows.append(row)
            say(f"{kind} at {share:g} of capacity: {row['within']:.1%} within the target, {row['refused']} refused")
    goodputs = {kind.value: goodput([row for row in rows if row["kind"] == kind]) for kind in clients}
    dense = goodputs[Kind.DENSE]
    return {
        "dense_capacity_per_second": unit,
        "capacity_over_dense": {kind.value: value / unit for kind, value in capacities.items()},
        "goodput_over_dense_capacity": goodputs,
        "goodput_over_dense": {kind: value / dense if dense else None for kind, value in goodputs.items()},
        "rows": rows,
    }


def _capacities(clients: Mapping[Kind, Client], seconds: float) -> dict[Kind, float]:
    """Returns each kind's capacity, the median of rounds in which the kinds take turns."""
    rounds = [
        {kind: capacity(client, seconds / CAPACITY_ROUNDS) for kind, client in clients.items()}
        for _ in range(CAPACITY_ROUNDS)
    ]
    return {kind: float(np.median([one[kind] for one in rounds])) for kind in clients}


def row_of(load: Load, rate: float, unit: float, options: LoadOptions) -> dict[str, Any]:
    """Returns what became of a load.

    Args:
        load: of one kind.
        rate: requests in a second that were planned.
        unit: dense's capacity, requests in a second.
        options: with the target.
    """
    answered = [outcome for outcome in load.outcomes if outcome.status == OK and outcome.right]
    latencies = np.array([outcome.latency for outcome in answered]) / options.target
    statuses = Counter(outcome.status for outcome in load.outcomes)
    within, requests = int((latencies <= 1).sum()), len(load.outcomes)
    late = [outcome.left - outcome.planned for outcome in load.outcomes]
    share = within / requests if requests else 1.0
    return {
        "rate_over_dense_capacity": rate / unit,
        "requests": requests,
        "within": share,
        "goodput_over_dense_capacity": share * rate / unit,
        "p50_over_target": _quantile(latencies, 0.5),
        "p99_over_target": _quantile(latencies, 0.99),
        "refused": statuses[BUSY],
        "unanswered": statuses[NO_ANSWER],
        "wrong": sum(not outcome.right for outcome in load.outcomes),
        "other_errors": requests - statuses[OK] - statuses[BUSY] - statuses[NO_ANSWER],
        "client_left_late_p99_over_target": _quantile(np.array(late) / options.target, 0.99),
        "client_share": load.client_share,
        "points": dict(Counter(outcome.point for outcome in answered)),
    }


def _quantile(values: Any, level: float) -> float | None:
    return float(np.quantile(values, level)) if len(values) else None


def goodput(rows: Sequence[Mapping[str, Any]]) -> float:
    """Returns the highest rate at which enough requests are answered within the target, over dense's capacity.

    Between the last load that keeps the target and the first that does not, the share within it is taken as linear.
    """
    before, share = 0.0, 1.0
    for row in sorted(rows, key=lambda row: float(row["rate_over_dense_capacity"])):
        rate, within = row["rate_over_dense_capacity"], row["within"]
        if within < WITHIN:
            return float(WITHIN * (before + (rate - before) * (share - WITHIN) / (share - within)))
        before, share = rate, within
    return float(WITHIN * before)
