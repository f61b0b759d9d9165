"""Reports of several runtimes: split by runtime, read from JSON, and what their notes say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from sait_deploy.bench.doubts import ENQUEUE_BOUND, row_notes
from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.notes import report_notes
from sait_deploy.bench.results import BenchRow, Stages
from sait_deploy.bench.tables import by_group
from sait_deploy.errors import ArtifactError
from sait_deploy.reports.table import Note, Severity
from tests.bench.sample import (
    BATCHES,
    ENGINE,
    RUNTIME,
    make_report,
    make_report_of_two,
    make_rows,
    make_variants,
)
from tests.bench.test_jsonform import set_at
from tests.exported import draft

REPORT = make_report_of_two()
FIRST, SECOND = by_group(REPORT)


def test_each_part_is_of_one_runtime_and_together_they_are_all() -> None:
    assert [part.groups[0].name for part in (FIRST, SECOND)] == [RUNTIME, ENGINE]
    for name in ("variants", "rows", "refusals"):
        assert getattr(FIRST, name) + getattr(SECOND, name) == getattr(REPORT, name)
    assert by_group(make_report()) == [make_report()]


def test_json_keeps_runtimes_stages_and_refusals() -> None:
    back = from_json(to_json(REPORT))
    assert (back.groups, back.variants, back.refusals) == (REPORT.groups, REPORT.variants, REPORT.refusals)
    assert [row.stages for row in back.rows] == [row.stages for row in REPORT.rows]


def add_row(data: Any) -> None:
    """Gives a refused variant figures too."""
    data["rows"].append(data["rows"][0] | {"variant": f"d0.6@{ENGINE}", "batch": 8})


# Rows 9 and 10 are of the second runtime: density 0.5 at batch 32 without dense, then dense at 8.
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_at("variants", 0, "runtime", to="ghost"), r"variants\[0\].runtime 'ghost' is not among the groups"),
        (set_at("groups", 1, "runtime", to=RUNTIME), "groups .* are repeated"),
        (set_at("groups", 1, "environment", "GPU", to=1), r"groups\[1\].environment.GPU is 1"),
        (set_at("refusals", 0, "variant", to="ghost"), r"refusals\[0\].variant 'ghost' is not among the variants"),
        (set_at("refusals", 0, "batches", to=[1, 8]), "'d0.6@engine' has 0 rows and refusals at batch 32"),
        (set_at("refusals", 0, "batches", to=[1, 8, 8, 32]), "'d0.6@engine' has 2 rows and refusals at batch 8"),
        (set_at("refusals", 0, "batches", to=[1, 8, 32, 64]), "has 0 rows and refusals at batch 64"),
        (set_at("refusals", 0, "exit_code", to="7"), r"refusals\[0\].exit_code is '7'"),
        (add_row, "'d0.6@engine' has 2 rows and refusals at batch 8"),
        (set_at("rows", 9, "speedup", to={"low": 1, "median": 1, "high": 1}), r"rows\[9\].speedup belongs to"),
        (set_at("rows", 9, "share", to=1.0), r"rows\[9\].share belongs to"),
        (set_at("rows", 11, "speedup", to=None), r"rows\[11\].speedup belongs to"),
        (set_at("rows", 9, "stages", "upload_ms", to=-0.1), r"rows\[9\].stages holds no duration"),
        (set_at("rows", 9, "stages", "upload_ms", to=None), r"rows\[9\].stages.upload_ms is None"),
    ],
)
def test_a_report_of_two_that_is_wrong_is_refused_by_name(change: Callable[[Any], None], named: str) -> None:
    data = json.loads(to_json(REPORT))
    change(data)
    with pytest.raises(ArtifactError, match=named):
        from_json(json.dumps(data))


def test_a_runtime_may_have_run_other_rounds_than_another() -> None:
    rows = [
        dataclasses.replace(row, variant=f"{row.variant}@{ENGINE}") for row in make_rows(make_variants(), rounds=15)
    ]
    report = from_json(to_json(dataclasses.replace(REPORT, rows=(*FIRST.rows, *rows), refusals=())))
    assert [len(row.seconds) for row in report.rows] == [20] * len(FIRST.rows) + [15] * len(rows)


def staged(enqueue: float, compute: float) -> BenchRow:
    return dataclasses.replace(FIRST.rows[0], stages=Stages(enqueue, 0.1, compute, 0.1))


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (0.89, False), (ENQUEUE_BOUND, True), (1.2, True)])
def test_a_row_that_waits_for_the_host_is_warned_of(share: float, warned: bool) -> None:
    notes = row_notes([(staged(2.0 * share, 2.0), "density 0.6")])
    assert [note.text.startswith("batch 32, density 0.6: enqueue-bound") for note in notes] == [True] * warned
    assert not warned or f"{2.0 * share:.3g} ms to start" in notes[0].text


def test_a_row_without_stages_is_not_enqueue_bound() -> None:
    assert row_notes([(FIRST.rows[0], "density 0.6")]) == ()


def test_notes_say_where_dense_is_missing_and_of_which_runtime() -> None:
    notes = report_notes(draft(), REPORT.variants, REPORT.rows)
    assert Note(f"no speed-up on {ENGINE} at batch 32: dense cannot run there", Severity.WARNING) in notes
    assert sum("no speed-up on" in note.text for note in notes) == 1
    found = [note.text.partition(" is ")[0] for note in notes if note.text.startswith("break-even: ")]
    assert found == [
        f"break-even: density 0.6 on {RUNTIME}",
        f"break-even: density 0.5 on {RUNTIME}",
        f"break-even: density 0.5 on {ENGINE}",
    ]
    assert BATCHES[-1] == 32
