"""The JSON form of a report: whole, read back as it was written, and refused by name where it is wrong."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sait_deploy.bench.jsonform import from_json, to_json
from sait_deploy.bench.results import Report
from sait_deploy.errors import ArtifactError
from sait_deploy.reports.table import Note
from tests.bench.sample import make_report

REPORT = make_report()


def relabelled(label: str) -> Report:
    """Returns the sample report with another label on its first variant."""
    first, *others = REPORT.variants
    return dataclasses.replace(REPORT, variants=(dataclasses.replace(first, label=label), *others))


def test_json_keeps_everything_but_digits_no_clock_has() -> None:
    back = from_json(to_json(REPORT))
    rounded = [dataclasses.replace(r, seconds=tuple(round(s, 7) for s in r.seconds)) for r in REPORT.rows]
    assert back == dataclasses.replace(REPORT, rows=tuple(rounded))
    assert to_json(back) == to_json(REPORT)


def test_json_puts_the_samples_of_a_row_on_one_line() -> None:
    lines = [line for line in to_json(REPORT).splitlines() if '"seconds"' in line]
    assert len(lines) == len(REPORT.rows)
    assert all(line.count(",") == len(REPORT.rows[0].seconds) for line in lines)


@settings(deadline=None, max_examples=50)
@given(label=st.text(), name=st.text(), value=st.text(), note=st.text())
def test_json_keeps_any_text(label: str, name: str, value: str, note: str) -> None:
    report = dataclasses.replace(
        relabelled(label), environment={name: value}, notes=(Note(note), Note('"seconds": [\n1,\n2]'))
    )
    back = from_json(to_json(report))
    assert (back.variants, back.environment, back.notes) == (report.variants, report.environment, report.notes)


def set_at(*path: str | int, to: object) -> Callable[[Any], None]:
    """Returns a change that puts a value at a place of a parsed report."""

    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = to

    return change


def drop_at(*path: str | int) -> Callable[[Any], None]:
    """Returns a change that removes a field of a parsed report."""

    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        del data[path[-1]]

    return change


def repeat_row(data: Any) -> None:
    """Lists a row twice."""
    data["rows"].append(copy.deepcopy(data["rows"][0]))


# Rows come as d0.6, dense, d0.5 for batch 32, then 8, then 1.
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_at("schema_version", to=2), "schema_version 2, not 6"),
        (set_at("schema_version", to=True), "schema_version True"),
        (set_at("timing", to="guessed"), "timing is 'guessed'"),
        (set_at("timing", to=["compute"]), "timing is"),
        (drop_at("created"), "created is missing"),
        (set_at("extra", to=1), "extra is an unknown field"),
        (set_at("environment", "os", to=3), r"environment.os is 3"),
        (set_at("notes", to="one"), "notes is 'one'"),
        (set_at("notes", 0, to="one"), r"notes\[0\] is 'one'"),
        (set_at("notes", 0, "severity", to="grave"), r"notes\[0\].severity is 'grave'"),
        (set_at("variants", 0, "pruning", "score", to="best"), r"variants\[0\].pruning.score is 'best'"),
        (set_at("variants", 0, "accuracy", "lost", to=1), r"variants\[0\].accuracy says lost or gained alone"),
        (set_at("rows", to=[]), "no rows"),
        (set_at("rows", 0, "batch", to=1.5), r"rows\[0\].batch is 1.5"),
        (set_at("rows", 0, "batch", to=True), r"rows\[0\].batch is True"),
        (set_at("rows", 0, "batch", to=0), r"rows\[0\].batch is 0"),
        (set_at("rows", 0, "batch", to=64), "'d0.6' has 0 rows and refusals at batch 32"),
        (set_at("rows", 0, "variant", to="ghost"), "ghost"),
        (set_at("rows", 0, "seconds", to=[]), r"rows\[0\].seconds"),
        (set_at("rows", 0, "seconds", 3, to=-0.1), r"rows\[0\].seconds"),
        (set_at("rows", 0, "seconds", 3, to="0.1"), r"rows\[0\].seconds\[3\]"),
        (set_at("rows", 0, "seconds", 3, to=10**400), "it has the number 1000"),
        (drop_at("rows", 0, "seconds", 3), r"rows\[0\]"),
        (set_at("rows", 0, "p50_ms", to=1.0), r"rows\[0\].p50_ms"),
        (set_at("rows", 0, "p99_ms", to=1.0), r"rows\[0\].p99_ms"),
        (set_at("rows", 0, "images_per_second", to=0), r"rows\[0\].images_per_second"),
        (set_at("rows", 0, "kept_max", to=3), r"rows\[0\].kept_max"),
        (set_at("rows", 0, "kept_p95", to=-1), r"rows\[0\].kept_max"),
        (set_at("rows", 0, "macs", to=0), r"rows\[0\].macs is 0"),
        (drop_at("rows", 0, "macs"), r"rows\[0\].macs is missing"),
        (set_at("rows", 0, "batches", to=0), r"rows\[0\].batches is 0"),
        (set_at("rows", 0, "batches", to=2.0), r"rows\[0\].batches is 2.0"),
        (set_at("rows", 0, "mac_ratio", to=0), r"rows\[0\].mac_ratio"),
        (set_at("rows", 0, "speedup", to=None), r"rows\[0\].speedup"),
        (set_at("rows", 0, "share", to=None), r"rows\[0\].share"),
        (set_at("rows", 0, "speedup", "low", to=99), r"rows\[0\].speedup"),
        (set_at("rows", 0, "speedup", "low", to=None), r"rows\[0\].speedup.low is None"),
        (set_at("rows", 1, "speedup", to={"low": 1, "median": 1, "high": 1}), r"rows\[1\].speedup"),
        (repeat_row, r"'d0.6' has 2 rows and refusals at batch 32"),
        (set_at("variants", 0, "id", to="dense"), "repeated"),
        (set_at("variants", 0, "baseline", to=True), "2 variants are the baseline on 'ONNX"),
        (set_at("variants", 0, "baseline", to=1), r"variants\[0\].baseline is 1"),
        (set_at("variants", 1, "baseline", to=False), "0 variants are the baseline on 'ONNX"),
        (set_at("variants", 0, "macs", to=1), r"variants\[0\].macs is an unknown field"),
        (drop_at("variants", 0, "weights_sha256"), r"variants\[0\].weights_sha256 is missing"),
        (set_at("variants", 1, "weights_sha256", to=None), r"variants\[1\].weights_sha256 is None"),
        (set_at("variants", 2, "weights_sha256", to="cd"), r"variants\[2\].weights_sha256 'cd'"),
        (set_at("variants", 0, "accuracy", "images", to=0), r"variants\[0\].accuracy.images"),
        (set_at("variants", 0, "accuracy", "percent", to=101), r"variants\[0\].accuracy.percent is 101"),
        (drop_at("flips"), "flips is missing"),
        (set_at("flips", 0, "variant", to="ghost"), r"flips\[0\].variant 'ghost'"),
        (set_at("flips", 0, "images", to=0), r"flips\[0\].images is 0"),
        (set_at("flips", 0, "kept_sets_percent", to=100.5), r"flips\[0\] holds 100.5 percent"),
        (set_at("flips", 0, "answers_percent", to=-1), r"flips\[0\] holds -1.0 percent"),
        (set_at("flips", 0, "between", to=None), r"flips\[0\].between is None"),
    ],
)
def test_a_report_that_is_wrong_is_refused_by_name(change: Callable[[Any], None], named: str) -> None:
    data = json.loads(to_json(REPORT))
    change(data)
    with pytest.raises(ArtifactError, match=named) as caught:
        from_json(json.dumps(data))
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"schema_version": NaN}', "[" * 100_000, "9" * 5000])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        from_json(text)


def test_a_number_that_is_none_is_not_written() -> None:
    bad = dataclasses.replace(REPORT.rows[0], mac_ratio=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        to_json(dataclasses.replace(REPORT, rows=(bad, *REPORT.rows[1:])))
