"""What the demonstration's evaluation might have found: hand-made, in every place a figure that is easy to follow."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.demo_targets import targets
from benchmarks.demo_training import BY_CLASS, summarise
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.results import Basis, Comparison, Evaluation, EvaluationRow, Kind, Stratum
from tests.evaluation.sample import make_dense, make_evaluation, make_row

GROUPS: Final = {"students": "student", "dense-only": "dense", "teachers": "teacher"}
ABLATIONS: Final = ("densities-0", "no-distillation-0", "cls-0", "epoch-0", BY_CLASS)
IMAGES: Final = 2500

DENSE: Final = {"students": (97.3, 97.4, 97.5), "dense-only": (97.4, 97.5, 97.6), "teachers": (96.9, 97.1)}
CHANGES: Final[Mapping[tuple[str, str], tuple[float, ...]]] = {
    ("students", "0.49"): (-0.1, -0.2, -0.3),
    ("students", "0.28"): (-0.5, -0.7, -0.9),
    ("students", "0.15"): (-2.0, -2.5, -3.0),
    ("dense-only", "0.49"): (-0.7, -0.8, -0.9),
    ("dense-only", "0.28"): (-2.6, -2.8, -3.0),
    ("dense-only", "0.15"): (-8.0, -9.0, -10.0),
    ("teachers", "0.49"): (-0.9, -1.1),
    ("teachers", "0.28"): (-3.0, -4.0),
    ("teachers", "0.15"): (-9.0, -11.0),
}
"""Group and density to the change of top-1 of each training: there are three seeds, and two teachers."""

_SHARE_LEFT: Final = {"0.49": 0.60, "0.28": 0.45, "0.15": 0.36}
"""Density to the share of dense's multiply-accumulates."""

_KEPT: Final = {"0.49": 71, "0.28": 41, "0.15": 22}
_OTHERS: Final = {
    "kept50": (Kind.DENSITY, 50, -0.4),
    "mass0.97": (Kind.MASS, 80, -0.1),
    "mass0.9": (Kind.MASS, 40, -0.3),
    "mass0.7": (Kind.MASS, 20, -0.8),
    "mass0.6": (Kind.MASS, 12, -1.5),
    "mass0.5": (Kind.MASS, 8, -2.5),
    "random0.49": (Kind.RANDOM, 71, -20),
    "random0.28": (Kind.RANDOM, 41, -40),
    "least-important0.49": (Kind.LEAST_IMPORTANT, 71, -50),
    "least-important0.28": (Kind.LEAST_IMPORTANT, 41, -70),
    "80px": (Kind.LOWER_RESOLUTION, 100, -1),
    "72px": (Kind.LOWER_RESOLUTION, 81, -2),
}

Pair = tuple[str, str, Basis]
GAINS: Final[Mapping[Pair, tuple[float, float, float]]] = {
    ("density0.49", "80px", Basis.EQUAL_MACS): (-0.2, 0.3, 0.8),
    ("density0.28", "72px", Basis.EQUAL_MACS): (0.5, 1.0, 1.5),
    ("density0.49", "random0.49", Basis.EQUAL_MACS): (15, 20, 25),
    ("density0.28", "random0.28", Basis.EQUAL_MACS): (35, 40, 45),
    ("density0.49", "least-important0.49", Basis.EQUAL_MACS): (45, 50, 55),
    ("density0.28", "least-important0.28", Basis.EQUAL_MACS): (65, 70, 75),
    ("mass0.9", "kept50", Basis.EQUAL_MACS): (-0.4, -0.1, 0.2),
    ("mass0.6", "density0.15", Basis.EQUAL_MACS): (0.1, 0.6, 1.1),
    ("mass0.5", "density0.15", Basis.EQUAL_MACS): (0.4, 0.9, 1.4),
    ("mass0.9", "72px", Basis.EQUAL_MACS): (-3.0, -2.5, -2.0),
}
TIMED: Final[Mapping[Pair, tuple[float, float, float]]] = {
    ("mass0.9", "kept50", Basis.EQUAL_TIME): (-0.3, 0.0, 0.3),
    ("mass0.6", "density0.15", Basis.EQUAL_TIME): (0.2, 0.7, 1.2),
    ("mass0.5", "density0.15", Basis.EQUAL_TIME): (0.3, 0.8, 1.3),
}
"""Of the first seed alone, as in the result file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What replaces parts of what was found.

    Attributes:
        dense: group to the top-1 of each of its trainings.
        changes: group and density to the change of each.
        gains: seed and pair to low, value and high of the difference.
        rows: seed and row to the student's change there.
        timed: whether the first student was compared at equal time.
    """

    dense: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    changes: Mapping[tuple[str, str], tuple[float, ...]] = dataclasses.field(default_factory=dict)
    gains: Mapping[tuple[int, Pair], tuple[float, float, float]] = dataclasses.field(default_factory=dict)
    rows: Mapping[tuple[int, str], float] = dataclasses.field(default_factory=dict)
    timed: bool = True


