"""Targets: what is reached, what is missed and why, and what figures stand beside it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import demo_training
from benchmarks.demo_targets import HARDEST, LOSSES, targets
from benchmarks.demo_training import summarise
from sait_deploy.evaluation.results import Basis, Kind
from tests.benchmarks.documents import GAINS, TIMED, Case, make_found

MACS, TIME = Basis.EQUAL_MACS, Basis.EQUAL_TIME
FAR = (-4.0, -4.0, -4.0)
FAR_OFF = {("teachers", "0.49"): FAR[:2], ("dense-only", "0.49"): FAR}
SMALLER = {"0.49": ("density0.49", "80px", MACS), "0.28": ("density0.28", "72px", MACS)}
MACS_HARD = {mass: ("mass" + mass, "density0.15", MACS) for mass in ("0.6", "0.5")}
TIME_HARD = {mass: ("mass" + mass, "density0.15", TIME) for mass in ("0.6", "0.5")}


def targets_of(case: Case = Case()) -> list[dict[str, Any]]:
    found = make_found(case)
    return targets(summarise(found), [found[f"student-{seed}"] for seed in range(3)])


REACHED = [
    ("40 % fewer MACs cost at most 0.5 points", "0.20"),
    ("at most half of what plain weights lose there, the teachers'", "0.20 of 1.00: 0.20"),
    ("at most half of what plain weights lose there, trained on as long", "0.20 of 0.80: 0.25"),
    ("55 % fewer MACs cost at most 1 points", "0.70"),
    ("at most half of what plain weights lose there, the teachers'", "0.70 of 3.50: 0.20"),
    ("at most half of what plain weights lose there, trained on as long", "0.70 of 2.80: 0.25"),
    ("dense within 0.2 points of dense-only training", "-0.10"),
    (
        "density 0.49 ahead of the dense model at the lower resolution of equal MACs",
        "+0.30 (+0.30, +0.30, +0.30), 0 of 3 clear",
    ),
    (
        "density 0.28 ahead of the dense model at the lower resolution of equal MACs",
        "+1.00 (+1.00, +1.00, +1.00), 3 of 3 clear",
    ),
    ("masses no worse than densities at equal MACs", "0 of 9 clearly worse"),
    ("better by a paired interval at mass0.6, equal MACs", "+0.60 (+0.60, +0.60, +0.60), 3 of 3 clear"),
    ("better by a paired interval at mass0.5, equal MACs", "+0.90 (+0.90, +0.90, +0.90), 3 of 3 clear"),
    ("masses no worse than densities at equal time", "0 of 3 clearly worse"),
    ("better by a paired interval at mass0.6, equal time", "+0.70 (+0.70), 1 of 1 clear"),
    ("better by a paired interval at mass0.5, equal time", "+0.80 (+0.80), 1 of 1 clear"),
    ("the most important tokens beat random ones widely", "by 20.0 points or more"),
    ("the most important tokens beat the least important widely", "by 50.0 points or more"),
    ("the least important do worse than random ones", "by 30.0 points or more"),
]

MISSED = [
    (0, Case(changes={("students", "0.49"): (-0.6, -0.6, -0.9), **FAR_OFF}), "0.70"),
    (1, Case(changes={("teachers", "0.49"): (-0.3, -0.3, -0.3)}), "0.20 of 0.30: 0.67"),
    (2, Case(changes={("dense-only", "0.49"): (-0.2, -0.4, -0.3)}), "0.20 of 0.30: 0.67"),
    (3, Case(changes={("students", "0.28"): (-1.0, -1.2, -1.4)}), "1.20"),
    (4, Case(changes={("teachers", "0.28"): (-1.0, -1.0, -1.0)}), "0.70 of 1.00: 0.70"),
    (5, Case(changes={("dense-only", "0.28"): (-1.0, -1.0, -1.0)}), "0.70 of 1.00: 0.70"),
    (6, Case(dense={"students": (97.0, 97.1, 97.2)}), "-0.40"),
    (7, Case(gains={(1, SMALLER["0.49"]): (-1.0, 0.0, 1.0)}), "+0.20 (+0.30, +0.00, +0.30), 0 of 3 clear"),
    (8, Case(gains={(2, SMALLER["0.28"]): (-1.1, -0.5, 0.1)}), "+0.50 (+1.00, +1.00, -0.50), 2 of 3 clear"),
    (9, Case(gains={(2, ("mass0.9", "kept50", MACS)): (-0.9, -0.5, -0.1)}), "1 of 9 clearly worse (mass0.9)"),
    (10, Case(gains={(1, MACS_HARD["0.6"]): (0.0, 0.3, 0.6)}), "+0.50 (+0.60, +0.30, +0.60), 2 of 3 clear"),
    (11, Case(gains={(0, MACS_HARD["0.5"]): (-0.1, 0.3, 0.7)}), "+0.70 (+0.30, +0.90, +0.90), 2 of 3 clear"),
    (12, Case(gains={(0, ("mass0.9", "kept50", TIME)): (-0.9, -0.5, -0.1)}), "1 of 3 clearly worse (mass0.9)"),
    (13, Case(gains={(0, TIME_HARD["0.6"]): (-0.1, 0.4, 0.9)}), "+0.40 (+0.40), 0 of 1 clear"),
    (14, Case(gains={(0, TIME_HARD["0.5"]): (-0.1, 0.4, 0.9)}), "+0.40 (+0.40), 0 of 1 clear"),
    (15, Case(gains={(1, ("density0.49", "random0.49", MACS)): (7, 9, 11)}), "by 9.0 points or more"),
    (16, Case(gains={(2, ("density0.28", "least-important0.28", MACS)): (2, 4, 6)}), "by 4.0 points or more"),
    (17, Case(rows={(1, "least-important0.28"): -35.0}), "by -5.0 points or more"),
]


def test_all_are_reached_and_say_what_was_found() -> None:
    found = targets_of()
    assert [(one["target"], one["found"]) for one in found] == REACHED
    assert [one["reached"] for one in found] == [True] * len(REACHED)


def test_every_target_is_missed_in_some_case() -> None:
    assert [index for index, _, _ in MISSED] == list(range(len(REACHED)))


@pytest.mark.parametrize(("index", "case", "found"), MISSED, ids=[str(index) for index, _, _ in MISSED])
def test_a_target_is_missed_alone(index: int, case: Case, found: str) -> None:
    after = targets_of(case)
    assert after[index]["found"] == found
    assert [number for number, one in enumerate(after) if not one["reached"]] == [index]
    assert [one["target"] for one in after] == [target for target, _ in REACHED]


@pytest.mark.parametrize(
    ("index", "case"),
    [
        (0, Case(changes={("students", "0.49"): (-0.5, -0.5, -0.5), ("dense-only", "0.49"): FAR})),
        (1, Case(changes={("teachers", "0.49"): (-0.4, -0.4, -0.4)})),
        (3, Case(changes={("students", "0.28"): (-1.0, -1.0, -1.0)})),
    ],
)
def test_at_most_reaches_the_limit_itself(index: int, case: Case) -> None:
    assert targets_of(case)[index]["reached"] is True


def test_at_equal_time_nothing_is_asked_without_times() -> None:
    with_times, without = targets_of(), targets_of(Case(timed=False))
    assert [one for one in with_times if "equal time" not in one["target"]] == without
    assert len(with_times) == len(without) + 1 + len(HARDEST)


def test_each_clearly_worse_mass_is_named_once() -> None:
    worse = (-0.9, -0.5, -0.1)
    case = Case(gains={(seed, ("mass0.9", "kept50", MACS)): worse for seed in (0, 2)} | {(1, MACS_HARD["0.6"]): worse})
    assert targets_of(case)[9]["found"] == "3 of 9 clearly worse (mass0.6, mass0.9)"


def test_a_mass_that_touches_no_difference_is_not_clearly_worse() -> None:
    case = Case(gains={(0, ("mass0.9", "kept50", MACS)): (-0.6, -0.3, 0.0)})
    assert targets_of(case)[9] == {"target": REACHED[9][0], "found": "0 of 9 clearly worse", "reached": True}


def test_other_rivals_of_a_mass_do_not_matter() -> None:
    """A mass is clearly worse than a lower resolution in every hand-made student: that is no target."""
    assert GAINS["mass0.9", "72px", MACS][2] < 0
    assert targets_of()[9]["reached"] is True
    assert all(pair[0].startswith("mass") for pair in TIMED)


def test_what_targets_are_about_is_evaluated() -> None:
    densities = {f"density{density}" for density in demo_training.DENSITIES}
    assert {f"density{density}" for density, _ in LOSSES} <= densities
    assert {density for density, _ in LOSSES} == set(map(str, demo_training.CONTROLS))
    assert {density for density, _ in LOSSES} <= set(map(str, demo_training.TOLD))
    assert set(HARDEST) <= {point.name for point in demo_training.MASSES}


def test_means_are_over_seeds_of_a_group_alone() -> None:
    found = make_found()
    summary = summarise(found)
    assert summary["macs_saved_percent"] == {"0.49": 40.0, "0.28": 55.0, "0.15": 64.0}
    assert summary["dense_top1_mean"] == {
        "students": {"mean": 97.4, "sd": 0.1},
        "dense-only": {"mean": 97.5, "sd": 0.1},
        "teachers": {"mean": 97.0, "sd": 0.141},
    }
    assert summary["change_mean"]["0.28"] == {
        "students": {"mean": -0.7, "sd": 0.2},
        "dense-only": {"mean": -2.8, "sd": 0.2},
        "teachers": {"mean": -3.5, "sd": 0.707},
    }
    assert summary["change_mean"].keys() == summary["change"].keys() == {"0.49", "0.28", "0.15"}


def test_every_training_has_its_own_figures_in_the_summary() -> None:
    found = make_found()
    summary = summarise(found)
    assert summary["dense_top1_percent"] == {
        name: evaluation.rows[0].top1_percent for name, evaluation in found.items()
    }
    for changes in summary["change"].values():
        assert changes.keys() == found.keys()
    assert summary["change"]["0.49"]["student-2"] == -0.3
    assert summary["change"]["0.49"]["cls-0"] == -30.0


def test_a_group_without_trainings_has_no_mean() -> None:
    found = {name: evaluation for name, evaluation in make_found().items() if not name.startswith("dense-")}
    summary = summarise(found)
    assert summary["dense_top1_mean"]["dense-only"] is None
    assert summary["change_mean"]["0.28"]["dense-only"] is None
    assert summary["change_mean"]["0.28"]["students"] == {"mean": -0.7, "sd": 0.2}


def test_the_hand_made_students_have_what_targets_compare() -> None:
    """Else a target would be reached for want of anything that misses it."""
    for seed in range(3):
        student = make_found()[f"student-{seed}"]
        kinds = {row.id: row.kind for row in student.rows}
        seconds = {kinds[one.second] for one in student.comparisons}
        assert seconds == set(Kind) - {Kind.DENSE, Kind.MASS}
        assert len(kinds) == len(student.rows)
