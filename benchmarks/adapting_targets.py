"""What choosing tokens image by image is to show on the demonstration's tasks, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sait_deploy.demo.tasks import MANY, Task
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.oracle_results import MassInBound
from sait_deploy.evaluation.results import Evaluation

LOST: Final = 2.0
"""Points that densities lose where masses shall gain."""

GAINED: Final = 1.0
SHARE: Final = 50.0
"""Of the gain of the best choice, in percent."""

FEW: Final = 0.1
"""Share of the tokens above which no mass shall be clearly worse."""


def targets(task: Task, found: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Returns each target with what was found, a value a seed."""
    worse = [sorted(one.row for one in _above(evaluation) if one.gain.high < 0) for evaluation in found]
    made = [
        _target(
            "no mass is clearly worse than the density of equal MACs, above a tenth of the tokens",
            "; ".join(", ".join(names) or "none" for names in worse),
            not any(worse),
        )
    ]
    if task is not MANY:
        return made
    there = [where_densities_lose(evaluation) for evaluation in found]
    made.append(
        _target(
            f"mass at least {GAINED:g} points over densities where these lose {LOST:g}, by a paired interval",
            "; ".join(f"{one.row}: {_in_words(one.gain)}" for one in there),
            all(one.gain.value >= GAINED and one.gain.low > 0 for one in there),
        )
    )
    made.append(
        _target(
            "at least half of the gain of the best choice there",
            "; ".join(f"{one.row}: {one.gain.value:+.2f} of {_in_words(one.best.gain)}" for one in there),
            all(one.reached_percent is not None and one.reached_percent >= SHARE for one in there),
        )
    )
    return made


def targets_at_equal_time(task: Task, times: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the target at equal time with what was found; none where no time was measured.

    Args:
        task: of the students.
        times: by student, what ``adapting_times.at_equal_time`` found at each batch size.
    """
    if task is not MANY or not times:
        return []
    found, reached = [], []
    for student, batches in times.items():
        for one in batches:
            there = min(one["comparisons"], key=lambda row: abs(one["changes"][row["density"]]["value"] + LOST))
            gain = Estimate(**there["gain"])
            found.append(f"{student} at batch {one['batch']}, {there['mass']}: {_in_words(gain)}")
            reached.append(gain.value >= GAINED and gain.low > 0)
    what = f"mass at least {GAINED:g} points over densities of equal time where these lose {LOST:g}, at batch 8 and 32"
    return [_target(what, "; ".join(found), all(reached))]


def where_densities_lose(evaluation: Evaluation) -> MassInBound:
    """Returns the mass whose density of equal MACs loses closest to two points."""
    assert evaluation.oracle is not None
    changes = {row.id: row.top1_change for row in evaluation.rows}

    def away(one: MassInBound) -> float:
        change = changes[one.density]
        return abs((0.0 if change is None else change.value) + LOST)

    return min(evaluation.oracle.masses, key=away)


def _above(evaluation: Evaluation) -> list[MassInBound]:
    assert evaluation.oracle is not None
    kept = {row.id: row.kept_mean for row in evaluation.rows}
    patches = next(row.kept_max for row in evaluation.rows)  # dense comes first
    return [one for one in evaluation.oracle.masses if kept[one.row] > FEW * patches]


def _in_words(gain: Estimate) -> str:
    return f"{gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def _target(what: str, found: str, reached: bool) -> dict[str, Any]:
    return {"target": what, "found": found, "reached": reached}
