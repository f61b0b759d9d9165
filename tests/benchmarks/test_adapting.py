"""What the suite on adapting says of its targets, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import adapting, adapting_times, demo_bench
from benchmarks.adapting_targets import targets, targets_at_equal_time, where_densities_lose
from benchmarks.adapting_times import at_equal_time, time_points
from sait_deploy import demo
from sait_deploy.artifacts.points import mass_point
from sait_deploy.demo.data import Split, stacked
from sait_deploy.demo.tasks import DIGITS, GOODS, MANY, composed_scenes
from sait_deploy.evaluation.estimate import Estimate
from sait_deploy.evaluation.oracle_results import Best, MassInBound, Oracle
from sait_deploy.evaluation.results import Evaluation
from sait_deploy.images.dataset import Dataset
from tests.evaluation.sample import make_evaluation


def mass(row: str, density: str, gain: float, best: float) -> MassInBound:
    """A mass that gains this, give or take half a point, where the best choice gains that."""
    reached = 100 * gain / best
    estimate = Estimate(gain - 0.5, gain, gain + 0.5)
    return MassInBound(
        row,
        density,
        estimate,
        Best(90.0, Estimate(best - 0.5, best, best + 0.5)),
        None,
        reached,
        0.5,
        90.0,
        ((1, 1, 9),),
    )


def found(gain: float, best: float) -> Evaluation:
    """An evaluation whose density 0.3 loses 2.1 points, beside mass 0.8."""
    masses = (mass("mass0.9", "density0.7", 0.0, 0.1), mass("mass0.8", "density0.3", gain, best))
    return dataclasses.replace(make_evaluation(), oracle=Oracle(6.0, (), masses))


def test_a_mass_is_judged_where_its_density_loses_two_points() -> None:
    assert where_densities_lose(found(1.2, 2.0)).row == "mass0.8"


@pytest.mark.parametrize(
    ("gain", "best", "reached"),
    [(1.2, 2.0, [True, True, True]), (1.2, 3.0, [True, True, False]), (0.6, 1.0, [True, False, True])],
)
def test_targets_on_many(gain: float, best: float, reached: list[bool]) -> None:
    assert [one["reached"] for one in targets(MANY, [found(gain, best)])] == reached
    in_one_seed = targets(MANY, [found(gain, best), found(-1.0, 3.0)])
    assert not any(one["reached"] for one in in_one_seed)
    assert in_one_seed[0]["found"] == "none; mass0.8"


@pytest.mark.parametrize("task", [DIGITS, GOODS])
def test_elsewhere_no_mass_may_be_clearly_worse(task: object) -> None:
    assert [one["reached"] for one in targets(task, [found(-0.4, 2.0)])] == [True]  # type: ignore[arg-type]
    assert [one["reached"] for one in targets(task, [found(-0.6, 2.0)])] == [False]  # type: ignore[arg-type]


def times(batch: int, gain: float) -> dict[str, object]:
    """A batch size at which mass 0.8 gains this over a density that loses 1.9 points; mass 0.9 is beside one of 0.1."""
    rows = [("mass0.9", "kept 90", 5.0), ("mass0.8", "kept 40", gain)]
    compared = [
        {"mass": mass, "density": density, "gain": dataclasses.asdict(Estimate(by - 0.5, by, by + 0.5))}
        for mass, density, by in rows
    ]
    changes = {"kept 90": {"value": -0.1}, "kept 40": {"value": -1.9}}
    return {"batch": batch, "comparisons": compared, "changes": changes}


def test_at_equal_time_each_seed_and_batch_size_counts() -> None:
    ahead = {"student-0": [times(8, 1.1), times(32, 1.4)], "student-1": [times(8, 1.1), times(32, 1.2)]}
    (target,) = targets_at_equal_time(MANY, ahead)
    assert target["reached"]
    (target,) = targets_at_equal_time(MANY, ahead | {"student-1": [times(8, 1.1), times(32, 0.9)]})
    assert not target["reached"] and "student-1 at batch 32, mass0.8: +0.90" in target["found"]
    assert not targets_at_equal_time(MANY, {}) and not targets_at_equal_time(GOODS, ahead)


def said(*arguments: object) -> str:
    """What the command says where it refuses."""
    result = CliRunner().invoke(adapting.main, [str(one) for one in arguments])
    assert result.exit_code == 1
    return result.output


def test_what_is_refused(tmp_path: Path) -> None:
    assert "digits are trained by benchmarks.demo_training" in said("train", "--task", "digits", "--folder", tmp_path)
    assert "its folder is not named" in said("train", "--task", "goods", "--folder", tmp_path)
    assert "only digits have weights that ship" in said("evaluate", "--task", "many")


@pytest.mark.slow
def test_masses_are_compared_with_densities_that_take_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On times that are made up: of a density one millisecond a token, of a mass two more."""
    monkeypatch.setattr(adapting_times, "SECONDS", 0.02)
    monkeypatch.setattr(adapting_times, "BATCHES", (32,))
    points, densities = (mass_point(0.9), mass_point(0.6)), (Decimal("0.28"),)
    monkeypatch.setattr(adapting_times, "MASSES", points)
    monkeypatch.setattr(demo_bench, "MASSES", points)
    monkeypatch.setattr(demo_bench, "DENSITIES", densities)
    images, labels = stacked(composed_scenes(DIGITS, Split.HELD_OUT, 64, 5, None))
    report, answers = tmp_path / "bench.json", tmp_path / "found.json"

    time_points(DIGITS, None, demo.WEIGHTS, report)
    measured = json.loads(report.read_text())
    for row in measured["rows"]:
        row["images_per_second"] = 32e3 / (10 + row["kept_mean"] + 2 * ("mass" in row["variant"]))
    report.write_text(json.dumps(measured))
    (found,) = at_equal_time(demo.WEIGHTS, Dataset(list(images), labels, "composed"), report, answers)

    assert len(measured["rows"]) == 1 + len(densities) + len(demo_bench.LOWEST) + len(points)
    assert [one["density"] for one in found["comparisons"]] == [
        f"kept{math.ceil(found['kept_mean'][mass] + 2)}" for mass in ("mass0.9", "mass0.6")
    ]
