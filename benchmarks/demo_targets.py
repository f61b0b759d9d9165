"""What the demonstration is to show, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from sait_deploy.evaluation.results import Basis, Comparison, Evaluation, Kind

LOSSES: Final = (("0.49", 0.5), ("0.28", 1.0))
"""Density to the points that may be lost there: 40 % and 55 % of the multiply-accumulates saved."""

DENSE_GAP: Final = 0.2
HARDEST: Final = ("mass0.6", "mass0.5")


def _target(what: str, found: str, reached: bool) -> dict[str, Any]:
    return {"target": what, "found": found, "reached": reached}


def targets(summary: dict[str, Any], students: list[Evaluation]) -> list[dict[str, Any]]:
    """Returns each target with what was found, over all students."""
    return [*_of_losses(summary), *_of_rivals(students), *_of_masses(students), *_of_controls(students)]


def _of_losses(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for density, most in LOSSES:
        lost = {group: -one["mean"] for group, one in summary["change_mean"][density].items()}
        own, saved = lost["students"], summary["macs_saved_percent"][density]
        yield _target(f"{saved:.0f} % fewer MACs cost at most {most:g} points", f"{own:.2f}", own <= most)
        for group, words in (("teachers", "the teachers'"), ("dense-only", "trained on as long")):
            what = f"at most half of what plain weights lose there, {words}"
            share = f": {own / lost[group]:.2f}" if lost[group] > 0 else ""
            yield _target(what, f"{own:.2f} of {lost[group]:.2f}{share}", own <= 0.5 * lost[group])
    dense = {group: one["mean"] for group, one in summary["dense_top1_mean"].items()}
    ahead = round(dense["students"] - dense["dense-only"], 3)
    yield _target(f"dense within {DENSE_GAP:g} points of dense-only training", f"{ahead:+.2f}", ahead >= -DENSE_GAP)


def _of_rivals(students: list[Evaluation]) -> Iterator[dict[str, Any]]:
    for density, _ in LOSSES:
        found = list(_against(students, Kind.LOWER_RESOLUTION, Basis.EQUAL_MACS, (f"density{density}",)))
        yield _target(
            f"density {density} ahead of the dense model at the lower resolution of equal MACs",
            _in_words(found),
            bool(found) and all(one.difference.value > 0 for one in found),
        )


def _of_masses(students: list[Evaluation]) -> Iterator[dict[str, Any]]:
    for basis in Basis:
        found = [one for one in _against(students, Kind.DENSITY, basis) if one.first.startswith("mass")]
        if not found:
            continue
        worse = sorted({one.first for one in found if one.difference.high < 0})
        found_text = f"{sum(one.difference.high < 0 for one in found)} of {len(found)} clearly worse"
        found_text += f" ({', '.join(worse)})" if worse else ""
        yield _target(f"masses no worse than densities at {basis.value}", found_text, not worse)
        for mass in HARDEST:
            hardest = [one for one in found if one.first == mass]
            better = bool(hardest) and all(one.difference.low > 0 for one in hardest)
            yield _target(f"better by a paired interval at {mass}, {basis.value}", _in_words(hardest), better)


def _of_controls(students: list[Evaluation]) -> Iterator[dict[str, Any]]:
    below_half = [f"density{density}" for density, _ in LOSSES]
    for kind, what in ((Kind.RANDOM, "random ones"), (Kind.LEAST_IMPORTANT, "the least important")):
        found = list(_against(students, kind, Basis.EQUAL_MACS, below_half))
        ahead = min(one.difference.value for one in found)
        yield _target(f"the most important tokens beat {what} widely", f"by {ahead:.1f} points or more", ahead > 10)
    worse = []
    for student in students:
        right = {row.id: row.top1_percent or 0.0 for row in student.rows}
        for density, _ in LOSSES:
            worse.append(right[f"random{density}"] - right[f"least-important{density}"])
    found_text = f"by {min(worse):.1f} points or more"
    yield _target("the least important do worse than random ones", found_text, min(worse) > 0)


def _against(
    students: list[Evaluation], kind: Kind, basis: Basis, firsts: tuple[str, ...] | list[str] | None = None
) -> Iterator[Comparison]:
    """Yields the students' comparisons with rivals of a kind."""
    for student in students:
        kinds = {row.id: row.kind for row in student.rows}
        for one in student.comparisons:
            if one.basis is basis and kinds[one.second] is kind and (firsts is None or one.first in firsts):
                yield one


def _in_words(found: list[Comparison]) -> str:
    """Returns gains by seed, and how many are clear."""
    values = [one.difference.value for one in found]
    clear = sum(one.difference.low > 0 for one in found)
    each = ", ".join(f"{value:+.2f}" for value in values)
    return f"{np.mean(values):+.2f} ({each}), {clear} of {len(found)} clear" if found else "not compared"