def make_found(case: Case = Case()) -> dict[str, Evaluation]:
    """Makes an evaluation of every training: all targets are reached, but for what a case replaces."""
    dense, changes = {**DENSE, **case.dense}, {**CHANGES, **case.changes}
    found = {}
    for group, name in GROUPS.items():
        for seed in range(len(dense[group])):
            rows = _densities(dense[group][seed], {d: changes[group, d][seed] for d in _SHARE_LEFT})
            made = dataclasses.replace(make_evaluation(), images=IMAGES, rows=rows, comparisons=(), strata=())
            found[f"{name}-{seed}"] = _student(made, seed, case) if name == "student" else made
    odd = _densities(50.0, dict.fromkeys(_SHARE_LEFT, -30.0))
    others = dataclasses.replace(make_evaluation(), rows=odd, comparisons=(), strata=())
    return found | dict.fromkeys(ABLATIONS, others)


def _densities(dense: float, changes: Mapping[str, float]) -> tuple[EvaluationRow, ...]:
    whole = dataclasses.replace(make_dense(), top1_percent=dense)
    made = []
    for density, change in changes.items():
        row = make_row(f"density{density}", Kind.DENSITY, _KEPT[density], change)
        made.append(dataclasses.replace(row, top1_percent=dense + change, mac_ratio=1 / _SHARE_LEFT[density]))
    return (whole, *made)


def _student(made: Evaluation, seed: int, case: Case) -> Evaluation:
    whole = made.rows[0].top1_percent
    assert whole is not None
    rows = []
    for name, (kind, kept, usual) in _OTHERS.items():
        change = case.rows.get((seed, name), usual)
        rows.append(dataclasses.replace(make_row(name, kind, kept, change), top1_percent=whole + change))
    pairs = {**GAINS, **TIMED} if case.timed and seed == 0 else GAINS
    differences = {pair: Estimate(*case.gains.get((seed, pair), usual)) for pair, usual in pairs.items()}
    comparisons = tuple(Comparison(*pair, difference) for pair, difference in differences.items())
    strata = tuple(
        Stratum("mass0.9", "digit size", name, 1000, 97.0, Estimate(-1, 0, 1), 30.0 + 10 * index + seed)
        for index, name in enumerate(("small", "large"))
    )
    return dataclasses.replace(made, rows=(*made.rows, *rows), comparisons=comparisons, strata=strata)


def make_shift() -> dict[str, Any]:
    """Makes what a student's tuned points met: both were found."""

    def met(value: float, kept: float, ratio: float) -> dict[str, Any]:
        change = {"low": value - 1, "value": value, "high": value + 1}
        return {"change": change, "kept_mean": kept, "kept_p95": kept, "mac_ratio": ratio}

    tuned = {kind: {"outcome": "tuned", "message": "", "share": share} for kind, share in SHARES.items()}
    shown = {
        name: {"dense_top1_percent": 90.0, "mass": met(-0.25, 30.0, 2.5), "density": met(-0.75, 60.0, 1.5)}
        for name in CANVASES
    }
    return {"limit": 1.0, "tuned": tuned, **shown}


SHARES: Final = {"mass": 0.92, "density": 0.4}
CANVASES: Final = ("light", "heavy", "two objects")


def make_document(case: Case = Case()) -> dict[str, Any]:
    """Makes the result file's content, as it is read from JSON; it may be changed."""
    found = make_found(case)
    students = [found[f"student-{seed}"] for seed in range(3)]
    summary = summarise(found)
    document = {
        "images": IMAGES,
        "summary": summary | {"targets": targets(summary, students)},
        "shift": {f"student-{seed}": make_shift() for seed in range(3)},
        "evaluations": {name: dataclasses.asdict(evaluation) for name, evaluation in found.items()},
        "logs": dict.fromkeys(name for name in found if name != BY_CLASS),
    }
    copied: dict[str, Any] = json.loads(json.dumps(document))
    return copied


def write_document(folder: Path, document: Mapping[str, Any]) -> None:
    """Writes the result file."""
    (folder / "demo_training.json").write_text(json.dumps(document), encoding="utf-8")


def row_of(evaluation: Mapping[str, Any], row_id: str) -> dict[str, Any]:
    """Returns a row of an evaluation in the result file."""
    row: dict[str, Any] = next(row for row in evaluation["rows"] if row["id"] == row_id)
    return row
