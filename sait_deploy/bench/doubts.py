"""Why rows of a benchmark are to be trusted less than others, in a warning for each kind of reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sait_deploy.bench.results import BenchRow
from sait_deploy.bench.stats import over_own_batch, relative_spread
from sait_deploy.reports.table import Note, Severity

WIDE_SPREAD: Final = 0.25
"""Relative spread of a row's samples above which the row earns a warning."""

WIDE_INTERVAL: Final = 0.1
"""Width of a speed-up's interval, relative to its median, above which the row earns a warning."""

ABOVE_MAC_RATIO: Final = 1.05
"""How far above its MAC ratio, as a factor, a speed-up's low end may lie before the row earns a warning."""

ENQUEUE_BOUND: Final = 0.9
"""Share of a row's compute time from which on its enqueue time earns a warning."""

FEWEST_ROUNDS: Final = 6
"""Below this many rounds even the whole range of the ratios covers their median less often than 95 %."""


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Why a row is to be trusted less: the kind of reason, how much there is of it, and both in words."""

    kind: str
    size: float
    text: str


def row_notes(rows: Iterable[tuple[BenchRow, str]]) -> tuple[Note, ...]:
    """Returns the warnings that rows have earned, one of a kind: that of the row that earned it most.

    Args:
        rows: each with what its variant is called.
    """
    found: dict[str, list[tuple[_Doubt, str]]] = {}
    for row, label in rows:
        for doubt in _doubts(row):
            found.setdefault(doubt.kind, []).append((doubt, f"batch {row.batch}, {label}"))
    notes = []
    for doubted in found.values():
        most, where = max(doubted, key=lambda one: one[0].size)
        place = where if len(doubted) == 1 else f"{len(doubted)} rows, most of all {where}"
        notes.append(Note(f"{place}: {most.text}", Severity.WARNING))
    return tuple(notes)


def _doubts(row: BenchRow) -> list[_Doubt]:
    found = []
    spread = relative_spread(over_own_batch(row))
    if spread > WIDE_SPREAD:
        text = f"times spread widely, p90 - p10 is {spread:.0%} of the median; measure on a quieter machine"
        found.append(_Doubt("spread", spread, text))
    stages = row.stages
    if stages is not None and stages.enqueue_ms >= ENQUEUE_BOUND * stages.compute_ms:
        text = (
            f"enqueue-bound, the host takes {stages.enqueue_ms:.3g} ms to start what the device has "
            f"done after {stages.compute_ms:.3g} ms; its time is the host's, use larger batches"
        )
        found.append(_Doubt("enqueue", stages.enqueue_ms / max(stages.compute_ms, 1e-9), text))
    if row.speedup is None:
        return found
    width = (row.speedup.high - row.speedup.low) / row.speedup.median
    if width > WIDE_INTERVAL:
        found.append(_Doubt("width", width, f"the speed-up is known to within {width:.0%} only; run more rounds"))
    if len(row.seconds) < FEWEST_ROUNDS:
        text = f"{len(row.seconds)} rounds are too few for a 95 % interval; run {FEWEST_ROUNDS} or more"
        found.append(_Doubt("rounds", -len(row.seconds), text))
    if row.speedup.low > ABOVE_MAC_RATIO * row.mac_ratio:
        times = row.speedup.median / row.mac_ratio
        text = (
            f"the speed-up is {times:.2f} times the MAC ratio; "
            "see whether something slowed dense, or became cheaper without being multiply-accumulates"
        )
        found.append(_Doubt("ratio", times, text))
    return found
