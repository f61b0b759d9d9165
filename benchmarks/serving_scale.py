"""The simulation held against what was measured on one machine, and then run with up to a thousand replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving_client import poisson_times
from benchmarks.serving_load import WITHIN, Kind, goodput, seed_of
from benchmarks.serving_simulation import Autoscaling, Machine, Simulated, simulate
from sait_deploy.serving.model import STEM_IMAGES

REPLICAS: Final = (1, 10, 100, 1000)
MOST_DEVIATION: Final = 0.10
_SCALE_SHARES: Final = (0.7, 0.8, 0.9, 0.95, 1.0, 1.05)
_FEWEST_REQUESTS: Final = 4000


@dataclass(frozen=True, slots=True)
class Setting:
    """A kind of server on paper.

    Attributes:
        machine: each replica.
        counts: int64 [n], patch tokens of requests, which take turns.
        target: latency to keep, seconds.
    """

    machine: Machine
    counts: NDArray[np.int64]
    target: float

    @property
    def capacity(self) -> float:
        """Requests in a second of one replica whose batches are full."""
        machine, tokens = self.machine, float(self.counts.mean()) + self.machine.prefix
        images = max(1, machine.limits.within(int(machine.limits.tokens // tokens)))
        seconds = machine.overhead + machine.cost.trunk.seconds(images, round(images * tokens)) / images
        if machine.cost.stem is not None:
            seconds += machine.cost.stem.seconds(STEM_IMAGES, 0) / STEM_IMAGES
        return 1 / seconds

    def run(self, rate: float, seconds: float, seed: int, replicas: int = 1) -> Simulated:
        """Simulates arrivals at a steady rate."""
        return self.run_at(poisson_times(rate, seconds, seed), replicas)

    def run_at(self, times: NDArray[np.float64], replicas: int, autoscaling: Autoscaling | None = None) -> Simulated:
        """Simulates arrivals at the given times."""
        kept = np.resize(self.counts, len(times))
        return simulate(self.machine, times.tolist(), kept, replicas, autoscaling)

    def in_turn(
        self, rates: Sequence[float], seconds: float, seeds: Sequence[int], apart: float
    ) -> list[NDArray[np.float64]]:
        """Simulates loads that one server meets one after the other, so that its points begin where they were left.

        Args:
            rates: requests in a second of each load.
            seconds: of each.
            seeds: of the arrivals of each.
            apart: seconds from the begin of one to that of the next.

        Returns:
            For each load float64 [requests], seconds, as of ``Simulated``.
        """
        loads = [poisson_times(rate, seconds, seed) for rate, seed in zip(rates, seeds, strict=True)]
        times = np.concatenate([times + turn * apart for turn, times in enumerate(loads)])
        return np.split(self.run_at(times, 1).latencies, np.cumsum([len(times) for times in loads])[:-1])

    def within(self, latencies: NDArray[np.float64]) -> float:
        """Returns the share of the requests that were answered within the target."""
        return float((latencies <= self.target).mean()) if len(latencies) else 1.0


def checked(
    settings: Mapping[Kind, Setting], rows: Sequence[Mapping[str, Any]], unit: float, seconds: float
) -> dict[str, Any]:
    """Simulates the loads that were measured, one after the other as the server met them, and compares.

    Args:
        settings: of each kind.
        rows: measured.
        unit: dense's capacity, requests in a second.
        seconds: of each load.
    """
    found = []
    for kind, setting in settings.items():
        own = [row for row in rows if row["kind"] == kind]
        rates = [row["rate_over_dense_capacity"] * unit for row in own]
        seeds = [seed_of(row["share"]) for row in own]
        for row, latencies in zip(own, setting.in_turn(rates, seconds, seeds, seconds * len(settings)), strict=True):
            within = setting.within(latencies)
            answered = latencies[np.isfinite(latencies)] / setting.target
            found.append(
                {
                    "kind": kind.value,
                    "share": row["share"],
                    "rate_over_dense_capacity": row["rate_over_dense_capacity"],
                    "within": within,
                    "p50_over_measured": _ratio(float(np.median(answered)), row["p50_over_target"]),
                    "goodput_over_measured": _ratio(within, row["within"]),
                }
            )
    kinds = {}
    for kind in settings:
        measured = goodput([row for row in rows if row["kind"] == kind])
        simulated_goodput = goodput([row for row in found if row["kind"] == kind])
        kinds[kind.value] = _ratio(simulated_goodput, measured)
    deviations = [abs(ratio - 1) for ratio in kinds.values() if ratio is not None]
    ratios = [row["goodput_over_measured"] for row in found if row["goodput_over_measured"] is not None]
    near = [abs(ratio - 1) <= MOST_DEVIATION for ratio in ratios]
    return {
        "goodput_over_measured": kinds,
        "loads_within_10_percent": sum(near) / len(near) if near else None,
        "rows": found,
        "targets": {
            f"goodput of each kind within {MOST_DEVIATION:.0%}": len(deviations) == len(kinds)
            and max(deviations) <= MOST_DEVIATION
        },
    }


def _ratio(value: float, over: float | None) -> float | None:
    return value / over if over else None


def scaled(settings: Mapping[Kind, Setting], replicas: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Simulates more replicas: which load, as a share of all their capacity, each kind takes within the target."""
    rows = []
    for kind, setting in settings.items():
        for count in replicas:
            loads = []
            for share in _SCALE_SHARES:
                rate = share * setting.capacity * count
                long_enough = max(seconds, _FEWEST_REQUESTS / rate)
                loads.append(
                    {
                        "rate_over_dense_capacity": share,
                        "within": setting.within(setting.run(rate, long_enough, seed_of(share), count).latencies),
                    }
                )
            rows.append({"kind": kind.value, "replicas": count, "goodput_over_capacity": goodput(loads)})
    return rows


def autoscaled(setting: Setting, kind: Kind, seconds: float, policy: Autoscaling) -> dict[str, Any]:
    """Simulates a load that rises to what most of the replicas can take and falls again, with replicas that follow it.

    Returns:
        The share of requests within the target and the mean number of replicas, of the most that there may be.
    """
    most = policy.most
    quiet, busy = 0.1, 0.7
    phases = [(quiet, seconds), (busy, seconds), (quiet, seconds)]
    times, before = [], 0.0
    for i, (share, length) in enumerate(phases):
        times.append(before + poisson_times(share * most * setting.capacity, length, seed=i))
        before += length
    found = setting.run_at(np.concatenate(times), policy.least, policy)
    share = setting.within(found.latencies)
    return {
        "kind": kind.value,
        "most_replicas": most,
        "loads_over_all_capacity": [quiet, busy, quiet],
        "mean_replicas_over_most": found.replicas / most,
        "within": share,
        "kept_target": share >= WITHIN,
    }
