"""A choice in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from sait_deploy.bench.results import AccuracyMeasure
from sait_deploy.recommending.choice import Choice, Limits
from sait_deploy.recommending.results import Candidate, Drop, Verdict
from sait_deploy.reports.table import Note, Severity
from sait_deploy.reports.wording import digits

MEASURES = {
    AccuracyMeasure.TOP1: "top-1",
    AccuracyMeasure.AGREEMENT: "agreement",
    AccuracyMeasure.RETRIEVAL: "retrieval",
}
"""What is lost, in sentences."""


def limits_text(limits: Limits) -> str:
    """Writes the limits: "a drop of at most 0.5 points and at most 20 ms a request"."""
    drop = [] if limits.max_drop is None else [f"a drop of at most {limits.max_drop:g} points"]
    latency = [] if limits.max_latency_ms is None else [f"at most {limits.max_latency_ms:g} ms a request"]
    return " and ".join((*drop, *latency)) or "no limit"


def points_text(drop: Drop) -> str:
    """Writes a drop with its interval: 0.30 [−0.10, 0.70]."""
    low, value, high = (_number(part) for part in (drop.points.low, drop.points.value, drop.points.high))
    return value if low == high else f"{value} [{low}, {high}]"


def _number(value: float) -> str:
    text = f"{abs(value):.2f}"
    return f"−{text}" if value < 0 and float(text) else text


def choice_message(choice: Choice, limits: Limits, candidates: Sequence[Candidate], batch: int) -> str:
    """Says what was chosen and why; where nothing keeps to the limits, what comes nearest."""
    if choice.chosen is None:
        nearest = "" if choice.nearest is None else f"; the nearest is {choice.nearest.name}, {_costs(choice.nearest)}"
        return f"nothing that was measured at batch {batch} keeps to {limits_text(limits)}{nearest}"
    return f"deploy {choice.chosen.name}: {_reason(limits, choice.chosen)}; {_costs(choice.chosen)}" + _gain(
        choice.chosen, candidates
    )


def _reason(limits: Limits, chosen: Candidate) -> str:
    if limits == Limits(None, None):
        return "the fastest"
    kept = f"with {limits_text(limits)}"
    if limits.max_drop is None and chosen.drop is not None:
        return f"the fastest {kept} that the images cannot tell from the most accurate"
    return f"the fastest {kept}"


def _costs(candidate: Candidate) -> str:
    rate = f"{digits(candidate.images_per_second)} images/s, {digits(candidate.latency_ms)} ms a request"
    if candidate.drop is None:
        return rate
    drop = candidate.drop
    return f"{rate}, a drop of {points_text(drop)} points of {MEASURES[drop.measure]} on {drop.images:,} images"


def _gain(chosen: Candidate, candidates: Sequence[Candidate]) -> str:
    """Compares it with the fastest dense of all."""
    dense = max((one for one in candidates if one.baseline), key=lambda one: one.speed, default=None)
    if dense is None or dense == chosen:
        return ""
    return f"; {chosen.speed / dense.speed:.2f} × as fast as the fastest dense, {dense.name}"


def doubts(choice: Choice, limits: Limits) -> list[Note]:
    """Says where the images cannot show that the choice keeps the limit, and what they do show to keep it."""
    chosen = choice.chosen
    if chosen is None or chosen.drop is None or limits.max_drop is None:
        return []
    if chosen.drop.verdict(limits.max_drop) is not Verdict.MEASURED:
        return []
    shown = (
        "nothing else is shown to" if choice.shown is None else f"the fastest that is shown to is {choice.shown.name}"
    )
    text = (
        f"{chosen.drop.images:,} images cannot show that {chosen.name} loses at most {limits.max_drop:g} points: the "
        f"95 % interval of its drop reaches {_number(chosen.drop.points.high)}; {shown}"
    )
    return [Note(text, Severity.WARNING)]
