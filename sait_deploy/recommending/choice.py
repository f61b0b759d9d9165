"""The Pareto front of candidates, and the choice from it under limits: pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from sait_deploy.recommending.results import Candidate, Verdict


class Limits(NamedTuple):
    """What a candidate has to keep to; None for no limit."""

    max_drop: float | None
    max_latency_ms: float | None


class Choice(NamedTuple):
    """The candidate to deploy; see ``sait_deploy.recommending.results.Recommendation``."""

    chosen: Candidate | None
    shown: Candidate | None
    nearest: Candidate | None


def with_front(candidates: Sequence[Candidate], limits: Limits) -> list[Candidate]:
    """Returns the candidates, those on the Pareto front marked so.

    On the front is what none of the others dominates: at least as good in accuracy, speed and memory, and better in
    one of them. Speed is throughput, or latency where that has a limit. What one of the candidates does not say counts
    for none of them.
    """
    costs = _costs(candidates, limits)
    return [
        dataclasses.replace(one, on_front=not any(_dominates(other, cost) for other in costs))
        for one, cost in zip(candidates, costs, strict=True)
    ]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _costs(candidates: Sequence[Candidate], limits: Limits) -> list[tuple[float, ...]]:
    """Returns of each candidate what is the better the smaller it is."""
    slow = [_slowness(one, limits) for one in candidates]
    lost = [None if one.drop is None else one.drop.points.value for one in candidates]
    known = [one for one in (lost, [one.memory_bytes for one in candidates]) if None not in one]
    return list(zip(slow, *known, strict=True))


def choose(candidates: Sequence[Candidate], limits: Limits) -> Choice:
    """Chooses from the Pareto front.

    Args:
        candidates: as :func:`with_front` returns them.
        limits: with ``max_drop`` the fastest that keeps to the limits is chosen. Without it the fastest of those whose
            drop the images cannot tell from the smallest; where drops are unknown, the fastest.
    """
    within = [one for one in candidates if _keeps_latency(one, limits) and _keeps_drop(one, limits)]
    front = [one for one in within if one.on_front]
    if not front:
        return Choice(None, None, _nearest(candidates, limits))

    def slowness(one: Candidate) -> float:
        return _slowness(one, limits)

    chosen = min(_as_accurate(front) if limits.max_drop is None else front, key=slowness)
    shown = [one for one in within if _verdict(one, limits) is Verdict.SHOWN]
    return Choice(chosen, min(shown, key=slowness, default=None), None)


def _as_accurate(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns those whose interval reaches the smallest drop; all where a drop is unknown."""
    drops = [one.drop.points for one in candidates if one.drop is not None]
    if len(drops) < len(candidates):
        return list(candidates)
    least = min(drop.value for drop in drops)
    return [one for one, drop in zip(candidates, drops, strict=True) if drop.low <= least]


def _nearest(candidates: Sequence[Candidate], limits: Limits) -> Candidate | None:
    """Returns what is nearest to the limits: the quickest that keeps ``max_drop``, or else what loses least."""
    keeping = [one for one in candidates if _keeps_drop(one, limits)]
    if keeping:
        return min(keeping, key=lambda one: one.latency_ms)
    judged = [(one.drop.points.value, one) for one in candidates if one.drop is not None]
    return min(judged, key=lambda pair: pair[0])[1] if judged else None


def _slowness(candidate: Candidate, limits: Limits) -> float:
    """Returns what is the smaller the faster: the latency where that has a limit, else by speed."""
    return candidate.latency_ms if limits.max_latency_ms is not None else 1 / candidate.speed


def _keeps_latency(candidate: Candidate, limits: Limits) -> bool:
    return limits.max_latency_ms is None or candidate.latency_ms <= limits.max_latency_ms


def _keeps_drop(candidate: Candidate, limits: Limits) -> bool:
    return limits.max_drop is None or _verdict(candidate, limits) in (Verdict.SHOWN, Verdict.MEASURED)


def _verdict(candidate: Candidate, limits: Limits) -> Verdict | None:
    if candidate.drop is None or limits.max_drop is None:
        return None
    return candidate.drop.verdict(limits.max_drop)
